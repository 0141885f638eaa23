"""The hub's side of a keeper, for tests: its frames, and what comes back."""

import marshal
import os
import socket
import struct
import subprocess
import sys
import time

from harness import MODULES, ROOT, load, text

NODE = ("__init__", "processes", "frames", "tasks", "cache", "guard", "child", "commands", "node")
PYTHON = os.environ.get("PYTHON", sys.executable)
END = struct.Struct("<QBIiIBI")
DONE, BROKEN, DIED, TIMED_OUT, LOST, REFUSED, SILENT = range(7)
HOME = os.path.join(ROOT, "python")


def frame(kind, *parts):
    payload = b"".join(parts)
    return struct.pack("<IB", len(payload), kind[0]) + payload


def sources(names):
    told = [(("bpp_flow." + name) if name != "__init__" else "bpp_flow", text("bpp_flow", name + ".py")) for name in names]
    return frame(b"S", marshal.dumps(told, 2))


def runtime(leash=None, name="test"):
    return {"worker": sources(MODULES), "node": sources(NODE), "bootstrap": text("bootstrap.py"), "name": name,
            "leash": leash, "remote": text("bpp_flow", "remote.py")}


def pool(folder, **more):
    told = {"python": {"interpreter": None, "path": folder}, "env": [], "cwd": folder, "memory": None,
            "most_items": None, "upload": [], "share": []}
    told.update(more)
    return marshal.dumps(told, 2)


def job(number, folder, function, call="row", shape="one", share=(), **more):
    """The worker's own frame of a job."""
    told = {"stage": "s", "shape": shape, "module": "m", "function": function, "call": call, "chunk_format": None,
            "returns": None, "args": {}, "path": folder, "init": None, "share": list(share)}
    told.update(more)
    return marshal.dumps({"frame": frame(b"J", struct.pack("<I", number), marshal.dumps(told, 2)), "keep_stdout": False}, 2)


COMMANDS_JOB = marshal.dumps({"frame": None, "keep_stdout": True}, 2)


def task(seq, job, pool, items, form, timeout, body):
    return struct.pack("<QIIIIB", seq, job, pool, items, int(timeout * 1000), form) + body


def rows_body(seq, job, rows):
    return frame(b"T", struct.pack("<QII", seq, job, 0), marshal.dumps((rows, None, None, None), 2))


def group_body(seq, job, batches, args=None):
    parts = [frame(b"G", struct.pack("<QII", seq, job, 0), marshal.dumps(args or {}, 2))]
    parts += [frame(b"R", marshal.dumps((rows, None), 2)) for rows in batches]
    return b"".join(parts) + frame(b"Z")


def command(*argv, env=(), cwd=None, stdin=None):
    return (list(argv), list(env), cwd, stdin)


class Outcome:
    """What became of a task."""

    def __init__(self):
        self.done, self.failed, self.results = {}, {}, {}
        self.how = None

    def take(self, payload):
        kind, rest = payload[8:9], payload[9:]
        if kind == b"C":
            for index, *fields in marshal.loads(rest):
                assert index not in self.results
                self.results[index] = tuple(fields)
            return
        _, first, items, _mean, _peak = struct.unpack_from("<QIIII", rest)
        told, at = load(rest, 24)
        failures = {f[0]: f[1:] for f in told[1]}
        assert not set(failures) & set(self.failed)
        self.failed.update(failures)
        for item in range(first, first + items):
            if item not in failures:
                assert item not in self.done
                self.done[item], at = load(rest, at)

    def end(self, payload):
        _, self.how, self.begun, self.status, self.peak, self.over, self.word = END.unpack_from(payload)
        self.text = payload[END.size:].decode()


