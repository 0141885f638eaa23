"""A keeper: looks after one Python worker, or runs commands, for a bpp-flow that may be on another machine.

It decides nothing: it does what the frames say, one task at a time, and tells what came of it. When the stream ends,
it ends everything that it started, and itself. The frames are described in bpp-flow's `executor/remote`.
"""

import marshal
import os
import select
import signal
import socket
import sys
import threading
import time
from collections import deque

from .cache import Cache
from .child import Child
from .commands import Commands
from .frames import Damaged, Stream
from .guard import MOST_LOSSES, guard
from .processes import NotStartedWorker, adopt_orphans, reap
from .tasks import BROKEN, COMMANDS, END, LOST, NUMBERS, REFUSED, SEQ, Job, Pool, Task

PROTOCOL = 1
BEAT = 10  # seconds
SILENCE = 60
# A result that grows beyond this inside an engine's task is cut.
MOST_SENT = 64 << 20
# A keeper of an engine's worker that had nothing to do for so long ends.
IDLE = 60
# Bytes that wait to be sent from which on no more are made.
CONGESTED = 8 << 20
# The largest body that a worker is sent before it can take it up.
MOST_AHEAD = 64 << 10
CONNECT = 3
PATIENCE = 60
LEASH_TRIES = 15
# On bpp-flow's own host, it is gone when it cannot be reached so often.
GONE = 3
# How long a worker's SIGTERM or SIGKILL waits for the keeper's own: Slurm sends it to everybody.
TOGETHER = 0.1
clock = time.monotonic


class Over(Exception):
    """The keeper's life is over."""


class Unusable(Exception):
    """A pool whose files cannot be had, in words."""


class NoConnection(Exception):
    """Why bpp-flow cannot be reached, in words."""


class Refused(NoConnection):
    """It will not be reached later either."""


