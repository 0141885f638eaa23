//! `share`: objects that workers load once, from files and from finished stages, and what their content makes due.

use serde_json::{Value as Json, json};

use crate::env::*;

/// Whether the Python of the tests has a package.
fn has(package: &str) -> bool {
    let found = TestEnv::new().bash(&format!("python3 -c 'import {package}'")).code == Some(0);
    if !found {
        eprintln!("left out: python3 has no {package}");
    }
    found
}

fn python(env: &TestEnv, script: &str) {
    env.write("make.py", script);
    env.bash("python3 make.py").exits(0);
}

/// Items to run, certain and possible.
fn to_run(env: &TestEnv, stage: &str) -> (u64, u64) {
    let plan = env.plan_of(stage);
    (number(&plan["due"]), number(&plan["possible"]))
}

const LOOKUP: &str = r#"
sources: { s: { range: { stop: 6 } } }
defaults: { workers: 2, chunk_size: 1 }
stages:
  look: { map: s, python: "f:look", share: { grid: data/grid.json } }
"#;

const LOOK: &str = "def look(row, *, grid):\n    return {'y': grid[row['value']]}\n";

#[test]
fn content_counts_and_nothing_else() {
    let env = TestEnv::with(LOOKUP, LOOK);
    env.write("data/grid.json", "[0, 10, 20, 30, 40, 50]");
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("look", "y")), [0, 10, 20, 30, 40, 50]);
    env.write("data/grid.json", "[0, 10, 20, 30, 40, 50]");
    assert_eq!(to_run(&env, "look"), (0, 0), "written again, with equal content");
    env.write("data/grid.json", "[0, 10, 20, 30, 40, 51]");
    let plan = env.plan_of("look");
    counts(&plan, &[("due", 6), ("done", 0)]);
    assert_eq!(reason(&plan, "share_changed"), 6);
    env.run(&["plan"]).exits(0).says(&["share.grid: data/grid.json changed"]);
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("look", "y"))[5], 51);
    env.write("data/grid.json", "[0, 10, 20, 30, 40, 50]");
    assert_eq!(to_run(&env, "look"), (0, 0), "the earlier results are found");
    env.bash("mv data/grid.json data/other.json").exits(0);
    env.run(&["plan"]).exits(1).says(&["data/grid.json"]);
    env.write("pipeline.yaml", LOOKUP.replace("data/grid", "data/other"));
    assert_eq!(to_run(&env, "look"), (0, 0), "under another name");
    env.write("pipeline.yaml", LOOKUP.replace("share: { grid: data/grid.json }", "args: { grid: [1] }"));
    assert_eq!(to_run(&env, "look"), (6, 0));
}

#[test]
fn every_verb_call_and_backend() {
    let env = TestEnv::with(
        r#"
sources: { s: { range: { stop: 6 } } }
defaults: { share: { grid: grid.json } }
stages:
  kwargs: { map: s, python: "f:kwargs", call: kwargs }
  value: { map: s, python: "f:value", call: value, backend: threads, workers: 3 }
  chunk: { map: s, python: "f:chunk", call: chunk, chunk_format: rows, args: { by: 2 } }
  many: { flat_map: s, python: "f:many", backend: serial }
  odd: { filter: s, python: "f:odd" }
  total: { reduce: s, python: "f:total", init: { python: "f:prepare" } }
  once: { python: "f:once", args: { by: "{{ params.by }}" } }
  none: { map: s, command: [echo] }
params: { by: 3 }
"#,
        "def kwargs(value, grid):\n    return {'y': grid[value]}\n\
         def value(x, *, grid):\n    return grid[x]\n\
         def chunk(rows, *, grid, by):\n    return [{'y': grid[r['value']] * by} for r in rows]\n\
         def many(row, *, grid):\n    return [{'y': g} for g in grid[:2]]\n\
         def odd(row, *, grid):\n    return grid[row['value']] % 2\n\
         def total(rows, *, grid):\n    return {'y': sum(grid[r['value']] for r in rows)}\n\
         def prepare():\n    pass\n\
         def once(*, grid, by):\n    return {'y': len(grid) * by}\n",
    );
    env.write("grid.json", "[1, 2, 3, 4, 5, 6]");
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("kwargs", "y")), [1, 2, 3, 4, 5, 6]);
    assert_eq!(ints(&env.column("value", "value")), [1, 2, 3, 4, 5, 6]);
    assert_eq!(ints(&env.column("chunk", "y")), [2, 4, 6, 8, 10, 12]);
    assert_eq!(env.rows("many").len(), 12);
    assert_eq!(ints(&env.column("odd", "value")), [0, 2, 4]);
    assert_eq!(ints(&env.column("total", "y")), [21]);
    assert_eq!(ints(&env.column("once", "y")), [18]);
    env.write("grid.json", "[1, 2, 3, 4, 5, 7]");
    let plan = env.plan();
    for (stage, due) in [("kwargs", 6), ("odd", 6), ("total", 1), ("once", 1), ("none", 0)] {
        counts(&stage_of(&plan, stage), &[("due", due)]);
    }
}

