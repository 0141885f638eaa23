"""A worker and the other end of its socket, for tests that run on any Python (`PYTHON` names the worker's)."""

import fcntl
import io
import marshal
import mmap
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODULES = (
    "__init__", "capture", "failures", "values", "results", "tables", "memory", "shared", "calls", "yielding", "worker",
)


def text(*path):
    with open(os.path.join(ROOT, "python", *path), encoding="utf-8") as file:
        return file.read()


class Worker:
    def __init__(self, source, lanes=1, env=()):
        self.folder = tempfile.mkdtemp(prefix="bpp-worker-")
        with open(os.path.join(self.folder, "m.py"), "w", encoding="utf-8") as file:
            file.write(source)
        self.slot_file = open(os.path.join(self.folder, "slot"), "w+b")
        self.slot_file.truncate(64 * lanes)
        self.slot = memoryview(mmap.mmap(self.slot_file.fileno(), 64 * lanes)).cast("I")
        self.capture = os.open(os.path.join(self.folder, "capture"), os.O_RDWR | os.O_APPEND | os.O_CREAT)
        self.socket, theirs = socket.socketpair()
        self.process = self.spawn(theirs, lanes, dict(env))
        theirs.close()
        self.reader = self.socket.makefile("rb")
        self.jobs = self.seq = 0
        names = [(("bpp_flow." + m) if m != "__init__" else "bpp_flow", text("bpp_flow", m + ".py")) for m in MODULES]
        self.send(b"S", marshal.dumps(names, 2))
        kind, hello = self.receive()
        assert kind == b"H", kind
        self.hello = marshal.loads(hello)

    def spawn(self, theirs, lanes, env):
        # Descriptors 3 and 4 by way of a shell (Popen cannot place them), from high ones, lest they overlap.
        high = [fcntl.fcntl(file.fileno(), fcntl.F_DUPFD, 20) for file in (theirs, self.slot_file)]
        script = 'exec "$@" 3<&%d 4<&%d %d<&- %d<&-' % (*high, *high)
        python = os.environ.get("PYTHON", sys.executable)
        process = subprocess.Popen(
            ["/bin/bash", "-c", script, "bash", python, "-c", text("bootstrap.py")],
            stdin=subprocess.DEVNULL,
            stdout=self.capture,
            stderr=self.capture,
            cwd=self.folder,
            env={**os.environ, "BPP_FLOW_SLOT_FD": "4", "BPP_FLOW_LANES": str(lanes), **env},
            pass_fds=high,
        )
        for fd in high:
            os.close(fd)
        return process

    def send(self, kind, payload=b""):
        self.socket.sendall(struct.pack("<IB", len(payload), kind[0]) + payload)

    def receive(self):
        head = self.reader.read(5)
        if len(head) < 5:
            return None, b""
        size, kind = struct.unpack("<IB", head)
        return bytes((kind,)), self.reader.read(size)

    def job(self, function, call="row", shape="one", **more):
        self.jobs += 1
        told = {"stage": "s", "shape": shape, "module": "m", "function": function, "call": call,
                "chunk_format": None, "returns": None, "args": {}, "path": self.folder, "init": None, "share": []}
        told.update(more)
        self.send(b"J", struct.pack("<I", self.jobs) + marshal.dumps(told, 2))
        self.shape = shape
        return self.jobs

    def submit(self, job, rows, args=None, env=None, marks=None, lane=0):
        self.seq += 1
        body = marshal.dumps((rows, args, env, marks), 2)
        self.send(b"T", struct.pack("<QII", self.seq, job, lane) + body)
        return self.seq

    def group(self, job, batches, args=None):
        self.seq += 1
        self.send(b"G", struct.pack("<QII", self.seq, job, 0) + marshal.dumps(args or {}, 2))
        for rows in batches:
            self.send(b"R", marshal.dumps((rows, None), 2))
        self.send(b"Z")
        return self.finish()

    def run(self, function, rows, call="row", shape="one", args=None, env=None, marks=None, **more):
        self.submit(self.job(function, call, shape, **more), rows, args, env, marks)
        return self.finish()

    def finish(self):
        """({item: result}, {item: failure}, begun) of the task sent last, or the text of what is broken."""
        done, failed, slow = {}, {}, {}
        while True:
            kind, payload = self.receive()
            if kind is None:
                return done, failed, None
            if kind == b"X":
                return marshal.loads(payload[8:])
            if kind == b"D":
                seq, begun = struct.unpack("<QI", payload)
                assert seq == self.seq
                return done, failed, begun
            assert kind == b"P", kind
            seq, first, items, _mean, _peak = struct.unpack_from("<QIIII", payload)
            told, at = load(payload, 24)
            slow.update(told[0])
            self.slow = slow
            failures = {f[0]: f[1:] for f in told[1]}
            failed.update(failures)
            for item in range(first, first + items):
                if item not in failures:
                    done[item], at = load(payload, at)
            assert at == len(payload)

    def want(self, job):
        """Asks for the rows that a job's function yields."""
        self.seq += 1
        self.send(b"Y", struct.pack("<QI", self.seq, job))

    def yielded(self):
        """(rows, {row: what is wrong with it}, what broke it)."""
        rows, bad = [], {}
        while True:
            kind, payload = self.receive()
            if kind != b"Y":
                return rows, bad, marshal.loads(payload[8:]) if kind == b"X" else None
            rows += self.rows_of(payload, bad)

    def rows_of(self, payload, bad):
        _, count = struct.unpack_from("<QI", payload)
        told, at = load(payload, 12)
        bad.update(told)
        rows = []
        for _ in range(count - len(told)):
            row, at = load(payload, at)
            rows.append(row)
        assert at == len(payload)
        return rows

    def captured(self):
        size = os.lseek(self.capture, 0, os.SEEK_END)
        return os.pread(self.capture, size, 0).decode()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.reader.close()
        self.socket.close()
        self.slot_file.close()
        os.close(self.capture)
        shutil.rmtree(self.folder)


def load(payload, at):
    file = io.BytesIO(payload)
    file.seek(at)
    return marshal.load(file), file.tell()
