"""What the functions of the tests share: logs that survive a kill, gates and meetings."""

import os
import time

LOGS = os.environ["BPP_TEST_LOG"]


def log(name, text):
    """Appends a line; one write of a file opened O_APPEND, so that no other writer tears it."""
    fd = os.open(os.path.join(LOGS, name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, (str(text) + "\n").encode())
    finally:
        os.close(fd)


def lines(name):
    """The lines logged so far."""
    try:
        with open(os.path.join(LOGS, name)) as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def is_open(gate):
    """Whether the test (or another item) has opened the gate."""
    return os.path.exists(os.path.join(LOGS, gate))


def pass_gate(gate, limit=60.0):
    """Waits for a gate."""
    end = time.monotonic() + limit
    while not is_open(gate):
        if time.monotonic() > end:
            raise RuntimeError("the gate %s was never opened" % gate)
        time.sleep(0.005)


def open_gate(gate):
    """Opens a gate."""
    with open(os.path.join(LOGS, gate), "w"):
        pass


def meet(name, who, count, limit=30.0):
    """Waits until `count` different callers are here at once."""
    log(name, who)
    end = time.monotonic() + limit
    while len(set(lines(name))) < count:
        if time.monotonic() > end:
            raise RuntimeError("only %d of %d came to %s" % (len(set(lines(name))), count, name))
        time.sleep(0.005)