class Keeper:
    """What a keeper has in hand. `local`: the stream is a socket to an engine's worker, which sends no beats."""

    def __init__(self, stream, life=None, local=False, idle=None):
        self.stream = stream
        self.life = life
        self.local = local
        self.idle = idle
        self.most_sent = MOST_SENT if local else 1 << 62
        self.runtime = None
        self.pools = {}
        self.jobs = {}
        self.bodies = {}
        # The tasks that wait, and the one in hand.
        self.queue = deque()
        self.task = None
        # What runs tasks: a worker, or commands, of one pool.
        self.child = None
        self.cache = Cache()
        # Digests that were asked for, and those that came and cannot be kept: why.
        self.asked = set()
        self.unusable = {}
        self.stopping = self.quitting = False
        self.leash = None
        self.arrived = []
        self.now = self.heard = self.leash_heard = self.active = clock()
        self.beat_at = self.now + BEAT
        # When to look after what depends on the time; whether there is something that `poll` knows nothing of.
        self.due = 0
        self.eager = False
        self.poll = select.poll()
        # What is called when a descriptor is ready; the streams, and for what they are waited for.
        self.calls = {}
        self.streams = {}
        self.null = os.open(os.devnull, os.O_RDWR)
        self.awake, self.wake = socket.socketpair()
        self.signals = b""
        self.adopts = True
        self.handlers = {
            ord("R"): self.take_runtime,
            ord("P"): self.take_pool,
            ord("J"): self.take_job,
            ord("B"): self.take_body,
            ord("T"): self.take_task,
            ord("S"): self.take_stop,
            ord("C"): self.take_cancel,
            ord("U"): self.take_blob,
            ord("Q"): self.take_quit,
        }

    # Its life.

    def serve(self):
        """Works until the stream ends, it is told to quit, or has had nothing to do for too long."""
        self.adopts = adopt_orphans()
        self.listen_to_signals()
        self.watch(self.stream, self.hear)
        if self.life is not None:
            self.watch_fd(self.life.fileno(), False, self.leave)
        try:
            while True:
                self.round()
        except Over:
            pass
        finally:
            self.end_child()
            self.cache.close()

    def listen_to_signals(self):
        for end in (self.awake, self.wake):
            end.setblocking(False)
        for each in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(each, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(self.wake.fileno(), warn_on_full_buffer=False)
        self.watch_fd(self.awake.fileno(), False, self.hear_signals)

    def leave(self):
        raise Over

    def end_child(self):
        if self.child is None:
            return
        if self.task is None and not self.stream.ended and self.signals.find(signal.SIGTERM) < 0:
            self.child.say_farewell()
        else:
            self.child.kill()

    def round(self):
        """Waits, and does what is to be done then."""
        self.prepare_to_wait()
        wait = self.due - self.now
        ready = self.poll.poll(int(wait * 1000 + 0.999) if wait > 0 else 0)
        self.now = now = clock()
        for fd, _ in ready:
            # It may have been closed by what another one led to.
            call = self.calls.get(fd)
            if call is not None:
                call()
        if self.eager:
            self.hear_more()
        if self.stream.ended:
            raise Over
        if now >= self.due:
            self.look(now)
        while self.queue and (self.begin() if self.task is None else self.begin_ahead()):
            pass

    def hear_more(self):
        """Reads what was read from a socket before it was asked for: `poll` knows nothing of that."""
        for stream in list(self.streams):
            if (stream.more or stream.ended) and stream in self.streams:
                self.calls[stream.fileno()]()

    def prepare_to_wait(self):
        """Sends what is to be sent; reckons when something is to be done, whatever is heard."""
        eager = False
        congested = self.stream.backlog > CONGESTED
        for stream, waited in self.streams.items():
            if stream.backlog:
                stream.flush()
            events = select.POLLOUT if stream.backlog else 0
            if stream.ended:
                eager = eager or stream is not self.child.stream
            elif not congested or self.child is None or stream is not self.child.stream:
                events |= select.POLLIN
                eager = eager or stream.more
            if events != waited:
                self.streams[stream] = events
                if events:
                    self.poll.register(stream.fileno(), events)
                else:
                    self.poll.unregister(stream.fileno())
        self.eager = eager
        self.due = 0 if eager else self.next_look()

    def next_look(self):
        due = self.beat_at
        if self.task is None and not self.queue:
            if self.quitting and not self.stream.backlog:
                raise Over
            if self.idle:
                due = min(due, self.active + self.idle)
        if self.child is not None:
            due = min(due, self.child.next_look(self.now))
        return due

    def look(self, now):
        """Looks after everything that depends on the time."""
        if self.child is not None:
            self.child.look(now)
        if self.idle and self.task is None and not self.queue and now - self.active >= self.idle:
            raise Over
        if now >= self.beat_at:
            self.beat(now)

    def beat(self, now):
        """Lets bpp-flow know that there is somebody, and makes sure that it is there."""
        self.beat_at = now + BEAT
        if not self.local:
            self.stream.send(ord("b"))
            if now - self.heard >= SILENCE:
                raise Over
        if self.leash is not None:
            self.leash.send(ord("b"))
            if now - self.leash_heard >= SILENCE:
                raise Over

    # Descriptors.

    def watch(self, stream, call):
        self.calls[stream.fileno()] = call
        self.streams[stream] = 0

    def unwatch(self, stream):
        if self.streams.pop(stream, 0):
            self.poll.unregister(stream.fileno())
        self.calls.pop(stream.fileno(), None)

    def watch_fd(self, fd, writes, call):
        self.calls[fd] = call
        self.poll.register(fd, select.POLLOUT if writes else select.POLLIN)

    def unwatch_fd(self, fd):
        if self.calls.pop(fd, None) is not None:
            self.poll.unregister(fd)

    def is_congested(self):
        """Whether bpp-flow takes no more for now."""
        return self.stream.backlog > CONGESTED

    # Signals.

    def read_signals(self):
        try:
            self.signals += self.awake.recv(4096)
        except BlockingIOError:
            pass

    def note(self, group, sign):
        """Has the guard know which process groups there are, where it does not inherit orphans."""
        if not self.adopts and self.life is not None:
            self.life.sendall(b"%s%d\n" % (sign, group))

    def hear_signals(self):
        self.read_signals()
        if signal.SIGTERM in self.signals:
            raise Over
        ended = signal.SIGCHLD in self.signals
        self.signals = b""
        if ended:
            if self.child is not None:
                self.child.look_for_end()
            else:
                reap(None)
        if self.arrived:
            self.take_leash(self.arrived.pop())

    def is_being_ended(self, status):
        """Whether a death is part of the keeper's own end: Slurm sends SIGTERM, or SIGKILL, to everybody. After the
        latter nobody is there any more who could tell of it."""
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) not in (signal.SIGTERM, signal.SIGKILL):
            return False
        deadline = clock() + TOGETHER
        while signal.SIGTERM not in self.signals and clock() < deadline:
            select.select([self.awake], [], [], max(0, deadline - clock()))
            self.read_signals()
        if signal.SIGTERM not in self.signals:
            # What was read along is still to be heard.
            self.wake.send(self.signals)
            self.signals = b""
            return False
        self.wake.send(b"\0")
        return True

    # Frames.

    def hear(self):
        self.stream.fill()
        self.heard = self.now
        for kind, payload in self.stream.frames():
            call = self.handlers.get(kind)
            if call is not None:
                call(payload)

    def tell(self, kind, *parts):
        self.stream.send(kind[0], *parts)

    def take_runtime(self, payload):
        self.runtime = marshal.loads(payload)
        invitation = self.runtime.get("leash")
        if self.local and invitation is not None:
            threading.Thread(target=fasten, args=(self, invitation), daemon=True).start()

    def take_pool(self, payload):
        pool = Pool(payload)
        self.pools[pool.number] = pool

    def take_job(self, payload):
        _, pool = NUMBERS.unpack_from(payload)
        job = Job(payload, self.pools[pool])
        self.jobs[job.number] = job

    def take_body(self, payload):
        (seq,) = SEQ.unpack_from(payload)
        self.bodies.setdefault(seq, []).append(memoryview(payload)[SEQ.size:])

    def take_task(self, payload):
        (seq,) = SEQ.unpack_from(payload)
        task = Task(payload, self.bodies.pop(seq, []), self.jobs)
        if self.stopping:
            self.answer(task, REFUSED)
        else:
            self.queue.append(task)

    def take_stop(self, _payload=b""):
        self.stopping = True
        if self.task is not None:
            self.child.stop()
        while self.queue:
            self.answer(self.queue.popleft(), REFUSED)

    def take_cancel(self, payload):
        (seq,) = SEQ.unpack_from(payload)
        self.bodies.pop(seq, None)
        if self.task is not None and self.task.seq == seq:
            task, self.task = self.task, None
            self.active = self.now
            self.child.kill()
        else:
            task = next((task for task in self.queue if task.seq == seq), None)
            if task is not None:
                self.queue.remove(task)
                # What it waited for may not come now.
                self.asked.clear()
        # Who asked has forgotten it, but an engine's worker waits for its end.
        if self.local and task is not None:
            self.answer(task, LOST, text="cancelled")

    def take_quit(self, _payload):
        self.quitting = True

    # Files.

    def take_blob(self, payload):
        digest, content = bytes(payload[:32]).hex(), memoryview(payload)[32:]
        self.asked.discard(digest)
        try:
            if any(digest in pool.upload for pool in self.pools.values()):
                self.cache.keep_folder(digest, content)
            else:
                self.cache.keep_file(digest, content)
        except (OSError, ValueError, TypeError, EOFError) as error:
            self.unusable[digest] = "what was sent to this node cannot be kept here: %s" % error

    def has_files(self, pool):
        """Whether what the pool needs is on this node; asks for it if not."""
        if pool.folders is not None:
            return True
        wanted = list(pool.upload)
        beside = {entry["path"]: entry for entry in pool.share}
        wanted += [entry["digest"] for entry in pool.share if not is_here(entry)]
        for digest in wanted:
            if digest in self.unusable:
                raise Unusable(self.unusable[digest])
        missing = [digest for digest in wanted if not self.cache.has(digest)]
        for digest in missing:
            if digest not in self.asked:
                self.asked.add(digest)
                self.tell(b"n", bytes.fromhex(digest))
        if missing:
            return False
        pool.folders = [self.cache.path(digest) for digest in pool.upload]
        for path, entry in beside.items():
            place = path if is_here(entry) else self.cache.path(entry["digest"])
            rows = beside.get(path + ".rows")
            if rows is not None and place != path and not is_here(rows):
                self.cache.link(rows["digest"], entry["digest"] + ".rows")
            found = os.stat(place)
            pool.shared[path] = place, found.st_size, found.st_mtime_ns, found.st_ino
        return True

    # Tasks.

    def begin(self):
        """Begins the task that has waited longest; whether another one may be begun."""
        task = self.queue[0]
        try:
            if not self.has_files(task.pool):
                return False
            self.queue.popleft()
            self.provide(task)
        except (Unusable, NotStartedWorker) as why:
            if self.queue and self.queue[0] is task:
                self.queue.popleft()
            self.answer(task, BROKEN, text=str(why))
            return True
        except OSError as error:
            self.answer(task, BROKEN, text="cannot start a process: %s" % error)
            return True
        self.task = task
        if not self.local:
            self.tell(b"s", task.key)
        self.child.begin(task)
        return True

    def begin_ahead(self):
        """Sends the worker the task that waits at the front, if it will be its next one."""
        task, child = self.queue[0], self.child
        if type(child) is Child and child.ahead is None and task.form != COMMANDS and child.pool is task.pool:
            if child.verdict is None and child.room() >= task.items and sum(map(len, task.body)) < MOST_AHEAD:
                child.begin_ahead(task)
        return False

    def enter_ahead(self, task):
        """The worker goes on with a task that it was sent ahead: unless it was cancelled, the first that waits."""
        if not self.queue or self.queue[0] is not task:
            return self.child.kill()
        self.queue.popleft()
        self.task = task
        if not self.local:
            self.tell(b"s", task.key)
        self.child.enter(task)

    def put_back(self, task):
        """Nothing of the task was begun: another worker begins it."""
        self.task = None
        self.queue.appendleft(task)

    def provide(self, task):
        """Has the child at hand that can run it."""
        kind = Commands if task.form == COMMANDS else Child
        child = self.child
        if child is not None:
            if type(child) is kind and child.pool is task.pool and child.room() >= task.items:
                return
            child.say_farewell()
        self.child = kind(self, task.pool)

    def forget_child(self):
        self.child = None

    def end_task(self, task, how, *fields, **more):
        self.task = None
        self.active = self.now
        self.answer(task, how, *fields, **more)

    def answer(self, task, how, begun=0, status=0, peak=0, over=False, word=0, text=""):
        told = END.pack(task.seq, how, begun, status, peak, over, word)
        self.tell(b"e", told, text.encode("utf-8", "backslashreplace"))

    # The leash.

    def take_leash(self, sock):
        self.leash = Stream(sock)
        self.leash_heard = self.now
        self.watch(self.leash, self.hear_leash)

    def hear_leash(self):
        self.leash.fill()
        self.leash_heard = self.now
        for kind, payload in self.leash.frames():
            if kind == ord("S"):
                self.take_stop()
            elif kind == ord("C"):
                self.take_cancel(payload)
        if self.leash.ended:
            raise Over


