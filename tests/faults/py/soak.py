"""The actions of the soak: small sums, each item logged as it begins and ends, some with a fate."""

import ctypes
import faulthandler
import json
import os
import subprocess
import sys
import threading
import time

import kit

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "soak.json")) as file:
    TOLD = json.load(file)


def suffer(fate):
    """What befalls the item; returns where it is to succeed all the same."""
    if fate == "raise":
        raise ValueError("told to")
    if fate == "leave":
        sys.exit(3)
    if fate == "exit":
        os._exit(0)
    if fate == "abort":
        os.abort()
    if fate == "segfault":
        ctypes.string_at(0)
    if fate == "overflow":
        faulthandler._stack_overflow()
    if fate == "sleep":
        time.sleep(600)
    if fate == "loud":
        print("words " * 60_000)
        os.write(2, b"\x00\xff" * 30_000)
    if fate == "shout":
        os.write(1, b"words " * 60_000)
        raise ValueError("told to")
    if fate == "child":
        subprocess.Popen(["sleep", "600"])
    if fate == "daemon":
        subprocess.Popen(["sleep", "600"], start_new_session=True)


def item(stage, n, give, bad):
    """Runs one item: logged, with its pause and its fate."""
    where = "%s %d %d %d" % (stage, n, os.getpid(), threading.get_ident())
    kit.log("hand", "B " + where)
    try:
        told = TOLD[stage]
        if told["nap"]:
            time.sleep(told["nap"])
        fate = told["fates"].get(str(n))
        if fate:
            suffer(fate)
        return bad if fate == "bad" else give()
    finally:
        kit.log("hand", "E " + where)


def sums(n, i):
    return {"y%d" % i: n * 7 + i}


def children(n, i):
    return [{"n": n * 4 + j, "y%d" % i: j} for j in range((n + i) % 3)]


def is_kept(n, i):
    return (n + i) % 3 != 0


def map_row(row, stage, i):
    return item(stage, row["n"], lambda: sums(row["n"], i), {"y": object()})


def map_kwargs(n, stage, i):
    return map_row({"n": n}, stage, i)


def map_value(n, stage, i):
    return map_row({"n": n}, stage, i)


def map_chunk(rows, stage, i):
    return [map_row(row, stage, i) for row in rows]


def map_frame(frame, stage, i):
    return [map_row({"n": int(n)}, stage, i) for n in frame["n"]]


def spread(row, stage, i):
    def generate():
        yield from item(stage, row["n"], lambda: children(row["n"], i), [{"y": object()}])

    return generate() if row["n"] % 2 else list(generate())


def keep(row, stage, i):
    return item(stage, row["n"], lambda: is_kept(row["n"], i), iter(()))


def total(rows, stage, i, grouped):
    rows = list(rows)

    def give():
        return {"n": sum(row["n"] for row in rows), "c%d" % i: len(rows)}

    return item(stage, rows[0]["g"] if grouped else -1, give, {"y": object()})
