//! How Python functions are called: `call`, `args`, `init`, `env`, `cwd`, chunks and what they return.

use serde_json::{Value as Json, json};

use crate::env::*;

fn calling(stage: &str, module: &str) -> TestEnv {
    let env = TestEnv::with(
        &format!("params: {{ n: 3 }}\nsources:\n  s: {{ csv: a.csv }}\nstages:\n  work: {{ map: s, {stage} }}\n"),
        module,
    );
    env.write("a.csv", numbers_csv(5));
    env
}

#[test]
fn kwargs_are_the_columns_that_are_named() {
    let env = calling(
        "python: \"f:work\", call: kwargs, args: { k: 7 }",
        "def work(x, *, k, absent=None):\n    return {'y': x + k, 'absent': repr(absent)}\n",
    );
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("work", "y")), [7, 17, 27, 37, 47]);
    assert_eq!(env.column("work", "absent")[0], json!("None"));
    let env =
        calling("python: \"f:work\", call: kwargs", "def work(**columns):\n    return {'names': sorted(columns)}\n");
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("work", "names")[0], json!(["id", "x"]));
}

#[test]
fn value_is_the_only_column_of_use() {
    let env = calling("python: \"f:work\", call: value, use: [x]", "def work(x):\n    return x * x\n");
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("work", "value")), [0, 100, 400, 900, 1600]);
    assert_eq!(ints(&env.column("work", "id")), [0, 1, 2, 3, 4]);
    let env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 3} } }\nstages:\n  a: { map: n, python: \"math:sqrt\", call: value }\n",
        "",
    );
    env.run(&["run"]).exits(0);
    assert_eq!(env.rows("a").len(), 3);
}

#[test]
fn arguments_are_rendered_and_keep_their_types() {
    let env = calling(
        r#"python: "f:work", args: { n: "{{ params.n }}", x: "{{ item.x }}", t: "x={{ item.x }}", l: [1, "{{ item.id }}"], m: { a: null, b: 1.5, c: true } }"#,
        "def work(row, **args):\n    return {'got': repr(sorted(args.items()))}\n",
    );
    env.run(&["run"]).exits(0);
    assert_eq!(
        env.column("work", "got")[2],
        json!("[('l', [1, 2]), ('m', {'a': None, 'b': 1.5, 'c': True}), ('n', 3), ('t', 'x=20'), ('x', 20)]")
    );
}

#[test]
fn keys_and_numbers_can_be_arguments() {
    let env = TestEnv::with(
        r#"
sources: { s: { csv: a.csv, key: name } }
stages:
  work: { map: s, python: "f:work", args: { key: "{{ key }}", at: "{{ index }}" } }
"#,
        "def work(row, *, key, at):\n    return {'k': key, 'at': at}\n",
    );
    env.write("a.csv", "name\nann\nbob\n");
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("work", "k"), [json!("ann"), json!("bob")]);
    assert_eq!(ints(&env.column("work", "at")), [0, 1]);
}

#[test]
fn a_tuple_can_have_names() {
    let env =
        calling("python: \"f:work\", returns: [low, high]", "def work(row):\n    return row['x'] - 1, row['x'] + 1\n");
    env.run(&["run"]).exits(0);
    assert_eq!(env.rows("work")[1], json!({"id": 1, "x": 10, "low": 9, "high": 11}));
    let env = calling("python: \"f:work\", returns: [low, high]", "def work(row):\n    return 1, 2, 3\n");
    env.run(&["run"]).exits(100);
    assert_eq!(env.failures_by_kind(), [("output".to_string(), 5)].into());
}

