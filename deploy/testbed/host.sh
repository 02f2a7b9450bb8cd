#!/bin/sh
# PID 1 of a host of the testbed, started by testbed.sh in namespaces of its own. Makes the host's private, writable directories
# on one "disk", hides or write-protects the rest, brings the link up, and keeps sshd running.
# Wants NAME, ADDRESS, KIND (what is bad about it), DISK, STATE and SSHD in the environment.
set -eu

LINK_TRIES_MAX=250   # of 20 ms, for a link that another process makes

main() {
    # The working directory stays reachable whatever is mounted over its path.
    cd "$STATE"
    mount --make-rprivate /
    mount -t proc proc /proc
    hostname "$NAME"
    make_etc
    make_disk
    protect_rest
    rm -rf /run/mount   # what mount itself noted
    bring_link_up
    cd /
    if [ "$KIND" != refuse ]; then
        keep_sshd &
    fi
    echo ready
    case "$KIND" in
        dies=*)
            seconds=${KIND#dies=}
            sleep "${seconds%s}"
            # Silence first: the kernel of a host that loses power does not close its connections. The end of PID 1 is the
            # end of every process in here.
            ip link set eth0 down
            exit 0
            ;;
    esac
    # PID 1 also buries the orphans of this host: wait does, for as long as there is something to wait for.
    sleep infinity &
    while :; do wait; done
}

# A small read-only file system over /etc/ssh has sshd's files and those that name users and hosts.
make_etc() {
    mount -t tmpfs -o size=1m,mode=755 etc /etc/ssh
    cp "hosts/$NAME/ssh_host_ed25519_key" /etc/ssh/
    cp id_ed25519.pub /etc/ssh/authorized_keys
    cp etc-hosts /etc/ssh/hosts
    echo "$NAME" >/etc/ssh/hostname
    printf '%s\n' 'root:*:0:0:root:/root:/bin/sh' 'p2ps:*:7700:7700::/home/p2ps:/bin/sh' \
        'sshd:*:7701:65534::/run/sshd:/usr/sbin/nologin' 'nobody:*:65534:65534::/nonexistent:/usr/sbin/nologin' >/etc/ssh/passwd
    printf '%s\n' 'root:x:0:' 'tty:x:5:' 'p2ps:x:7700:' 'nogroup:x:65534:' >/etc/ssh/group
    printf '%s:*:20000:0:99999:7:::\n' root p2ps sshd nobody >/etc/ssh/shadow
    # Everything that is not named here is sshd's default, MaxStartups and MaxSessions above all: bursts meet what they meet
    # on real hosts.
    cat >/etc/ssh/sshd_config <<END
ListenAddress 0.0.0.0
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
END
    chmod 600 /etc/ssh/ssh_host_ed25519_key /etc/ssh/shadow
    chmod 644 /etc/ssh/authorized_keys /etc/ssh/hosts /etc/ssh/passwd /etc/ssh/group /etc/ssh/sshd_config
    for file in passwd group shadow hosts hostname; do
        [ ! -e "/etc/$file" ] || mount --bind "/etc/ssh/$file" "/etc/$file"
    done
    mount -o remount,ro /etc/ssh
}

# One file system behind every directory that programs write to, so that a full or noexec disk is so everywhere.
make_disk() {
    size=$DISK
    options=nosuid,nodev
    case "$KIND" in
        full-disk) size=1m ;;
        noexec) options=$options,noexec ;;
    esac
    # It is mounted over /tmp, and in the end /tmp itself becomes one of its directories.
    mount -t tmpfs -o "size=$size,mode=755,$options" disk /tmp
    mkdir -m 700 /tmp/root
    mkdir -m 1777 /tmp/tmp /tmp/vartmp /tmp/shm
    mkdir -m 755 /tmp/run /tmp/run/sshd /tmp/home /tmp/home/p2ps
    chown 7700:7700 /tmp/home/p2ps
    if [ "$KIND" = full-disk ]; then
        cat /dev/zero >/tmp/fill 2>/dev/null || true
    fi
    mount --bind /tmp/root /root
    mount --bind /tmp/home /home
    mount --bind /tmp/run /run
    mount --bind /tmp/vartmp /var/tmp
    mount --bind /tmp/shm /dev/shm
    mount --bind /tmp/tmp /tmp
}

# Whatever else this machine has is read-only in here: a host must not write where we could not find it.
protect_rest() {
    while read -r _ _ _ _ place options _; do
        case "$place" in
            /proc | /proc/* | /sys | /sys/* | /dev | /dev/*) continue ;;
            /root | /home | /run | /tmp | /var/tmp) continue ;;
        esac
        case "$options" in
            rw | rw,*) mount -o remount,bind,ro "$place" 2>/dev/null || true ;;
        esac
    done </proc/self/mountinfo
    # The root must be; of others, some are covered and need not be.
    ! touch /testbed-probe 2>/dev/null || { rm /testbed-probe; echo "the root directory is still writable" >&2; exit 1; }
}

bring_link_up() {
    ip link set lo up
    tries=0
    until ip address add "$ADDRESS/16" dev eth0 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt "$LINK_TRIES_MAX" ] || { echo "there is no eth0" >&2; exit 1; }
        sleep 0.02
    done
    ip link set eth0 up
    # Answers to the orchestrator vanish; the other hosts are still answered.
    if [ "$KIND" = silent ]; then
        ip route add blackhole "${ADDRESS%.*.*}.0.1/32"
    fi
}

# As systemd does on a real host: a listening sshd that dies is started again.
keep_sshd() {
    while :; do
        "$SSHD" -D -e || true
        sleep 1
    done
}

main