#[test]
fn each_format_is_loaded_as_its_own() {
    let env = TestEnv::with(
        r#"
sources: { s: { range: { stop: 2 } } }
stages:
  plain: { map: s, python: "f:kinds", share: { a: a.json, b: b.pkl, c: b.pickle } }
"#,
        "def kinds(row, **shared):\n    return {name: repr(value) for name, value in shared.items()}\n",
    );
    python(&env, "import pickle\nfor name in ('b.pkl', 'b.pickle'):\n    pickle.dump({1, 2}, open(name, 'wb'))\n");
    env.write("a.json", r#"{"k": [1.5, null]}"#);
    env.run(&["run"]).exits(0);
    let row = env.rows("plain")[0].clone();
    assert_eq!(row, json!({"value": 0, "a": "{'k': [1.5, None]}", "b": "{1, 2}", "c": "{1, 2}"}));
}

#[test]
fn arrays_and_tables_are_mapped() {
    if !has("numpy") || !has("pyarrow.parquet") {
        return;
    }
    let env = TestEnv::with(
        r#"
sources: { s: { range: { stop: 2 } } }
stages:
  look: { map: s, python: "f:look", share: { a: a.npy, b: b.npz, c: c.arrow, d: d.feather, e: e.parquet } }
"#,
        r#"
import numpy

def look(row, *, a, b, c, d, e):
    assert isinstance(a, numpy.memmap) and not a.flags.writeable and not b["x"].flags.writeable
    tables = [table.column("x").to_pylist() for table in (c, d, e)]
    return {"a": float(a[row["value"]]), "b": sorted(b), "tables": tables, "kinds": [type(t).__name__ for t in (c, d, e)]}
"#,
    );
    python(
        &env,
        "import numpy, pyarrow, pyarrow.feather, pyarrow.parquet\n\
         numpy.save('a.npy', numpy.arange(5.0))\n\
         numpy.savez('b.npz', x=numpy.arange(3), y=numpy.arange(2))\n\
         table = pyarrow.table({'x': [1, 2]})\n\
         with pyarrow.OSFile('c.arrow', 'wb') as f, pyarrow.ipc.new_stream(f, table.schema) as w:\n    w.write(table)\n\
         pyarrow.feather.write_feather(table, 'd.feather')\n\
         pyarrow.parquet.write_table(table, 'e.parquet')\n",
    );
    env.run(&["run"]).exits(0);
    let row = env.rows("look")[1].clone();
    let tables = json!([[1, 2], [1, 2], [1, 2]]);
    assert_eq!(
        row,
        json!({"value": 1, "a": 1.0, "b": ["x", "y"], "tables": tables, "kinds": ["Table", "Table", "Table"]})
    );
}

#[test]
fn an_object_is_loaded_once_in_a_worker() {
    for backend in ["processes", "threads"] {
        let env = TestEnv::with(
            &format!(
                "sources: {{ s: {{ range: {{ stop: 40 }} }} }}
defaults: {{ share: {{ big: big.pickle }}, workers: 2, chunk_size: 1, backend: {backend} }}
stages:
  one: {{ map: s, python: \"f:one\" }}
  two: {{ map: one, python: \"f:two\" }}\n"
            ),
            "import os\nimport kit\n\n\
             class Big:\n    def __setstate__(self, state):\n        kit.log('loads', os.getpid())\n        self.__dict__.update(state)\n\n\
             def one(row, *, big):\n    return {'y': big.x, 'pid': os.getpid()}\n\n\
             def two(row, *, big):\n    return {'z': big.x, 'pid2': os.getpid()}\n",
        );
        python(&env, "import pickle, f\nbig = f.Big()\nbig.x = 7\npickle.dump(big, open('big.pickle', 'wb'))\n");
        env.run(&["run"]).exits(0);
        let loads = env.logged("loads");
        assert_eq!(distinct(&loads).len(), loads.len(), "{backend}: once in each process: {loads:?}");
        let pids: Vec<String> =
            env.rows("two").iter().flat_map(|row| [row["pid"].to_string(), row["pid2"].to_string()]).collect();
        assert_eq!(distinct(&pids), distinct(&loads), "{backend}: two stages share a worker");
    }
}

#[test]
fn a_file_that_changes_during_a_run_is_not_loaded() {
    let env = TestEnv::with(
        r#"
sources: { s: { range: { stop: 6 } } }
stages:
  first: { map: s, python: "f:first" }
  look: { map: s, python: "f:look", after: first, share: { grid: data/grid.json } }
"#,
        &format!(
            "{LOOK}\ndef first(row):\n    if row['value'] == 5:\n        open('data/grid.json', 'w').write('[9, 9, 9, 9, 9, 9]')\n"
        ),
    );
    env.write("data/grid.json", "[0, 10, 20, 30, 40, 50]");
    let run = env.run(&["run"]).exits(1);
    run.says(&["share.grid", "data/grid.json", "has changed since the run began"]);
    assert!(env.errors().is_empty(), "marks no item: {:?}", env.errors());
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("look", "y")), [9, 9, 9, 9, 9, 9]);
}

#[test]
fn a_mapped_file_that_is_written_to_stops_the_stage() {
    if !has("numpy") {
        return;
    }
    let env = TestEnv::with(
        r#"
sources: { s: { range: { stop: 50 } } }
defaults: { workers: 1, chunk_size: 1, batch_size: 5 }
stages:
  look: { map: s, python: "f:look", share: { grid: grid.npy } }
"#,
        "import numpy\n\ndef look(row, *, grid):\n    if row['value'] == 20 and grid[0] == 1:\n        \
         numpy.lib.format.open_memmap('grid.npy', mode='r+')[:] = 2\n    return {'y': int(grid[row['value']])}\n",
    );
    python(&env, "import numpy\nnumpy.save('grid.npy', numpy.ones(50))\n");
    env.run(&["run"]).exits(1).says(&["share.grid: grid.npy", "has changed since the run began"]);
    assert!(env.errors().is_empty(), "marks no item");
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("look", "y")), [2; 50], "nothing of the old content is left");
    python(&env, "import numpy\nnumpy.save('grid.npy', numpy.ones(50))\n");
    let done = number(&env.plan_of("look")["done"]);
    assert!(done <= 20, "the item that saw the change was not kept: {done}");
    env.write("f.py", "def look(row, *, grid):\n    return {'y': int(grid[row['value']])}\n");
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("look", "y")), [1; 50]);
}