def is_here(entry):
    """Whether a shared object lies on this node where it lies on bpp-flow's: on a file system that they share."""
    try:
        found = os.stat(entry["path"])
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns) == (entry["size"], entry["mtime_ns"])


# Connections.


def connect(invitation):
    """A connection to the bpp-flow that invites, at the first of its addresses that answers."""
    try:
        import ssl
    except ImportError as error:
        raise Refused("this Python has no ssl: %s" % error) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=invitation["certificate"])
    told = "it has no address"
    for address in invitation["addresses"]:
        sock = None
        try:
            sock = socket.create_connection((address, invitation["port"]), CONNECT)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return context.wrap_socket(sock)
        except OSError as error:
            told = "%s, port %d: %s" % (address, invitation["port"], error)
            if sock is not None:
                sock.close()
            if isinstance(error, ssl.SSLCertVerificationError):
                raise Refused(told) from None
    raise NoConnection(told)


def connect_patiently(invitation):
    """The same, again and again for a while."""
    deadline = clock() + PATIENCE
    pause = 0.2
    while True:
        try:
            return connect(invitation)
        except Refused:
            raise
        except NoConnection:
            if clock() + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(5, 2 * pause)


def greet(sock, invitation, role, job=None, until=None):
    host = socket.gethostname()
    hello = {
        "protocol": PROTOCOL,
        "token": invitation["token"],
        "role": role,
        "name": "%s:%d" % (host, os.getpid()),
        "host": host,
        "pid": os.getpid(),
        "job": job,
        "python": sys.version.split()[0],
        "slots": 1,
        "until": until,
    }
    payload = marshal.dumps(hello, 2)
    sock.sendall(len(payload).to_bytes(4, "little") + b"h" + payload)


