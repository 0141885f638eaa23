"""From what a function returned to the bytes of its result.

Results are serialised at once, so that nothing that happens to an object later can change them.
"""

import sys
from collections.abc import Iterable
from marshal import dumps
from struct import pack as pack_struct
from types import GeneratorType

from .values import Unkept, all_scalars, frame_records, key, plain, refuse

# Longer results would not fit a frame.
MAX_RESULT = (1 << 30) - (64 << 20)

all_text = frozenset((str,)).issuperset


def packer(shape, returns):
    """A function from what a call returned to its result in marshal form; raises Unkept."""
    if shape == "keep":
        return keep
    columns = namer(returns)
    if shape == "many":
        return lambda out: many(out, columns, returns)
    return lambda out: one(columns(out))


def one(row):
    return checked(serialise(row))


def checked(blob):
    if len(blob) > MAX_RESULT:
        raise Unkept("a result of %d bytes is too large to keep; write it to a file (see `files`)" % len(blob))
    return blob


def serialise(row):
    if all_scalars(map(type, row.values())) and all_text(map(type, row)):
        return dumps(row, 2)
    kept = {}
    for name, value in row.items():
        name = column_name(name)
        try:
            kept[name] = plain(value)
        except Unkept as error:
            raise Unkept('column "%s": %s' % (name, error)) from None
        except RecursionError:
            raise Unkept('column "%s": a value nested too deep cannot be kept' % name) from None
    return dumps(kept, 2)


def are_plain(rows):
    """Whether all are dicts of scalars, as they can be serialised in one go."""
    for row in rows:
        if type(row) is not dict or not all_scalars(map(type, row.values())) or not all_text(map(type, row)):
            return False
    return True


def column_name(name):
    try:
        return key(name)
    except Unkept:
        raise Unkept("a column's name must be text, not %s" % type(name).__qualname__) from None


def namer(returns):
    """A function from what stands for a row to a dict of its new columns."""

    def columns(out):
        if isinstance(out, dict):
            return out if type(out) is dict else dict(out)
        if out is None:
            return {}
        return {"value": out}

    def named(out):
        if not isinstance(out, (tuple, list)):
            return columns(out)
        if len(out) != len(returns):
            raise Unkept("%d values returned where `returns` names %d" % (len(out), len(returns)))
        return dict(zip(returns, out))

    return named if returns else columns


def many(out, columns, returns):
    if type(out) is list and are_plain(out):
        return checked(dumps(out, 2))
    parts = [b""]
    size = 0
    for row in rows_of(out, returns):
        blob = serialise(columns(row) if row is not None else {"value": None})
        size += len(blob)
        if size > MAX_RESULT:
            raise Unkept("more than %d bytes of rows are too much to keep from one item" % MAX_RESULT)
        parts.append(blob)
    parts[0] = b"[" + pack_struct("<I", len(parts) - 1)
    return b"".join(parts)


def rows_of(out, returns=None):
    """The rows that an item gave."""
    if out is None:
        return ()
    if isinstance(out, (dict, str, bytes)) or (returns and isinstance(out, tuple)):
        return (out,)
    if type(out) in (list, GeneratorType):
        return out
    table = table_rows(out)
    if table is not None:
        return table
    if isinstance(out, (set, frozenset)):
        raise Unkept("a set of rows has no order; return a list")
    if isinstance(out, Iterable) and getattr(out, "ndim", 1):
        return out
    if hasattr(out, "__aiter__") or hasattr(out, "__await__"):
        refuse(out)
    return (out,)


def table_rows(out):
    """The rows of a DataFrame or an Arrow table; None for anything else."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(out, getattr(pandas, "DataFrame", ())):
        return frame_records(out)
    pyarrow = sys.modules.get("pyarrow")
    if pyarrow is not None and isinstance(out, (getattr(pyarrow, "Table", ()), getattr(pyarrow, "RecordBatch", ()))):
        return arrow_records(out)
    return None


def arrow_records(table):
    names = table.schema.names
    if len(set(names)) < len(names):
        raise Unkept("a table with two columns of one name cannot be kept")
    if not names:
        return [{} for _ in range(table.num_rows)]
    return [dict(zip(names, cells)) for cells in zip(*(column.to_pylist() for column in table.columns))]


def keep(out):
    if hasattr(out, "__next__") or hasattr(out, "__await__") or hasattr(out, "__aiter__"):
        refuse(out)
    try:
        return b"T" if out else b"F"
    except Exception as error:
        raise Unkept("neither true nor false: %s: %s" % (type(error).__name__, error)) from None


def spread(out, n, returns=None, shape="one"):
    """What a function returned for a chunk, as `n` returns, one a row."""
    if out is None:
        return [None] * n
    rows = table_rows(out)
    if rows is None and isinstance(out, dict):
        rows = transpose(out, n)
    elif rows is None:
        if returns and isinstance(out, tuple) and len(out) == len(returns):
            rows = transpose(dict(zip(returns, out)), n)
        elif isinstance(out, (str, bytes, set, frozenset)) or not isinstance(out, Iterable):
            raise Unkept("a chunk of %d rows gave a %s, not %d rows" % (n, type(out).__name__, n))
        else:
            rows = sequence(out)
            if shape == "one" and not returns and (hasattr(out, "dtype") or hasattr(out, "to_pylist")):
                # A Series or array is a column, whatever its cells are.
                rows = [{"value": cell} for cell in rows]
    if len(rows) != n:
        raise Unkept("a chunk of %d rows gave %d" % (n, len(rows)))
    return rows


def transpose(columns, n):
    """A dict of columns as rows."""
    lists = []
    for name, cells in columns.items():
        name = column_name(name)
        if isinstance(cells, (str, bytes, dict, set, frozenset)) or not isinstance(cells, Iterable):
            raise Unkept('column "%s": a %s, not %d values' % (name, type(cells).__name__, n))
        cells = sequence(cells)
        if len(cells) != n:
            raise Unkept('column "%s": %d values for %d rows' % (name, len(cells), n))
        lists.append(cells)
    names = [column_name(name) for name in columns]
    if not names:
        return [{}] * n
    return [dict(zip(names, cells)) for cells in zip(*lists)]


def sequence(cells):
    """An iterable as a list: a Series, array, generator."""
    if isinstance(cells, list):
        return cells
    to_list = getattr(cells, "to_pylist", None)
    return to_list() if to_list is not None else list(cells)