#[test]
fn what_cannot_be_loaded_stops_the_run_and_marks_no_item() {
    let env = TestEnv::with(&LOOKUP.replace("grid.json", "grid.npy"), LOOK);
    env.write("data/grid.npy", "no array");
    env.write("numpy.py", "raise ImportError('there is no numpy here')\n");
    env.run(&["run"]).exits(1).says(&["share.grid: data/grid.npy", "there is no numpy here"]);
    assert!(env.errors().is_empty());
    env.bash("rm numpy.py").exits(0);
    env.write("pipeline.yaml", LOOKUP);
    env.write("data/grid.json", "[0, 10,");
    env.run(&["run"]).exits(1).says(&["share.grid: data/grid.json", "JSONDecodeError"]);
    env.bash("rm data/grid.json").exits(0);
    env.run(&["run"]).exits(1).says(&["data/grid.json"]);
    assert!(env.errors().is_empty());
    env.write("data/grid.json", "[0, 10, 20, 30, 40, 50]");
    env.run(&["run"]).exits(0);
}

const ROWS: &str = r#"
params: { stop: 3, by: 1 }
sources: { s: { range: { stop: 5 } }, t: { range: { stop: "{{ params.stop }}" } } }
stages:
  table: { map: t, python: "f:table", args: { by: "{{ params.by }}" } }
  look: { map: s, python: "f:look", share: { table: { stage: table } } }
  next: { map: look, assign: { z: "item.total + 1" } }
  sum: { reduce: look, python: "f:total", share: { table: { stage: table } } }