def place():
    """This host, since it started, and its network; None where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return "%s %d" % (file.read().strip(), os.stat("/proc/self/ns/net").st_ino)
    except OSError:
        return None


def fasten(keeper, invitation):
    """Ties a keeper of an engine's worker to its bpp-flow, if that can be reached from here."""
    for tried in range(1, LEASH_TRIES + 1):
        try:
            sock = connect(invitation)
            greet(sock, invitation, "leash")
        except (OSError, NoConnection):
            if tried == GONE and invitation.get("place") == place():
                # Nothing stands between: bpp-flow is gone.
                os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
            continue
        keeper.arrived.append(sock)
        keeper.wake.send(b"\0")
        return


def serve(stream, life=None, local=False, idle=None):
    """A keeper's life on a stream (a socket, or TLS); gives the keeper as it was at its end."""
    keeper = Keeper(stream, life, local, idle)
    try:
        keeper.serve()
    except Damaged:
        pass
    return keeper


def main(reader):
    """The keeper of an engine's worker; its socket is descriptor 3."""
    sock = socket.socket(fileno=reader.fileno())
    sock.setblocking(False)
    os.set_inheritable(sock.fileno(), False)
    received = reader.peek()

    def body(_number, life):
        serve(Stream(sock, received), life, local=True, idle=IDLE)
        return 0

    code = guard(body, release=sock.close)
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def main_job(settings):
    """What a job of a native engine runs: so many keepers, each with a connection of its own."""
    while os.open(os.devnull, os.O_RDWR) <= 2:
        pass
    invitation = settings["invitation"]
    until = os.environ.get("SLURM_JOB_END_TIME") or settings["until"]
    until = float(until) if until else None

    def body(_number, life):
        try:
            sock = connect_patiently(invitation)
            greet(sock, invitation, "keeper", settings["job"], until)
        except (OSError, NoConnection) as error:
            return report(life, "bpp-flow cannot be reached: %s" % error)
        keeper = serve(Stream(sock), life, idle=settings["idle"])
        if keeper.runtime is None:
            return report(life, "bpp-flow refused this worker, or is gone")
        return 0

    code = guard(body, settings["workers"], MOST_LOSSES)
    sys.exit(1 if code else 0)


def report(life, words):
    """Has the guard say it, once for all keepers that say the same."""
    life.sendall(b"!%s\n" % words.encode("utf-8", "backslashreplace"))
    return 1
