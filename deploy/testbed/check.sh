#!/usr/bin/env bash
# Checks the testbed in a box with plain OpenSSH: good hosts work and reach each other, each bad one fails in its own way, and
# taking it down leaves nothing. Takes some 30 s. Uses names and addresses of its own, so other testbeds and checks are not disturbed.
# Exit codes: 0 all held, or network namespaces cannot be made here, which is said; 1 something did not hold.
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
WORK=$(mktemp -d)
export STATE=$WORK/state PREFIX=${PREFIX:-chk$(($$ % 100000))} NETWORK=${NETWORK:-} DISK=64m LOGIN=p2ps HOSTS BAD
ANSWER_SECONDS_MAX=20    # of a host that is to answer; CI machines are slow
CONNECT_SECONDS_MAX=3    # of one that is not to
FAILURES=0

main() {
    skip_where_impossible
    trap finish EXIT
    choose_network
    good_hosts_and_power_failures
    bad_hosts
    half_failed_starts
    expect "nothing is left on the machine" 0 '^$' traces
    expect "the state directory is gone" 0 '^$' ls -A "$WORK"
    [ "$FAILURES" = 0 ] || exit 1
    echo "check: all held"
}

skip_where_impossible() {
    local reason=""
    if [ "$(id -u)" != 0 ]; then
        reason="not root"
    elif ! unshare --net --mount --pid --uts --ipc --fork true 2>/dev/null; then
        reason="this kernel, or the container we are in, allows none"
    fi
    [ -z "$reason" ] || { echo "check: SKIPPED, nothing was checked: network namespaces cannot be made here ($reason)"; exit 0; }
}

