"""Values on their way to and from bpp-flow.

A cell is None, bool, int, float, str, bytes, a list or dict of cells, or a time; nothing else, and none of them
changed. On the wire a time is a tuple (kind, text): cells hold no other tuples.
"""

import re
import sys
from datetime import date, datetime, time, timedelta

NoneType = type(None)
SCALARS = frozenset((NoneType, bool, int, float, str, bytes))
# Whether all types of an iterable are scalars', at C speed.
all_scalars = SCALARS.issuperset
MAX_DEPTH = 200

DATETIME, DATE, TIME, DURATION = range(4)


class Unkept(Exception):
    """A returned value that cannot be kept."""


class Unreadable(Exception):
    """A cell that Python cannot hold exactly."""


def refuse(value):
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else "%s.%s" % (kind.__module__, kind.__qualname__)
    hint = "write large objects to a file (see `files`)"
    if name in ("generator", "async_generator", "coroutine"):
        hint = "call it, or use `flat_map` for a function that yields rows"
    raise Unkept(
        "a value of type %s cannot be kept; return int, float, str, bytes, list, dict, or a time; %s" % (name, hint)
    )


def plain(value, depth=0):
    """The value in the types that are kept; raises Unkept."""
    kind = type(value)
    if kind in SCALARS:
        return value
    if depth > MAX_DEPTH:
        raise Unkept("a value nested more than %d deep (or within itself) cannot be kept" % MAX_DEPTH)
    if kind is list:
        return value if all_scalars(map(type, value)) else [plain(v, depth + 1) for v in value]
    if kind is dict:
        return {key(k): plain(v, depth + 1) for k, v in value.items()}
    return convert(value, depth)


def key(name):
    if type(name) is str:
        return name
    if isinstance(name, str):
        return str.__str__(name)
    raise Unkept("a dict with a key of type %s cannot be kept; keys must be text" % type(name).__qualname__)


def convert(value, depth):
    pandas = sys.modules.get("pandas")
    if pandas is not None and hasattr(pandas, "DataFrame"):
        found, result = from_pandas(pandas, value)
        if found:
            return plain(result, depth)
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "ndarray"):
        found, result = from_numpy(numpy, value)
        if found:
            return plain(result, depth)
    if isinstance(value, datetime):
        return (DATETIME, datetime.isoformat(value))
    if isinstance(value, date):
        return (DATE, date.isoformat(value))
    if isinstance(value, time):
        return (TIME, time.isoformat(value))
    if isinstance(value, timedelta):
        return (DURATION, seconds(value))
    return convert_subclass(value, depth)


def convert_subclass(value, depth):
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__pos__(value)
    if isinstance(value, float):
        return float.__pos__(value)
    if isinstance(value, bytes):
        return bytes.join(b"", (value,))
    if isinstance(value, (list, tuple)):
        return [plain(v, depth + 1) for v in value]
    if isinstance(value, dict):
        return {key(k): plain(v, depth + 1) for k, v in dict.items(value)}
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow is not None and hasattr(pyarrow, "Table"):
        if isinstance(value, pyarrow.Scalar):
            return plain(value.as_py(), depth)
        if isinstance(value, (pyarrow.Array, pyarrow.ChunkedArray, pyarrow.Table, pyarrow.RecordBatch)):
            return plain(value.to_pylist(), depth)
    return refuse(value)


def from_pandas(pandas, value):
    """(whether it is pandas' own, the plainer value)."""
    if value is pandas.NaT or value is getattr(pandas, "NA", pandas.NaT):
        return True, None
    if isinstance(value, pandas.Timestamp):
        if value.nanosecond:
            raise Unkept("a time finer than microseconds (%s) cannot be kept" % value)
        return True, value.to_pydatetime()
    if isinstance(value, pandas.Timedelta):
        if value.nanoseconds:
            raise Unkept("a duration finer than microseconds (%s) cannot be kept" % value)
        return True, value.to_pytimedelta()
    if isinstance(value, (pandas.Series, pandas.Index, pandas.api.extensions.ExtensionArray)):
        return True, value.tolist()
    if isinstance(value, pandas.DataFrame):
        return True, frame_records(value)
    return False, None


