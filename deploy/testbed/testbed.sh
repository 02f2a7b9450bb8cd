#!/usr/bin/env bash
# A testbed in a box: hosts that are network namespaces on a bridge, each with a real sshd, its own processes, disk and clock.
# README.md in this directory says what it is for; `testbed.sh help` prints the commands.
#
# Everything that is made is written to the state directory's journal first, so that `down` removes exactly that, also after a
# start that failed half-way. Nothing is ever found by a name pattern.
set -euo pipefail
shopt -s inherit_errexit

HERE=$(cd "$(dirname "$0")" && pwd)
STATE=${STATE:-$(cd "$HERE/../.." && pwd)/target/testbed}
HOSTS=${HOSTS:-4}
BAD=${BAD:-}
PREFIX=${PREFIX:-p2ps}      # of the names of namespaces and links
NETWORK=${NETWORK:-10.77}   # the first half of a private /16
LOGIN=${LOGIN:-p2ps}        # who logs in, says the inventory: p2ps (no privileges) or root
DISK=${DISK:-256m}          # what a host can write, all directories together
HOSTS_MAX=250
READY_SECONDS_MAX=20        # for all sshd to listen
GONE_SECONDS_MAX=10         # for killed processes to vanish

usage() {
    cat <<'END'
usage: testbed.sh COMMAND
  up            make HOSTS (4) hosts; BAD="3:refuse 5:wrong-key 7:full-disk 9:noexec 11:skew=5s 13:dies=20s 15:slow=200ms 17:silent",
                or the name of a file with such words, makes some of them bad
  down          remove what `up` made
  status        each host: name, address, what is bad about it, whether it is alive
  left          what the users of the hosts left: processes and files. Exit code 1 if there is anything
  cut N         take the link of host N down: it lives on, unreachable
  mend N        take its link up again
  kill N        host N loses power: its link goes down, its processes are killed
  kill-sshd N   kill -9 every sshd of host N; the listening one starts again after a second, as under systemd
  enter N [COMMAND…]   a root shell, or a command, on host N, without ssh
Settings, in the environment: HOSTS, BAD, STATE (target/testbed), PREFIX (p2ps), NETWORK (10.77), LOGIN (p2ps or root), DISK (256m).
END
}

main() {
    local command=${1:-help}
    if [ $# -gt 0 ]; then shift; fi
    case "$command" in
        up) up ;;
        down) down ;;
        status) with_testbed; status ;;
        left) with_testbed; left ;;
        cut) with_host "$@"; ip link set "$NAME" down ;;
        mend) with_host "$@"; ip link set "$NAME" up ;;
        kill) with_host "$@"; power_off ;;
        kill-sshd) with_host "$@"; in_host pkill -KILL '^sshd' ;;
        enter) with_host "$@"; shift; in_host "${@:-bash}" ;;
        help | -h | --help) usage ;;
        *) usage >&2; exit 2 ;;
    esac
}

say() { echo "testbed: $*" >&2; }
stop() { say "$2"; exit "$1"; }     # exit code, reason

# ---- up

declare -A KIND=()   # host number -> what is bad about it
GROUP=""             # the control group of the hosts' processes, where there is one

up() {
    check_settings
    read_bad
    check_machine
    make_state
    trap 'failed' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    make_keys
    make_links
    make_group
    start_hosts
    await_hosts
    write_inventory
    trap - EXIT INT TERM
    announce
}

