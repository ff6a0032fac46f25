#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Serve QEMU's ivshmem-doorbell devices, and raise their MSI-X vectors as Dom0 says.

Start it before QEMU, with one --socket for each device:

    raiser.py --socket /tmp/a.sock --vectors 128 --log raiser.log &
    qemu-system-aarch64 ... -chardev socket,path=/tmp/a.sock,id=a \\
        -device ivshmem-doorbell,vectors=128,chardev=a

It says `ready` on standard output once the sockets can be connected to, and
ends when QEMU has gone. Dom0's exerciser writes its commands to the shared
memory, whose layout is in shm.h, and judges what its handler recorded there.
Nothing here decides whether a test passed.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

# The layout of shm.h; a test compares the two.
SHM_SIZE = 0x10000
SHM_MAGIC = 0x3154494D454E4558
SHM_VECTORS_MAX = 256
OFF_MAGIC = 0x000
OFF_VECTORS = 0x008
OFF_READY = 0x010
OFF_CMD_SEQ = 0x100
OFF_CMD = 0x108
OFF_CMD_FIRST = 0x110
OFF_CMD_COUNT = 0x118
OFF_CMD_ROUNDS = 0x120
OFF_CMD_PAUSE_US = 0x128
OFF_CMD_LIMIT_MS = 0x130
CMD_STOP = 1
CMD_PACED = 2
CMD_STORM = 3
CMD_LINK = 4
OFF_TAKEN = 0x180
OFF_DONE = 0x188
OFF_STATUS = 0x190
OFF_RINGS = 0x198
OFF_LOST = 0x1A0
OFF_FIRST_LOST = 0x1A8
STATUS_OK = 0
STATUS_REFUSED = 1
STATUS_LOST = 2
OFF_RAISED = 0x1000
RAISED_STRIDE = 0x40
OFF_RECORDS = 0x8000
RECORD_STRIDE = 0x40
REC_ACKED = 0x00
REC_CALLS = 0x08
REC_STALE = 0x10
REC_MERGED = 0x18
REC_CPU = 0x20
REC_BACKWARDS = 0x28
REC_CPUS = 0x30

PROTOCOL_VERSION = 0
PEER = 0
"""QEMU's number as an ivshmem peer: the only one."""

IDLE_S = 0.005
"""How often an idle device's command word is looked at."""
LEAST_PAUSE_S = 0.0001
LINK_DOWN_S = 0.05
"""How long a link stays as it is before it changes again."""


