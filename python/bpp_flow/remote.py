"""Inside an engine's worker process: gives tasks to keepers, each a process beside it, and collects what they say.

This text travels by value, alone. A runtime is the dict of the hub's `R` frame with one more entry, "remote": this
text. It is installed once in a process, and run with payloads after that:

    g = {"__name__": "_bpp_flow_remote"}
    exec(compile(runtime["remote"], "<bpp-flow>", "exec"), g)
    g["install"](runtime).run(payload)                                  # the first time
    sys.modules["_bpp_flow_remote_" + payload["runtime"]].run(payload)  # after that

A payload is a dict, all of whose values are bytes as the hub sent them, or plain numbers and text:

    "runtime"  str: the runtime's "name"
    "pool"     (number, bytes): what is in the `P` frame, the marshal dict as bytes
    "job"      (number, bytes): what is in the `J` frame, the marshal dict as bytes
    "task"     bytes: the payload of the `T` frame, whole
    "body"     list of bytes: what the `B` frames of this task hold behind the number, in their order; mostly []
    "blobs"    dict from digest (hex) to bytes: what earlier calls asked for; mostly {}

`run` gives bytes, whole frames for the hub (`p`, `i`, and one `e` at the end, all of the task's own number), or
("need", digest in hex): the same payload is wanted again, with that blob among its "blobs".
It never raises for what happens to a task. Any thread may call it, several at once.
"""

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from marshal import dumps
from types import ModuleType

PREFIX = "_bpp_flow_remote_"
# A keeper that is idle for 60 seconds ends by itself; one that may be about to is not used.
USABLE = 45
LARGE = 1 << 20

HEAD = struct.Struct("<IB")
NUMBER = struct.Struct("<I")
NUMBERS = struct.Struct("<II")
SEQ = struct.Struct("<Q")
END = struct.Struct("<QBIiIBI")
LOST = 4
# The keeper's socket becomes descriptor 3.
PLACE = "import os\nif %d != 3:\n    os.dup2(%d, 3)\n    os.close(%d)\ndel os\n"


def install(runtime):
    """The module of this runtime, made if there is none yet."""
    name = PREFIX + runtime["name"]
    if name not in sys.modules:
        module = ModuleType(name)
        module.run = Remote(runtime).run
        sys.modules.setdefault(name, module)
    return sys.modules[name]


class Gone(Exception):
    """The keeper has ended."""


class Remote:
    """The keepers of a process that runs tasks of one runtime."""

    def __init__(self, runtime):
        self.runtime = runtime
        told = {name: runtime[name] for name in ("worker", "node", "bootstrap", "name", "leash")}
        self.hello = frame(b"R", dumps(told, 2))
        self.forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget)

    def forget(self):
        """A forked process has keepers of its own. The others' sockets must end with their owner."""
        for keeper in getattr(self, "all", ()):
            keeper.socket.close()
            # No child of this process.
            keeper.process.returncode = 0
        self.lock = threading.Lock()
        self.idle = []
        self.all = set()

    def run(self, payload):
        (seq,) = SEQ.unpack_from(payload["task"])
        frames = []
        try:
            keeper = self.take(payload)
        except OSError as error:
            return lost(seq, frames, "no keeper can be started: %s" % error)
        whole = False
        try:
            need = keeper.run(payload, seq, frames)
            whole = True
        except (Gone, OSError):
            need = None
        finally:
            self.give_back(keeper, whole)
        if not whole:
            return lost(seq, frames, "its keeper %s" % keeper.ending())
        return ("need", need) if need else b"".join(frames)

    def take(self, payload):
        """The idle keeper that knows most of what is needed, or a new one."""
        now = time.monotonic()
        with self.lock:
            for keeper in [keeper for keeper in self.idle if now - keeper.used > USABLE or keeper.has_ended()]:
                self.idle.remove(keeper)
                self.all.discard(keeper)
                keeper.end()
            fits = [keeper for keeper in self.idle if keeper.agrees(payload)]
            if fits:
                # Of equal ones, the one that has been idle for longest: a pool of its own may come back to the others.
                keeper = max(fits, key=lambda each: each.knows(payload))
                self.idle.remove(keeper)
                return keeper
        keeper = Keeper(self.runtime, self.hello)
        with self.lock:
            self.all.add(keeper)
        return keeper

    def give_back(self, keeper, whole):
        keeper.used = time.monotonic()
        with self.lock:
            if whole and keeper in self.all:
                return self.idle.append(keeper)
            self.all.discard(keeper)
        keeper.end()