check_settings() {
    [[ $HOSTS =~ ^[1-9][0-9]{0,2}$ && $HOSTS -le $HOSTS_MAX ]] || stop 2 "HOSTS=$HOSTS: wanted is 1 to $HOSTS_MAX"
    # Link names have 15 characters at most; ours are PREFIX-N and, for a moment, PREFIX-N.x.
    [[ $PREFIX =~ ^[a-z][a-z0-9]{0,7}$ ]] || stop 2 "PREFIX=$PREFIX: wanted are up to 8 small letters and digits"
    [[ $NETWORK =~ ^(10\.[0-9]{1,3}|172\.(1[6-9]|2[0-9]|3[01])|192\.168)$ ]] || stop 2 "NETWORK=$NETWORK: wanted is a private /16, such as 10.77"
    [[ $LOGIN == p2ps || $LOGIN == root ]] || stop 2 "LOGIN=$LOGIN: wanted is p2ps or root"
    # It stands in files of several kinds, each with its own way to quote.
    [[ $STATE =~ ^[A-Za-z0-9._/+@=-]+$ ]] || stop 2 "STATE=$STATE: wanted is a path of letters, digits and ._/+@=-"
    [[ $DISK =~ ^[0-9]+[kmg]$ ]] || stop 2 "DISK=$DISK: wanted is a size such as 256m"
}

read_bad() {
    local words=$BAD word number kind
    if [ -n "$words" ] && [ -f "$words" ]; then words=$(sed 's/#.*//' "$words"); fi
    for word in $words; do
        number=${word%%:*} kind=${word#*:}
        [[ $number =~ ^(0|[1-9][0-9]{0,2})$ && $number -lt $HOSTS ]] || stop 2 "BAD: '$word': there are hosts 0 to $((HOSTS - 1))"
        [ -z "${KIND[$number]:-}" ] || stop 2 "BAD: host $number is named twice"
        [[ $kind =~ ^(refuse|silent|wrong-key|full-disk|noexec|skew=-?[0-9]+s|dies=[0-9]+s|slow=[0-9]+ms)$ ]] ||
            stop 2 "BAD: '$word': wanted is N:refuse, silent, wrong-key, full-disk, noexec, skew=5s, dies=20s or slow=200ms"
        KIND[$number]=$kind
    done
}

check_machine() {
    local tool
    [ "$(id -u)" = 0 ] || stop 3 "network namespaces are made by root only"
    [ ! -e "$STATE/journal" ] || stop 3 "there is a testbed in $STATE: take it down first (make testbed-down)"
    PATH=$PATH:/usr/sbin:/sbin
    for tool in ip sshd ssh ssh-keygen unshare nsenter setsid pkill; do
        command -v "$tool" >/dev/null || stop 3 "$tool is missing: run deploy/install.sh testbed"
    done
    SSHD=$(command -v sshd)   # it wants to be started by its whole path
    export SSHD
    case " ${KIND[*]} " in
        *slow=*)
            command -v python3 >/dev/null || stop 3 "slow links want python3"
            [ -c /dev/net/tun ] || stop 3 "slow links want /dev/net/tun (modprobe tun)" ;;
    esac
    if [ -n "$(ip -4 -o address show to "$NETWORK.0.0/16")" ]; then
        stop 3 "this machine has addresses in $NETWORK.0.0/16: is another testbed up? Choose another NETWORK"
    fi
    if [ "$(cat /proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null)" = 1 ] &&
        iptables -S FORWARD 2>/dev/null | grep -q -e '-P FORWARD DROP'; then
        say "warning: this machine's iptables drop what bridges forward (Docker sets that): hosts will not reach each other"
    fi
}

make_state() {
    local i name
    mkdir -p "$STATE"
    STATE=$(cd "$STATE" && pwd)
    [ -z "$(ls -A "$STATE")" ] || stop 3 "$STATE has other things in it: choose another STATE"
    for ((i = -1; i < HOSTS; i++)); do
        name=$(name_of "$i")
        if [ -e "/sys/class/net/$name" ] || [ -e "/run/netns/$name" ]; then
            stop 3 "$name exists already and is not ours: choose another PREFIX"
        fi
    done
    (set -o noclobber && echo "testbed $HOSTS $PREFIX $NETWORK" >"$STATE/journal") || stop 3 "another start was faster"
    mkdir "$STATE/hosts"
}

