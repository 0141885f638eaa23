"""Sources: the rows that a function yields, sent as they come.

The generator is held back by the socket: bpp-flow reads no more than it has room for. It is closed, so that its
`finally` runs, when bpp-flow has enough (SIGTERM) or it fails.
"""

import os
import signal
from marshal import dumps
from struct import Struct
from time import perf_counter as clock

from .calls import BrokenJob, broken, with_output
from .failures import clean
from .results import namer, one, rows_of, table_rows
from .values import Unkept

FLUSH = 0.005  # seconds until rows are sent
FLUSH_BYTES = 128 << 10
MAX_MESSAGE = 16 * 1024

REQUEST = Struct("<QI")
HEAD = Struct("<QI")
columns = namer(None)


class Outlet:
    """Rows that have not been sent yet."""

    def __init__(self, link, seq, capture):
        self.link = link
        self.seq = seq
        self.capture = capture
        # Whether the generator is at work, and nothing here is half done.
        self.away = False
        # Whether bpp-flow wants no more.
        self.left = False
        self.clear()

    def clear(self):
        self.count = 0
        self.size = 0
        self.blobs = []
        self.bad = []
        self.flushed = clock()

    def take(self, out):
        """What the generator yielded: a row, or a list or table of rows."""
        if type(out) is dict:
            return self.put(out)
        rows = out if type(out) is list else table_rows(out)
        if rows is None:
            return self.put({"value": None} if out is None else columns(out))
        for row in rows:
            self.put({"value": None} if row is None else columns(row))

    def put(self, row):
        try:
            blob = one(row)
        except Unkept as error:
            self.bad.append((self.count, clean(str(error), MAX_MESSAGE)))
        else:
            self.blobs.append(blob)
            self.size += len(blob)
        self.count += 1
        if self.size >= FLUSH_BYTES or clock() - self.flushed >= FLUSH:
            self.send()

    def send(self):
        if self.count:
            self.link.write(b"Y", HEAD.pack(self.seq, self.count), dumps(self.bad, 2), *self.blobs)
            self.capture.trim()
        self.clear()

    def send_ahead(self):
        """Sends what waits while the generator takes its time."""
        if self.away and not self.link.forked:
            self.away = False
            self.send()
            self.away = True

    def leave(self):
        """bpp-flow has enough: whatever is going on is left, through its `finally` blocks."""
        if self.link.forked:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            return os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.left = True
        raise SystemExit(0)


def serve(link, pool, capture, payload):
    """Runs a job's function to its end, or as far as it comes."""
    seq, job_id = REQUEST.unpack(payload)
    outlet = Outlet(link, seq, capture)
    signal.signal(signal.SIGURG, lambda _number, _frame: outlet.send_ahead())
    signal.siginterrupt(signal.SIGURG, False)
    signal.signal(signal.SIGTERM, lambda _number, _frame: outlet.leave())
    try:
        job = pool.job(job_id, capture)
        pour(job, outlet)
    except BrokenJob as error:
        if outlet.left:
            return outlet.leave()
        outlet.send()
        link.write(b"X", HEAD.pack(seq, 0)[:8], dumps(clean(str(error), 1 << 20), 2))
    else:
        link.write(b"D", HEAD.pack(seq, 0))


def pour(job, outlet):
    name = "%s:%s" % (job.module, job.name)
    rows = None
    try:
        outlet.away = True
        rows = given(job, name)
        for out in rows:
            outlet.away = False
            outlet.take(out)
            outlet.away = True
        outlet.away = False
        outlet.send()
    except (BrokenJob, Unkept) as error:
        outlet.away = False
        raise with_output(BrokenJob("%s: %s" % (name, error)), outlet.capture) from None
    except Exception as error:
        outlet.away = False
        raise with_output(broken(name, error, job.path), outlet.capture) from None
    finally:
        close = getattr(rows, "close", None)
        if close is not None:
            close()


def given(job, name):
    """An iterator of what the function yields, or of the rows that it returned."""
    out = job.function(**job.args)
    if out is None:
        raise Unkept("it returned None; a source's function yields rows (or returns them)")
    if hasattr(out, "__aiter__"):
        raise Unkept("an asynchronous generator cannot be a source; yield from a plain function")
    if hasattr(out, "__next__"):
        return out
    # The elements of a list are rows, not lists of rows.
    return iter([{"value": None} if row is None else columns(row)] for row in rows_of(out))