"#;

const ROWS_MODULE: &str = r#"
import kit

def table(row, *, by):
    return {"square": row["value"] ** 2 // by * by}

def rows_of(table):
    return table if isinstance(table, list) else table.to_pylist()

def look(row, *, table):
    kit.log("kind", type(table).__name__)
    return {"total": sum(r["square"] for r in rows_of(table)), "names": sorted(rows_of(table)[0])}

def total(rows, *, table):
    return {"n": sum(1 for _ in rows) * len(rows_of(table))}
"#;

#[test]
fn rows_of_a_finished_stage() {
    let env = TestEnv::with(ROWS, ROWS_MODULE);
    assert_eq!(to_run(&env, "look"), (0, 5), "its table is still to be made");
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("look", "total")), [5; 5]);
    assert_eq!(env.rows("look")[0]["names"], json!(["square", "value"]));
    assert_eq!(ints(&env.column("sum", "n")), [15]);
    let quiet = |param: &str| {
        let plan = env.run(&["plan", "--json", "--param", param]).exits(0).json();
        ["table", "look", "next", "sum"]
            .map(|s| (number(&stage_of(&plan, s)["due"]), number(&stage_of(&plan, s)["possible"])))
    };
    assert_eq!(quiet("stop=3"), [(0, 0); 4]);
    assert_eq!(quiet("stop=4"), [(1, 0), (0, 5), (0, 5), (0, 1)]);
    let run = env.run_json(&["--param", "stop=4"], 0);
    assert_eq!(["table", "look", "sum"].map(|s| number(&stage_of(&run, s)["ran"])), [1, 5, 1]);
    let shown = |args: &[&str]| -> Vec<Json> {
        let rows = env.run(&[&["results", "next", "--format", "jsonl"], args].concat()).exits(0).json_lines();
        rows.iter().map(|row| row["z"].clone()).collect()
    };
    assert_eq!(ints(&shown(&["--param", "stop=4"])), [15; 5]);
    assert_eq!(quiet("stop=4"), [(0, 0); 4]);
    let back = env.run_json(&[], 0);
    assert_eq!(["table", "look", "next", "sum"].map(|s| number(&stage_of(&back, s)["ran"])), [0; 4], "going back");
    assert_eq!(ints(&shown(&[])), [6; 5]);
    let fewer = env.run(&["plan", "--param", "stop=2"]).exits(0);
    fewer.says(&["share.table: the rows of table changed", "share changed"]);
    let fewer = env.run(&["plan", "--json", "--param", "stop=2"]).exits(0).json();
    counts(&stage_of(&fewer, "table"), &[("due", 0), ("possible", 0)]);
    counts(&stage_of(&fewer, "look"), &[("due", 5), ("possible", 0)]);
    assert_eq!(reason(&stage_of(&fewer, "look"), "share_changed"), 5);
    let fewer = env.run_json(&["--param", "stop=2"], 0);
    assert_eq!(["table", "look", "sum"].map(|s| number(&stage_of(&fewer, s)["ran"])), [0, 5, 1]);
}