failed() {
    local code=$?
    say "the start failed; taking down what there is"
    down || true
    exit "$((code == 0 ? 3 : code))"
}

journal() { echo "$*" >>"$STATE/journal"; }

name_of() { if (($1 < 0)); then echo "$PREFIX-br"; else echo "$PREFIX-$1"; fi; }
address_of() { echo "$NETWORK.$((1 + $1 / 250)).$((1 + $1 % 250))"; }

# The user's key, and for each host: its key, its line in known_hosts, and the files that it will find in /etc.
make_keys() {
    local i name address directory known
    ssh-keygen -q -t ed25519 -N '' -C testbed -f "$STATE/id_ed25519"
    printf '127.0.0.1 localhost\n%s.0.1 orchestrator\n' "$NETWORK" >"$STATE/etc-hosts"
    for ((i = 0; i < HOSTS; i++)); do
        echo "$(address_of "$i") $(name_of "$i")" >>"$STATE/etc-hosts"
    done
    for ((i = 0; i < HOSTS; i++)); do
        name=$(name_of "$i") address=$(address_of "$i") directory=$STATE/hosts/$name
        mkdir "$directory"
        ssh-keygen -q -t ed25519 -N '' -C "$name" -f "$directory/ssh_host_ed25519_key"
        known=$directory/ssh_host_ed25519_key.pub
        if [ "${KIND[$i]:-}" = wrong-key ]; then
            ssh-keygen -q -t ed25519 -N '' -C "not $name" -f "$directory/another_key"
            known=$directory/another_key.pub
        fi
        echo "$name,$address $(cut -d' ' -f1,2 "$known")" >>"$STATE/known_hosts"
        echo "$i $name $address ${KIND[$i]:-good}" >>"$STATE/hosts.list"
    done
}

# The bridge, namespaces and links: all are journalled, then made by one call of ip.
make_links() {
    local i name bridge
    bridge=$(name_of -1)
    journal "link $bridge"
    {
        echo "link add $bridge type bridge stp_state 0 forward_delay 0"
        echo "address add $NETWORK.0.1/16 dev $bridge"
        echo "link set $bridge up"
        for ((i = 0; i < HOSTS; i++)); do
            name=$(name_of "$i")
            journal "namespace $name"
            echo "netns add $name"
            # The link of a slow host is made by the process that shapes it.
            [[ ${KIND[$i]:-} != slow=* ]] || continue
            journal "link $name"
            echo "link add $name type veth peer name eth0 netns $name"
            echo "link set $name master $bridge up"
        done
    } >"$STATE/links"
    # Recorded like the others: it would go on making links if we were killed.
    (become "$bridge" ip -batch "$STATE/links")
    rm "$STATE/links"
}

# One control group for the processes of all hosts. Without it the kernel may share the processors out by session (autogroup), that is
# by host and not by niceness: an agent with something to do at once would wait for the busy nodes of all other hosts, whom real hosts
# do not share their processors with. Nothing else needs it: where there can be none, there is none.
make_group() {
    local cpu
    for cpu in /sys/fs/cgroup /sys/fs/cgroup/cpu /sys/fs/cgroup/cpu,cpuacct; do
        # Version 2 with the cpu controller on for groups, or version 1.
        if grep -qsw cpu "$cpu/cgroup.subtree_control" || [ -e "$cpu/cpu.shares" ]; then
            journal "group $cpu/$(name_of -1)"
            if mkdir "$cpu/$(name_of -1)" 2>/dev/null; then GROUP=$cpu/$(name_of -1); fi
            return
        fi
    done
}

start_hosts() {
    local i name kind
    for ((i = 0; i < HOSTS; i++)); do
        name=$(name_of "$i") kind=${KIND[$i]:-good}
        if [[ $kind == slow=* ]]; then
            journal "link $name"
            start_process "$name" "$STATE/hosts/$name/link.log" \
                python3 "$HERE/link.py" --bridge "$(name_of -1)" --link "$name" --namespace "$name" --delay-ms "$(number_in "$kind")"
        fi
        start_host "$i" "$name" "$kind"
    done
}

