"""Processes that a keeper starts: their start, their end, and the memory that they hold."""

import errno
import os
import signal
import time

PR_SET_CHILD_SUBREAPER = 36
# How often memory is looked at, how often the process table, and the share of time that this may take.
LOOK = 0.02
SCAN = 0.05
SHARE = 50
# How long the swept may take to go.
SWEEP = 5
PAGE = os.sysconf("SC_PAGE_SIZE")
# Descriptors below this are places in the started process.
LOW = 16


def adopt_orphans():
    """What the children of this process leave behind becomes its own; whether that can be had."""
    try:
        import ctypes

        return ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    except Exception:
        return False


class NotStarted(Exception):
    """A program that could not be started, or a folder that could not be entered."""

    def __init__(self, number, folder=False):
        self.number = number
        self.folder = folder

    def words(self, program, cwd):
        cause = "%s (os error %d)" % (os.strerror(self.number), self.number)
        if self.folder:
            if self.number == errno.ENOENT:
                return "folder %s not found" % quoted(cwd)
            return "folder %s cannot be entered: %s" % (quoted(cwd), cause)
        if self.number == errno.ENOENT:
            return "program %s not found" % quoted(program)
        return "program %s cannot be started: %s" % (quoted(program), cause)


class NotStartedWorker(Exception):
    """Why nothing of a pool can run, in words."""


def quoted(text):
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}
    shown = (escapes.get(c) or (c if c.isprintable() else "\\u{%x}" % ord(c)) for c in text)
    return '"%s"' % "".join(shown)


def enter(folder):
    try:
        os.chdir(folder)
    except OSError as error:
        raise NotStarted(error.errno or 0, True) from None
    except ValueError:
        raise NotStarted(errno.EINVAL) from None


def candidates(program, path):
    """Where a program of that name may lie."""
    if not program:
        return []
    if "/" in program:
        return [program]
    return [os.path.join(folder, program) for folder in ("/bin:/usr/bin" if path is None else path).split(":")]


def spawn(paths, argv, env, files, session=False):
    """Starts the first of `paths` that there is, in the present folder, as the leader of a group; gives its number.

    `files` become its descriptors 0, 1, 2, …
    """
    actions = [(os.POSIX_SPAWN_DUP2, file, place) for place, file in enumerate(files)]
    told = errno.ENOENT
    for path in paths:
        try:
            if not os.path.exists(path):
                continue
            return start(path, argv, env, actions, session)
        except ValueError:
            raise NotStarted(errno.EINVAL) from None
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                return start("/bin/sh", ["/bin/sh", path] + argv[1:], env, actions, session)
            if error.errno == errno.EACCES:
                told = errno.EACCES
            elif error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise NotStarted(error.errno or 0) from None
    raise NotStarted(told)


def start(path, argv, env, actions, session):
    more = {"setsid": True} if session else {"setpgroup": 0}
    plain = {"file_actions": actions, "setsigmask": [], "setsigdef": IGNORED}
    try:
        return os.posix_spawn(path, argv, env, **plain, **more)
    except NotImplementedError:
        return os.posix_spawn(path, argv, env, **plain, setpgroup=0)


# What Python ignores, and the programs that it starts should not.
IGNORED = [getattr(signal, name) for name in ("SIGPIPE", "SIGXFSZ") if hasattr(signal, name)]


def passable(env):
    """The variables that can be passed on."""
    return {name: value for name, value in env.items() if "\0" not in name + value and name and "=" not in name}


def kill(number, signal_number):
    """Sends a signal to a process, or to a group if the number is negative; whether there was one."""
    try:
        os.kill(number, signal_number)
    except OSError as error:
        # On macOS a group of zombies only.
        return error.errno == errno.EPERM and signal_number == 0
    return True


class Ended:
    """How a process ended: the status as `wait` gives it, and the most memory that it held, in KiB."""

    def __init__(self, status, usage):
        self.status = status
        held = usage.ru_maxrss if usage is not None else 0
        self.peak = min(held >> 10 if os.uname().sysname == "Darwin" else held, 0xFFFFFFFF)


def reap(leader):
    """Takes leave of children that have ended, without waiting; the end of `leader` if it was among them."""
    found = None
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if not pid:
            return found
        if pid == leader:
            found = Ended(status, usage)


def sweep(leader=None):
    """Kills all children, and all that become children as their parents die; the end of `leader` if it was one."""
    found = None
    deadline = time.monotonic() + SWEEP
    pause = 0.0005
    while True:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return found
            if not pid:
                break
            if pid == leader:
                found = Ended(status, usage)
        if time.monotonic() > deadline:
            return found
        for pid in children(os.getpid()) or ([leader] if leader else []):
            kill(pid, signal.SIGKILL)
        time.sleep(pause)
        pause = min(0.02, pause * 2)


def read(path):
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return None


def children(pid):
    """The processes whose parent that one is."""
    try:
        tasks = os.listdir("/proc/%d/task" % pid)
    except OSError:
        return []
    lists = [read("/proc/%d/task/%s/children" % (pid, task)) for task in tasks]
    if any(each is not None for each in lists) or not tasks:
        return [int(child) for each in lists if each for child in each.split()]
    return [child for child, parent in processes() if parent == pid]


def processes():
    """All processes with their parents, for kernels that keep no lists of children."""
    for name in os.listdir("/proc"):
        stat = read("/proc/%s/stat" % name) if name.isdigit() else None
        if stat:
            # The name in parentheses may hold anything.
            yield int(name), int(stat.rpartition(b")")[2].split()[1])


def descendants(pid):
    tree = children(pid)
    for each in tree:
        tree.extend(children(each))
    return tree


class Sampler:
    """Looks from time to time at the memory of everything that a keeper has started."""

    def __init__(self, limit, leader):
        self.limit = limit
        self.tree = [leader]
        # Without a limit there is nothing to look at.
        self.next = self.next_scan = time.monotonic() + LOOK if limit is not None else float("inf")

    def look(self, now):
        """(KiB held, whether that is more than the limit), if it is time."""
        if now < self.next:
            return None
        self.next = now + LOOK
        if now >= self.next_scan:
            self.tree = descendants(os.getpid())
            self.next_scan = now + max(SCAN, SHARE * (time.monotonic() - now))
        held = sum(map(resident, self.tree))
        if held > self.limit and len(self.tree) > 1:
            # Pages that several share are counted once before anybody is stopped for them.
            held = sum(map(proportional, self.tree))
        return min(held >> 10, 0xFFFFFFFF), held > self.limit


def resident(pid):
    """Bytes; 0 when it is gone."""
    statm = read("/proc/%d/statm" % pid)
    return int(statm.split()[1]) * PAGE if statm else 0


def proportional(pid):
    """The same, where pages that `n` processes share count for an `n`th each."""
    for line in (read("/proc/%d/smaps_rollup" % pid) or b"").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) << 10
    return resident(pid)
