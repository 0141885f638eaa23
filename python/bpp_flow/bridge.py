"""The process that holds an engine's client: each task of bpp-flow becomes one task of the engine.

It decides nothing: who is blamed, what is tried again and what is sent when is bpp-flow's business. The main thread
reads frames, submits and writes; the threads of the engine only say which future is done. The frames are described in
`docs/architecture.md`.
"""

import collections
import concurrent.futures
import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from marshal import dumps, loads

from . import engines

PROTOCOL = 1
READ = 1 << 18  # bytes that are read at a time
BUFFERS = 256  # buffers that are written at a time
OFTEN = 0.001  # seconds between rounds from which on more of them are
NAP = 0.0001  # seconds of sleep, in which frames and results gather, and the engine's threads are left alone
BEAT = 9.0  # seconds of silence until a beat is sent
WATCH = 0.5  # seconds between looks at the engine
HANGS = 30.0  # seconds until an engine that does not say how many workers it has is given up
PATIENCE = 5.0  # seconds in which the engine's client may be closed
RENEWALS = 3  # pools made anew one after the other without a single result

BROKEN, LOST, REFUSED = 1, 4, 5  # how a task ended

HEAD = struct.Struct("<IB")
NUMBER = struct.Struct("<I")
JOB = struct.Struct("<II")
SEQ = struct.Struct("<Q")
TASK = struct.Struct("<QIIIIB")
END = struct.Struct("<QBIiIBI")

# What the engine runs, with `eval`: a builtin function and a text, which every engine can pickle and every worker has.
# It is short, for it is compiled each time.
CALL = "m[n].run(p)if n in(m:=__import__('sys').modules)else('need','runtime')"
INSTALL = (
    "(lambda g: (exec(compile(r['remote'], '<bpp-flow>', 'exec'), g), g['install'](r).run(p))[1])"
    "({'__name__': '_bpp_flow_remote'})"
)

# Sees to it that what the bridge started ends with it: reads until the bridge is gone, then kills what is of its
# session or carries its mark, and removes the folders that it was told of. A process of its own, for the bridge may
# be killed.
GUARD = """
import os, shutil, signal, sys, time
mark, session = sys.argv[1].encode(), int(sys.argv[2])
folders = sys.stdin.read().splitlines()
def ours(pid):
    try:
        with open("/proc/%s/environ" % pid, "rb") as file:
            return mark in file.read() or session and os.getsid(int(pid)) == session
    except OSError:
        return False
for _ in range(50):
    found = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and ours(pid)] if os.path.isdir("/proc/1") else []
    if session:
        try:
            os.killpg(session, signal.SIGKILL)
        except OSError:
            pass
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    if not found:
        break
    time.sleep(0.05)
for folder in folders:
    shutil.rmtree(folder, ignore_errors=True)
"""


class Ended(Exception):
    """bpp-flow wants no more of this process, or is gone."""


