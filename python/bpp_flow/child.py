"""A Python worker under its keeper: its process, its slot, what it writes, and how its tasks end."""

import fcntl
import marshal
import mmap
import os
import signal
import socket
import struct
import sys
import tempfile
import time

from .frames import Damaged, Stream
from .processes import LOW, NotStarted, NotStartedWorker, Sampler, candidates, enter, kill, passable, reap, spawn, sweep
from .tasks import BROKEN, DONE, LOST, SILENT, TIMED_OUT, WORKER_DIED

PHASE = 0xFFFFFFFF
SEVERAL = 0xFFFFFFFE
SLOT_BYTES = 4096
# 64-bit words of the slot.
ITEM, STOP, PEAK, BEGUN = 0, 1, 3, 4
LOW_HALF = 0xFFFFFFFF

TICK = 0.02  # how often the slot is looked at where items have a limit
STUCK = 0.25  # an item that takes longer may have finished ones waiting behind it
HELLO = 60  # a process that has not said hello by then is broken
SILENCE = 1  # a process that stopped talking but runs on is ended after this time
GRACE = 1  # how long a process may take to end when asked to
DISSOLVE = 0.01  # how often a dissolving process group is looked at
TAIL = 16 << 10
HELLO_FRAME, PART_FRAME, DONE_FRAME, BROKEN_FRAME = b"HPDX"
PART = struct.Struct("<QII")
BEGUN_OF = struct.Struct("<QI")
NEVER = float("inf")
clock = time.monotonic


