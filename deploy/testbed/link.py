#!/usr/bin/env python3
"""A slow link of the testbed, shaped in user space: carries Ethernet frames between a bridge and a network namespace and holds
each one back, in both directions, for the same time. So everything is late: a connection's first packet, ssh, and what nodes say
to one another. Wants root and /dev/net/tun; takes its two devices with it when it ends.
"""

import argparse
import collections
import fcntl
import os
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
FRAME_BYTES_MAX = 65536
# Frames under way in each direction; more are dropped, as a router does. 30 MB: 200 ms at 1 Gbit/s.
FRAMES_MAX = 20_000
# Frames read in one turn, so that no direction starves the other.
BURST_MAX = 64


def main():
    options = arguments()
    outside = tap(options.link)
    inside = tap(options.link + ".x")
    ip("link", "set", options.link + ".x", "netns", options.namespace, "name", "eth0")
    ip("link", "set", options.link, "master", options.bridge, "up")
    carry(outside, inside, options.delay_ms / 1000)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bridge", required=True)
    parser.add_argument("--link", required=True, help="the name of the device on the bridge")
    parser.add_argument("--namespace", required=True, help="where the other end appears, as eth0")
    parser.add_argument("--delay-ms", type=int, required=True, help="one way")
    return parser.parse_args()


def tap(name):
    """A new TAP device, which lives as long as the descriptor that is returned."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def ip(*words):
    subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL)


def carry(one, other, delay):
    directions = [(one, other, collections.deque()), (other, one, collections.deque())]
    while True:
        dues = [waiting[0][0] for _, _, waiting in directions if waiting]
        patience = max(0.0, min(dues) - time.monotonic()) if dues else None
        readable, _, _ = select.select([one, other], [], [], patience)
        for source, sink, waiting in directions:
            if source in readable:
                receive(source, waiting, delay)
            deliver(sink, waiting)


def receive(source, waiting, delay):
    for _ in range(BURST_MAX):
        try:
            frame = os.read(source, FRAME_BYTES_MAX)
        except OSError:
            return  # nothing there, or the device is down: both pass
        if len(waiting) < FRAMES_MAX:
            waiting.append((time.monotonic() + delay, frame))


def deliver(sink, waiting):
    now = time.monotonic()
    while waiting and waiting[0][0] <= now:
        _, frame = waiting.popleft()
        try:
            os.write(sink, frame)
        except OSError:
            pass  # the device is down or its queue is full: the frame is lost, as on any link


if __name__ == "__main__":
    sys.exit(main())