# PID 1 of a host is host.sh; it gets its own processes, mounts, name and, where the kernel can, monotonic clock: as real
# hosts have, which booted at different times.
start_host() {
    local name=$2 kind=$3 ahead_seconds=$((($1 + 1) * 1000)) clock=()
    if [[ $kind == skew=* ]]; then ahead_seconds=$(number_in "$kind"); fi
    if [ -e /proc/self/ns/time ]; then
        clock=(--time "--monotonic=$ahead_seconds" "--boottime=$ahead_seconds")
    elif [[ $kind == skew=* ]]; then
        stop 3 "this kernel has no time namespaces: no skew"
    fi
    start_process "$name" "$STATE/hosts/$name/sshd.log" env -i \
        PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" SSHD="$SSHD" \
        NAME="$name" ADDRESS="$(address_of "$1")" KIND="$kind" DISK="$DISK" STATE="$STATE" \
        nsenter --net="/run/netns/$name" -- \
        unshare --mount --pid --uts --ipc "${clock[@]}" --fork --kill-child -- \
        sh "$HERE/host.sh"
}

start_process() {
    local name=$1 log=$2
    shift 2
    (
        trap - EXIT INT TERM
        if [ -n "$GROUP" ]; then echo "$BASHPID" >"$GROUP/cgroup.procs"; fi
        become "$name" setsid "$@" </dev/null >"$log" 2>&1
    ) &
    disown
}

# Makes a subshell into a process, which is in the journal before it is anything.
become() {
    local name=$1 pid=$BASHPID   # in a command substitution it would be another one
    shift
    journal "process $pid $(start_of "$pid") $name"
    exec "$@"
}

number_in() { [[ $1 =~ -?[0-9]+ ]] && echo "${BASH_REMATCH[0]}"; }

# The kernel's start time of a process, which with its number names it for good; empty where there is none.
start_of() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
    # What follows the name, which may have spaces and brackets itself, begins with field 3; the start time is field 22.
    read -ra stat <<<"${stat##*) }"
    # A zombie is as good as gone.
    [ "${stat[0]}" = Z ] || echo "${stat[19]}"
}

await_hosts() {
    local deadline=$((SECONDS + READY_SECONDS_MAX)) i name
    for ((i = 0; i < HOSTS; i++)); do
        name=$(name_of "$i")
        until is_ready "$name" "${KIND[$i]:-good}"; do
            if ((SECONDS >= deadline)); then
                say "$name is not ready after $READY_SECONDS_MAX s; its log ends:"
                tail -n 5 "$STATE/hosts/$name/"*.log >&2
                exit 3
            fi
            sleep 0.02
        done
    done
}

# Ready is a host whose sshd listens (port 22 is hexadecimal 16), or which has said that it will not have one.
is_ready() {
    local pid
    pid=$(init_of "$1")
    [ -n "$pid" ] || return 1
    case "$2" in
        refuse) grep -q '^ready' "$STATE/hosts/$1/sshd.log" ;;
        *) grep -q '^ *[0-9]*: [0-9A-F]*:0016 00000000:0000 0A' "/proc/$pid/net/tcp" ;;
    esac
}