#[test]
fn rows_of_several_inputs_are_shared_in_order() {
    let env = TestEnv::with(
        r#"
params: { stop: 3 }
sources: { s: { range: { stop: 3 } }, a: { range: { stop: "{{ params.stop }}" } }, b: { values: [10, 20] } }
stages:
  both: { map: [b, a], assign: { square: "item.value * item.value" } }
  look: { map: s, python: "f:look", share: { table: { stage: both } } }
"#,
        "def look(row, *, table):\n    rows = table if isinstance(table, list) else table.to_pylist()\n    return {'y': [r['value'] for r in rows]}\n",
    );
    env.run(&["run"]).exits(0);
    assert_eq!(env.rows("look")[0]["y"], json!([10, 20, 0, 1, 2]));
    assert_eq!(to_run(&env, "look"), (0, 0));
    let fewer = env.run(&["plan", "--json", "--param", "stop=2"]).exits(0).json();
    counts(&stage_of(&fewer, "look"), &[("done", 0)]);
    env.run(&["run", "--param", "stop=2"]).exits(0);
    let rows = env.run(&["results", "look", "--format", "jsonl", "--param", "stop=2"]).exits(0).json_lines();
    assert_eq!(rows[0]["y"], json!([10, 20, 0, 1]));
    env.write("f.py", env.read("f.py") + "\n# changed\n");
    env.run(&["plan"]).exits(0);
    env.run(&["run"]).exits(0);
    assert_eq!(to_run(&env, "look"), (0, 0));
}

#[test]
fn equal_rows_cut_off_what_shares_them() {
    let env = TestEnv::with(ROWS, ROWS_MODULE);
    env.run(&["run", "--param", "stop=2"]).exits(0);
    let run = env.run_json(&["--param", "stop=2", "--param", "by=-1"], 0);
    assert_eq!(["table", "look", "next", "sum"].map(|s| number(&stage_of(&run, s)["ran"])), [2, 0, 0, 0]);
}

#[test]
fn rows_as_a_table_of_pyarrow_or_as_dicts() {
    let kinds = |env: &TestEnv| {
        env.run(&["run"]).exits(0);
        let kinds = distinct(&env.logged("kind"));
        assert_eq!(ints(&env.column("look", "total")), [5; 5]);
        kinds.into_iter().collect::<Vec<_>>()
    };
    let bare = TestEnv::with(ROWS, ROWS_MODULE);
    bare.write("pyarrow.py", "raise ImportError('there is no pyarrow here')\n");
    assert_eq!(kinds(&bare), ["list"]);
    if has("pyarrow") {
        assert_eq!(kinds(&TestEnv::with(ROWS, ROWS_MODULE)), ["Table"]);
    }
}

#[test]
fn values_of_shared_rows_come_out_as_they_went_in() {
    let env = TestEnv::with(
        r#"
stages:
  table: { python: "f:table" }
  look: { python: "f:look", share: { table: { stage: table } } }
"#,
        "import datetime\n\
         CELLS = [None, True, 3, 2 ** 80, 1.5, 'é', b'x', datetime.date(2026, 1, 2), [1, None], {'a': 1}]\n\
         def table():\n    return [{'v': c} for c in CELLS]\n\
         def look(*, table):\n    return {'same': [r['v'] for r in table] == CELLS, 'n': len(table)}\n",
    );
    env.write("pyarrow.py", "raise ImportError('there is no pyarrow here')\n");
    env.run(&["run"]).exits(1).says(&["column \"v\""]);
    env.write("f.py", env.read("f.py").replace("{'v': c} for c in CELLS", "{str(i): c} for i, c in enumerate(CELLS)"));
    env.write("f.py", env.read("f.py").replace("[r['v'] for r in table]", "[r[str(i)] for i, r in enumerate(table)]"));
    env.run(&["run"]).exits(0);
    assert_eq!(env.rows("look"), [json!({"same": true, "n": 10})]);
}

#[test]
fn a_stage_with_failures_is_not_shared() {
    let env = TestEnv::with(
        ROWS,
        &ROWS_MODULE.replace("return {\"square\"", "assert row['value'] != 2\n    return {\"square\""),
    );
    let run = env.run_json(&[], 100);
    counts(&stage_of(&run, "look"), &[("ran", 0), ("blocked", 5)]);
    let plan = env.plan();
    counts(&stage_of(&plan, "look"), &[("due", 0), ("possible", 0), ("blocked", 5)]);
    counts(&stage_of(&plan, "sum"), &[("due", 0), ("possible", 0), ("blocked", 1)]);
    env.write("f.py", ROWS_MODULE);
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("look", "total")), [5; 5]);
}
