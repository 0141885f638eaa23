"""The process that calls Python functions: reads tasks from descriptor 3, answers with results.

What passes over the wire is described in bpp-flow's `executor/wire.rs`. Nothing here is user code, and user code never
sees any of it: this module is not in `sys.modules`, its frames are cut from tracebacks, and a forked child of an item
can neither write a frame nor touch the slot.
"""

import faulthandler
import gc
import marshal
import mmap
import os
import signal
import struct
import sys
import threading
import time
from marshal import dumps

from . import capture as capturing
from . import yielding
from .calls import BrokenJob, Job, Pool
from .failures import clean, message, story, users
from .memory import Memory
from .results import spread
from .values import SCALARS, Unkept, Unreadable, revive

PROTOCOL = 1
PHASE = 0xFFFFFFFF
SEVERAL = 0xFFFFFFFE
WORDS = 16  # 32-bit words of a lane's slot
STOP = 2  # the word of the stop flag
BEGUN = 8  # the words of the number of items begun, and of the task whose they are

FLUSH = 0.005  # seconds until results are sent
SLOW = 0.001  # seconds from which an item is timed, and its result sent, alone
TICK = 0.00005  # seconds in which the rarer checks may be left out
MAX_FRAME = 1 << 30

HEAD = struct.Struct("<IB")
TASK = struct.Struct("<QII")
PART = struct.Struct("<QIIII")
DONE = struct.Struct("<QI")
SEQ = struct.Struct("<Q")
clock = time.perf_counter


class Link:
    """The stream of frames."""

    def __init__(self, reader):
        self.reader = reader
        self.fd = reader.fileno()
        self.lock = threading.Lock()
        self.forked = False

    def read(self):
        """The next frame: kind and payload. The end of the stream is the end of the process."""
        head = self.reader.read(HEAD.size)
        if len(head) < HEAD.size:
            os._exit(0)
        size, kind = HEAD.unpack(head)
        payload = self.reader.read(size)
        if len(payload) < size:
            os._exit(0)
        return bytes((kind,)), payload

    def write(self, kind, *parts):
        if self.forked:
            os._exit(0)
        payload = b"".join(parts)
        data = memoryview(HEAD.pack(len(payload), kind[0]) + payload)
        try:
            with self.lock:
                while data:
                    data = data[os.write(self.fd, data):]
        except OSError:
            os._exit(0)


class Part:
    """Results that have not been sent yet."""

    def __init__(self, link, seq, memory, pool):
        self.link = link
        self.seq = seq
        self.memory = memory
        self.pool = pool
        self.lock = threading.Lock()
        self.clear(0)

    def clear(self, first):
        self.first = first
        self.blobs = []
        self.failed = []
        self.slow = []
        self.flushed = clock()

    def send(self, end):
        """Sends what became of the items before `end`."""
        with self.lock:
            items = end - self.first
            if not items:
                return
            # What was made of a file that has changed under its map is told to nobody.
            if self.pool.share_has_changed():
                raise self.pool.broken_share()
            rest = clock() - self.flushed - sum(micros for _, micros in self.slow) / 1e6
            mean = max(0, int(rest * 1e6 / max(1, items - len(self.slow))))
            peak = self.memory.peak()
            if self.is_large():
                self.split(mean, peak)
            else:
                self.put(self.first, items, mean, peak, self.slow, self.failed, self.blobs)
            self.clear(end)

    def send_ahead(self):
        """Sends what there is while an item runs, perhaps in this very thread."""
        if not self.lock.acquire(False):
            return
        try:
            count = len(self.blobs)
            failed = list(self.failed)
            items = count + len(failed)
            # Another thread may be adding results.
            if len(self.blobs) != count or not items or self.is_large() or self.pool.share_has_changed():
                return
            # They came quickly after each other, or they would have been sent by themselves.
            mean = int(FLUSH * 1e6 / items)
            self.put(self.first, items, mean, self.memory.peak(), [], failed, self.blobs[:count])
            del self.blobs[:count]
            del self.failed[:len(failed)]
            self.first += items
        finally:
            self.lock.release()

    def is_large(self):
        return sum(map(len, self.blobs)) > MAX_FRAME - (1 << 20)

    def put(self, first, items, mean, peak, slow, failed, blobs):
        head = PART.pack(self.seq, first, items, min(mean, 0xFFFFFFFF), peak)
        self.link.write(b"P", head, dumps((slow, failed), 2), *blobs)

    def split(self, mean, peak):
        """Large results, each in a frame of its own."""
        failed = {failure[0]: failure for failure in self.failed}
        blobs = iter(self.blobs)
        for item in range(self.first, self.first + len(self.blobs) + len(failed)):
            slow = [entry for entry in self.slow if entry[0] == item]
            if item in failed:
                self.put(item, 1, mean, peak, slow, [failed[item]], [])
            else:
                self.put(item, 1, mean, peak, slow, [], [next(blobs)])