class Link:
    """The stream of frames. Once the first was read, neither reading nor writing ever waits."""

    def __init__(self, reader):
        self.reader = reader
        self.fd = reader.fileno()
        os.set_inheritable(self.fd, False)
        self.buffer = bytearray()
        self.out = []
        self.sent = time.monotonic()

    def first(self):
        """The payload of the first frame."""
        head = self.reader.read(HEAD.size)
        if len(head) < HEAD.size:
            raise Ended
        payload = self.reader.read(HEAD.unpack(head)[0])
        os.set_blocking(self.fd, False)
        self.buffer += self.reader.peek()
        return payload

    def receive(self):
        """Reads what has come."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self.fd, READ)
            if not data:
                raise Ended
            self.buffer += data

    def frames(self):
        """The whole frames that were read: kind and payload."""
        buffer, at, frames = self.buffer, 0, []
        with memoryview(buffer) as view:
            while len(buffer) - at >= HEAD.size:
                size, kind = HEAD.unpack_from(buffer, at)
                begin = at + HEAD.size
                if begin + size > len(buffer):
                    break
                at = begin + size
                frames.append((kind, bytes(view[begin:at])))
        del buffer[:at]
        return frames

    def send(self, kind, *parts):
        self.out.append(HEAD.pack(sum(map(len, parts)), kind[0]))
        self.out += parts

    def flush(self):
        """Writes as much as can be written now."""
        out = self.out
        try:
            while out:
                written = os.writev(self.fd, out[:BUFFERS])
                self.sent = time.monotonic()
                whole = 0
                while whole < len(out) and written >= len(out[whole]):
                    written -= len(out[whole])
                    whole += 1
                del out[:whole]
                if written:
                    out[0] = memoryview(out[0])[written:]
        except BlockingIOError:
            pass
        except OSError:
            raise Ended from None

    def finish(self):
        """Writes everything."""
        os.set_blocking(self.fd, True)
        self.flush()


class Call:
    """A task in hand."""

    __slots__ = ("bridge", "seq", "label", "given", "executor", "future")

    def __init__(self, bridge, seq, label, given):
        self.bridge = bridge
        self.seq = seq
        self.label = label
        # What the engine's worker is given: the payload of the task, and the runtime if a worker lacked it.
        self.given = given
        self.executor = self.future = None

    def __call__(self, _future):
        self.bridge.post(self.bridge.finished, self)


class Bridge:
    """Tasks of bpp-flow and the engine that runs them."""

    def __init__(self, link, options):
        self.link = link
        self.make = lambda: engines.make(options["kind"], options["options"], options["dir"])
        self.executor = None
        self.renewals = 0
        self.runtime = None
        self.pools, self.jobs, self.bodies, self.blobs = {}, {}, {}, {}
        self.calls = {}
        # Calls that wait for a blob.
        self.waiting = {}
        self.stopped = False
        # What other threads want done in the main one.
        self.posts = collections.deque()
        self.awake = False
        # When the engine was last looked at.
        self.looked = time.monotonic()
        self.ear, self.bell = os.pipe()
        os.set_blocking(self.bell, False)
        self.takes = {
            ord("R"): self.take_runtime, ord("P"): self.take_pool, ord("J"): self.take_job,
            ord("B"): self.take_body, ord("T"): self.take_task, ord("U"): self.take_blob,
            ord("S"): self.stop, ord("C"): self.cancel, ord("Q"): self.quit,
        }

    def start(self):
        """Makes the executor and says hello."""
        self.executor = self.make()
        told = engines.capacity(self.executor)
        hello = {
            "protocol": PROTOCOL, "token": "", "role": "bridge", "host": socket.gethostname(),
            "name": "%s-%d" % (socket.gethostname(), os.getpid()), "pid": os.getpid(), "job": None,
            "python": sys.version.split()[0], "slots": told["slots"], "until": None,
        }
        self.link.send(b"h", dumps(hello, 2))
        self.link.send(b"c", dumps(told, 2))
        threading.Thread(target=self.watch, args=(told,), daemon=True).start()

    def serve(self):
        link = self.link
        poll = select.poll()
        poll.register(self.ear, select.POLLIN)
        last = 0.0
        while True:
            for kind, payload in link.frames():
                take = self.takes.get(kind)
                if take:
                    take(payload)
            self.run_posts()
            link.flush()
            now = time.monotonic()
            if now - last < OFTEN:
                time.sleep(NAP)
            last = now
            if now - self.looked > HANGS:
                raise engines.Unusable("it has not answered for %d seconds" % HANGS)
            silence = now - link.sent
            if silence >= BEAT:
                link.send(b"b")
                continue
            poll.register(link.fd, select.POLLIN | (select.POLLOUT if link.out else 0))
            for fd, event in poll.poll((BEAT - silence) * 1000 + 1):
                if fd == self.ear:
                    os.read(fd, 4096)
                elif event & ~select.POLLOUT:
                    link.receive()

    def post(self, function, argument):
        """Has the main thread call the function. From any thread."""
        self.posts.append((function, argument))
        if not self.awake:
            self.awake = True
            with contextlib.suppress(BlockingIOError):
                os.write(self.bell, b"!")

    def run_posts(self):
        # First, so that what is posted from now on rings again.
        self.awake = False
        posts = self.posts
        while posts:
            function, argument = posts.popleft()
            function(argument)

    def take_runtime(self, payload):
        self.runtime = loads(payload)
        self.module = "_bpp_flow_remote_" + self.runtime["name"]

    def take_pool(self, payload):
        pool, = NUMBER.unpack_from(payload)
        self.pools[pool] = pool, payload[NUMBER.size:]

    def take_job(self, payload):
        job, _pool = JOB.unpack_from(payload)
        told = loads(memoryview(payload)[JOB.size:])
        label = "bpp-flow"
        if told["frame"]:
            label = loads(memoryview(told["frame"])[HEAD.size + NUMBER.size:])["stage"]
        self.jobs[job] = told.get("label", label), (job, payload[JOB.size:])

    def take_body(self, payload):
        self.bodies.setdefault(SEQ.unpack_from(payload)[0], []).append(payload[SEQ.size:])

    def take_task(self, payload):
        seq, job, pool, _items, _timeout, _form = TASK.unpack_from(payload)
        body = self.bodies.pop(seq, [])
        if self.stopped:
            self.end(seq, REFUSED)
            return
        label, told = self.jobs[job]
        payload = {
            "runtime": self.runtime["name"], "pool": self.pools[pool], "job": told, "task": payload, "body": body,
            "blobs": {},
        }
        call = self.calls[seq] = Call(self, seq, label, {"p": payload, "n": self.module})
        self.submit(call)

    def take_blob(self, payload):
        digest = payload[:32].hex()
        self.blobs[digest] = payload[32:]
        for call in self.waiting.pop(digest, ()):
            if self.calls.get(call.seq) is call:
                self.give_blob(call, digest)

    def stop(self, _payload):
        self.stopped = True
        for call in list(self.calls.values()):
            if call.future is None or call.future.cancel():
                del self.calls[call.seq]
                self.end(call.seq, REFUSED)

    def cancel(self, payload):
        call = self.calls.pop(SEQ.unpack(payload)[0], None)
        if call and call.future:
            call.future.cancel()

    def quit(self, _payload):
        raise Ended

    def submit(self, call):
        executor = call.executor = self.executor
        name_next = getattr(executor, "name_next", None)
        try:
            if name_next:
                name_next(call.label)
            call.future = executor.submit(eval, INSTALL if "r" in call.given else CALL, call.given)
        except Exception as error:
            self.failed(call, error)
        else:
            call.future.add_done_callback(call)

    def finished(self, call):
        """The engine is done with a task."""
        if self.calls.get(call.seq) is not call:
            return
        try:
            answer = call.future.result()
        except BaseException as error:
            self.failed(call, error)
            return
        call.future = None
        if type(answer) is bytes:
            del self.calls[call.seq]
            self.renewals = 0
            self.link.out.append(answer)
        else:
            self.lacks(call, answer[1])

    def lacks(self, call, what):
        """An engine's worker has not begun with the task, for it has not got all that it needs."""
        if what == "runtime" and "r" not in call.given:
            call.given["r"] = self.runtime
            self.submit(call)
        elif what != "runtime" and what not in call.given["p"]["blobs"]:
            if what in self.blobs:
                self.give_blob(call, what)
            else:
                if what not in self.waiting:
                    self.link.send(b"n", bytes.fromhex(what))
                self.waiting.setdefault(what, []).append(call)
        else:
            del self.calls[call.seq]
            self.end(call.seq, BROKEN, "an engine's worker did not keep what it was given (%s)" % what)

    def give_blob(self, call, digest):
        call.given["p"]["blobs"][digest] = self.blobs[digest]
        self.submit(call)

    def failed(self, call, error):
        """The engine has no result of a task."""
        del self.calls[call.seq]
        self.end(call.seq, LOST, engines.words(error))
        if isinstance(error, engines.Unusable):
            raise error
        if isinstance(error, concurrent.futures.BrokenExecutor) and call.executor is self.executor:
            self.renew(error)

    def renew(self, error):
        """A broken pool takes nothing more: all that it had in hand is lost, another one is made."""
        if self.renewals == RENEWALS:
            raise engines.Unusable("its workers end again and again: %s" % engines.words(error))
        self.renewals += 1
        broken, self.executor = self.executor, None
        for call in list(self.calls.values()):
            if call.executor is broken and call.future:
                del self.calls[call.seq]
                self.end(call.seq, LOST, engines.words(error))
        engines.close(broken)
        self.executor = self.make()

    def end(self, seq, how, text=""):
        self.link.send(b"e", END.pack(seq, how, 0, 0, 0, 0, 0), text.encode("utf-8", "replace"))

    def watch(self, known):
        """Tells, from a thread of its own, how many workers the engine has, and that it is gone."""
        while True:
            self.looked = time.monotonic()
            time.sleep(WATCH)
            executor = self.executor
            if executor is None:
                continue
            try:
                told = engines.capacity(executor)
            except Exception as error:
                if executor is self.executor:
                    self.post(self.gone, error)
                    return
                continue
            if told != known:
                known = told
                self.post(self.tell, told)

    def tell(self, told):
        self.link.send(b"c", dumps(told, 2))

    def gone(self, error):
        raise error


