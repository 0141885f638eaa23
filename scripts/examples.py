"""Runs every example and workflow for real, in a copy, and checks what comes out.

    python scripts/examples.py [-v] [Name…]       needs pandas and pyarrow; BPP_FLOW names another binary

PostgreSQL runs in a private server of its own (scripts/postgres).
"""

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
BPP_FLOW = Path(os.environ.get("BPP_FLOW", ROOT / "target/debug/bpp-flow")).absolute()
LEFT_OUT = shutil.ignore_patterns("out", ".bpp-flow", "__pycache__", "data-*")


class Folder(unittest.TestCase):
    """A test in a copy of one folder."""

    source: str

    def setUp(self):
        self.top = Path(tempfile.mkdtemp(prefix="bpp-example."))
        self.addCleanup(shutil.rmtree, self.top)
        self.dir = self.top / Path(self.source).name
        shutil.copytree(ROOT / self.source, self.dir, ignore=LEFT_OUT)

    def sh(self, *argv, code=0, env=None, cwd=None):
        """Runs a command in the folder; returns its standard output."""
        done = subprocess.run(
            argv, cwd=cwd or self.dir, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=300
        )
        if done.returncode != code:
            self.fail(f"{' '.join(map(str, argv))}: exit {done.returncode}, not {code}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def flow(self, *arguments, code=0, **options):
        """Runs bpp-flow in the folder."""
        return self.sh(BPP_FLOW, *arguments, code=code, **options)

    def json(self, *arguments, **options):
        """Runs bpp-flow in the folder and reads its JSON."""
        return json.loads(self.flow(*arguments, "--json", **options))

    def stages(self, *arguments, **options):
        """Runs bpp-flow and returns its stages by name."""
        return {stage["name"]: stage for stage in self.json(*arguments, **options)["stages"]}

    def rows(self, path):
        """A CSV file's rows."""
        with open(self.dir / path, newline="") as file:
            return list(csv.DictReader(file))


class Quickstart(Folder):
    source = "examples/quickstart"

    def setUp(self):
        super().setUp()
        (self.dir / "calibration/olympus.txt").unlink(missing_ok=True)

    def test_one_item_fails_and_is_retried(self):
        stages = self.stages("run", code=100)
        self.assertEqual((stages["measure"]["ran"], stages["measure"]["failed"]), (48, 1))
        [group] = self.json("errors")
        self.assertEqual((group["stage"], group["kind"], group["keys"]), ("measure", "exception", ["c031"]))
        self.assertIn("FileNotFoundError", self.flow("errors", "--item", "c031"))
        self.assertEqual(sum(int(row["cells"]) for row in self.rows("out/summary.csv")), len(self.rows("out/shape.csv")))

        (self.dir / "calibration/olympus.txt").write_text("0.412\n")
        stages = self.stages("retry", "--failed")
        self.assertEqual((stages["measure"]["ran"], stages["measure"]["failed"]), (1, 0))
        self.assertIn("c031", {row["cell_id"] for row in self.rows("out/shape.csv")})
        self.assertEqual(self.stages("run")["measure"]["ran"], 0)

    def test_a_changed_row_is_the_only_one_due(self):
        (self.dir / "calibration/olympus.txt").write_text("0.412\n")
        self.flow("run")
        path = self.dir / "data/cells.csv"
        lines = path.read_text().splitlines(keepends=True)
        cells = lines[7].split(",")
        cells[3] = str(int(cells[3]) + 100)
        lines[7] = ",".join(cells)
        path.write_text("".join(lines))
        plan = self.stages("plan")["measure"]
        self.assertEqual((plan["done"], plan["due"]), (47, 1))
        self.assertEqual(plan["reasons"], {"input_changed": 1})
        self.assertEqual(self.stages("run")["measure"]["ran"], 1)

    def test_a_parameter_reaches_only_what_uses_it(self):
        (self.dir / "calibration/olympus.txt").write_text("0.412\n")
        self.flow("run")
        before = len(self.rows("out/shape.csv"))
        stages = self.stages("run", "--param", "min_area=100")
        self.assertEqual((stages["measure"]["ran"], stages["large"]["ran"]), (0, 48))
        self.assertLess(len(self.rows("out/shape.csv")), before)


class Sweep(Folder):
    source = "examples/sweep"

    def test_parquet_reads_back(self):
        self.flow("run")
        runs = pd.read_parquet(self.dir / "out/simulate.parquet")
        self.assertEqual(len(runs), 3 * 8 * 4)
        self.assertEqual(str(runs["peak"].dtype), "float64")
        self.assertEqual(str(runs["days_ill"].dtype), "int64")
        worst = pd.read_parquet(self.dir / "out/worst.parquet")
        self.assertEqual(len(worst), 3 * 4)
        expected = runs.groupby(["scenario", "days_ill"])["peak"].max()
        found = worst.set_index(["scenario", "days_ill"])["peak"]
        pd.testing.assert_series_equal(found.sort_index(), expected.sort_index())
        self.assertIn("96 simulations, 12 groups", self.sh(sys.executable, "read_back.py"))

    def test_more_values_run_only_the_new_combinations(self):
        self.flow("run")
        text = (self.dir / "pipeline.yaml").read_text()
        (self.dir / "pipeline.yaml").write_text(text.replace("0.45, 0.5]", "0.45, 0.5, 0.55]"))
        stages = self.stages("run")
        self.assertEqual(stages["simulate"]["ran"], 3 * 4)
        self.assertEqual(len(pd.read_parquet(self.dir / "out/simulate.parquet")), 3 * 9 * 4)


class Files(Folder):
    source = "examples/files"

    def test_every_tracing_is_measured(self):
        self.flow("run")
        rows = self.rows("out/tracings.csv")
        paths = sorted(self.dir.glob("data/*/*.swc"))
        self.assertEqual([(r["patient"], r["scan"]) for r in rows], [(p.parent.name, p.stem) for p in paths])
        points = [sum(not line.startswith("#") for line in path.read_text().splitlines()) for path in paths]
        self.assertEqual([int(r["points"]) for r in rows], points)
        patients = [json.loads(line) for line in (self.dir / "out/patients.jsonl").read_text().splitlines()]
        self.assertEqual(sum(p["tracings"] for p in patients), len(paths))

    def test_a_changed_file_is_the_only_one_due(self):
        self.flow("run")
        path = self.dir / "data/p01/scan_b.swc"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
        (self.dir / "data/p03/scan_a.swc").touch()
        self.assertEqual(self.stages("plan")["points"]["due"], 1)
        self.assertEqual(self.stages("run")["points"]["ran"], 1)


class Generated(Folder):
    """A workflow whose data a generator makes."""

    generator: list[str]

    def setUp(self):
        super().setUp()
        shutil.rmtree(self.dir / "data", ignore_errors=True)
        self.sh(sys.executable, *self.generator)


class Checksums(Generated):
    source = "workflows/checksums"
    generator = ["make_tree.py", "data", "--files", "60"]

    def test_sums_are_those_of_sha256sum(self):
        self.flow("run", "--param", "root=data")
        with open(self.dir / "out/checksums.tsv", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        self.assertEqual(len(rows), 60)
        listing = "".join(f"{row['sha256']}  {row['path']}\n" for row in rows)
        (self.dir / "listing").write_text(listing)
        self.sh("sha256sum", "--check", "--quiet", "listing")
        self.assertEqual(len(self.rows("out/copies.csv")), 12)


class Compress(Generated):
    source = "workflows/compress"
    generator = ["make_texts.py", "data", "--files", "12"]

    def test_every_copy_unpacks_to_its_text(self):
        self.flow("run")
        rows = self.rows("out/packed.csv")
        self.assertEqual(len(rows), 12)
        for path in self.dir.glob("data/*/*.txt"):
            packed = self.dir / "out" / path.parent.name / f"{path.name}.gz"
            self.assertEqual(self.sh("gzip", "-dc", packed), path.read_text())


class Hpc(Generated):
    source = "workflows/hpc"
    generator = ["make_genomes.py", "data", "--species", "3", "--strains", "4", "--length", "8000"]

    def test_every_genome_is_nearest_to_its_species(self):
        self.flow("run")
        self.assertEqual([row["same_species"] for row in self.rows("out/nearest.csv")], ["true"] * 12)
        self.assertEqual([row["strains"] for row in self.rows("out/species.csv")], ["4"] * 3)


class Logs(Generated):
    source = "workflows/logs"
    generator = ["make_logs.py", "data", "--days", "4", "--lines", "500"]

    def test_lines_become_rows(self):
        self.flow("run")
        frame = pd.read_parquet(self.dir / "out/requests.parquet")
        lines = self.flow("results", "requests", "--format", "jsonl").splitlines()
        self.assertEqual(len(lines), 2000)
        cut = [line for line in map(json.loads, lines) if line["status"] is None]
        self.assertEqual(len(frame), 2000 - len(cut))
        self.assertEqual(str(frame["status"].dtype), "int64")
        self.assertEqual(sum(int(row["requests"]) for row in self.rows("out/per_day.csv")), len(frame))


class Prices(Generated):
    source = "workflows/prices"
    generator = ["make_prices.py", "data", "--days", "12", "--codes", "200"]

    def pipeline(self, kind):
        return str(self.dir / kind / "pipeline.yaml")

    def spoil(self, day):
        """Makes one line of a day's file no price; returns the way back."""
        path = self.dir / f"data/prices-{day}.csv"
        good = path.read_text()
        lines = good.splitlines(keepends=True)
        lines[3] = lines[3].rsplit(",", 1)[0] + ",n/a\n"
        path.write_text("".join(lines))
        return lambda: path.write_text(good)

    def import_and_mend(self, kind, query, env=None):
        """Imports with one bad file, mends it, imports a longer file again: `query` counts what is there."""
        mend = self.spoil("2024-01-04")
        stages = self.stages("run", self.pipeline(kind), code=100, env=env)
        self.assertEqual((stages["load"]["ran"], stages["load"]["failed"]), (12, 1))
        self.assertEqual(query(), (11 * 200, 11))
        mend()
        self.assertEqual(self.stages("run", self.pipeline(kind), env=env)["load"]["ran"], 1)
        self.assertEqual(query(), (12 * 200, 12))
        with open(self.dir / "data/prices-2024-01-05.csv", "a") as file:
            file.write("ZZZZ,2024-01-05,1.5\n")
        stages = self.stages("run", self.pipeline(kind), env=env)
        self.assertEqual((stages["load"]["ran"], stages["check"]["ran"]), (1, 1))
        self.assertEqual(query(), (12 * 200 + 1, 12))
        check = json.loads((self.dir / kind / "out/check.jsonl").read_text())
        self.assertEqual((check["days"], check["rows"], check["days_in_table"]), (12, 2401, 12))
        self.flow("run", self.pipeline(kind), "--fresh", env=env)
        self.assertEqual(query(), (12 * 200 + 1, 12))

    def test_sqlite(self):
        def query():
            con = sqlite3.connect(self.dir / "sqlite/out/prices.sqlite")
            try:
                return con.execute("select count(*), count(distinct date) from prices").fetchone()
            finally:
                con.close()

        self.import_and_mend("sqlite", query)

    def test_postgres(self):
        if "BPP_FLOW_PRIVATE_POSTGRES" not in os.environ:
            self.skipTest("no PostgreSQL server installed")

        def query():
            text = self.sh("psql", "-XAtc", "select count(*), count(distinct date) from prices")
            return tuple(int(n) for n in text.split("|"))

        self.import_and_mend("postgres", query)


class EveryFolder(unittest.TestCase):
    """No example or workflow without a test, a README and a clean `check`."""

    def test_each_is_checked_and_tested(self):
        tested = {c.source for c in Folder.__subclasses__() + Generated.__subclasses__() if hasattr(c, "source")}
        for path in sorted([*ROOT.glob("examples/**/pipeline.yaml"), *ROOT.glob("workflows/**/pipeline.yaml")]):
            top = path.relative_to(ROOT)
            with self.subTest(str(top)):
                self.assertIn("/".join(top.parts[:2]), tested)
                self.assertTrue((ROOT / top.parts[0] / top.parts[1] / "README.md").exists())
                subprocess.run([BPP_FLOW, "check", path], check=True, capture_output=True)


def with_postgres():
    """Starts this script again inside a private PostgreSQL server, where one can be had."""
    helper = ROOT / "scripts/postgres"
    if "BPP_FLOW_PRIVATE_POSTGRES" in os.environ:
        return
    if subprocess.run([helper, "true"], capture_output=True).returncode == 0:
        os.execv(helper, [str(helper), sys.executable, *sys.argv])
    if os.environ.get("CI"):
        sys.exit("CI needs PostgreSQL")


if __name__ == "__main__":
    with_postgres()
    unittest.main(verbosity=2)
