#!/bin/sh
# Builds the node binary that is sent to hosts: static, so that it runs on any Linux of its architecture, and checks that it is.
# Usage: deploy/node-static.sh [x86_64|aarch64], from the repository's root. Result: target/node-static/p2ps-node-ARCHITECTURE
#
# aarch64 is built on x86_64 with Debian's cross linker:
#   apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross && rustup target add aarch64-unknown-linux-gnu && deploy/node-static.sh aarch64
set -eu

architecture=${1:-x86_64}
target=$architecture-unknown-linux-gnu
directory=target/node-static
binary=$directory/p2ps-node-$architecture

# Not position-independent: a managed idle node has 267 kB of memory to itself this way, 310 kB as a static PIE and 371 kB as a
# dynamic PIE (mean PSS of 50 nodes), since there is nothing to relocate at its start. The price is that the program's own code is
# not at a random address.
flags="-C target-feature=+crt-static -C relocation-model=static"
case "$architecture" in
    x86_64) export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="$flags" ;;
    aarch64)
        export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="$flags"
        export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER="${LINKER:-aarch64-linux-gnu-gcc}"
        ;;
    *) echo "node-static: usage: deploy/node-static.sh [x86_64|aarch64]" >&2; exit 2 ;;
esac
# It would take the place of the target's flags.
unset RUSTFLAGS

# A target directory of its own: other builds are not touched.
"${CARGO:-cargo}" build --release --locked -p p2ps --bin p2ps-node --target "$target" --target-dir "$directory"
cp "$directory/$target/release/p2ps-node" "$binary"

# A dynamic program names its interpreter in a program header; a static one has none.
if readelf --program-headers "$binary" | grep -q INTERP; then
    echo "node-static: $binary is not static" >&2
    exit 1
fi
echo "$binary: static, $(stat -c %s "$binary") bytes, sha256 $(sha256sum "$binary" | cut -d' ' -f1)"
