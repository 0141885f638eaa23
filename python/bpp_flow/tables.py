"""Chunks as DataFrames and Arrow tables, with every cell as it is.

A column has a type of its own only where all its cells have that type; where they do not, pandas gets objects, and
Arrow, which has no such column, refuses: the chunk is then halved until the rows of each part agree.
"""

from .values import SCALARS, Unreadable


def builder(chunk_format):
    """A function from a list of dicts to what the function gets."""
    if chunk_format == "pandas":
        import pandas

        return lambda rows: frame(pandas, rows)
    if chunk_format == "arrow":
        import pyarrow

        return lambda rows: arrow(pyarrow, rows)
    return lambda rows: rows


def columns_of(rows):
    """Names in order of appearance, each with its cells; what a row lacks is None."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def frame(pandas, rows):
    columns = {name: series(pandas, cells) for name, cells in columns_of(rows).items()}
    result = pandas.DataFrame(columns, index=pandas.RangeIndex(len(rows)), copy=False)
    result.columns = pandas.Index(list(columns), dtype=object)
    return result


def series(pandas, cells):
    kinds = set(map(type, cells))
    if kinds == {int} and -(1 << 63) <= min(cells) and max(cells) < 1 << 63:
        return pandas.Series(cells, dtype="int64")
    if kinds == {float}:
        return pandas.Series(cells, dtype="float64")
    if kinds == {bool}:
        return pandas.Series(cells, dtype="bool")
    return pandas.Series(cells, dtype=object)


def arrow(pyarrow, rows):
    arrays = []
    columns = columns_of(rows)
    for name, cells in columns.items():
        try:
            arrays.append(array(pyarrow, cells))
        except (Unreadable, pyarrow.ArrowException, OverflowError, TypeError, ValueError) as error:
            raise Unreadable('column "%s" is no Arrow array: %s' % (name, error)) from None
    if not columns:
        return pyarrow.table({"": pyarrow.nulls(len(rows))}).drop([""])
    return pyarrow.Table.from_arrays(arrays, names=list(columns))


def array(pyarrow, cells):
    kinds = {type(cell) for cell in cells if cell is not None}
    if len(kinds) > 1:
        raise Unreadable("values of the types %s" % ", ".join(sorted(kind.__name__ for kind in kinds)))
    built = pyarrow.array(cells)
    if kinds and not kinds <= SCALARS and not same(built.to_pylist(), cells):
        raise Unreadable("values that do not come out as they went in")
    return built


def same(a, b):
    """Equality of values and types, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(v, b[k]) for k, v in a.items())
    offset = getattr(a, "utcoffset", None)
    return (a == b or a != a) and (offset is None or a.utcoffset() == b.utcoffset())