def frame_records(frame):
    """The rows of a DataFrame as dicts."""
    names = [key(name) for name in frame.columns.tolist()]
    if len(set(names)) < len(names):
        raise Unkept("a DataFrame with two columns of one name cannot be kept")
    columns = [frame.iloc[:, i].tolist() for i in range(len(names))]
    if not columns:
        return [{} for _ in range(len(frame))]
    return [dict(zip(names, cells)) for cells in zip(*columns)]


def from_numpy(numpy, value):
    if isinstance(value, numpy.ndarray):
        if value.dtype.kind in "mM" and value.ndim:
            return True, [value[i] for i in range(len(value))]
        if value.dtype.kind in "cV":
            raise Unkept("an array of %s cannot be kept" % value.dtype)
        return True, value.tolist() if value.ndim else value[()]
    if not isinstance(value, numpy.generic):
        return False, None
    if isinstance(value, (numpy.datetime64, numpy.timedelta64)):
        return True, from_numpy_time(numpy, value)
    if isinstance(value, numpy.floating):
        exact = float(value)
        if exact != value and value == value:
            raise Unkept("a %s that is no 64-bit float cannot be kept" % type(value).__name__)
        return True, exact
    if isinstance(value, (numpy.bool_, numpy.integer, numpy.str_, numpy.bytes_)):
        return True, value.item()
    return False, None


def from_numpy_time(numpy, value):
    if numpy.isnat(value):
        return None
    unit = numpy.datetime_data(value.dtype)[0]
    if unit not in ("Y", "M", "W", "D", "h", "m", "s", "ms", "us"):
        rounded = value.astype("%s[us]" % value.dtype.name.split("[")[0])
        if unit == "generic" or rounded != value:
            raise Unkept("a %s that is no whole number of microseconds cannot be kept" % type(value).__name__)
        value = rounded
    exact = value.item()
    if isinstance(exact, int):
        raise Unkept("a time beyond Python's datetime (%s) cannot be kept" % value)
    return exact


def seconds(span):
    """A duration in seconds, exactly."""
    micros = (span.days * 86400 + span.seconds) * 1000000 + span.microseconds
    whole, part = divmod(abs(micros), 1000000)
    text = ("%d.%06d" % (whole, part)).rstrip("0").rstrip(".")
    return "-" + text if micros < 0 else text


# From the wire.


def revive(value):
    """The value with times in place of tuples; raises Unreadable."""
    kind = type(value)
    if kind is tuple:
        return read_time(*value)
    if kind is list:
        return [revive(v) for v in value]
    if kind is dict:
        return {k: revive(v) for k, v in value.items()}
    if value is ...:
        raise Unreadable("the row has no such column")
    return value


FRACTION = re.compile(r"(?<=:\d\d)\.(\d+)")


def read_time(kind, text):
    try:
        if kind == DURATION:
            return read_duration(text)
        parse = (datetime, date, time)[kind].fromisoformat
        if text[-1:] in "zZ":
            text = text[:-1] + "+00:00"
        return parse(FRACTION.sub(six_digits, text, 1))
    except (ValueError, OverflowError) as error:
        raise Unreadable("Python cannot hold the time %s exactly: %s" % (text, error)) from None


def six_digits(match):
    digits = match.group(1)
    if digits[6:].strip("0"):
        raise ValueError("finer than microseconds")
    return "." + digits[:6].ljust(6, "0")


def read_duration(text):
    whole, _, part = text.lstrip("-").partition(".")
    if part[6:].strip("0"):
        raise ValueError("finer than microseconds")
    span = timedelta(seconds=int(whole), microseconds=int(part[:6].ljust(6, "0")))
    return -span if text.startswith("-") else span
