#!/usr/bin/env bash
# Side by side on one testbed of 20 hosts: how long it takes to run a command on all of them, and to send all of them a file of 5 MB, with
# this orchestrator, pssh, clush, ansible, and plain ssh and scp in parallel. All in one run, in several rounds whose order changes;
# minimum and median of each, and the ratio of medians to ours.
#
# What is compared. The others run `true`, and copy the file. Ours has no command for just that, so it does more: `hosts check` connects,
# verifies the digest of the cached node binary, starts the agent, asks for the host's facts and (eight times) its clock, lets all hosts call
# each other, and ends the agents. As its file it sends a node binary made 5 MB long, verifies its digest there, tries it, and then does all
# of the above. The others are as Debian ships them, with fan-outs that hold all hosts; `ssh-curve25519` has the key exchange that
# ours has, while OpenSSH's default (sntrup761) costs both ends more. Each connects anew each time (ansible's ControlPersist is off).
#
# Usage: deploy/testbed/compare.sh [RESULT.tsv], as root, from anywhere; make build comes before. Needs pssh, clustershell and ansible
# (deploy/install.sh compare). Settings: HOSTS (20), ROUNDS (5), and testbed.sh's.
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
TOP=$(cd "$HERE/../.." && pwd)
HOSTS=${HOSTS:-20}
ROUNDS=${ROUNDS:-5}
FILE_BYTES=5000000
SECONDS_MAX=180
ORCHESTRATOR=${ORCHESTRATOR:-$TOP/target/release/orchestrator}
NODE=$(dirname "$ORCHESTRATOR")/p2ps-node
TOOLS=(ours ssh-curve25519 ssh clush pssh ansible)
WORK=$(mktemp -d)
export HOSTS STATE=$WORK/testbed PREFIX=${PREFIX:-p2pscmp} NETWORK=${NETWORK:-10.79} BAD="" LOGIN=p2ps

