#!/usr/bin/env python3
"""Races whole jobs of bpp-flow against what one would use instead, on this machine, in one run.

    benches/peers/race.py all                    every race, with the sizes of the bars (about ten minutes)
    benches/peers/race.py noop --rows 1000000    a Python function that does nothing, over a CSV file
    benches/peers/race.py commands --count 4000  `true`, by xargs, GNU parallel and a bare posix_spawn loop
    benches/peers/race.py rows --rows 1000000 10000000     first run, resume of the finished run, peak memory
    benches/peers/race.py start                  one command item, fresh state each time
    benches/peers/race.py plan --stages 1000     `plan` of a long workflow

Standard library only. Build first: cargo build --release. State lies in a temporary folder beside the repository's
`target` (a disk, not memory) and is removed. `--json FILE` keeps the figures.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

from measure import run  # noqa: E402

CORES = len(os.sched_getaffinity(0))


class Race:
    """One race: a folder of its own, and the lines of its table."""

    def __init__(self, options, folder):
        self.options = options
        self.folder = Path(folder)
        self.lines = []
        self.figures = {}

    def flow(self, *arguments, **how):
        """Runs bpp-flow in the folder."""
        return run([self.options.bpp_flow, *map(str, arguments)], cwd=self.folder, log=self.folder / "log", **how)

    def best(self, job, prepare=lambda: None):
        """The fastest of `--repeat` runs of `job`, each after `prepare`."""
        runs = []
        for _ in range(self.options.repeat):
            prepare()
            runs.append(job())
        return min(runs, key=lambda r: r.seconds)

    def forget(self):
        """Removes bpp-flow's state."""
        shutil.rmtree(self.folder / ".bpp-flow", ignore_errors=True)

    def tell(self, name, text, **figures):
        """Adds a line to the table."""
        self.lines.append((name, text))
        self.figures[name] = figures
        print(f"  {name:<44} {text}", flush=True)

    def bar(self, name, value, limit, unit, at_least=False):
        """Adds a line that compares a figure with its bar."""
        met = value >= limit if at_least else value <= limit
        sign = ">=" if at_least else "<="
        self.tell(name, f"{value:,.4g} {unit}  (bar {sign} {limit:,.4g}: {'met' if met else 'NOT met'})",
                  value=value, bar=limit, met=met)


def write_rows(path, count):
    """A CSV file of (int, float, string)."""
    with open(path, "w") as file:
        file.write("id,x,name\n")
        for start in range(0, count, 10_000):
            stop = min(start + 10_000, count)
            file.write("".join(f"{i},{i * 0.5},cell_{i}\n" for i in range(start, stop)))


def noop_workflow(folder):
    """Maps `double` over rows.csv."""
    shutil.copy(HERE / "noop.py", folder / "noop.py")
    (folder / "pipeline.yaml").write_text(
        "sources:\n  rows: {csv: rows.csv}\nstages:\n  double:\n    map: rows\n    python: noop:double\n"
        f"    interpreter: {sys.executable}\n"
    )


def noop(race):
    """No-op Python over many rows."""
    rows = race.options.rows[0]
    write_rows(race.folder / "rows.csv", rows)
    noop_workflow(race.folder)
    database = race.folder / "results.sqlite"

    def peer(name, *rest):
        argv = [sys.executable, race.folder / "noop.py", name, race.folder / "rows.csv", CORES, *rest]
        return run(list(map(str, argv)), cwd=race.folder, log=race.folder / "log")

    def drop():
        for path in race.folder.glob("results.sqlite*"):
            path.unlink()

    ours = race.best(lambda: race.flow("run"), race.forget)
    plain = race.best(lambda: peer("pool"))
    kept = race.best(lambda: peer("pool_sqlite", database), drop)
    for name, r in [("bpp-flow, durable", ours), ("DictReader + Pool, nothing kept", plain),
                    ("DictReader + Pool + SQLite per 1000", kept)]:
        race.tell(name, f"{r.seconds:8.2f} s {rows / r.seconds / 1e6:8.3f} M items/s   "
                  f"cpu a row: {r.own_cpu / rows * 1e6:5.2f} us own, {r.children_cpu / rows * 1e6:5.2f} us workers",
                  seconds=r.seconds, rate=rows / r.seconds, own_cpu=r.own_cpu, children_cpu=r.children_cpu)
    few = CORES < 4
    race.bar("million items a second", rows / ours.seconds / 1e6, 0.6 if few else 1.0, "M/s", at_least=True)
    race.bar("rate / Pool without persistence", plain.seconds / ours.seconds, 1.2 if few else 2.0, "x", at_least=True)
    race.tell("rate / Pool with SQLite", f"{kept.seconds / ours.seconds:.3g} x", value=kept.seconds / ours.seconds)