class Keeper:
    """A process that looks after one worker, and the socket to it."""

    def __init__(self, runtime, hello):
        self.socket, theirs = socket.socketpair()
        fd = theirs.fileno()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-S", "-c", PLACE % (fd, fd, fd) + runtime["bootstrap"]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[fd],
                start_new_session=True,
            )
        self.unsent = [runtime["node"], hello]
        self.pools = {}
        self.jobs = {}
        self.last = None
        self.used = time.monotonic()
        self.received = bytearray()

    def agrees(self, payload):
        """Whether no number means something else to it."""
        pool, job = payload["pool"], payload["job"]
        return self.pools.get(pool[0], pool[1]) == pool[1] and self.jobs.get(job[0], job) == job

    def knows(self, payload):
        """How much of what is needed it had last."""
        if self.last is None:
            return 0
        pool, job = self.last
        return (pool == payload["pool"][0]) + (pool == payload["pool"][0] and job == payload["job"][0])

    def run(self, payload, seq, frames):
        """Collects what the hub is to get; the digest of what is missing, if something is."""
        send, self.unsent = self.unsent, []
        self.tell_of(payload, send)
        for part in payload["body"]:
            send += head(b"B", SEQ.size + len(part)), SEQ.pack(seq), part
        send += head(b"T", len(payload["task"])), payload["task"]
        self.send(send)
        need = None
        while True:
            kind, whole = self.receive()
            if kind == b"n":
                digest = bytes(whole[HEAD.size:])
                if digest.hex() in payload["blobs"]:
                    content = payload["blobs"][digest.hex()]
                    self.send([head(b"U", len(digest) + len(content)), digest, content])
                elif need is None:
                    need = digest.hex()
                    self.socket.sendall(frame(b"C", SEQ.pack(seq)))
            elif kind == b"i":
                frames.append(whole)
            elif kind in (b"p", b"e") and SEQ.unpack_from(whole, HEAD.size)[0] == seq:
                frames.append(whole)
                if kind == b"e":
                    return need

    def tell_of(self, payload, send):
        """What it does not know yet of the pool and the job."""
        (pool, told_pool), (job, told_job) = payload["pool"], payload["job"]
        if pool not in self.pools:
            send.append(frame(b"P", NUMBER.pack(pool), told_pool))
            self.pools[pool] = told_pool
        if job not in self.jobs:
            send.append(frame(b"J", NUMBERS.pack(job, pool), told_job))
            self.jobs[job] = payload["job"]
        self.last = pool, job

    def send(self, parts):
        """Small parts go together, large ones as they are."""
        if sum(map(len, parts)) < LARGE:
            return self.socket.sendall(b"".join(parts))
        for part in parts:
            self.socket.sendall(part)

    def receive(self):
        """The kind of the next frame, and the frame."""
        self.read(HEAD.size)
        size, kind = HEAD.unpack_from(self.received)
        end = HEAD.size + size
        self.read(end)
        whole = self.received[:end]
        del self.received[:end]
        return bytes((kind,)), whole

    def read(self, size):
        """Has so many bytes at hand."""
        while len(self.received) < size:
            data = self.socket.recv(min(1 << 20, max(1 << 16, size - len(self.received))))
            if not data:
                raise Gone
            self.received += data

    def has_ended(self):
        return self.process.poll() is not None

    def end(self):
        """The end of its socket ends it, and what it looks after."""
        self.socket.close()
        threading.Thread(target=self.process.wait, daemon=True).start()

    def ending(self):
        """How it ended, in words."""
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "stopped talking"
        return "was killed by signal %d" % -code if code < 0 else "ended with code %d" % code


def head(kind, size):
    return HEAD.pack(size, kind[0])


def frame(kind, *parts):
    return head(kind, sum(map(len, parts))) + b"".join(parts)


def lost(seq, frames, text):
    """What there is, and that the rest will not come."""
    return b"".join(frames + [frame(b"e", END.pack(seq, LOST, 0, 0, 0, 0, 0), text.encode("utf-8", "replace"))])
