"""Runs one process and tells its wall time, processor time and peak memory (Linux)."""

import dataclasses
import os
import subprocess
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass
class Run:
    """One finished process."""

    seconds: float  # wall time, from spawn to exit
    own_cpu: float  # user + system seconds of the process itself
    children_cpu: float  # the same of all its descendants that were waited for
    peak_mb: float  # highest resident set of the process itself
    code: int


def peak_mb(pid):
    """The process's resident high-water mark so far, or 0 when it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def cpu(pid):
    """(own, waited-for children) processor seconds; a zombie still tells them."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, child_user, child_system = (int(field) / TICK for field in fields[11:15])
    return user + system, child_user + child_system


def run(argv, cwd=None, env=None, log=None, every=0.01, codes=(0,)):
    """Runs `argv` to its end; `every` is how often, in seconds, memory is looked at."""
    with open(log or os.devnull, "wb") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        peak = 0.0
        if every:
            while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                peak = max(peak, peak_mb(process.pid))
                time.sleep(every)
        else:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        seconds = time.perf_counter() - begin
    own, children = cpu(process.pid)
    code = process.wait()
    if code not in codes:
        text = Path(log).read_text()[-3000:] if log else ""
        raise RuntimeError(f"{' '.join(map(str, argv))}: exit {code}\n{text}")
    return Run(seconds, own, children, peak, code)