write_inventory() {
    local number name address kind required=0
    while read -r number name address kind; do
        case "$kind" in good | slow=* | skew=*) required=$((required + 1)) ;; esac
    done <"$STATE/hosts.list"
    {
        echo "# Made by deploy/testbed: $HOSTS hosts, of which $required are good, slow or skewed."
        echo "defaults: {user: $LOGIN, key: $STATE/id_ed25519, port: 22}"
        echo "known_hosts: $STATE/known_hosts"
        # An inventory needs one host at least.
        echo "required: $((required > 0 ? required : 1))"
        echo "hosts:"
        while read -r number name address kind; do
            if [ "$kind" = good ]; then kind=""; else kind="   # $kind"; fi
            echo "  - {name: $name, address: $address}$kind"
        done <"$STATE/hosts.list"
    } >"$STATE/hosts.yaml"
    cut -d' ' -f3 "$STATE/hosts.list" >"$STATE/hosts.txt"
    while read -r number name address kind; do
        printf 'Host %s\n    HostName %s\n' "$name" "$address"
    done <"$STATE/hosts.list" >"$STATE/ssh_config"
    cat >>"$STATE/ssh_config" <<END
Host $PREFIX-* $NETWORK.*
    User $LOGIN
    IdentityFile $STATE/id_ed25519
    IdentitiesOnly yes
    UserKnownHostsFile $STATE/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    BatchMode yes
END
}

announce() {
    cat <<END
$HOSTS hosts are up: $(name_of 0) to $(name_of $((HOSTS - 1))), $(address_of 0) to $(address_of $((HOSTS - 1)))${KIND[*]:+; bad are $(bad_ones)}.
  $STATE/hosts.yaml    the inventory; also hosts.txt (addresses), ssh_config, known_hosts, id_ed25519
Next:
  ssh -F $STATE/ssh_config $(name_of 0) uname -a
  orchestrator run experiments/quickstart.yaml --on $STATE/hosts.yaml
  deploy/testbed/testbed.sh status     (and left, cut N, mend N, kill N, enter N)
  make testbed-down
END
}

bad_ones() { awk '$4 != "good" { printf "%s%s (%s)", between, $2, $4; between = ", " }' "$STATE/hosts.list"; }

# ---- what is up

with_testbed() {
    [ -f "$STATE/journal" ] || stop 3 "there is no testbed in $STATE"
    STATE=$(cd "$STATE" && pwd)
    read -r _ HOSTS PREFIX NETWORK <"$STATE/journal"
}

# Sets NAME for the commands that are about one host.
with_host() {
    with_testbed
    [[ ${1:-} =~ ^(0|[1-9][0-9]{0,2})$ && $1 -lt $HOSTS ]] || stop 2 "wanted is the number of a host, 0 to $((HOSTS - 1))"
    NAME=$(name_of "$1")
}

# PID 1 of a host, as this machine numbers it; nothing where the host is dead.
init_of() {
    local pid start name init children
    while read -r _ pid start name; do
        if [ "$name" != "$1" ] || [ "$start" != "$(start_of "$pid")" ]; then continue; fi
        # The process that shapes a slow link has no child that is PID 1 of anything.
        read -ra children < <(cat "/proc/$pid/task/$pid/children" 2>/dev/null) || true   # the file ends without a line end
        for init in "${children[@]}"; do
            if grep -q '^NSpid:.*[[:space:]]1$' "/proc/$init/status" 2>/dev/null; then echo "$init"; return; fi
        done
    done < <(grep '^process ' "$STATE/journal")
}

in_host() {
    local init
    init=$(init_of "$NAME")
    [ -n "$init" ] || stop 3 "$NAME is dead"
    nsenter --target "$init" --net --mount --pid --uts --ipc -- env -C / "$@"
}

power_off() {
    local init
    init=$(init_of "$NAME")
    # Silence first: the kernel of a host that loses power does not close its connections.
    ip link set "$NAME" down
    if [ -n "$init" ]; then kill -KILL "$init"; fi
}

status() {
    local number name address kind alive link
    while read -r number name address kind; do
        if [ -n "$(init_of "$name")" ]; then alive=alive; else alive=dead; fi
        # There is a carrier where both ends are up.
        if [ "$(cat "/sys/class/net/$name/carrier" 2>/dev/null)" = 1 ]; then link="link up"; else link="link down"; fi
        printf '%-4s %-14s %-14s %-14s %-6s %s\n' "$number" "$name" "$address" "$kind" "$alive" "$link"
    done <"$STATE/hosts.list"
}