# A private /16 of which this machine has no address.
choose_network() {
    local number=$(($$ % 150)) tries
    for ((tries = 0; tries < 150 && ${#NETWORK} == 0; tries++)); do
        NETWORK=10.$((100 + (number + tries) % 150))
        [ -z "$(ip -4 -o address show to "$NETWORK.0.0/16")" ] || NETWORK=""
    done
}

# What our testbeds could leave on the machine: namespaces, links, mounts and processes, by what they are, not by the journal.
# Other testbeds may come and go meanwhile.
traces() {
    local directory
    ip netns list | grep "^$PREFIX-" || true
    ip -o link show | grep ": $PREFIX-" || true
    grep -e "$PREFIX-" -e "$WORK" /proc/self/mountinfo || true
    for directory in /proc/[0-9]*; do
        # Whatever starts a host or a link was given the state directory, which is this check's alone.
        if grep -qz "$WORK" "$directory/environ" "$directory/cmdline" 2>/dev/null &&
            tr '\0' ' ' 2>/dev/null <"$directory/cmdline" | grep -e host.sh -e link.py -e unshare; then
            echo "which is process ${directory#/proc/}"
        fi
    done
}

finish() {
    local code=$?
    [ ! -e "$STATE/journal" ] || "$HERE/testbed.sh" down >/dev/null || code=1
    rm -rf "$WORK"
    exit "$code"
}

# ---- four hosts, and what can be done to them

good_hosts_and_power_failures() {
    HOSTS=4 BAD="3:dies=1s"
    "$HERE/testbed.sh" up >/dev/null
    expect "host 0 runs a command as $LOGIN" 0 "^$LOGIN\$" on 0 id -un
    expect "it has its name" 0 "^$PREFIX-0\$" on 0 hostname
    expect "a host has a clock of its own" 1 "" on_same_second 0 1
    expect "a host cannot write where nobody looks" 1 "Read-only" on 0 'touch /var/lib/x'
    expect "hosts reach each other by TCP" 0 "^SSH-2.0" on 0 "exec 3<>/dev/tcp/$(address 1)/22; head -n 1 <&3"
    expect "hosts know each other's names" 0 "^$(address 2) " on 0 "getent hosts $PREFIX-2"
    expect "a dead host does not answer" 255 "[Tt]imed out|No route to host" await_death 3
    expect "it is dead in the status" 0 "dies=1s +dead +link down" "$HERE/testbed.sh" status

    expect "nothing is left by finished commands" 0 "^\$" "$HERE/testbed.sh" left
    expect "a process and a file are left" 0 "" on 1 'echo x >~/left; setsid sleep 1000 >/dev/null 2>&1 </dev/null & exit 0'
    expect "what is left is found: the process" 1 "^$PREFIX-1: process [0-9]+ sleep 1000" "$HERE/testbed.sh" left
    expect "what is left is found: the file" 1 "^$PREFIX-1: file /home/p2ps/left" "$HERE/testbed.sh" left

    "$HERE/testbed.sh" cut 2
    expect "a host that is cut off does not answer" 255 "[Tt]imed out|No route to host" on 2 true
    "$HERE/testbed.sh" mend 2
    expect "it does when mended" 0 "" eventually on 2 true
    "$HERE/testbed.sh" kill-sshd 2
    expect "an sshd that was killed comes back" 0 "" eventually on 2 true
    "$HERE/testbed.sh" kill 2
    expect "a host without power does not answer" 255 "[Tt]imed out|No route to host" on 2 true
    expect "a second testbed in the same place is refused" 3 "take it down first" "$HERE/testbed.sh" up
    "$HERE/testbed.sh" down
    expect "taking down twice is no mistake" 0 "there is no testbed" "$HERE/testbed.sh" down
}

# ---- each in its own way

bad_hosts() {
    HOSTS=8 BAD="1:refuse 2:wrong-key 3:full-disk 4:noexec 5:skew=-50s 6:slow=150ms 7:silent"
    "$HERE/testbed.sh" up >/dev/null
    expect "the good host between bad ones works" 0 "" on 0 true
    expect "refuse" 255 "Connection refused" on 1 true
    expect "wrong key" 255 "Host key verification failed" on 2 true
    expect "full disk" 1 "No space left on device" on 3 'echo x >~/x'
    expect "full disk, in /tmp too" 1 "No space left on device" on 3 'echo x >/tmp/x'
    expect "noexec" 126 "Permission denied" on 4 'cp /bin/true ~/x && ~/x'
    expect "noexec, in /dev/shm too" 126 "Permission denied" on 4 'cp /bin/true /dev/shm/x && /dev/shm/x'
    if [ -e /proc/self/ns/time ]; then
        expect "skew: the clock is 50 s behind" 0 "^(49|5[0-9])\$" seconds_behind 5
    fi
    expect "slow: a round trip takes twice 150 ms at least" 0 "^([3-9][0-9][0-9]|[0-9]{4,})\$" connect_ms 6
    expect "slow: it works" 0 "" on 6 true
    expect "silent" 255 "[Tt]imed out" on 7 true
    expect "silent only to the orchestrator" 0 "^SSH-2.0" on 0 "exec 3<>/dev/tcp/$(address 7)/22; head -n 1 <&3"
    expect "the inventory requires the good, slow and skewed ones" 0 "^required: 3\$" cat "$STATE/hosts.yaml"
    expect "the inventory names all" 0 "^8\$" grep -c 'name: .*, address: ' "$STATE/hosts.yaml"
    "$HERE/testbed.sh" down
}

half_failed_starts() {
    HOSTS=2 BAD="5:refuse"
    expect "a bad host that is not there is refused" 2 "there are hosts 0 to 1" "$HERE/testbed.sh" up
    BAD="1:sleepy"
    expect "an unknown evil is refused" 2 "1:sleepy" "$HERE/testbed.sh" up
    BAD="" HOSTS=6
    "$HERE/testbed.sh" up >/dev/null 2>&1 &
    local start=$!
    eventually grep -q '^process' "$STATE/journal"
    kill -KILL "$start"
    wait "$start" 2>/dev/null || true
    expect "a start that was killed half-way is taken down" 0 "" "$HERE/testbed.sh" down
    ip netns add "$PREFIX-1"
    expect "another's namespace is left alone" 3 "is not ours" "$HERE/testbed.sh" up
    expect "and still there" 0 "^$PREFIX-1\$" ip netns list
    rmdir "$STATE" 2>/dev/null || true
    ip netns delete "$PREFIX-1"
}

# ---- how hosts are asked

address() { awk -v host="$1" '$1 == host { print $3 }' "$STATE/hosts.list"; }

on() {
    local host=$1
    shift
    # The command is for bash there: sh has no /dev/tcp.
    timeout "$ANSWER_SECONDS_MAX" ssh -n -F "$STATE/ssh_config" -o ConnectTimeout="$CONNECT_SECONDS_MAX" -o LogLevel=ERROR "$PREFIX-$host" \
        "bash -c $(printf '%q' "$*")"
}

eventually() {
    local deadline=$((SECONDS + ANSWER_SECONDS_MAX))
    until "$@" 2>/dev/null; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

await_death() {
    eventually dead "$1" || return 1
    on "$1" true
}

dead() { "$HERE/testbed.sh" status | grep -q "^$1 .* dead "; }

on_same_second() { [ "$(on "$1" cut -d. -f1 /proc/uptime)" = "$(on "$2" cut -d. -f1 /proc/uptime)" ]; }

seconds_behind() {
    local there here
    there=$(on "$1" cut -d. -f1 /proc/uptime)
    here=$(cut -d. -f1 /proc/uptime)
    echo $((here - there))
}

# Milliseconds to connect, which is one round trip; the first packet also asks for the link address, so it is the second that counts.
connect_ms() {
    local before after address
    address=$(address "$1")
    : <"/dev/tcp/$address/22"
    before=$(date +%s%3N)
    : <"/dev/tcp/$address/22"
    after=$(date +%s%3N)
    echo $((after - before))
}

# ---- judging

# Expects the exit code and, in what the command prints on both streams, a line that matches.
expect() {
    local what=$1 code=$2 pattern=$3 got=0 said
    shift 3
    said=$("$@" 2>&1) || got=$?
    if [ "$got" = "$code" ] && grep -Eq -e "$pattern" <<<"$said"; then
        echo "ok: $what"
    else
        FAILURES=$((FAILURES + 1))
        printf 'NOT: %s\n  exit code %s, wanted %s; wanted a line like %s; it said:\n%s\n' "$what" "$got" "$code" "$pattern" "$said"
    fi
}

main
