#!/bin/sh
# Installs what is missing for `make quickstart` (build), `make test` (test), `make testbed` (testbed) or `make testbed-compare`
# (compare), on Debian and Ubuntu; elsewhere says what is wanted. Rust and make are assumed. Usage: deploy/install.sh build|test|testbed|compare
set -eu

DENY_VERSION=0.20.2
TOOLS=target/tools

say() { echo "install: $*" >&2; }

# Where sshd, ip and nft are; users other than root often do not have it.
PATH=$PATH:/usr/sbin:/sbin

# Pairs command:package; only packages whose command is missing are installed.
build="cc:gcc pkg-config:pkg-config"
testbed="sshd:openssh-server ssh:openssh-client ip:iproute2 nft:nftables pkill:procps python3:python3"
case "${1:-}" in
    build) wanted="$build" ;;
    test) wanted="$build promtool:prometheus prometheus:prometheus $testbed" ;;
    testbed) wanted="$testbed" ;;
    compare) wanted="parallel-ssh:pssh clush:clustershell ansible:ansible-core" ;;
    *) say "usage: deploy/install.sh build|test|testbed|compare"; exit 2 ;;
esac
case "$1" in build | test) builds=yes ;; *) builds="" ;; esac

if [ -n "$builds" ] && ! command -v cargo >/dev/null; then
    say "Rust is missing: see https://rustup.rs"
    exit 3
fi

missing=""
for pair in $wanted; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done

# The SSH backend is built against the system's OpenSSL.
if [ -n "$builds" ] && ! pkg-config --exists openssl 2>/dev/null; then
    missing="$missing libssl-dev"
fi

if [ -n "$missing" ]; then
    packages=$(echo "$missing" | tr ' ' '\n' | sort -u | tr '\n' ' ')
    if ! command -v apt-get >/dev/null; then
        say "please install with your system's package manager:$missing"
        exit 3
    fi
    if [ "$(id -u)" = 0 ]; then sudo=""; else sudo="sudo"; fi
    say "installing$missing"
    case "$missing" in
        *openssh-server*)
            # The testbed starts its own; this machine must not begin to let people in, today or after the next start.
            if [ -d /run/systemd/system ]; then
                $sudo systemctl mask ssh.service ssh.socket
                say "ssh.service and ssh.socket are masked: systemctl unmask them if this machine shall serve SSH"
            fi
            ;;
    esac
    $sudo apt-get update -q
    # Services that packages bring are not started: tests start their own.
    # shellcheck disable=SC2086
    $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q --no-install-recommends $packages
fi

if [ "$1" = test ] && [ ! -x "$TOOLS/bin/cargo-deny" ]; then
    say "installing cargo-deny $DENY_VERSION into $TOOLS"
    # Built without optimisation: it runs once a test.
    cargo install cargo-deny --locked --version "$DENY_VERSION" --root "$TOOLS" \
        --target-dir target/cargo-deny-build \
        --config profile.release.opt-level=0 --config profile.release.lto=false
    rm -rf target/cargo-deny-build
fi
