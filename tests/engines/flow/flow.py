import os
import signal
import time

import kit

START = None


def warm(start):
    global START
    START = start


def measure(row, *, factor, table):
    number = row["x"]
    if kit.is_open("slowly"):
        time.sleep(0.005)
        kit.log("begun", os.getpid())
    if row["id"] == "s0100":
        print("about to raise")
        raise ValueError("%s is out of range" % row["id"])
    if row["id"] == "s0300":
        print("about to crash", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if row["id"] == "s0500":
        print("about to sleep", flush=True)
        time.sleep(600)
    if row["id"] == "s0700":
        print("about to give what cannot be kept")
        return {"y": object()}
    return {"y": START + factor * number + table[number % len(table)], "unit": os.environ["UNIT"]}


def parts(row):
    for part, word in enumerate(row["stdout"].split()[: row["x"] % 4]):
        yield {"part": part, "length": len(word)}


def is_long(row):
    return row["length"] > 2


def total(rows):
    lengths = [row["length"] for row in rows]
    return {"rows": len(lengths), "length": sum(lengths)}