class Memory:
    """The shared memory of one device, as 64-bit words.

    A word is read and written by one access, so that the other side never
    sees half of it.
    """

    def __init__(self, vectors: int) -> None:
        self.fd = os.memfd_create("xenits-ivshmem", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, SHM_SIZE)
        self._words = memoryview(mmap.mmap(self.fd, SHM_SIZE)).cast("Q")
        self.put(OFF_VECTORS, vectors)
        self.put(OFF_MAGIC, SHM_MAGIC)

    def get(self, offset: int) -> int:
        """The word at this offset, in bytes."""
        return self._words[offset // 8]

    def put(self, offset: int, value: int) -> None:
        """Write the word at this offset, in bytes."""
        self._words[offset // 8] = value

    def raised(self, vector: int) -> int:
        """Rings of a vector so far."""
        return self.get(OFF_RAISED + vector * RAISED_STRIDE)

    def set_raised(self, vector: int, value: int) -> None:
        """Say that a vector is about to be rung for the `value`th time."""
        self.put(OFF_RAISED + vector * RAISED_STRIDE, value)

    def acked(self, vector: int) -> int:
        """The last ring of a vector that the handler saw."""
        return self.get(OFF_RECORDS + vector * RECORD_STRIDE + REC_ACKED)


class Rings:
    """A command that rings vectors, as far as it has got."""

    def __init__(self, memory: Memory, ring: Callable[[int], None], *, paced: bool) -> None:
        self.memory = memory
        self.ring = ring
        self.paced = paced
        first = memory.get(OFF_CMD_FIRST)
        self.vectors = list(range(first, first + memory.get(OFF_CMD_COUNT)))
        self.rounds = memory.get(OFF_CMD_ROUNDS)
        self.pause = max(memory.get(OFF_CMD_PAUSE_US) / 1e6, LEAST_PAUSE_S)
        self.limit = memory.get(OFF_CMD_LIMIT_MS) / 1e3
        self.rung = dict.fromkeys(self.vectors, 0)
        self.since: dict[int, float] = {}
        self.lost: list[int] = []
        self.stopping = False

    def sane(self, vectors: int) -> bool:
        """Whether the device has the vectors that are asked for, and the rest makes sense."""
        return bool(self.vectors) and self.vectors[-1] < vectors and self.limit > 0

    def sweep(self, now: float) -> bool:
        """Ring what may be rung; whether the command has ended."""
        busy = False
        for vector in self.vectors:
            if vector in self.lost:
                # Nothing is known of it, so leave it alone.
                continue
            if vector in self.since and self.memory.acked(vector) == self.memory.raised(vector):
                del self.since[vector]
            more = not self.stopping and (self.rounds == 0 or self.rung[vector] < self.rounds)
            if more and (vector not in self.since or not self.paced):
                # Written before the ring, so that the handler cannot miss it.
                self.memory.set_raised(vector, self.memory.raised(vector) + 1)
                self.ring(vector)
                self.rung[vector] += 1
                self.since[vector] = now
            elif vector in self.since and now - self.since[vector] > self.limit:
                self.lost.append(vector)
                continue
            busy = busy or vector in self.since or more
        return not busy


class Qmp:
    """As much of QEMU's machine protocol as changing a link needs."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(path)
        self._file = self._socket.makefile("rw", encoding="utf-8")
        self._file.readline()
        self.call("qmp_capabilities")

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()

    def call(self, command: str, **arguments: object) -> None:
        """Have QEMU do something; raises OSError if it does not."""
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        while line := self._file.readline():
            answer = json.loads(line)
            if "return" in answer:
                return
            if "error" in answer:
                raise OSError(f"QMP {command}: {answer['error'].get('desc')}")
        raise OSError(f"QMP {command}: QEMU hung up")


class Links:
    """A command that takes links down and up."""

    def __init__(self, qmp_path: str | None, names: list[str], rounds: int) -> None:
        self.names = names
        self.changes = 2 * rounds
        self.next = 0.0
        self.stopping = False
        self.pause = LINK_DOWN_S
        self._up = True
        self._qmp = Qmp(qmp_path) if qmp_path and names else None

    def close(self) -> None:
        """Hang up."""
        if self._qmp is not None:
            self._qmp.close()

    def sane(self) -> bool:
        """Whether there is a QEMU to ask and a link to change."""
        return self._qmp is not None and self.changes > 0

    def sweep(self, now: float) -> bool:
        """Change all links if it is time; whether the command has ended."""
        if self.changes == 0 or (self.stopping and self._up):
            return True
        if now >= self.next and self._qmp:
            self._up = not self._up
            for name in self.names:
                self._qmp.call("set_link", name=name, up=self._up)
            self.changes -= 1
            self.next = now + LINK_DOWN_S
        return False


class Device:
    """One ivshmem device: its socket, memory and vectors."""

    def __init__(self, path: str, vectors: int, links: Callable[[int], Links], log: TextIO) -> None:
        self.path = path
        self.vectors = vectors
        self.links = links
        self.log = log
        self.memory = Memory(vectors)
        self.events = [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(vectors)]
        self.listener = socket.socket(socket.AF_UNIX)
        Path(path).unlink(missing_ok=True)
        self.listener.bind(path)
        self.listener.listen(1)
        self.client: socket.socket | None = None
        self.had_client = False
        self.work: Rings | Links | None = None
        self.taken = 0
        self.due = 0.0

    def say(self, text: str) -> None:
        """A line of the log."""
        print(f"{time.monotonic():.3f} {Path(self.path).name}: {text}", file=self.log, flush=True)

    def accept(self) -> socket.socket:
        """Take QEMU's connection, and give it memory and vectors."""
        client, _ = self.listener.accept()
        self.client, self.had_client = client, True
        send(client, PROTOCOL_VERSION)
        send(client, PEER)
        send(client, -1, self.memory.fd)
        for event in self.events:
            send(client, PEER, event)
        self.say(f"QEMU connected, {self.vectors} vectors")
        return client

    def ring(self, vector: int) -> None:
        """Raise a vector."""
        os.eventfd_write(self.events[vector], 1)

    def poll(self, now: float) -> float:
        """Go on with the command, or look for a new one. Gives the time to come back at."""
        if now < self.due:
            return self.due
        sequence = self.memory.get(OFF_CMD_SEQ)
        if sequence != self.taken and self._may_take():
            self._take(sequence)
        pause = IDLE_S
        if self.work is not None:
            try:
                ended = self.work.sweep(now)
            except OSError as error:
                self.say(str(error))
                self._finish(STATUS_REFUSED)
            else:
                if ended:
                    lost = isinstance(self.work, Rings) and bool(self.work.lost)
                    self._finish(STATUS_LOST if lost else STATUS_OK)
                else:
                    pause = self.work.pause
        self.due = now + pause
        return self.due

    def _may_take(self) -> bool:
        """Only STOP may come while something is going on; it does not end it at once."""
        if self.work is None:
            return True
        if self.memory.get(OFF_CMD) == CMD_STOP and not self.work.stopping:
            self.work.stopping = True
            self.say("stopping")
        return False

    def _take(self, sequence: int) -> None:
        command = self.memory.get(OFF_CMD)
        rounds = self.memory.get(OFF_CMD_ROUNDS)
        self.taken = sequence
        self.memory.put(OFF_TAKEN, sequence)
        self.say(
            f"command {command} first={self.memory.get(OFF_CMD_FIRST)} count={self.memory.get(OFF_CMD_COUNT)} "
            f"rounds={rounds} pause_us={self.memory.get(OFF_CMD_PAUSE_US)}"
        )
        sane = True
        try:
            if command in (CMD_PACED, CMD_STORM):
                self.work = work = Rings(self.memory, self.ring, paced=command == CMD_PACED)
                sane = work.sane(self.vectors) and not (command == CMD_STORM and rounds == 0)
            elif command == CMD_LINK:
                self.work = links = self.links(rounds)
                sane = links.sane()
            elif command == CMD_STOP:
                # What it was to stop has ended by itself, and its results stand.
                self.memory.put(OFF_DONE, sequence)
            else:
                sane = False
        except OSError as error:
            self.say(str(error))
            sane = False
        if not sane:
            self._finish(STATUS_REFUSED)

    def _finish(self, status: int) -> None:
        work, self.work = self.work, None
        rings, lost = 0, []
        if isinstance(work, Rings):
            rings, lost = sum(work.rung.values()), work.lost
        elif work is not None:
            work.close()
        self.memory.put(OFF_STATUS, status)
        self.memory.put(OFF_RINGS, rings)
        self.memory.put(OFF_LOST, len(lost))
        self.memory.put(OFF_FIRST_LOST, lost[0] if lost else 0)
        self.memory.put(OFF_DONE, self.taken)
        self.say(f"finished status={status} rings={rings} lost={lost}")


def send(client: socket.socket, value: int, fd: int | None = None) -> None:
    """One message of the ivshmem protocol: a number, with a file descriptor or without."""
    ancillary = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", fd))]
    client.sendmsg([struct.pack("<q", value)], ancillary)


def hung_up(client: socket.socket) -> bool:
    """Whether a client that has something to say says that it is gone; else it is ignored."""
    try:
        return not client.recv(64)
    except OSError:
        return True


def serve(devices: list[Device]) -> None:
    """Run until every QEMU that connected has gone."""
    with selectors.DefaultSelector() as selector:
        for device in devices:
            selector.register(device.listener, selectors.EVENT_READ, device)
        while True:
            now = time.monotonic()
            wake = min(device.poll(now) for device in devices)
            for key, _ in selector.select(max(0.0, wake - time.monotonic())):
                device = key.data
                if key.fileobj is device.listener:
                    selector.register(device.accept(), selectors.EVENT_READ, device)
                elif hung_up(device.client):
                    device.say("QEMU has gone")
                    selector.unregister(device.client)
                    device.client.close()
                    device.client = None
            if any(d.had_client for d in devices) and not any(d.client for d in devices):
                return


def main() -> int:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--socket", action="append", required=True, metavar="PATH", help="for one device; repeat")
    parser.add_argument("--vectors", type=int, default=128, help="MSI-X vectors of each device (%(default)s)")
    parser.add_argument("--qmp", metavar="PATH", help="QEMU's QMP socket, for changing links")
    parser.add_argument("--link", action="append", default=[], metavar="ID", help="netdev whose link to change; repeat")
    parser.add_argument("--log", type=Path, help="where to log what it does (default: standard error)")
    args = parser.parse_args()
    if not 1 <= args.vectors <= SHM_VECTORS_MAX:
        parser.error(f"--vectors must be 1 to {SHM_VECTORS_MAX}")
    log = args.log.open("w", encoding="utf-8") if args.log else sys.stderr
    devices = [
        Device(path, args.vectors, lambda rounds: Links(args.qmp, args.link, rounds), log) for path in args.socket
    ]
    print("ready", flush=True)
    try:
        serve(devices)
    except KeyboardInterrupt:
        return 130
    finally:
        for device in devices:
            Path(device.path).unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
