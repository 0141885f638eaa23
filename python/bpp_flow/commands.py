"""Commands of a task: run one after the other, fed, listened to and, when their time is over, ended."""

import errno
import marshal
import os
import signal
import time

from .frames import LATER
from .processes import NotStarted, NotStartedWorker, Sampler, candidates, enter, kill, passable, reap, spawn, sweep
from .tasks import DONE, LOST

EXITED, NOT_STARTED, TIMED_OUT_ITEM, TOO_MUCH_OUTPUT, OVER_MEMORY = range(5)
MAX_STDOUT = 256 << 20
# What is kept of each end of standard error.
PART = 32 << 10
BUFFER = 64 << 10
# The most that a pipe holds.
MAX_PIPE = 1 << 20
# Results are sent when so much time has passed since the last ones, or so many bytes have come together.
FLUSH_AFTER = 0.005
FLUSH_BYTES = 64 << 10
GRACE = 1
DISSOLVE = 0.01
NEVER = float("inf")
clock = time.monotonic


class HeadTail:
    """The beginning and the end of a stream; what lies between is counted and dropped."""

    def __init__(self):
        self.head = b""
        self.tail = bytearray()
        self.dropped = 0

    def push(self, data):
        room = PART - len(self.head)
        if room:
            self.head += data[:room]
            data = data[room:]
        self.tail += data
        if len(self.tail) > 4 * PART:
            self.cut()

    def cut(self):
        over = len(self.tail) - PART
        if over > 0:
            self.dropped += over
            del self.tail[:over]

    def whole(self):
        self.cut()
        note = "\n… %d bytes left out …\n" % self.dropped if self.dropped else ""
        return self.head + note.encode() + bytes(self.tail)


class Commands:
    """Runs the commands of one task at a time."""

    def __init__(self, keeper, pool):
        self.keeper = keeper
        self.pool = pool
        self.stream = None
        try:
            enter(pool.folder())
        except NotStarted as why:
            raise NotStartedWorker(why.words("", pool.folder())) from None
        self.env = passable(pool.environment())
        # Where a program of that name was found last.
        self.found = {}
        self.task = None
        self.running = None
        self.stopped = False
        self.results = []
        self.size = 0
        self.sent = 0
        self.flushed = clock()

    def room(self):
        return 1 << 32

    def begin(self, task):
        self.task = task
        self.items = marshal.loads(b"".join(task.body))
        task.body = None
        self.next = 0
        self.stopped = self.keeper.stopping
        self.sent = 0
        self.flushed = clock()
        self.advance()

    def stop(self):
        self.stopped = True

    def advance(self):
        """Starts the next command that can be started, or ends the task."""
        while self.running is None:
            if self.next == len(self.items) or self.stopped or self.keeper.is_congested():
                break
            number, self.next = self.next, self.next + 1
            begun = clock()
            argv, env, cwd, stdin = self.items[number]
            try:
                self.running = self.start(number, begun, argv, dict(env), cwd, stdin)
            except NotStarted as why:
                words = why.words(argv[0] if argv else "", cwd if cwd is not None else ".")
                self.push(number, begun, 0, NOT_STARTED, 0, words.encode("utf-8", "surrogateescape"), b"")
        if self.running is None and (self.stopped or self.next == len(self.items)):
            self.flush()
            task, self.task, self.items = self.task, None, None
            self.keeper.end_task(task, DONE, self.next)

    def start(self, number, begun, argv, env, cwd, stdin):
        if not argv or any("\0" in word for word in argv):
            raise NotStarted(errno.EINVAL)
        enter(self.pool.folder())
        if cwd is not None:
            enter(cwd)
        own = passable({**self.env, **env}) if env else self.env
        paths = candidates(argv[0], own.get("PATH"))
        if not env and cwd is None and len(paths) > 1:
            known = self.found.get(argv[0])
            paths = [known] + paths if known else [path for path in paths if os.path.exists(path)]
            self.found[argv[0]] = paths[0] if paths else None
        return Running(self, number, begun, paths, argv, own, stdin)

    def next_look(self, now):
        """When something is to be done, whatever is heard."""
        due = self.flushed + FLUSH_AFTER if self.results else NEVER
        if self.running is not None:
            return min(due, self.running.next_look(now))
        return due if self.task is None or self.keeper.is_congested() else now

    def look(self, now):
        if self.results and now - self.flushed >= FLUSH_AFTER:
            self.flush()
        if self.running is not None:
            self.running.look(now)
        elif self.task is not None:
            self.advance()

    def look_for_end(self):
        if self.running is None:
            reap(None)
        else:
            self.running.look_for_end()

    def push(self, number, begun, peak, ending, status, out, err):
        micros = min(int((clock() - begun) * 1e6), 0xFFFFFFFF)
        self.results.append((number, micros, peak, ending, status, out, err))
        self.size += len(out) + len(err) + 32
        if self.size >= FLUSH_BYTES or clock() - self.flushed >= FLUSH_AFTER:
            self.flush()

    def flush(self):
        self.flushed = clock()
        if self.results:
            self.sent += self.size
            self.keeper.tell(b"p", self.task.key, b"C", marshal.dumps(self.results, 2))
            self.results = []
            self.size = 0
            if self.sent > self.keeper.most_sent:
                self.stop()

    def ended(self, result):
        running, self.running = self.running, None
        if running.ending == EXITED and self.keeper.is_being_ended(result[1]):
            self.flush()
            task, self.task = self.task, None
            return self.keeper.end_task(task, LOST, self.next, text="the keeper is being ended")
        self.push(running.number, running.begun, *result)
        self.advance()

    def say_farewell(self):
        self.kill()

    def kill(self):
        """Ends everything now."""
        self.task = None
        if self.running is not None:
            kill(-self.running.pid, signal.SIGKILL)
            self.running.close()
            self.running = None
        sweep()
        self.keeper.forget_child()


