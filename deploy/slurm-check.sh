#!/usr/bin/env bash
# Runs experiments/quickstart.yaml on three "hosts" of a real Slurm, each agent a job step (`via: srun`): slurmctld and three slurmd on
# this machine, from Debian's packages. They are unpacked into a temporary directory, not installed, and removed at the end with
# all that they wrote; no service of this machine is touched. Takes a minute or two, so it is not a part of `make test`.
#
# Usage: deploy/slurm-check.sh [ORCHESTRATOR]   (target/release/orchestrator; the node binary is next to it). As root, since slurmd wants that.
# Exit codes: 0 the run's expectations held and nothing was left; 1 not; 3 it cannot be tried here, which is said.
set -euo pipefail

ORCHESTRATOR=${1:-target/release/orchestrator}
PACKAGES="slurmctld slurmd slurm-client munge"
HOSTS=3
PORT=${PORT:-17810}            # and the following ones, on loopback
READY_SECONDS_MAX=30
RUN_SECONDS_MAX=180
DOWNLOADED=$(mktemp -d)        # apt wants to read it as another user
WORK=$(mktemp -d)
ROOT=$WORK/root
STARTED=()

main() {
    [ "$(id -u)" = 0 ] || cannot "slurmd runs as root only"
    command -v apt-get >/dev/null || cannot "the packages come from Debian or Ubuntu"
    [ -x "$ORCHESTRATOR" ] || cannot "there is no $ORCHESTRATOR: make build"
    ORCHESTRATOR=$(realpath "$ORCHESTRATOR")
    trap finish EXIT
    trap 'exit 130' INT TERM
    unpack
    configure
    start munged --foreground --force --key-file="$WORK/munge.key" --socket="$WORK/munge.socket" \
        --pid-file="$WORK/munged.pid" --seed-file="$WORK/munge.seed" --log-file="$WORK/munged.log"
    start slurmctld-wlm -D
    for ((n = 0; n < HOSTS; n++)); do start slurmd-wlm -D -N "n$n" -d "$ROOT/usr/sbin/slurmstepd-wlm"; done
    await "three hosts are idle" hosts_are_idle
    carry_out
    await "no step, agent or node is left" nothing_runs
    say "all held"
}

say() { echo "slurm-check: $*" >&2; }
cannot() { say "it cannot be tried here: $*"; exit 3; }

# The packages that are missing on this machine; what is there already is used where it is.
unpack() {
    local package
    mkdir -p "$DOWNLOADED/partial" "$ROOT"
    chmod 755 "$DOWNLOADED"
    # shellcheck disable=SC2086
    apt-get install -y -q --download-only --no-install-recommends -o Dir::Cache::archives="$DOWNLOADED" $PACKAGES >"$WORK/apt.log" 2>&1 ||
        { tail -n 5 "$WORK/apt.log" >&2; cannot "Debian's packages cannot be had"; }
    for package in "$DOWNLOADED"/*.deb; do
        [ -e "$package" ] || cannot "Slurm is installed here already: use its own test"
        dpkg-deb -x "$package" "$ROOT"
    done
    LIBRARIES=$(dirname "$(find "$ROOT" -name 'libmunge.so.2' | head -n 1)")
    export PATH=$ROOT/usr/bin:$ROOT/usr/sbin:$PATH
    export LD_LIBRARY_PATH=$LIBRARIES:$LIBRARIES/slurm-wlm
    export SLURM_CONF=$WORK/slurm.conf
}

configure() {
    local host
    host=$(hostname -s)
    mkdir "$WORK/state" "$WORK/spool"
    dd if=/dev/urandom of="$WORK/munge.key" bs=1024 count=1 status=none
    chmod 600 "$WORK/munge.key"
    # No control groups, which a container often does not have: the steps' processes are known by their descent.
    cat >"$SLURM_CONF" <<END
ClusterName=check
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$WORK/munge.socket
PluginDir=$LIBRARIES/slurm-wlm
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=2
StateSaveLocation=$WORK/state
SlurmdSpoolDir=$WORK/spool/%n
SlurmctldPidFile=$WORK/slurmctld.pid
SlurmdPidFile=$WORK/slurmd.%n.pid
SlurmctldLogFile=$WORK/slurmctld.log
SlurmdLogFile=$WORK/slurmd.%n.log
NodeName=n[0-$((HOSTS - 1))] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((PORT + 1))-$((PORT + HOSTS))] CPUs=$(nproc)
PartitionName=all Nodes=ALL Default=YES MaxTime=10 State=UP
END
    {
        echo "defaults: {via: srun, binary: $(dirname "$ORCHESTRATOR")/p2ps-node}"
        echo 'hosts:'
        # All three are this machine; nodes tell them apart by their addresses.
        for ((n = 0; n < HOSTS; n++)); do echo "  - {name: n$n, listen: 127.0.0.$((n + 1))}"; done
    } >"$WORK/hosts.yaml"
}

start() {
    "$@" >"$WORK/$1.$#.out" 2>&1 </dev/null &
    STARTED+=($!)
}

hosts_are_idle() { [ "$(sinfo -h -o %T -N 2>/dev/null | grep -c '^idle$')" = "$HOSTS" ]; }

# What runs is found by the directory that only this check knows.
nothing_runs() { [ -z "$(squeue -h 2>/dev/null)" ] && [ -z "$(steps)" ]; }

steps() {
    local directory program
    for directory in /proc/[0-9]*; do
        grep -qzF "SLURM_CONF=$SLURM_CONF" "$directory/environ" 2>/dev/null || continue
        # A program's own name, not its arguments: each slurmd is told where slurmstepd is.
        { IFS= read -r -d '' program <"$directory/cmdline"; } 2>/dev/null || continue
        case "${program##*/}" in p2ps-node | slurmstepd*) echo "${directory#/proc/}" ;; esac
    done
}

await() {
    local what=$1 deadline=$((SECONDS + READY_SECONDS_MAX))
    shift
    until "$@"; do
        if ((SECONDS >= deadline)); then
            say "not so after $READY_SECONDS_MAX s: $what. What was said last:"
            sinfo -N -l >&2 || true
            tail -qn 5 "$WORK"/*.log "$WORK"/*.out >&2 || true
            exit 1
        fi
        sleep 0.2
    done
    say "$what"
}

# The orchestrator runs in an allocation of all hosts, as deploy/pages/slurm.md has it.
carry_out() {
    local allocation="salloc --quiet --nodes=$HOSTS --ntasks-per-node=1"
    $allocation "$ORCHESTRATOR" hosts check "$WORK/hosts.yaml" || { say "hosts check failed"; exit 1; }
    timeout -k 10 "$RUN_SECONDS_MAX" $allocation "$ORCHESTRATOR" run experiments/quickstart.yaml --on "$WORK/hosts.yaml" --out "$WORK/runs" ||
        { say "the run did not hold"; exit 1; }
}

# Everything that was started here ends, and everything that was written goes.
finish() {
    local code=$? pid
    if [ "${#STARTED[@]}" -gt 0 ]; then
        scancel --quiet --user=root 2>/dev/null || true
        for pid in $(steps) "${STARTED[@]}"; do kill "$pid" 2>/dev/null || true; done
        for pid in "${STARTED[@]}"; do
            timeout 10 tail --pid="$pid" -f /dev/null || kill -KILL "$pid" 2>/dev/null || true
        done
    fi
    rm -rf "$WORK" "$DOWNLOADED"
    exit "$code"
}

main