# All processes in the host but its PID 1, that one's own, and the listening sshd; all files on its disk.
left() {
    local NAME found=0 what
    while read -r _ NAME _; do
        [ -n "$(init_of "$NAME")" ] || continue
        what=$(in_host sh -s <"$HERE/left.sh") || stop 3 "$NAME could not be looked at"
        if [ -n "$what" ]; then
            found=1
            while read -r what; do echo "$NAME: $what"; done <<<"$what"
        fi
    done <"$STATE/hosts.list"
    return "$found"
}

# ---- down

down() {
    local kind name
    [ -f "$STATE/journal" ] || { say "there is no testbed in $STATE"; return 0; }
    STATE=$(cd "$STATE" && pwd)
    end_hosts
    while read -r _ name; do
        if [ -e "/sys/class/net/$name" ]; then echo "link delete $name"; fi
    done < <(grep '^link ' "$STATE/journal") | ip -force -batch - || true
    while read -r kind name; do
        case "$kind" in
            link) [ ! -e "/sys/class/net/$name" ] || stop 3 "the link $name could not be removed" ;;
            namespace) [ ! -e "/run/netns/$name" ] || stop 3 "the namespace $name could not be removed" ;;
            group) remove_group "$name" ;;
        esac
    done < <(cut -d' ' -f1,2 "$STATE/journal")
    # By name: whoever uses the testbed may have put files beside ours. The journal goes last.
    (cd "$STATE" && rm -rf hosts links id_ed25519 id_ed25519.pub known_hosts etc-hosts hosts.list hosts.yaml hosts.txt ssh_config && rm journal)
    rmdir "$STATE" 2>/dev/null || say "$STATE is kept: it has files that are not ours"
}

# A control group can be removed when the last of its processes has been reaped, a moment after its end.
remove_group() {
    local deadline=$((SECONDS + GONE_SECONDS_MAX))
    while [ -e "$1" ] && ! rmdir "$1" 2>/dev/null; do
        ((SECONDS < deadline)) || stop 3 "the control group $1 could not be removed"
        sleep 0.02
    done
}

# Ends the recorded processes, whose end is the end of all in their hosts; then whatever else lives in our network namespaces: one
# that was about to start may not be recorded, and users may have entered. The namespaces lose their names first, so that nobody
# can enter any more.
end_hosts() {
    local name inodes=" "
    kill_all recorded
    while read -r _ name; do
        [ -e "/run/netns/$name" ] || continue
        inodes+="net:[$(stat -L -c %i "/run/netns/$name")] "
        ip netns delete "$name"
    done < <(grep '^namespace ' "$STATE/journal")
    kill_all recorded
    kill_all inhabitants "$inodes"
}

# Kills what a function finds, until it finds nothing.
kill_all() {
    local pids deadline=$((SECONDS + GONE_SECONDS_MAX))
    while :; do
        mapfile -t pids < <("$@")
        if [ "${#pids[@]}" = 0 ]; then return; fi
        ((SECONDS < deadline)) || stop 3 "these processes do not end: ${pids[*]}"
        kill -KILL "${pids[@]}" 2>/dev/null || true
        sleep 0.02
    done
}

recorded() {
    local pid start
    while read -r _ pid start _; do
        if [ -n "$start" ] && [ "$start" = "$(start_of "$pid")" ]; then echo "$pid"; fi
    done < <(grep '^process ' "$STATE/journal")
}

# The processes in the network namespaces with these inodes.
inhabitants() {
    local pid namespace
    while read -r pid namespace; do
        if [[ $1 == *" $namespace "* ]]; then echo "$pid"; fi
    done < <(find /proc -maxdepth 3 -path '/proc/[0-9]*/ns/net' -printf '%P %l\n' 2>/dev/null | sed 's|/ns/net||')
}

main "$@"