class Running:
    """A command that runs."""

    def __init__(self, commands, number, begun, paths, argv, env, stdin):
        self.commands = commands
        self.keeper = commands.keeper
        self.number = number
        self.begun = begun
        self.ending = EXITED
        self.kill_at = self.ended = None
        self.out = []
        self.out_size = 0
        self.err = HeadTail()
        self.input = memoryview(stdin or b"")
        timeout = commands.task.timeout
        self.deadline = begun + timeout if timeout else None
        null = self.keeper.null
        self.pipes = {}
        theirs = [null, null, null]
        try:
            if stdin is not None:
                theirs[0], self.pipes[0] = os.pipe()
            if commands.task.job.keep_stdout:
                self.pipes[1], theirs[1] = os.pipe()
            self.pipes[2], theirs[2] = os.pipe()
            self.pid = spawn(paths, argv, env, theirs)
        except OSError as error:
            self.close()
            raise NotStarted(error.errno or 0) from None
        except NotStarted:
            self.close()
            raise
        finally:
            for fd in theirs:
                if fd != null:
                    os.close(fd)
        self.keeper.note(self.pid, b"+")
        self.memory = Sampler(commands.pool.memory, self.pid)
        self.peak = 0
        for place, call in ((1, self.read_out), (2, self.read_err)):
            if place in self.pipes:
                os.set_blocking(self.pipes[place], False)
                self.keeper.watch_fd(self.pipes[place], False, call)
        if 0 in self.pipes:
            os.set_blocking(self.pipes[0], False)
            self.write()
            if 0 in self.pipes:
                self.keeper.watch_fd(self.pipes[0], True, self.write)


    def write(self):
        """Writes what the pipe takes; a reader that went away wants no more."""
        try:
            while self.input:
                self.input = self.input[os.write(self.pipes[0], self.input[:MAX_PIPE]):]
        except LATER:
            return
        except OSError:
            pass
        self.shut(0)

    def read_out(self):
        data = self.read(1)
        if data and self.ending == EXITED:
            self.out.append(data)
            self.out_size += len(data)
            if self.out_size > MAX_STDOUT:
                self.out = []
                self.ending = TOO_MUCH_OUTPUT
                kill(-self.pid, signal.SIGKILL)
        return data

    def read_err(self):
        data = self.read(2)
        if data:
            self.err.push(data)
        return data

    def read(self, place):
        """Bytes; None where there are none now, or will be none any more."""
        try:
            data = os.read(self.pipes[place], BUFFER)
        except LATER:
            return None
        except OSError:
            data = b""
        if not data:
            self.shut(place)
            return None
        return data

    def shut(self, place):
        fd = self.pipes.pop(place)
        self.keeper.unwatch_fd(fd)
        os.close(fd)

    def close(self):
        for place in list(self.pipes):
            self.shut(place)

    def next_look(self, now):
        if self.ended is not None:
            return now + DISSOLVE
        if self.kill_at is not None:
            return self.kill_at
        return self.memory.next if self.deadline is None else min(self.memory.next, self.deadline)

    def look(self, now):
        """Asks it to end if it went beyond a limit, and kills it if it was asked long enough ago."""
        seen = self.memory.look(now)
        if seen is not None:
            self.peak = max(self.peak, seen[0])
        if self.kill_at is not None:
            if now >= self.kill_at:
                kill(-self.pid, signal.SIGKILL)
                self.kill_at = None
            if self.ended is not None and (self.kill_at is None or not kill(-self.pid, 0)):
                self.finish()
        elif self.ending == EXITED and self.ended is None:
            if seen is not None and seen[1]:
                self.ending = OVER_MEMORY
                kill(-self.pid, signal.SIGKILL)
            elif self.deadline is not None and now >= self.deadline:
                self.ending = TIMED_OUT_ITEM
                self.kill_at = now + GRACE
                kill(-self.pid, signal.SIGTERM)

    def look_for_end(self):
        if self.ended is not None:
            return reap(None)
        self.ended = reap(self.pid)
        if self.ended is not None and self.kill_at is None:
            self.finish()

    def finish(self):
        """It has ended: takes what is still in its pipes, and ends what it left in its group."""
        for place, read in ((1, self.read_out), (2, self.read_err)):
            for _ in range(MAX_PIPE // BUFFER):
                if place not in self.pipes or read() is None:
                    break
        kill(-self.pid, signal.SIGKILL)
        if self.ending != EXITED:
            sweep()
        self.keeper.note(self.pid, b"-")
        self.close()
        peak = max(self.peak, self.ended.peak)
        status = self.ended.status if self.ending == EXITED else 0
        self.commands.ended((peak, self.ending, status, b"".join(self.out), self.err.whole()))