class Lane:
    """Runs one task after the other."""

    def __init__(self, number, link, slots, pool, memory, capture, frames):
        self.link = link
        self.slots = slots
        self.memory = memory
        # The results of the task in hand.
        self.part = None
        self.base = number * WORDS
        self.pool = pool
        self.capture = capture
        # Gives the next (kind, payload) for this lane.
        self.frames = frames

    def stopped(self):
        return self.slots[STOP] or self.slots[self.base + STOP]

    def phase(self, begun):
        """No item is in hand; so many were begun."""
        self.slots[self.base + BEGUN] = begun
        self.slots[self.base] = PHASE

    def flush(self):
        """Sends results that wait behind a slow item."""
        part, item = self.part, self.slots[self.base]
        if part is not None and 0 < item < SEVERAL:
            part.send_ahead()

    def idle(self):
        self.slots[self.base] = 0
        self.slots[self.base + 1] = 0

    def take(self, kind, payload):
        """Runs a task or a group to its end."""
        try:
            self.run(kind, payload)
        except BaseException:
            # A fault of the worker, perhaps of what an earlier item did to it: not the one in hand is to blame.
            item = self.slots[self.base]
            self.phase(item if item < SEVERAL else self.slots[self.base + BEGUN])
            raise

    def run(self, kind, payload):
        seq, job_id, _lane = TASK.unpack_from(payload)
        self.slots[self.base + BEGUN + 1] = seq & 0xFFFFFFFF
        self.phase(0)
        self.slots[self.base + 1] = seq & 0xFFFFFFFF
        body = memoryview(payload)[TASK.size:]
        try:
            job = self.pool.job(job_id, self.capture)
        except BrokenJob as error:
            if kind == b"G":
                Stream(self.frames).drain()
            answer = b"X", SEQ.pack(seq), dumps(clean(str(error), MAX_FRAME >> 10), 2)
        else:
            run = self.group if kind == b"G" else self.task
            try:
                answer = b"D", DONE.pack(seq, run(seq, job, body))
            except BrokenJob as error:
                answer = b"X", SEQ.pack(seq), dumps(clean(str(error), MAX_FRAME >> 10), 2)
        # First, so that who has the answer finds the slot idle.
        self.idle()
        self.link.write(*answer)

    def task(self, seq, job, body):
        data = load(body)
        self.part = part = Part(self.link, seq, self.memory, self.pool)
        if job.chunk_format:
            begun = self.chunk(part, job, body, data)
        else:
            rows, call = items(job, data)
            begun = self.rows(part, job, rows, call)
        self.phase(begun)
        part.send(begun)
        self.part = None
        return begun

    def rows(self, part, job, rows, call):
        """Calls the function with each row; gives the number of items begun."""
        slots, base, capture = self.slots, self.base, self.capture
        pack = job.pack
        direct = dict if job.is_direct else None
        append = part.blobs.append
        number = 0
        last = clock()
        due = last + TICK
        if self.stopped():
            return 0
        # The loop of a million items: what happens only now and then stands behind the tick.
        for number, row in enumerate(rows, 1):
            slots[base] = number
            try:
                out = call(row)
                if type(out) is direct:
                    for value in out.values():
                        if type(value) not in SCALARS:
                            append(pack(out))
                            break
                    else:
                        try:
                            append(dumps(out, 2))
                        except ValueError:  # a key of a subclass of str
                            append(pack(out))
                else:
                    append(pack(out))
            except BaseException as error:
                part.failed.append(self.failure(number - 1, job, error))
            now = clock()
            if now < due and not capture.used:
                last = now
                continue
            if self.link.forked:
                os._exit(0)
            capture.end_item()
            took = now - last
            if took >= SLOW:
                part.slow.append((number - 1, int(took * 1e6)))
            if took >= SLOW or now - part.flushed >= FLUSH:
                self.phase(number)
                out = row = value = None
                part.send(number)
                append = part.blobs.append
            if self.stopped():
                break
            last = clock()
            due = last + TICK
        return number

    def chunk(self, part, job, body, data):
        """Calls the function with all rows, with halves where that fails; gives the number of items begun."""
        ranges = uniform_ranges(data)[::-1]
        while ranges:
            low, high = ranges.pop()
            if self.stopped():
                return low
            begun = clock()
            self.slots[self.base] = low + 1 if high - low == 1 else SEVERAL
            results, again = self.attempt(job, data, low, high)
            if self.link.forked:
                os._exit(0)
            if again:
                # The function may have changed its rows.
                self.phase(high)
                data = load(body)
                middle = (low + high) // 2
                ranges += [(middle, high), (low, middle)]
                continue
            micros = int((clock() - begun) * 1e6 / (high - low))
            for item, (blob, failure) in enumerate(results, low):
                if failure is None:
                    part.blobs.append(blob)
                else:
                    part.failed.append(failure)
                if micros >= 1000:
                    part.slow.append((item, micros))
            self.phase(high)
            if clock() - part.flushed >= FLUSH:
                part.send(high)
        return len(data[0])

    def attempt(self, job, data, low, high):
        """One call for the rows from `low` to `high`: (results, whether to try again with halves)."""
        try:
            rows = data[0][low:high]
            for mark in data[3] or ():
                if low <= mark < high:
                    rows[mark - low] = revive(rows[mark - low])
            call = job.caller(data[1] is not None, data[2] is not None)
            out = spread(call(bundle(data, low, job.table(rows))), high - low, job.returns, job.shape)
        except BaseException as error:
            if high - low > 1:
                self.capture.end_item()
                return None, True
            return [(None, self.failure(low, job, error))], False
        results = []
        for item, value in enumerate(out, low):
            try:
                results.append((job.pack(value), None))
            except BaseException as error:
                results.append((None, self.failure(item, job, error)))
        self.capture.end_item()
        return results, False

    def group(self, seq, job, body):
        args = marshal.loads(body)
        stream = Stream(self.frames)
        if self.stopped():
            stream.drain()
            return 0
        part = Part(self.link, seq, self.memory, self.pool)
        begun = clock()
        self.slots[self.base] = 1
        try:
            rows = stream.rows()
            if job.chunk_format:
                rows = job.table(list(rows))
            call = job.caller(bool(args), False)
            part.blobs.append(job.pack(call((rows, revive(args)) if args else rows)))
        except BaseException as error:
            part.failed.append(self.failure(0, job, error))
        if self.link.forked:
            os._exit(0)
        self.capture.end_item()
        part.slow.append((0, int((clock() - begun) * 1e6)))
        self.phase(1)
        stream.drain()
        part.send(1)
        return 1

    def failure(self, item, job, error):
        """What is told of a failed item."""
        if self.link.forked:
            sys.excepthook(type(error), error, users(error.__traceback__))
            os._exit(1)
        output = self.capture.take()
        if isinstance(error, Unkept):
            return (item, "output", clean(str(error), 16384), "", output, "")
        if isinstance(error, Unreadable):
            return (item, "input", clean(str(error), 16384), "", output, "")
        told, trace, place = story(error, job.path)
        # Nothing of the item is held by its exception.
        error.__traceback__ = None
        return (item, "exception", told, trace, output, place)