def commands(race):
    """`true`, many times."""
    count, jobs = race.options.count, CORES
    (race.folder / "pipeline.yaml").write_text(
        f"sources:\n  n: {{range: {{start: 0, stop: {count}}}}}\nstages:\n  call:\n    map: n\n    command: ['true']\n"
    )
    (race.folder / "numbers").write_text("".join(f"{i}\n" for i in range(count)))
    subprocess.run(["gcc", "-O2", "-o", race.folder / "spawn", HERE / "spawn.c"], check=True)

    def shell(text):
        return run(["bash", "-c", text], cwd=race.folder, log=race.folder / "log", every=0)

    ours = race.best(lambda: race.flow("run", every=0), race.forget)
    bare = race.best(lambda: run(["./spawn", str(count), str(jobs), "true"], cwd=race.folder, every=0))
    xargs = race.best(lambda: shell(f"xargs -P{jobs} -n1 true <numbers"))
    peers = [("bpp-flow, durable", ours), ("bare posix_spawn loop (C)", bare), (f"xargs -P{jobs} -n1", xargs)]
    if shutil.which("parallel"):
        peers.append(("GNU parallel --joblog", race.best(
            lambda: shell(f"rm -f joblog; parallel -j{jobs} --joblog joblog true <numbers"))))
    for name, r in peers:
        race.tell(name, f"{r.seconds:8.2f} s {r.seconds / count * 1e3:8.3f} ms a command",
                  seconds=r.seconds, own_cpu=r.own_cpu, children_cpu=r.children_cpu)
    race.bar("time / xargs", ours.seconds / xargs.seconds, 0.7, "x")
    race.bar("time / bare posix_spawn loop", ours.seconds / bare.seconds, 1.25, "x")
    if len(peers) == 4:
        race.tell("time / GNU parallel", f"{ours.seconds / peers[3][1].seconds:.3g} x")


def rows(race):
    """First run, resume and memory at each size."""
    peaks = []
    bars = {1_000_000: 1.0, 10_000_000: 6.0}
    for size in race.options.rows:
        label = f"{size:,} rows"
        write_rows(race.folder / "rows.csv", size)
        noop_workflow(race.folder)
        race.forget()
        first = race.flow("run")
        store = sum(p.stat().st_size for p in (race.folder / ".bpp-flow").rglob("*") if p.is_file())
        again = race.best(lambda: race.flow("run"))
        race.tell(f"{label}: first run", f"{first.seconds:8.2f} s {size / first.seconds / 1e6:8.3f} M items/s, peak "
                  f"{first.peak_mb:.0f} MB, store {store / size:.0f} bytes a row",
                  seconds=first.seconds, peak_mb=first.peak_mb, store_bytes=store)
        race.tell(f"{label}: resume", f"{again.seconds:8.2f} s, peak {again.peak_mb:.0f} MB",
                  seconds=again.seconds, peak_mb=again.peak_mb)
        with open(race.folder / "rows.csv", "a") as file:
            file.write(f"{size},{size * 0.5},cell_{size}\n")
        more = race.flow("run")
        race.tell(f"{label}: resume, one row added", f"{more.seconds:8.2f} s, peak {more.peak_mb:.0f} MB",
                  seconds=more.seconds, peak_mb=more.peak_mb)
        if size in bars:
            race.bar(f"{label}: nothing to do", again.seconds, bars[size], "s")
        peaks.append(max(r.peak_mb for r in (first, again, more)))
        race.bar(f"{label}: peak memory", peaks[-1], 300, "MB")
        race.forget()
    if len(peaks) > 1:
        race.bar("highest / lowest peak", max(peaks) / min(peaks), 1.5, "x")


def start(race):
    """A workflow with one command item."""
    (race.folder / "pipeline.yaml").write_text("stages:\n  once:\n    command: ['true']\n")
    times = []
    for _ in range(race.options.starts):
        race.forget()
        times.append(race.flow("run", every=0).seconds * 1e3)
    race.tell("run of one command", f"median {statistics.median(times):.1f} ms, least {min(times):.1f} ms "
              f"({len(times)} runs)", median_ms=statistics.median(times), least_ms=min(times))
    race.bar("run of one command, median", statistics.median(times), 30, "ms")


def plan(race):
    """A workflow of many stages: ten chains side by side."""
    count = race.options.stages
    text = ["sources:\n  n: {range: {start: 0, stop: 1}}\nstages:\n"]
    for i in range(count):
        source = "n" if i < 10 else f"s{i - 10}"
        text.append(f"  s{i}:\n    map: {source}\n    command: [echo, '{{{{ item.value }}}}']\n")
    (race.folder / "pipeline.yaml").write_text("".join(text))
    times = [race.flow("plan", every=0).seconds * 1e3 for _ in range(race.options.starts)]
    race.bar(f"plan of {count} stages, median", statistics.median(times), 100, "ms")


RACES = {"noop": noop, "commands": commands, "rows": rows, "start": start, "plan": plan}


def options():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("race", choices=[*RACES, "all"])
    parser.add_argument("--rows", type=int, nargs="+", default=None, help="numbers of rows (noop takes the first)")
    parser.add_argument("--count", type=int, default=4000, help="commands")
    parser.add_argument("--starts", type=int, default=20, help="repetitions of start and plan")
    parser.add_argument("--stages", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=3, help="the best of so many runs counts")
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    parser.add_argument("--bpp-flow", type=Path, default=ROOT / "target/release/bpp-flow")
    parser.add_argument("--folder", type=Path, default=ROOT / "target", help="where the temporary folder is made")
    found = parser.parse_args()
    found.bpp_flow = str(found.bpp_flow.absolute())
    return found


def main():
    chosen = options()
    figures = {"cores": CORES, "python": sys.version.split()[0]}
    print(f"{CORES} cores, Python {sys.version.split()[0]}, best of {chosen.repeat}")
    for name in RACES if chosen.race == "all" else [chosen.race]:
        with tempfile.TemporaryDirectory(prefix="race-", dir=chosen.folder) as folder:
            each = argparse.Namespace(**vars(chosen))
            each.rows = chosen.rows or ([1_000_000, 10_000_000] if name == "rows" else [1_000_000])
            race = Race(each, folder)
            print(f"\n{name}: {RACES[name].__doc__}", flush=True)
            RACES[name](race)
            figures[name] = race.figures
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
