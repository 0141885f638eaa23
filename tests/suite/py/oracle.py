"""A naive reading of the workflow language: plain loops over lists of dicts.

`oracle.py PLAN.json` prints, for every stage, its rows and the rows that failed in it, as JSON. The plan is
`{"rows": FILE, "stages": [{"name", "verb", "inputs", "op", "args", "group_by"}]}`, stages in topological order.
The functions are those of `ops.py`, which the workflow itself calls.
"""

import datetime
import json
import math
import sys

import ops

EXPRESSIONS = {
    "item.k % 3": lambda row: row["k"] % 3,
    "item.k * 2 + 1": lambda row: row["k"] * 2 + 1,
    "item.g": lambda row: row["g"],
    "item.k % 2 == 0": lambda row: row["k"] % 2 == 0,
    "item.k > 4 or item.k == 1": lambda row: row["k"] > 4 or row["k"] == 1,
}


def shown(value):
    """As `results --format jsonl` shows it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime.timedelta):
        return {"seconds": value.total_seconds()}
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return [shown(v) for v in value]
    if isinstance(value, dict):
        return {k: shown(v) for k, v in value.items()}
    return value


def listed(value):
    """Tuples come back as lists."""
    if isinstance(value, (list, tuple)):
        return [listed(v) for v in value]
    if isinstance(value, dict):
        return {k: listed(v) for k, v in value.items()}
    return value


def columns(result):
    if result is None:
        return {}
    if isinstance(result, dict):
        return {k: listed(v) for k, v in result.items()}
    return {"value": listed(result)}


def map_rows(stage, rows):
    good, bad = [], []
    for row in rows:
        try:
            if stage["verb"] == "assign":
                new = {name: EXPRESSIONS[e](row) for name, e in stage["args"].items()}
            else:
                new = columns(getattr(ops, stage["op"])(dict(row), **stage["args"]))
            good.append({**row, **new})
        except Exception:
            bad.append(row)
    return good, bad


def flat_map_rows(stage, rows):
    good, bad = [], []
    for row in rows:
        try:
            made = getattr(ops, stage["op"])(dict(row), **stage["args"])
            made = [] if made is None else [made] if isinstance(made, dict) else list(made)
            good.extend({**row, **columns(new)} for new in made)
        except Exception:
            bad.append(row)
    return good, bad


def filter_rows(stage, rows):
    good, bad = [], []
    for row in rows:
        try:
            if stage["verb"] == "where":
                keep = EXPRESSIONS[stage["op"]](row)
            else:
                keep = getattr(ops, stage["op"])(dict(row), **stage["args"])
            if keep:
                good.append(row)
        except Exception:
            bad.append(row)
    return good, bad


def reduce_rows(stage, rows):
    groups = {}
    for row in rows:
        key = json.dumps([[type(row[c]).__name__, row[c]] for c in stage["group_by"]])
        groups.setdefault(key, []).append(row)
    good, bad = [], []
    for members in groups.values():
        group = {c: members[0][c] for c in stage["group_by"]}
        try:
            made = columns(getattr(ops, stage["op"])(iter([dict(row) for row in members]), **stage["args"]))
            good.append({**group, **made})
        except Exception:
            bad.append(group)
    return good, bad


RUN = {
    "map": map_rows,
    "assign": map_rows,
    "flat_map": flat_map_rows,
    "filter": filter_rows,
    "where": filter_rows,
    "reduce": reduce_rows,
}


def main(path):
    with open(path) as file:
        plan = json.load(file)
    with open(plan["rows"], encoding="utf-8") as file:
        made = {"rows": [json.loads(line) for line in file.read().split("\n") if line]}
    answer = {}
    for stage in plan["stages"]:
        rows = [dict(row) for name in stage["inputs"] for row in made[name]]
        good, bad = RUN[stage["verb"]](stage, rows)
        made[stage["name"]] = good
        answer[stage["name"]] = {"rows": [shown(row) for row in good], "failed": [shown(row) for row in bad]}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