class Stream:
    """The rows of a group, read as they are asked for."""

    def __init__(self, frames):
        self.frames = frames
        self.ended = False

    def next_rows(self):
        """The next rows; None after the last."""
        if self.ended:
            return None
        kind, payload = self.frames()
        if kind != b"R":
            self.ended = True
            return None
        return payload

    def rows(self):
        while True:
            payload = self.next_rows()
            if payload is None:
                return
            rows, marks = load(payload)
            for mark in marks or ():
                rows[mark] = revive(rows[mark])
            yield from rows

    def drain(self):
        while self.next_rows() is not None:
            pass


def load(body):
    """Marshal data, without a garbage collection of what has just been made."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        return marshal.loads(body)
    finally:
        if enabled:
            gc.enable()


def items(job, data):
    """What is called for each item of a task, and the function to call with it."""
    rows, args, env, marks = data
    call = job.caller(args is not None, env is not None)
    if marks:
        for row in marks:
            try:
                rows[row] = revive(rows[row])
                if args is not None:
                    args[row] = revive(args[row])
            except Unreadable as error:
                rows[row] = error
        call = readable(call, args is not None or env is not None)
    if args is not None and env is not None:
        return list(zip(rows, args, env)), call
    if args is not None or env is not None:
        return list(zip(rows, args or env)), call
    return rows, call


def bundle(data, low, rows):
    """The rows of a chunk with the arguments and environment of all of them."""
    extras = [revive(extra[low]) for extra in data[1:3] if extra is not None]
    return (rows, *extras) if extras else rows


def readable(call, bundled):
    """`call`, but for rows that hold what cannot be read."""

    def checked(item):
        row = item[0] if bundled else item
        if type(row) is Unreadable:
            raise row
        return call(item)

    return checked


def uniform_ranges(data):
    """The rows of a chunk in ranges of equal arguments and environment."""
    rows, args, env, _ = data
    ranges = []
    low = 0
    for high in range(1, len(rows) + 1):
        same = high < len(rows) and all(extra is None or extra[high] == extra[low] for extra in (args, env))
        if not same:
            ranges.append((low, high))
            low = high
    return ranges


def main(reader):
    lanes = int(os.environ.pop("BPP_FLOW_LANES", "1"))
    terminal = os.environ.pop("BPP_FLOW_TERMINAL", "") == "1"
    slots = open_slots(os.environ.pop("BPP_FLOW_SLOT_FD", None), lanes)
    link = Link(reader)
    os.set_inheritable(link.fd, False)
    faulthandler.enable(2)
    capture = capturing.install(terminal)
    os.register_at_fork(after_in_child=lambda: leave_alone(link, capture))
    pool = Pool()
    memory = Memory(slots)
    hello = {"pid": os.getpid(), "version": sys.version.split()[0], "executable": sys.executable, "protocol": PROTOCOL}
    link.write(b"H", dumps(hello, 2))
    if lanes > 1:
        serve_threads(link, slots, pool, memory, capture, lanes)
    else:
        serve(link, slots, pool, memory, capture)


def open_slots(fd, lanes):
    """32-bit words that bpp-flow reads along."""
    size = lanes * WORDS * 4
    if fd is None:
        return memoryview(bytearray(size)).cast("I")
    area = mmap.mmap(int(fd), size)
    os.close(int(fd))
    return memoryview(area).cast("I")


def leave_alone(link, capture):
    """In a forked child: nothing of the worker is its own."""
    link.forked = True
    os.close(link.fd)
    capture.after_fork()
    capture.used = True


def flush_when_asked(link, lanes):
    """bpp-flow asks where finished items wait behind a slow one. By default the signal is ignored."""

    def flush(_number, _frame):
        if not link.forked:
            for lane in lanes:
                lane.flush()

    signal.signal(signal.SIGURG, flush)
    signal.siginterrupt(signal.SIGURG, False)


def serve(link, slots, pool, memory, capture):
    """Runs tasks in the main thread, as signal handlers and asyncio expect."""
    lane = Lane(0, link, slots, pool, memory, capture, link.read)
    flush_when_asked(link, [lane])
    while True:
        kind, payload = link.read()
        if kind == b"J":
            pool.announce(payload)
        elif kind in (b"T", b"G"):
            lane.take(kind, payload)
        elif kind == b"Y":
            yielding.serve(link, pool, capture, payload)
        elif kind == b"Q":
            return


def serve_threads(link, slots, pool, memory, capture, lanes):
    """Runs the tasks of each lane in a thread of its own."""
    import queue

    # Bounded, so that a slow function does not gather its group's rows in memory.
    queues = [queue.Queue(64) for _ in range(lanes)]
    own = [
        Lane(number, link, slots, pool, memory, capturing.LaneCapture(capture), queues[number].get)
        for number in range(lanes)
    ]
    flush_when_asked(link, own)
    threads = [threading.Thread(target=run_lane, args=(lane,), daemon=True) for lane in own]
    for thread in threads:
        thread.start()
    lane = 0
    while True:
        kind, payload = link.read()
        if kind == b"J":
            pool.announce(payload)
        elif kind == b"Q":
            break
        else:
            if kind in (b"T", b"G"):
                lane = TASK.unpack_from(payload)[2]
            queues[lane].put((kind, payload))
    for lane in queues:
        lane.put((b"Q", b""))
    for thread in threads:
        thread.join()


def run_lane(lane):
    capturing.current.capture = lane.capture
    try:
        while True:
            kind, payload = lane.frames()
            if kind == b"Q":
                return
            lane.take(kind, payload)
    except BaseException as error:
        # A fault of the worker itself: not to be survived by half.
        os.write(2, clean("bpp-flow worker: %s\n" % message(error), 4096).encode())
        os._exit(70)
