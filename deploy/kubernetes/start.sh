#!/bin/sh
# How a pod of the stateful set becomes a node. It joins through the other pods that are in the network already: those that
# serve metrics. If there is none, the first pod creates the network, and the others wait for it. So the first pod too comes back
# to the network that is there, when it is restarted, and a cluster whose pods all died begins anew.
# Wants POD_NAME, POD_IP and SERVICE in the environment; GEOMETRY is what a new network is created with, NETWORK_KEY_FILE holds the
# network's key, if it has one.
set -eu

TRY_SECONDS_MAX=2
# Asked are all pods before this one, and so many after it: they are there if this one was restarted.
AFTER_MAX=8
JOINS_MAX=3   # they are tried in turn

case "$POD_IP" in
    *:*) address="[$POD_IP]" ;;
    *) address=$POD_IP ;;
esac
set_name=${POD_NAME%-*}

set --
number=0
while [ "$number" -le $((${POD_NAME##*-} + AFTER_MAX)) ] && [ "$#" -lt $((2 * JOINS_MAX)) ]; do
    pod=$set_name-$number.$SERVICE
    if [ "$set_name-$number" != "$POD_NAME" ] &&
        wget -q -T "$TRY_SECONDS_MAX" -O /dev/null "http://$pod:9465/metrics" 2>/dev/null; then
        set -- "$@" --join "p2ps://$pod:7000"
    fi
    number=$((number + 1))
done

if [ "$#" = 0 ]; then
    if [ "$POD_NAME" != "$set_name-0" ]; then
        echo "start: no pod is in the network yet; trying again when Kubernetes restarts this one" >&2
        exit 1
    fi
    set -- --geometry "${GEOMETRY:-tango:5:symmetric}"
fi
if [ -n "${NETWORK_KEY_FILE:-}" ]; then
    exec <"$NETWORK_KEY_FILE"
    set -- --network-key-stdin "$@"
fi
exec p2ps-node run --listen "$address:7000" --metrics "$address:9465" "$@"