main() {
    local tool
    for tool in parallel-ssh clush ansible; do
        command -v "$tool" >/dev/null || stop "$tool is missing: deploy/install.sh compare"
    done
    [ -x "$ORCHESTRATOR" ] || stop "there is no $ORCHESTRATOR: make build"
    trap finish EXIT
    trap 'exit 130' INT TERM
    "$HERE/testbed.sh" up >/dev/null
    prepare
    rounds
    summary "$WORK/times.tsv"
    if [ $# -gt 0 ]; then cp "$WORK/times.tsv" "$1"; fi
}

stop() { echo "compare: $1" >&2; exit 3; }

finish() {
    local code=$?
    [ ! -e "$STATE/journal" ] || "$HERE/testbed.sh" down >/dev/null || code=1
    rm -rf "$WORK"
    exit "$code"
}

# What each tool needs to know of the hosts; and the first contact, which is nobody's to pay for.
prepare() {
    mapfile -t ADDRESSES <"$STATE/hosts.txt"
    CONFIG=$STATE/ssh_config
    CURVE="-o KexAlgorithms=curve25519-sha256"
    { echo '[all]'; printf '%s\n' "${ADDRESSES[@]}"; } >"$WORK/ansible.ini"
    printf '[defaults]\nforks = %s\nretry_files_enabled = False\nlocal_tmp = %s\n' "$HOSTS" "$WORK/ansible" >"$WORK/ansible.cfg"
    export ANSIBLE_CONFIG=$WORK/ansible.cfg ANSIBLE_SSH_ARGS="-F $CONFIG -o ControlMaster=no" ANSIBLE_PIPELINING=True ANSIBLE_REMOTE_USER=p2ps
    NODES=$(IFS=,; echo "${ADDRESSES[*]}")
    run_command ours >"$WORK/check.txt" || { cat "$WORK/check.txt" >&2; exit 1; }
    tail -n 1 "$WORK/check.txt"
    echo "orchestrator $(stat -c %s "$ORCHESTRATOR") bytes, node binary $(stat -c %s "$NODE") bytes; $(ssh -V 2>&1); $(nproc) processors, load $(cut -d' ' -f1 /proc/loadavg)"
}

# No round has the order of the one before.
rounds() {
    local round shift tool what
    for ((round = 0; round < ROUNDS; round++)); do
        make_file "$round"
        for what in command file; do
            for ((shift = 0; shift < ${#TOOLS[@]}; shift++)); do
                tool=${TOOLS[$(((shift + round) % ${#TOOLS[@]}))]}
                measure "$round" "$what" "$tool"
            done
        done
    done
}

# A node binary of exactly FILE_BYTES that no host has yet: what follows the end of a program does not matter to it.
make_file() {
    cp "$NODE" "$WORK/file"
    [ "$(stat -c %s "$WORK/file")" -lt "$FILE_BYTES" ] || stop "$NODE has more than $FILE_BYTES bytes: is it a debug build?"
    head -c $((FILE_BYTES - $(stat -c %s "$WORK/file"))) /dev/urandom >>"$WORK/file"
}

measure() {
    local round=$1 what=$2 tool=$3 start end
    start=$EPOCHREALTIME
    "run_$what" "$tool" >"$WORK/said" 2>&1 || { echo "compare: $tool failed with the $what:" >&2; tail -n 20 "$WORK/said" >&2; exit 1; }
    end=$EPOCHREALTIME
    printf '%s\t%s\t%s\t%s\n' "$round" "$what" "$tool" "$(awk "BEGIN { printf \"%.3f\", $end - $start }")" >>"$WORK/times.tsv"
}

run_command() {
    case $1 in
        ours) timeout "$SECONDS_MAX" "$ORCHESTRATOR" hosts check "$STATE/hosts.yaml" ;;
        ssh) everywhere ssh -n -F "$CONFIG" {} true ;;
        # shellcheck disable=SC2086
        ssh-curve25519) everywhere ssh -n -F "$CONFIG" $CURVE {} true ;;
        clush) timeout "$SECONDS_MAX" clush -q -S -f "$HOSTS" -l p2ps -o "-F $CONFIG" -w "$NODES" true ;;
        pssh) timeout "$SECONDS_MAX" parallel-ssh -p "$HOSTS" -h "$STATE/hosts.txt" -l p2ps -x "-F $CONFIG" true ;;
        # raw: nothing but the command, where its other modules send a program first.
        ansible) timeout "$SECONDS_MAX" ansible all -i "$WORK/ansible.ini" -m raw -a true ;;
    esac
}

run_file() {
    case $1 in
        ours) timeout "$SECONDS_MAX" "$ORCHESTRATOR" hosts check "$STATE/hosts.yaml" --node-binary "$WORK/file" ;;
        ssh) everywhere scp -q -F "$CONFIG" "$WORK/file" {}:/tmp/ssh ;;
        # shellcheck disable=SC2086
        ssh-curve25519) everywhere scp -q -F "$CONFIG" $CURVE "$WORK/file" {}:/tmp/curve ;;
        clush) timeout "$SECONDS_MAX" clush -q -S -f "$HOSTS" -l p2ps -o "-F $CONFIG" -w "$NODES" --copy "$WORK/file" --dest /tmp/clush ;;
        pssh) timeout "$SECONDS_MAX" parallel-scp -p "$HOSTS" -h "$STATE/hosts.txt" -l p2ps -x "-F $CONFIG" "$WORK/file" /tmp/pssh ;;
        ansible) timeout "$SECONDS_MAX" ansible all -i "$WORK/ansible.ini" -m copy -a "src=$WORK/file dest=/tmp/ansible" ;;
    esac
}

# One process a host, all at once.
everywhere() { printf '%s\n' "${ADDRESSES[@]}" | timeout "$SECONDS_MAX" xargs -P "$HOSTS" -I {} "$@"; }

summary() {
    local what
    for what in command file; do
        printf '\n%s to %s hosts, seconds over %s rounds\n' "$([ "$what" = command ] && echo "a command" || echo "a file of 5 MB")" "$HOSTS" "$ROUNDS"
        printf '%-16s %8s %8s %14s\n' "" minimum median "median / ours"
        for tool in "${TOOLS[@]}"; do
            awk -F'\t' -v what="$what" -v tool="$tool" '$2 == what && $3 == tool { print $4 }' "$1" | sort -n |
                awk -v tool="$tool" '{ t[NR] = $1 } END { m = NR % 2 ? t[(NR + 1) / 2] : (t[NR / 2] + t[NR / 2 + 1]) / 2; print tool, t[1], m }'
        done | awk 'NR == 1 { ours = $3 } { printf "%-16s %8.2f %8.2f %14.1f\n", $1, $2, $3, $3 / ours }'
    done
}

main "$@"