class Hub:
    """Speaks with a keeper on a socket."""

    def __init__(self, sock):
        self.socket = sock
        self.socket.settimeout(30)
        self.received = bytearray()
        self.told = []
        self.beats = 0
        self.outcomes = {}

    def send(self, kind, *parts):
        self.socket.sendall(frame(kind, *parts))

    def receive(self, timeout=30):
        """The next frame: (kind, payload); (None, b"") at the end of the stream."""
        self.socket.settimeout(timeout)
        while True:
            if len(self.received) >= 5:
                size, kind = struct.unpack_from("<IB", self.received)
                if len(self.received) >= 5 + size:
                    payload = bytes(self.received[5:5 + size])
                    del self.received[:5 + size]
                    if kind == 98:
                        self.beats += 1
                        continue
                    return bytes((kind,)), payload
            try:
                data = self.socket.recv(1 << 20)
            except (ConnectionError, BrokenPipeError):
                data = b""
            if not data:
                return None, b""
            self.received += data

    def begin(self, runtime):
        self.send(b"R", marshal.dumps(runtime, 2))

    def pool(self, number, told):
        self.send(b"P", struct.pack("<I", number), told)

    def job(self, number, pool, told):
        self.send(b"J", struct.pack("<II", number, pool), told)

    def task(self, seq, job, pool, items, form, body, timeout=0):
        self.send(b"T", task(seq, job, pool, items, form, timeout, body))

    def rows(self, seq, job, pool, rows, timeout=0):
        self.task(seq, job, pool, len(rows), 0, rows_body(seq, job, rows), timeout)

    def commands(self, seq, job, pool, items, timeout=0):
        self.task(seq, job, pool, len(items), 1, marshal.dumps(items, 2), timeout)

    def outcome(self, seq, blobs=None):
        """What becomes of that task; what is heard of others is kept for them."""
        while self.outcomes.setdefault(seq, Outcome()).how is None:
            kind, payload = self.receive()
            assert kind is not None, "the keeper is gone"
            if kind == b"n" and blobs is not None:
                self.send(b"U", payload, blobs[payload.hex()])
            elif kind in (b"p", b"e"):
                outcome = self.outcomes.setdefault(struct.unpack_from("<Q", payload)[0], Outcome())
                outcome.take(payload) if kind == b"p" else outcome.end(payload)
            else:
                self.told.append((kind, payload))
        return self.outcomes.pop(seq)


SERVE = """
import socket, sys
sys.path.insert(0, %r)
from bpp_flow import node, frames
keeper = node.serve(frames.Stream(socket.socket(fileno=int(sys.argv[1]))))
"""


def started(local=False):
    """A hub, and the process of a keeper on the other end of its socket."""
    ours, theirs = socket.socketpair()
    fd = theirs.fileno()
    if local:
        place = "import os\nos.dup2(%d, 3) if %d != 3 else None\n" % (fd, fd)
        argv = [PYTHON, "-S", "-c", place + text("bootstrap.py")]
    else:
        argv = [PYTHON, "-c", SERVE % HOME, str(fd)]
    process = subprocess.Popen(argv, pass_fds=[fd], stdin=subprocess.DEVNULL, start_new_session=True)
    theirs.close()
    hub = Hub(ours)
    if local:
        ours.sendall(runtime()["node"])
    return hub, process


def certificate(folder, name="own"):
    """A certificate that signs itself, and its key: files."""
    key, certificate = (os.path.join(folder, name + end) for end in (".key", ".pem"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=bpp-flow"],
        check=True, capture_output=True,
    )
    return certificate, key


def tree(pid):
    """A process with all that descends from it."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name, "rb") as file:
                    found[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                pass
    tree = [pid]
    for each in tree:
        tree += [child for child, parent in found.items() if parent == each]
    return tree


def is_running(pid):
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def eventually(condition, seconds=5):
    """Whether it comes to be within that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def number_in(folder, name="pid"):
    """The process number that an item wrote to a file, once it is there."""
    path = os.path.join(folder, name)
    assert eventually(lambda: os.path.exists(path) and os.path.getsize(path) > 0), "no item wrote its number"
    with open(path) as file:
        return int(file.read().split()[0])
