#!/bin/sh
# Run by `testbed.sh left` as root in a host: prints what its users left there, processes and files.
set -eu

# Not counted are PID 1 and what it started, and this shell. Sessions that are still open count as left.
for directory in /proc/[0-9]*; do
    pid=${directory#/proc/}
    if [ "$pid" = 1 ] || [ "$pid" = $$ ]; then continue; fi
    read -r stat 2>/dev/null <"$directory/stat" || continue
    name=${stat#*(}
    name=${name%)*}
    case "${stat##*) }" in
        Z*) echo "zombie $pid $name"; continue ;;
    esac
    # What host.sh starts has its environment; what comes through sshd has not.
    if grep -qz '^KIND=' "$directory/environ" 2>/dev/null; then continue; fi
    # One that ends while it is looked at is not left.
    { command=$(tr '\0' ' ' <"$directory/cmdline"); } 2>/dev/null || continue
    case "$name $command" in
        sshd\ *"[listener]"*) continue ;;
    esac
    echo "process $pid ${command:-$name}"
done

find /root /home /run /tmp /var/tmp /dev/shm -mindepth 1 ! -path /home/p2ps ! -path /run/sshd \
    \( -type d -printf 'directory %p\n' -o -printf 'file %p\n' \)
