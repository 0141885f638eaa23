"""A bridge and the other end of its socket, for tests and measurements (`PYTHON` names the bridge's interpreter)."""

import fcntl
import marshal
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

from harness import text

PYTHON = os.environ.get("PYTHON", sys.executable)
MPIEXEC = shutil.which("mpiexec", path=os.path.dirname(PYTHON)) or shutil.which("mpiexec")
# For more processes than processors, and for root, of Open MPI 5.
MPI_ENV = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe", "OMPI_MCA_mpi_yield_when_idle": "1",
}

MODULES = ("__init__", "engines", "bridge")
MARK = "BPP_FLOW_TEST_MARK"
LOST, REFUSED = 4, 5

# Stands in for what runs in an engine's workers: does what the body of the task says.
REMOTE = """
import marshal, os, signal, struct, sys, time
from types import ModuleType

def install(runtime):
    name = "_bpp_flow_remote_" + runtime["name"]
    module = sys.modules[name] = ModuleType(name)
    module.run = run
    return module

def frame(kind, payload):
    return struct.pack("<IB", len(payload), kind[0]) + payload

def run(payload):
    seq = struct.unpack_from("<Q", payload["task"])[0]
    body = b"".join(payload["body"]) + payload["task"][25:]
    what, value = marshal.loads(body)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "sleep":
        time.sleep(value)
    elif what == "raise":
        raise ValueError(value)
    elif what == "environment":
        value = os.environ.get(value)
    elif what == "blob":
        if value not in payload["blobs"]:
            return "need", value
        value = payload["blobs"][value]
    elif what == "told":
        value = marshal.loads(payload["pool"][1]), marshal.loads(payload["job"][1])
    end = struct.pack("<QBIiIBI", seq, 0, 1, 0, 0, 0, 0)
    part = struct.pack("<QB", seq, ord("P")) + marshal.dumps((os.getpid(), value), 2)
    return frame(b"p", part) + frame(b"e", end)
"""


