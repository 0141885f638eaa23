"""What the stages of random workflows call."""

import datetime
import os
import time

MADE = [
    float("nan"),
    float("inf"),
    float("-inf"),
    b"\x00\xff",
    datetime.datetime(2024, 2, 29, 12, 30, 1, 5),
    datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc),
    datetime.date(1970, 1, 1),
    datetime.time(23, 59),
    10**40,
    -(2**63),
    2**63,
    None,
    [1, [2.5, None, "x"], {"a": float("nan")}],
    {"b": [1], "a": {"c": -0.0}},
    (1, 2.0),
    "\U0001d11e",
    True,
    0.1 + 0.2,
]


def nap(row):
    """Random delays, which no result may show."""
    pause = float(os.environ.get("BPP_TEST_PAUSE", "0"))
    if pause:
        time.sleep(pause * (row["k"] * 7919 % 5))


def plain(value):
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value


def tell(row):
    """The row as Python sees it, types and all."""
    nap(row)
    return {"told": repr(sorted((k, plain(v)) for k, v in row.items()))}


def make(row, *, step):
    """A value that no JSON file can hold."""
    nap(row)
    return {"made": MADE[(row["k"] * step) % len(MADE)]}


def number(row, *, by):
    return row["k"] * by


def nothing(row):
    return {"k2": row["k"]} if row["k"] % 2 else None


def fail(row, *, every, at):
    nap(row)
    if row["k"] % every == at:
        raise ValueError("row %d of %r" % (row["k"], row["g"]))
    return {"passed": every}


def spread(row, *, most):
    for i in range(row["k"] % most):
        if row["k"] == 13 and i == 2:
            raise RuntimeError("thirteen")
        yield {"i": i, "k": row["k"] + i}


def single(row):
    return {"once": row["k"]} if row["k"] % 3 else []


def keep(row, *, than):
    nap(row)
    if row["k"] == 17:
        raise LookupError("seventeen")
    return row["k"] % than


def gather(rows):
    rows = list(rows)
    return {"k": len(rows), "all": [row["k"] for row in rows], "last": repr(plain(rows[-1].get("v")))}


def total(rows, *, shift):
    count = 0
    for row in rows:
        count += row["k"] + shift
    if count % 7 == 3:
        raise ArithmeticError("three of seven")
    return {"k": count, "g": "sum"}
