"""What a worker costs an item: `python3 benches/worker.py`. Best and mean over many tasks of 1000 rows of 3 columns.

Next to it stands the bare loop of the same calls, without frames, slot, capture or checks, in the same minute.
"""

import marshal
import os
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "python"))

from harness import Worker  # noqa: E402

SOURCE = """
def one(row): return {'y': row['x'] * 2}
def many(row): return [{'y': row['x'] * 2}]
def keep(row): return row['x'] > 2
"""
ROWS = 1000
TASKS = 400


def body(rows):
    """A task as bpp-flow writes it: keys shared, text short."""
    out = [b"(" + struct.pack("<I", 4) + b"[" + struct.pack("<I", len(rows))]
    seen = []
    for row in rows:
        out.append(b"{")
        for name, value in row.items():
            if name in seen:
                out.append(b"r" + struct.pack("<I", seen.index(name)))
            else:
                seen.append(name)
                out.append(bytes((ord("Z") | 0x80, len(name))) + name.encode())
            if isinstance(value, str):
                out.append(bytes((ord("z"), len(value))) + value.encode())
            else:
                out.append(marshal.dumps(value, 2))
        out.append(b"0")
    return b"".join(out) + b"NNN"


def measure(run):
    times = []
    for _ in range(TASKS):
        begun = time.perf_counter()
        run()
        times.append((time.perf_counter() - begun) / ROWS * 1e6)
    return "best %.3f, mean %.3f us an item" % (min(times), sum(times) / TASKS)


def bare(task, function):
    rows = marshal.loads(task)[0]
    for row in rows:
        marshal.dumps(function(row), 2)


def main():
    task = body([{"id": i, "x": i * 0.5, "name": "cell-%d" % i} for i in range(ROWS)])
    names = {}
    exec(SOURCE, names)
    print("bare loop:", measure(lambda: bare(task, names["one"])))
    for shape in ("one", "many", "keep"):
        worker = Worker(SOURCE)
        job = worker.job(shape, shape=shape)

        def run():
            worker.seq += 1
            worker.send(b"T", struct.pack("<QII", worker.seq, job, 0) + task)
            while worker.receive()[0] != b"D":
                pass

        print("%s:" % shape, measure(run))
        worker.close()


main()