class Hub:
    """Starts a bridge and says all that comes before the first task."""

    def __init__(self, kind, options=None, folder=None, env=(), python=None, remote=REMOTE, launch=None):
        self.folder = folder or tempfile.mkdtemp(prefix="bpp-bridge-")
        self.python = python or PYTHON
        self.mark = "%d-%s" % (os.getpid(), os.urandom(6).hex())
        self.log = tempfile.TemporaryFile()
        env = {**os.environ, MARK: self.mark, **dict(env)}
        if launch:
            self.launch(launch, env)
        else:
            self.inherit(env)
        self.reader = self.socket.makefile("rb", 1 << 18)
        self.seq = 0
        self.slots = None
        self.capacities = []
        self.needed = []
        names = [(("bpp_flow." + m) if m != "__init__" else "bpp_flow", text("bpp_flow", m + ".py")) for m in MODULES]
        told = {"kind": kind, "options": options or {}, "name": "far", "dir": self.folder}
        runtime = {"name": self.mark, "worker": b"", "node": b"", "bootstrap": "", "leash": None, "remote": remote}
        pool = {"python": None, "env": [("A", "b")], "cwd": "/"}
        job = b"J" * 5 + struct.pack("<I", 1) + marshal.dumps({"stage": "fold"}, 2)
        self.send(b"S", marshal.dumps(names, 2))
        self.send(b"O", marshal.dumps(told, 2))
        self.send(b"R", marshal.dumps(runtime, 2))
        self.send(b"P", struct.pack("<I", 1) + marshal.dumps(pool, 2))
        self.send(b"J", struct.pack("<II", 1, 1) + marshal.dumps({"frame": job, "keep_stdout": False}, 2))

    def inherit(self, env):
        """The bridge finds its socket as descriptor 3."""
        self.socket, theirs = socket.socketpair()
        high = fcntl.fcntl(theirs, fcntl.F_DUPFD, 20)
        script = 'exec "$@" 3<&%d %d<&-' % (high, high)
        self.spawn(["/bin/bash", "-c", script, "bash", self.python, "-c", text("bootstrap.py")], env, (high,))
        os.close(high)
        theirs.close()

    def launch(self, launch, env):
        """The bridge is started by a launcher that passes no descriptors on, and connects."""
        private = tempfile.mkdtemp(prefix="bpp-launch-")
        script, path = (os.path.join(private, name) for name in ("bridge.py", "socket"))
        with open(script, "w", encoding="utf-8") as file:
            file.write(text("launched.py"))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(60)
        env = {**env, "BPP_FLOW_BRIDGE": path}
        self.spawn([script if word == "SCRIPT" else word for word in launch], env)
        try:
            self.socket = listener.accept()[0]
        except TimeoutError:
            raise AssertionError(self.told()) from None
        finally:
            listener.close()
        self.private = private

    def spawn(self, argv, env, fds=()):
        self.process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=env, pass_fds=fds,
            cwd=self.folder, start_new_session=True,
        )

    def send(self, kind, payload=b""):
        self.socket.sendall(struct.pack("<IB", len(payload), kind[0]) + payload)

    def receive(self, beats=False):
        """The next frame, mostly not a beat: kind and payload; (None, b"") at the end."""
        while True:
            head = self.reader.read(5)
            if len(head) < 5:
                return None, b""
            size, kind = struct.unpack("<IB", head)
            payload = self.reader.read(size)
            if beats or kind != ord("b"):
                return bytes((kind,)), payload

    def hello(self):
        """What the bridge says of itself; an assertion with its words if it cannot be used."""
        kind, payload = self.receive()
        if kind != b"h":
            raise AssertionError((kind, payload.decode("utf-8", "replace"), self.told()))
        told = marshal.loads(payload)
        self.slots = told["slots"]
        return told

    def trouble(self, seconds=60):
        """The text of `x`, and how long it took."""
        begun = time.monotonic()
        while True:
            kind, payload = self.receive(beats=True)
            if kind == b"x":
                return payload.decode(), time.monotonic() - begun
            if kind is None or time.monotonic() > begun + seconds:
                raise AssertionError(self.told())

    def await_slots(self, enough, seconds=30):
        """Reads frames until so many tasks can run at once."""
        end = time.monotonic() + seconds
        while not enough(self.slots):
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.socket], [], [], left)[0]:
                raise AssertionError("slots stay %r" % self.slots)
            kind, payload = self.receive(beats=True)
            assert kind in (b"b", b"c"), (kind, payload)
            if kind == b"c":
                self.capacity(payload)
        return self.slots

    def capacity(self, payload):
        self.capacities.append(marshal.loads(payload))
        self.slots = self.capacities[-1]["slots"]

    def task(self, what="echo", value=None, body=None):
        """Sends a task of one item; gives its number."""
        self.seq += 1
        if body is None:
            body = marshal.dumps((what, value), 2)
        self.send(b"T", struct.pack("<QIIIIB", self.seq, 1, 1, 1, 0, 0) + body)
        return self.seq

    def until(self, ended, blobs=()):
        """Reads until so many tasks have ended: ({seq: (pid, value)}, {seq: (how, text)} of those that are not done)."""
        values, ends, bad = {}, set(), {}
        while len(ends) < ended:
            kind, payload = self.receive()
            if kind == b"p":
                values[struct.unpack_from("<Q", payload)[0]] = marshal.loads(payload[9:])
            elif kind == b"e":
                seq, how = struct.unpack_from("<QB", payload)
                assert seq not in ends, "task %d ended twice" % seq
                ends.add(seq)
                if how:
                    bad[seq] = how, payload[26:].decode()
            elif kind == b"c":
                self.capacity(payload)
            elif kind == b"n":
                self.needed.append(payload.hex())
                self.send(b"U", payload + dict(blobs)[payload.hex()])
            else:
                raise AssertionError((kind, payload, self.told()))
        return values, bad

    def told(self):
        """What the bridge, and what it started, wrote."""
        self.log.seek(0)
        return self.log.read().decode("utf-8", "replace")

    def left(self):
        """The processes that carry this bridge's mark."""
        found = []
        for pid in os.listdir("/proc"):
            try:
                with open("/proc/%s/environ" % pid, "rb") as file:
                    environment = file.read()
                with open("/proc/%s/cmdline" % pid, "rb") as file:
                    command = file.read()
            except (OSError, ValueError):
                continue
            if ("%s=%s" % (MARK, self.mark)).encode() in environment and command:
                found.append((int(pid), command.replace(b"\0", b" ")[:100]))
        return found

    def gone(self, seconds=8.0):
        """What is left of the bridge after some seconds, as soon as it is nothing."""
        end = time.monotonic() + seconds
        self.process.wait(timeout=seconds)
        while self.left() and time.monotonic() < end:
            time.sleep(0.02)
        return self.left()

    def cut(self):
        """bpp-flow is gone."""
        self.socket.shutdown(socket.SHUT_RDWR)
        self.reader.close()
        self.socket.close()

    def close(self):
        if not self.reader.closed:
            self.cut()
        try:
            left = self.gone()
        except subprocess.TimeoutExpired:
            left = self.left()
        for pid, _ in left:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        if hasattr(self, "private"):
            shutil.rmtree(self.private)
