# SPDX-License-Identifier: GPL-2.0-only
"""Tests of the raiser: the protocol, the pacing, and what it makes of silence."""

import array
import io
import json
import os
import re
import socket
import struct
import sys
import tempfile
import threading
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "ivshmem"))
import raiser  # noqa: E402


class Layout(unittest.TestCase):
    def test_same_as_header(self):
        text = (HERE.parent / "ivshmem/shm.h").read_text()
        found = re.findall(r"^#define\s+XENITS_SHM_(\w+)\s+(0x[0-9a-fA-F]+|\d+)(?:ULL)?$", text, re.M)
        self.assertGreater(len(found), 30)
        for name, value in found:
            have = [getattr(raiser, n) for n in (name, "SHM_" + name) if hasattr(raiser, n)]
            self.assertEqual(have, [int(value, 0)], name)

    def test_no_overlap(self):
        end = raiser.OFF_RAISED + raiser.SHM_VECTORS_MAX * raiser.RAISED_STRIDE
        self.assertLessEqual(end, raiser.OFF_RECORDS)
        end = raiser.OFF_RECORDS + raiser.SHM_VECTORS_MAX * raiser.RECORD_STRIDE
        self.assertLessEqual(end, raiser.SHM_SIZE)


class Handler:
    """Stands for the handler in the guest: acknowledges what it is told to."""

    def __init__(self, memory, deaf=()):
        self.memory = memory
        self.deaf = deaf
        self.calls = {}

    def ring(self, vector):
        """At once, as if the interrupt took no time."""
        self.calls[vector] = self.calls.get(vector, 0) + 1
        if vector not in self.deaf:
            self.ack(vector)

    def ack(self, vector):
        offset = raiser.OFF_RECORDS + vector * raiser.RECORD_STRIDE
        self.memory.put(offset, self.memory.raised(vector))


def command(memory, number, sequence, first=0, count=4, rounds=3, limit_ms=1000):
    memory.put(raiser.OFF_CMD, number)
    memory.put(raiser.OFF_CMD_FIRST, first)
    memory.put(raiser.OFF_CMD_COUNT, count)
    memory.put(raiser.OFF_CMD_ROUNDS, rounds)
    memory.put(raiser.OFF_CMD_LIMIT_MS, limit_ms)
    memory.put(raiser.OFF_CMD_SEQ, sequence)


class Pacing(unittest.TestCase):
    def rings(self, deaf=(), paced=True, **fields):
        memory = raiser.Memory(8)
        command(memory, raiser.CMD_PACED, 1, **fields)
        handler = Handler(memory, deaf)
        return memory, handler, raiser.Rings(memory, handler.ring, paced=paced)

    def sweep(self, rings, start=0.0, step=0.1, most=100):
        for i in range(most):
            if rings.sweep(start + i * step):
                return i
        self.fail("no end")

    def test_each_vector_as_often_as_asked(self):
        memory, handler, rings = self.rings(first=2, count=3, rounds=5)
        self.sweep(rings)
        self.assertEqual(handler.calls, {2: 5, 3: 5, 4: 5})
        self.assertEqual([memory.raised(v) for v in range(8)], [0, 0, 5, 5, 5, 0, 0, 0])
        self.assertEqual(rings.lost, [])

    def test_paced_waits_for_acknowledgement(self):
        memory, handler, rings = self.rings(deaf=(1,), rounds=2)
        for i in range(5):
            self.assertFalse(rings.sweep(0.1 * i))
        self.assertEqual(handler.calls[1], 1)
        self.assertEqual(handler.calls[0], 2)
        handler.ack(1)
        rings.sweep(0.6)
        self.assertEqual(handler.calls[1], 2)
        handler.ack(1)
        self.assertTrue(rings.sweep(0.7))

    def test_paced_gives_up_on_a_silent_vector_only(self):
        _, handler, rings = self.rings(deaf=(3,), rounds=40, limit_ms=500)
        self.sweep(rings)
        self.assertEqual(rings.lost, [3])
        self.assertEqual(handler.calls, {0: 40, 1: 40, 2: 40, 3: 1})

    def test_storm_does_not_wait_but_notices_a_lost_end(self):
        _, handler, rings = self.rings(deaf=(0,), paced=False, rounds=50)
        self.sweep(rings)
        self.assertEqual(handler.calls, dict.fromkeys(range(4), 50))
        self.assertEqual(rings.lost, [0])

    def test_stop_waits_for_what_is_under_way(self):
        _, handler, rings = self.rings(deaf=(2,), rounds=0)
        rings.sweep(0.0)
        rings.stopping = True
        self.assertFalse(rings.sweep(0.1))
        handler.ack(2)
        self.assertTrue(rings.sweep(0.2))
        self.assertEqual(handler.calls[2], 1)

    def test_refuses_vectors_that_are_not_there(self):
        _, _, rings = self.rings(first=6, count=3)
        self.assertFalse(rings.sane(8))
        self.assertTrue(rings.sane(9))
        _, _, rings = self.rings(count=0)
        self.assertFalse(rings.sane(8))