#[test]
fn init_runs_once_in_every_worker() {
    let env = calling(
        "python: \"f:work\", workers: 2, chunk_size: 1, init: { python: \"f:setup\", args: { n: \"{{ params.n }}\" } }",
        r#"
import os
import kit

table = None

def setup(n):
    global table
    kit.log("init", os.getpid())
    table = [n] * n

def work(row):
    kit.log("work", os.getpid())
    return {"sum": sum(table)}
"#,
    );
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("work", "sum")), [9; 5]);
    let inits = env.logged("init");
    assert_eq!(distinct(&inits).len(), inits.len(), "once a worker");
    assert!(distinct(&inits).is_superset(&distinct(&env.logged("work"))));
}

#[test]
fn env_and_cwd() {
    let env = calling(
        "python: \"f:work\", cwd: sub, env: { FIXED: \"{{ params.n }}\", MINE: \"{{ item.x }}/x\" }",
        r#"
import os

def work(row):
    return {"env": [os.environ["FIXED"], os.environ["MINE"]], "cwd": os.path.basename(os.getcwd())}
"#,
    );
    env.write("sub/file", "");
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("work", "env")[4], json!(["3", "40/x"]));
    assert_eq!(env.column("work", "cwd")[4], json!("sub"));
}

#[test]
fn actions_run_in_the_workflows_folder() {
    let env = TestEnv::new();
    env.write(
        "deep/flow.yaml",
        r#"
sources: { n: { values: [1] } }
stages:
  a: { map: n, python: "pack.mod:where" }
  b: { map: n, command: [cat, here.txt] }
  c: { map: n, shell: "cat here.txt" }
"#,
    );
    env.write("deep/pack/__init__.py", "");
    env.write(
        "deep/pack/mod.py",
        "from pack import other\n\ndef where(row):\n    return {'t': open('here.txt').read()}\n",
    );
    env.write("deep/pack/other.py", "");
    env.write("deep/here.txt", "here");
    env.run(&["run", "deep/flow.yaml"]).exits(0);
    for (stage, column) in [("a", "t"), ("b", "stdout"), ("c", "stdout")] {
        let rows = env.run(&["results", stage, "deep/flow.yaml", "--format", "jsonl"]).exits(0).json_lines();
        assert_eq!(rows[0][column], "here");
    }
}

const CHUNKS: &str = r#"
import kit

def sizes(rows):
    kit.log("sizes", len(rows))
    return [{"n": row["x"] + 1} for row in rows]

def bad_rows(rows):
    kit.log("sizes", len(rows))
    if any(row["id"] in (3, 11) for row in rows):
        raise ValueError("bad row")
    return [{"n": row["x"] + 1} for row in rows]

def too_few(rows):
    return [{"n": 1} for row in rows[1:]]
"#;

fn chunked(function: &str, sizes: &str, rows: usize) -> TestEnv {
    let env = calling(&format!("python: \"f:{function}\", call: chunk, chunk_format: rows, {sizes}"), CHUNKS);
    env.write("a.csv", numbers_csv(rows));
    env
}

fn sizes(env: &TestEnv) -> Vec<usize> {
    env.logged("sizes").iter().map(|line| line.parse().expect("a size")).collect()
}

#[test]
fn a_chunk_size_is_honoured_exactly() {
    let env = chunked("sizes", "chunk_size: 7, workers: 1", 20);
    env.run(&["run"]).exits(0);
    assert_eq!(sizes(&env), [7, 7, 6]);
    assert_eq!(ints(&env.column("work", "n")), (0..20).map(|i| i * 10 + 1).collect::<Vec<_>>());
    let env = chunked("sizes", "chunk_size: 5, batch_size: 10, workers: 2", 40);
    env.run(&["run"]).exits(0);
    assert_eq!(sizes(&env), [5; 8]);
}

#[test]
fn a_batch_size_is_a_true_maximum() {
    let env = chunked("sizes", "chunk_size: 100, batch_size: 8", 50);
    env.run(&["run"]).exits(0);
    let sizes = sizes(&env);
    assert_eq!(sizes.iter().sum::<usize>(), 50);
    assert!(sizes.iter().all(|n| *n <= 8), "{sizes:?}");
}

