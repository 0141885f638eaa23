"""What a keeper is told of pools, jobs and tasks, and the ways in which a task ends."""

import marshal
import os
import struct

DONE, BROKEN, WORKER_DIED, TIMED_OUT, LOST, REFUSED, SILENT = range(7)
END = struct.Struct("<QBIiIBI")
TASK = struct.Struct("<QIIIIB")
SEQ = struct.Struct("<Q")
NUMBER = struct.Struct("<I")
NUMBERS = struct.Struct("<II")
ROWS, COMMANDS, GROUP = range(3)


class Pool:
    """Where and with what items run. Its uploads and shared objects are in `files` once they are on this node."""

    def __init__(self, payload):
        (self.number,) = NUMBER.unpack_from(payload)
        told = marshal.loads(payload[NUMBER.size:])
        python = told["python"]
        self.interpreter = python and python["interpreter"]
        self.path = python and python["path"]
        self.env = dict(told["env"])
        self.cwd = told["cwd"]
        self.memory = told["memory"]
        self.most_items = told["most_items"]
        self.upload = told["upload"]
        self.share = told["share"]
        # The uploads, unpacked; where shared objects lie: by path (path, size, mtime_ns, inode).
        self.folders = None
        self.shared = {}

    def folder(self):
        """Where its processes run."""
        if self.folders and not os.path.isdir(self.cwd):
            return self.folders[0]
        return self.cwd

    def module_folders(self):
        """Where its modules are looked for. What was uploaded was asked for: it comes first."""
        own = [self.path] if self.path and (os.path.isdir(self.path) or not self.folders) else []
        return self.folders + own

    def environment(self):
        env = {**os.environ, **self.env}
        if self.path is not None and self.folders:
            more = self.module_folders()[1:] + [env.get("PYTHONPATH")]
            env["PYTHONPATH"] = os.pathsep.join(filter(None, more))
        return env


class Job:
    """What a task calls."""

    def __init__(self, payload, pool):
        self.number, _ = NUMBERS.unpack_from(payload)
        self.pool = pool
        told = marshal.loads(payload[NUMBERS.size:])
        self.frame = told["frame"]
        self.keep_stdout = told["keep_stdout"]

    def worker_frame(self):
        """The worker's `J` frame, with the places of this node."""
        pool = self.pool
        if not (pool.folders or pool.shared):
            return self.frame
        head, told = self.frame[5:9], marshal.loads(self.frame[9:])
        if told["path"] is not None and pool.folders:
            told["path"] = pool.module_folders()[0]
        told["share"] = [here(pool, entry) for entry in told["share"]]
        body = head + marshal.dumps(told, 2)
        return struct.pack("<IB", len(body), self.frame[4]) + body


def here(pool, entry):
    """A shared object as the worker is told of it, with its place and stamp on this node."""
    name, shown, form, path = entry[:4]
    if path not in pool.shared:
        return entry
    place, *stamp = pool.shared[path]
    return (name, shown, form, place, *map(str, stamp))


class Task:
    """A task that has arrived."""

    def __init__(self, payload, parts, jobs):
        self.seq, job, _pool, self.items, timeout, self.form = TASK.unpack_from(payload)
        self.key = SEQ.pack(self.seq)
        self.job = jobs[job]
        self.pool = self.job.pool
        self.timeout = timeout / 1000
        self.body = parts + [memoryview(payload)[TASK.size:]]