class Child:
    """A worker process of one pool. It runs one task at a time."""

    def __init__(self, keeper, pool):
        self.pool = pool
        self.keeper = keeper
        # The task in hand; the one behind it that the process has been sent already.
        self.task = self.ahead = None
        self.jobs = set()
        self.taken = 0
        self.ready = False
        self.started = clock()
        # What its end is: asked to end (when it will be killed), ended, silent since.
        self.kill_at = self.ended = self.silent = None
        # The end that is told when it is gone: (how, word, begun, text or None).
        self.verdict = None
        self.over_memory = False
        ours, theirs = socket.socketpair()
        capture = tempfile.TemporaryFile()
        slot = tempfile.TemporaryFile()
        null = os.open(os.devnull, os.O_RDWR)
        files = []
        try:
            fcntl.fcntl(capture, fcntl.F_SETFL, fcntl.fcntl(capture, fcntl.F_GETFL) | os.O_APPEND)
            # Written, not only set to a length: a full disk shows now, and not when the memory is used.
            slot.write(bytes(SLOT_BYTES))
            slot.flush()
            self.slot = memoryview(mmap.mmap(slot.fileno(), SLOT_BYTES)).cast("Q")
            sources = (null, capture.fileno(), capture.fileno(), theirs.fileno(), slot.fileno())
            files = [fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, LOW) for source in sources]
            self.pid = self.spawn(files)
            keeper.note(self.pid, b"+")
        except BaseException:
            ours.close()
            capture.close()
            raise
        finally:
            for fd in [null] + files:
                os.close(fd)
            theirs.close()
            slot.close()
        self.capture = capture
        self.memory = Sampler(pool.memory, self.pid)
        # Nothing but its task needs to be looked after.
        self.calm = pool.memory is None
        self.stream = Stream(ours)
        self.stream.put(keeper.runtime["worker"])
        keeper.watch(self.stream, self.hear)

    def spawn(self, files):
        pool = self.pool
        own = {"BPP_FLOW_SLOT_FD": "4", "BPP_FLOW_LANES": "1", "BPP_FLOW_TERMINAL": "0"}
        env = passable({**pool.environment(), **own})
        interpreter = pool.interpreter or sys.executable
        if "/" in interpreter and not os.path.exists(interpreter):
            interpreter = sys.executable
        argv = [interpreter, "-c", self.keeper.runtime["bootstrap"]]
        try:
            enter(pool.folder())
            return spawn(candidates(interpreter, env.get("PATH")), argv, env, files, session=True)
        except NotStarted as why:
            raise NotStartedWorker(why.words(interpreter, pool.folder())) from None

    def room(self):
        """Whether a task of that many items may be given to it; a new process takes any."""
        most = self.pool.most_items if self.taken else None
        return sys.maxsize if most is None else max(0, most - self.taken)

    def begin(self, task):
        self.slot[STOP] = 1 if self.keeper.stopping else 0
        self.put(task)
        task.body = None
        self.enter(task)

    def begin_ahead(self, task):
        """Sends a task that is to begin when the one in hand has ended, so that the process need not wait for it."""
        self.ahead = task
        self.put(task)

    def put(self, task):
        self.taken += task.items
        if task.job.number not in self.jobs:
            self.jobs.add(task.job.number)
            self.stream.put(task.job.worker_frame())
        self.stream.put(*task.body)

    def enter(self, task):
        self.task = task
        self.seen = 0
        self.since = self.asked = clock()
        self.reported = 0
        self.sent = 0

    def stop(self):
        """No new item is taken."""
        self.slot[STOP] = 1

    def next_look(self, now):
        """When it is to be looked at."""
        task = self.task
        if self.calm and self.ready:
            if task is None:
                return NEVER
            if not task.timeout:
                return now + STUCK / 2 if task.items > 1 else NEVER
        if self.ended is not None:
            return now + DISSOLVE
        due = self.memory.next
        if self.kill_at is not None:
            due = min(due, self.kill_at)
        if self.silent is not None:
            due = min(due, self.silent + SILENCE)
        if task is not None:
            due = min(due, now + (TICK if task.timeout else STUCK / 2))
        return due

    # What it says.

    def hear(self):
        """Reads what it has sent."""
        if self.keeper.is_congested():
            return
        stream = self.stream
        stream.fill()
        try:
            for kind, payload in stream.frames():
                self.accept(kind, payload)
        except Damaged as error:
            self.mute(str(error))
        if stream.ended and self.silent is None and self.kill_at is None:
            self.silent = clock()
            self.calm = False

    def accept(self, kind, payload):
        task = self.task
        if kind == HELLO_FRAME:
            self.ready = True
        elif kind not in (PART_FRAME, DONE_FRAME, BROKEN_FRAME) or len(payload) < 8:
            raise Damaged("a frame of unknown kind %r" % chr(kind))
        elif task is None or payload[:8] != task.key:
            return
        elif kind == PART_FRAME:
            self.accept_part(task, payload)
        elif self.verdict is not None:
            return
        elif kind == DONE_FRAME:
            self.end_task(DONE, BEGUN_OF.unpack(payload)[1])
        else:
            self.end_task(BROKEN, text=marshal.loads(payload[8:]))

    def accept_part(self, task, payload):
        _, first, items = PART.unpack_from(payload)
        if self.verdict is not None and first < self.verdict[1] <= first + items:
            # The item whose time was over ended after all.
            return
        self.reported = first + items
        self.sent += len(payload)
        self.keeper.tell(b"p", task.key, b"P", payload)
        if self.sent > self.keeper.most_sent:
            self.stop()

    def end_task(self, how, begun=0, status=0, peak=0, over=False, word=0, text=""):
        task, self.task = self.task, None
        self.keeper.end_task(task, how, begun, status, peak, over, word, text)
        ahead, self.ahead = self.ahead, None
        if ahead is not None and self.keeper.child is self:
            self.keeper.enter_ahead(ahead)

    # What it is at.

    def word(self):
        """The low half of the slot's first word, if it is of the task in hand."""
        raw = self.slot[ITEM]
        return raw & LOW_HALF if raw >> 32 == self.task.seq & LOW_HALF else 0

    def begun(self):
        """How many items were begun, the one in hand included."""
        raw, word = self.slot[BEGUN], self.word()
        begun = raw & LOW_HALF if raw >> 32 == self.task.seq & LOW_HALF else 0
        return begun if word in (PHASE, SEVERAL) else max(begun, word)

    def look(self, now):
        """Looks after limits, and after an end that takes its time."""
        seen = self.memory.look(now)
        if seen is not None:
            self.slot[PEAK] = max(self.slot[PEAK], seen[0])
            if seen[1] and self.ended is None:
                self.over_memory = True
                kill(-self.pid, signal.SIGKILL)
                return self.bury()
        if self.ended is not None or self.kill_at is not None:
            if now >= (self.kill_at or 0) or (self.ended is not None and not kill(-self.pid, 0)):
                self.bury()
            return
        if self.silent is not None and now - self.silent >= SILENCE:
            return self.mute("stopped answering (descriptor 3 is not an item's to close or to write to)")
        if self.task is None:
            return
        if not self.ready and now - self.started >= HELLO:
            self.verdict = BROKEN, 0, 0, "the Python worker did not start within %ds" % HELLO
            return self.bury()
        self.look_at_item(now)

    def look_at_item(self, now):
        raw = self.slot[ITEM]
        if raw != self.seen:
            self.seen, self.since = raw, now
        word = self.word()
        if word in (0, PHASE):
            return
        at_it = now - self.since
        item = word - 1
        if word == SEVERAL or item >= self.reported:
            if self.task.timeout and at_it >= self.task.timeout:
                self.verdict = TIMED_OUT, word, self.begun(), None
                return self.terminate()
        if at_it >= STUCK and now - self.asked >= STUCK and word != SEVERAL and item > self.reported:
            self.asked = now
            kill(self.pid, signal.SIGURG)

    def mute(self, how):
        """It can no longer be talked to."""
        if self.kill_at is not None or self.ended is not None:
            return
        if self.task is not None and self.verdict is None:
            self.verdict = SILENT, self.word(), self.begun(), how
        self.terminate()

    def terminate(self):
        """Has it end: asked to at first, killed after a while."""
        self.stop()
        kill(-self.pid, signal.SIGTERM)
        self.kill_at = clock() + GRACE
        self.calm = False

    # Its end.

    def look_for_end(self):
        """A child of the keeper has ended: perhaps this one."""
        if self.ended is None:
            self.ended = reap(self.pid)
            if self.ended is not None and self.kill_at is None:
                self.bury()
        else:
            reap(None)

    def bury(self):
        """Ends it with all that it started, and tells of its task."""
        kill(-self.pid, signal.SIGKILL)
        self.ended = sweep(self.pid if self.ended is None else None) or self.ended
        # What it wrote before its end counts; what is damaged was cut by the end.
        while not self.stream.ended and self.stream_has_more():
            pass
        self.keeper.forget_child()
        if self.task is not None:
            self.blame()
        self.close()

    def stream_has_more(self):
        self.stream.fill()
        try:
            for kind, payload in self.stream.frames():
                self.accept(kind, payload)
        except Damaged:
            return False
        return self.stream.more

    def blame(self):
        status = self.ended.status if self.ended is not None else signal.SIGKILL
        peak = max(self.ended.peak if self.ended is not None else 0, self.slot[PEAK] & LOW_HALF)
        if self.verdict is None and self.task.body is not None and self.slot[BEGUN] >> 32 != self.task.seq & LOW_HALF:
            # It was sent ahead, and never taken up.
            task, self.task = self.task, None
            return self.keeper.put_back(task)
        how, word, begun, text = self.verdict or (WORKER_DIED, self.word(), self.begun(), None)
        tail = self.tail()
        if text is None:
            text = tail
        elif how == SILENT and tail:
            text = "%s\n%s" % (text, tail)
        if how == WORKER_DIED and self.keeper.is_being_ended(status):
            how, text = LOST, "the keeper is being ended"
        self.end_task(how, begun, status, peak, self.over_memory, word, text)

    def tail(self):
        """The end of what it wrote."""
        try:
            size = os.fstat(self.capture.fileno()).st_size
            left_out = max(0, size - TAIL)
            text = os.pread(self.capture.fileno(), TAIL, left_out).decode("utf-8", "replace")
        except OSError:
            return ""
        return "… %d bytes left out …\n%s" % (left_out, text) if left_out else text

    def say_farewell(self):
        """Lets an idle process end by itself."""
        self.stream.send(ord("Q"))
        self.stream.flush()
        deadline = clock() + GRACE
        pause = 0.001
        while self.ended is None and clock() < deadline:
            self.ended = reap(self.pid)
            time.sleep(pause)
            pause = min(0.01, 2 * pause)
        self.kill()

    def kill(self):
        """Ends it now, with all that it started."""
        self.task = None
        kill(-self.pid, signal.SIGKILL)
        sweep(self.pid if self.ended is None else None)
        self.keeper.forget_child()
        self.close()

    def close(self):
        self.keeper.note(self.pid, b"-")
        self.keeper.unwatch(self.stream)
        self.stream.close()
        self.capture.close()