def receive(client):
    """One message: the number, and the file descriptors with it."""
    data, ancillary, _, _ = client.recvmsg(8, socket.CMSG_SPACE(4))
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload)
    return struct.unpack("<q", data)[0], list(fds)


class Served(unittest.TestCase):
    """A device in a thread of its own, with this test as its QEMU."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.qmp = None
        self.device = raiser.Device(
            str(self.folder / "s"), 5, lambda rounds: raiser.Links(self.qmp, ["net0", "net1"], rounds), io.StringIO()
        )
        self.thread = threading.Thread(target=raiser.serve, args=([self.device],), daemon=True)
        self.thread.start()
        self.client = socket.socket(socket.AF_UNIX)
        self.client.settimeout(10)
        self.client.connect(str(self.folder / "s"))
        self.fds = []

    def tearDown(self):
        self.client.close()
        self.thread.join(10)
        self.assertFalse(self.thread.is_alive(), "it must end when QEMU has gone")
        for fd in self.fds:
            os.close(fd)

    def greet(self):
        said = [receive(self.client) for _ in range(3 + 5)]
        for _, fds in said:
            self.fds += fds
        return said

    def done(self, sequence):
        for _ in range(2000):
            if self.device.memory.get(raiser.OFF_DONE) == sequence:
                return self.device.memory.get(raiser.OFF_STATUS)
            threading.Event().wait(0.005)
        self.fail("the command did not end")

    def test_greets_as_the_protocol_says(self):
        said = self.greet()
        self.assertEqual([value for value, _ in said], [0, 0, -1, 0, 0, 0, 0, 0])
        self.assertEqual([len(fds) for _, fds in said], [0, 0, 1, 1, 1, 1, 1, 1])
        self.assertEqual(os.fstat(said[2][1][0]).st_size, raiser.SHM_SIZE)
        self.assertEqual(struct.unpack("=Q", os.pread(said[2][1][0], 8, 0))[0], raiser.SHM_MAGIC)

    def test_rings_through_the_eventfd_of_the_vector(self):
        said = self.greet()
        command(self.device.memory, raiser.CMD_STORM, 7, first=1, count=2, rounds=3, limit_ms=50)
        self.assertEqual(self.done(7), raiser.STATUS_LOST)
        self.assertEqual(os.eventfd_read(said[3 + 1][1][0]), 3)
        self.assertEqual(os.eventfd_read(said[3 + 2][1][0]), 3)
        self.assertRaises(BlockingIOError, os.eventfd_read, said[3][1][0])
        self.assertEqual(self.device.memory.get(raiser.OFF_RINGS), 6)
        self.assertEqual(self.device.memory.get(raiser.OFF_LOST), 2)
        self.assertEqual(self.device.memory.get(raiser.OFF_FIRST_LOST), 1)

    def test_stop_reports_what_it_stopped(self):
        self.greet()
        command(self.device.memory, raiser.CMD_PACED, 1, count=5, rounds=0, limit_ms=60000)
        while self.device.memory.get(raiser.OFF_TAKEN) != 1:
            threading.Event().wait(0.005)
        while not all(self.device.memory.raised(v) for v in range(5)):
            threading.Event().wait(0.005)
        self.device.memory.put(raiser.OFF_CMD, raiser.CMD_STOP)
        self.device.memory.put(raiser.OFF_CMD_SEQ, 2)
        for vector in range(5):
            Handler(self.device.memory).ack(vector)
        self.assertEqual(self.done(2), raiser.STATUS_OK)
        self.assertEqual(self.device.memory.get(raiser.OFF_LOST), 0)

    def test_refuses_what_it_does_not_know(self):
        self.greet()
        command(self.device.memory, 99, 1)
        self.assertEqual(self.done(1), raiser.STATUS_REFUSED)
        command(self.device.memory, raiser.CMD_PACED, 2, first=3, count=3)
        self.assertEqual(self.done(2), raiser.STATUS_REFUSED)
        command(self.device.memory, raiser.CMD_LINK, 3)
        self.assertEqual(self.done(3), raiser.STATUS_REFUSED)

    def test_changes_links_by_qmp(self):
        self.greet()
        self.qmp = str(self.folder / "qmp")
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(self.qmp)
        listener.listen(1)
        command(self.device.memory, raiser.CMD_LINK, 1, rounds=2)
        connection, _ = listener.accept()
        file = connection.makefile("rw")
        said = []
        file.write('{"QMP": {}}\n')
        file.flush()
        for _ in range(1 + 2 * 2 * 2):
            said.append(json.loads(file.readline()))
            file.write('{"event": "SOMETHING"}\n{"return": {}}\n')
            file.flush()
        self.assertEqual(self.done(1), raiser.STATUS_OK)
        asked = [(s["arguments"]["name"], s["arguments"]["up"]) for s in said[1:]]
        self.assertEqual(asked, [("net0", False), ("net1", False), ("net0", True), ("net1", True)] * 2)
        file.close()
        connection.close()


if __name__ == "__main__":
    unittest.main()