#[test]
fn automatic_chunks_cover_all_rows() {
    let env = chunked("sizes", "chunk_size: auto, batch_size: auto", 3000);
    env.run(&["run"]).exits(0);
    assert_eq!(sizes(&env).iter().sum::<usize>(), 3000);
    assert_eq!(ints(&env.column("work", "n")), (0..3000).map(|i| i * 10 + 1).collect::<Vec<_>>());
}

#[test]
fn a_raising_chunk_is_halved() {
    let env = chunked("bad_rows", "chunk_size: 16, workers: 1", 16);
    env.run(&["run"]).exits(100);
    assert_eq!(env.rows("work").len(), 14);
    assert_eq!(env.failures_by_kind(), [("exception".to_string(), 2)].into());
    let mut failed = ints(&env.failed_rows("work").iter().map(|row| row["id"].clone()).collect::<Vec<_>>());
    failed.sort();
    assert_eq!(failed, [3, 11]);
}

#[test]
fn a_chunk_must_give_as_many_rows() {
    let env = chunked("too_few", "chunk_size: 4", 4);
    env.run(&["run"]).exits(100);
    assert_eq!(env.failures_by_kind().values().sum::<u64>(), 4);
    assert!(env.rows("work").is_empty());
}

#[test]
fn what_a_function_may_return() {
    let env = TestEnv::with(
        r#"
sources: { s: { values: [dict, none, scalar, text, list, tuple, nested] } }
stages:
  work: { map: s, python: "f:work", args: { what: "{{ item.value }}" } }
"#,
        r#"
def work(row, *, what):
    return {
        "dict": {"a": 1},
        "none": None,
        "scalar": 5,
        "text": "five",
        "list": [1, 2, 3],
        "tuple": (1, 2),
        "nested": {"a": {"b": [1, {"c": None}]}},
    }[what]
"#,
    );
    env.run(&["run"]).exits(0);
    let rows = env.rows("work");
    assert_eq!(rows[0], json!({"value": "dict", "a": 1}));
    assert_eq!(rows[1]["value"], "none");
    assert_eq!(env.column("work", "value")[2..6], [json!(5), json!("five"), json!([1, 2, 3]), json!([1, 2])]);
    assert_eq!(rows[6]["a"], json!({"b": [1, {"c": null}]}));
}

#[test]
fn a_value_that_cannot_be_kept_fails_its_item() {
    let env = calling(
        "python: \"f:work\", chunk_size: 5",
        r#"
import kit

class Odd:
    pass

def work(row):
    if row["id"] == 1:
        return {"y": Odd()}
    if row["id"] == 2:
        return {3: 4}
    if row["id"] == 3:
        return {"y": [{"deep": Odd()}]}
    return {"y": 1}
"#,
    );
    env.run(&["run"]).exits(100);
    assert_eq!(env.failures_by_kind(), [("output".to_string(), 3)].into());
    assert_eq!(ints(&env.column("work", "id")), [0, 4]);
    let failed = env.failed_rows("work");
    assert!(text(&failed[0]["error"]).contains("Odd"), "{}", failed[0]);
    assert!(text(&failed[2]["error"]).contains("Odd"), "{}", failed[2]);
}

#[test]
fn decorated_and_partial_functions() {
    let env = TestEnv::with(
        r#"
sources: { n: { values: [2] } }
stages:
  a: { map: n, python: "f:decorated" }
  c: { map: n, python: "f:partial" }
"#,
        r#"
import functools

def plus(function):
    @functools.wraps(function)
    def wrapped(row):
        return {"y": function(row) + 1}
    return wrapped

@plus
def decorated(row):
    return row["value"]

def base(row, k):
    return {"y": row["value"] * k}

partial = functools.partial(base, k=9)
"#,
    );
    env.run(&["run"]).exits(0);
    for (stage, y) in [("a", 3), ("c", 18)] {
        assert_eq!(env.column(stage, "y"), [Json::from(y)]);
    }
}