def guard(link):
    """Starts the process that ends what this one started, when this one has ended, in whatever way."""
    name = "BPP_FLOW_BRIDGE_MARK"
    others = {key: value for key, value in os.environ.items() if key != name}
    # Given at the start, it stands in the environment of forked processes too.
    value = os.environ.setdefault(name, "%d-%s" % (os.getpid(), os.urandom(8).hex()))
    mark = "%s=%s" % (name, value)
    session = os.getpid() if os.getsid(0) == os.getpid() == os.getpgid(0) else 0
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", GUARD, mark, str(session)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        text=True, env=others,
    )
    engines.remove_later = lambda folder: (process.stdin.write(folder + "\n"), process.stdin.flush())
    fds = [link.fd, process.stdin.fileno()]
    # A forked child must not keep open what tells others that this process is gone.
    os.register_at_fork(after_in_child=lambda: [os.close(fd) for fd in fds])
    return process


class Leash(threading.Thread):
    """Ends the process some seconds after it should have ended by itself."""

    def __init__(self, fd):
        super().__init__(daemon=True)
        self.fd = fd
        self.closing = None
        self.start()

    def run(self):
        poll = select.poll()
        poll.register(self.fd, 0)
        while not self.closing and not poll.poll(1000):
            pass
        begun = time.monotonic()
        while time.monotonic() < (self.closing or begun) + PATIENCE:
            time.sleep(0.05)
        os._exit(1)


def main(reader):
    # bpp-flow hears the signals of the terminal, and tells. Not ignored: children would inherit that.
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, lambda _number, _frame: None)
    link = Link(reader)
    guardian = guard(link)
    leash = Leash(link.fd)
    if "BPP_FLOW_BRIDGE" in os.environ:
        # bpp-flow removes it, unless it is killed.
        engines.remove_later(os.path.dirname(os.environ["BPP_FLOW_BRIDGE"]))
    bridge = Bridge(link, loads(link.first()))
    try:
        bridge.start()
        bridge.serve()
    except Ended:
        pass
    except Exception as error:
        with contextlib.suppress(Ended):
            link.send(b"x", engines.trouble(error).encode("utf-8", "replace"))
            link.finish()
    leash.closing = time.monotonic()
    if bridge.executor is not None:
        engines.close(bridge.executor)
    engines.clear()
    # Under a launcher such as mpiexec this is one process of several, which end together.
    if "BPP_FLOW_BRIDGE" not in os.environ:
        os._exit(0)
    del guardian
