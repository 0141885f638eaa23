//! Verbs: map, flat_map, filter, reduce, stages that run once; `after`, `assign`, `where`, `keep`, `defaults`.

use serde_json::{Value as Json, json};

use crate::env::*;

#[test]
fn flat_map_gives_any_number_of_rows() {
    let env = TestEnv::with(
        r#"
sources: { n: { range: {start: 0, stop: 6} } }
stages:
  spread: { flat_map: n, python: "f:spread" }
  after: { map: spread, python: "f:after", chunk_size: 2 }
"#,
        r#"
import kit

def spread(row):
    n = row["value"]
    if n == 1:
        return None
    if n == 2:
        return []
    if n == 3:
        return {"i": "single"}
    if n == 4:
        return [{"i": "a"}, {"i": "b", "value": 44}]
    return ({"i": i} for i in range(n))

def after(row):
    kit.log("after", row["value"])
    return {"j": str(row["i"]) + "!"}
"#,
    );
    env.run(&["run"]).exits(0);
    let rows = env.rows("after");
    let pairs: Vec<_> = rows.iter().map(|r| (r["value"].as_i64().expect("int"), text(&r["j"]))).collect();
    let expected: Vec<(i64, String)> =
        [(3, "single"), (4, "a"), (44, "b"), (5, "0"), (5, "1"), (5, "2"), (5, "3"), (5, "4")]
            .map(|(n, j)| (n, format!("{j}!")))
            .to_vec();
    assert!(pairs == expected || pairs == [vec![], expected.clone()].concat(), "{pairs:?}");
    env.clear_log("after");
    env.run(&["run"]).exits(0);
    assert!(env.logged("after").is_empty());
}

#[test]
fn a_flat_map_that_fails_midway_gives_no_row() {
    let env = TestEnv::with(
        r#"
sources: { n: { range: {start: 0, stop: 3} } }
stages:
  spread: { flat_map: n, python: "f:spread" }
  after: { map: spread, assign: { k: "item.i * 2" } }
"#,
        r#"
def spread(row):
    for i in range(1000):
        if row["value"] == 1 and i == 999:
            raise ValueError("almost")
        yield {"i": i}
"#,
    );
    env.run(&["run"]).exits(100);
    assert_eq!(env.rows("spread").len(), 2000);
    let rows = env.rows("after");
    assert_eq!(rows.len(), 2000);
    assert!(rows.iter().all(|row| row["value"] != 1));
    assert_eq!(rows[1999], json!({"value": 2, "i": 999, "k": 1998}));
}

#[test]
fn filters_keep_rows() {
    let env = TestEnv::with(
        r#"
sources: { n: { range: {start: 0, stop: 10} } }
stages:
  even: { filter: n, where: "item.value % 2 == 0" }
  large: { filter: even, python: "f:large", args: { than: 3 } }
  end: { map: large, assign: { y: "item.value * 10" } }
"#,
        "import kit\n\ndef large(row, *, than):\n    kit.log('large', row['value'])\n    return row['value'] > than\n",
    );
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("even", "value")), [0, 2, 4, 6, 8]);
    assert_eq!(env.rows("end"), [4, 6, 8].map(|n| json!({"value": n, "y": n * 10})));
    assert_eq!(env.logged("large").len(), 5);
    counts(&env.plan_of("end"), &[("total", 3), ("done", 3)]);
    env.run(&["run"]).exits(0);
    assert_eq!(env.logged("large").len(), 5);
}

#[test]
fn a_filters_truth_is_pythons() {
    let env = TestEnv::with(
        r#"
sources: { n: { values: [0, 1, "", "no", null, [], [0]] } }
stages:
  truth: { filter: n, python: "f:truth" }
"#,
        "def truth(row):\n    return row['value']\n",
    );
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("truth", "value"), [json!(1), json!("no"), json!([0])]);
}

#[test]
fn assign_adds_columns_in_order() {
    let env = TestEnv::with(
        r#"
params: { scale: 3 }
sources: { s: { csv: a.csv } }
stages:
  more:
    map: s
    assign:
      sum: "item.a + item.b"
      scaled: "item.a * params.scale"
      text: "item.name ~ '/' ~ item.a"
      flag: "item.a > 1 and item.b < 10"
      a: "item.a - 1"
      place: "index"
"#,
        "",
    );
    env.write("a.csv", "a,b,name\n1,2,x\n3,4,y\n");
    env.run(&["run"]).exits(0);
    assert_eq!(
        env.rows("more"),
        [
            json!({"a": 0, "b": 2, "name": "x", "sum": 3, "scaled": 3, "text": "x/1", "flag": false, "place": 0}),
            json!({"a": 2, "b": 4, "name": "y", "sum": 7, "scaled": 9, "text": "y/3", "flag": true, "place": 1}),
        ]
    );
}

#[test]
fn an_undefined_value_fails_its_item() {
    let env = TestEnv::with(
        r#"
sources: { s: { jsonl: a.jsonl } }
stages:
  more: { map: s, assign: { y: "item.x + 1" } }
  some: { filter: s, where: "item.x > 0" }
"#,
        "",
    );
    env.write("a.jsonl", "{\"x\": 1}\n{\"z\": 1}\n{\"x\": 2}\n");
    env.run(&["run"]).exits(100);
    assert_eq!(ints(&env.column("more", "y")), [2, 3]);
    assert_eq!(ints(&env.column("some", "x")), [1, 2]);
    for group in env.errors() {
        assert_eq!(group["keys"], json!(["1"]));
        assert!(text(&group["signature"]).contains('x'), "{group}");
    }
}

const REDUCE: &str = r#"
sources: { s: { csv: a.csv } }
stages:
  work: { map: s, python: "f:work", chunk_size: 1, workers: 4 }
  groups: { reduce: work, python: "f:together", group_by: [g] }
  all: { reduce: work, python: "f:together" }
  strict: { reduce: work, python: "f:together", needs: all }
"#;

const REDUCERS: &str = r#"
import time
import kit

def work(row):
    time.sleep(row["id"] * 7 % 5 * 0.003)
    if row["id"] == 4 and not kit.is_open("mended"):
        raise ValueError("four")
    return {"y": row["id"] * 2}

def together(rows):
    assert iter(rows) is rows, "an iterator, not a list"
    kit.log("reduced", 1)
    return {"ids": [row["id"] for row in rows]}
"#;

#[test]
fn a_reduce_gets_the_succeeded_rows_in_item_order() {
    let env = TestEnv::with(REDUCE, REDUCERS);
    let rows: String = (0..12).map(|i| format!("{i},{}\n", ["b", "a", "c"][i % 3])).collect();
    env.write("a.csv", format!("id,g\n{rows}"));
    let run = env.run(&["run"]).exits(100);
    assert!(run.stderr.contains("missing"), "the summary tells how many rows are missing: {}", run.stderr);
    let mut groups = env.rows("groups");
    groups.sort_by_key(|row| text(&row["g"]));
    assert_eq!(
        groups,
        [
            json!({"g": "a", "ids": [1, 7, 10]}),
            json!({"g": "b", "ids": [0, 3, 6, 9]}),
            json!({"g": "c", "ids": [2, 5, 8, 11]}),
        ]
    );
    assert_eq!(env.column("all", "ids"), [json!([0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11])]);
    assert!(env.rows("strict").is_empty());
    counts(&env.plan_of("strict"), &[("blocked", 1), ("done", 0), ("due", 0)]);
    env.clear_log("reduced");
    env.open_gate("mended");
    env.run(&["retry", "--failed"]).exits(0);
    assert_eq!(env.column("strict", "ids"), [json!((0..12).collect::<Vec<_>>())]);
    assert_eq!(env.column("all", "ids"), [json!((0..12).collect::<Vec<_>>())]);
    assert_eq!(env.logged("reduced").len(), 3, "two groups are untouched");
    env.run(&["run"]).exits(0);
    assert_eq!(env.logged("reduced").len(), 3);
}

#[test]
fn a_reduce_may_read_little_give_many_or_fail() {
    let env = TestEnv::with(
        r#"
sources: { n: { range: {start: 0, stop: 50000} } }
stages:
  head: { reduce: n, python: "f:head" }
  spread: { reduce: n, python: "f:spread" }
  next: { map: spread, assign: { k: "item.i + 1" } }
  sick: { reduce: n, python: "f:sick" }
  behind: { map: sick, assign: { k: "1" } }
  scalar: { reduce: n, python: "f:scalar" }
"#,
        r#"
def head(rows):
    return {"first": next(rows)["value"], "second": next(rows)["value"]}

def spread(rows):
    for row in rows:
        if row["value"] % 10000 == 0:
            yield {"i": row["value"]}

def sick(rows):
    raise ValueError("sick after %d" % next(rows)["value"])

def scalar(rows):
    return sum(row["value"] for row in rows)
"#,
    );
    env.run(&["run"]).exits(100);
    assert_eq!(env.rows("head"), [json!({"first": 0, "second": 1})]);
    assert_eq!(ints(&env.column("next", "k")), [1, 10001, 20001, 30001, 40001]);
    assert_eq!(env.column("scalar", "value"), [json!(50000_i64 * 49999 / 2)]);
    assert_eq!(env.failures_by_kind(), [("exception".to_string(), 1)].into());
    counts(&env.plan_of("sick"), &[("failed", 1), ("total", 1)]);
    assert!(env.rows("behind").is_empty());
}

#[test]
fn a_reduce_of_nothing() {
    let env = TestEnv::with(
        r#"
sources: { n: { range: {start: 0, stop: 5} } }
stages:
  none: { filter: n, where: "item.value > 100" }
  groups: { reduce: none, python: "f:total", group_by: [value] }
  all: { reduce: none, python: "f:total" }
"#,
        "def total(rows):\n    return {'n': len(list(rows))}\n",
    );
    env.run(&["run"]).exits(0);
    assert!(env.rows("groups").is_empty());
    let all = env.rows("all");
    assert!(all.is_empty() || all == [json!({"n": 0})], "{all:?}");
}

#[test]
fn groups_run_in_parallel_and_know_their_group() {
    let env = TestEnv::with(
        r#"
sources: { n: { values: [{g: a, h: 1, v: 1}, {g: b, h: 1, v: 2}, {g: a, h: 2, v: 3}] } }
stages:
  pair:
    reduce: n
    python: f:pair
    group_by: [g, h]
    args: { name: "{{ group.g }}-{{ group.h }}" }
    workers: 3
"#,
        r#"
import kit

def pair(rows, *, name):
    kit.meet("groups", name, 3)
    return {"name": name, "v": [row["v"] for row in rows]}
"#,
    );
    env.run(&["run"]).exits(0);
    let mut rows = env.rows("pair");
    rows.sort_by_key(|row| text(&row["name"]));
    assert_eq!(
        rows,
        [
            json!({"g": "a", "h": 1, "name": "a-1", "v": [1]}),
            json!({"g": "a", "h": 2, "name": "a-2", "v": [3]}),
            json!({"g": "b", "h": 1, "name": "b-1", "v": [2]}),
        ]
    );
}

#[test]
fn group_values_keep_their_types() {
    let env = TestEnv::with(
        r#"
sources: { n: { jsonl: a.jsonl } }
stages:
  group: { reduce: n, python: "f:group", group_by: [g] }
"#,
        "def group(rows):\n    rows = list(rows)\n    return {'n': len(rows), 'type': type(rows[0]['g']).__name__}\n",
    );
    env.write("a.jsonl", "{\"g\": 1}\n{\"g\": 1.0}\n{\"g\": true}\n{\"g\": \"1\"}\n{\"g\": null}\n{\"g\": 1}\n");
    env.run(&["run"]).exits(0);
    let mut types: Vec<_> = env.rows("group").iter().map(|r| format!("{} {}", text(&r["type"]), r["n"])).collect();
    types.sort();
    assert_eq!(types, ["NoneType 1", "bool 1", "float 1", "int 2", "str 1"]);
}

#[test]
fn a_stage_without_input_runs_once() {
    let env = TestEnv::with(
        r#"
sources: { n: { range: {start: 0, stop: 3} } }
stages:
  fetch: { command: [sh, -c, "echo fetched; echo x >> fetched.log"] }
  build: { python: "f:build", args: { n: 3 }, after: [fetch] }
  use: { map: n, python: "f:uses", after: [build] }
"#,
        r#"
import os
import kit

def build(*row, n):
    assert os.path.exists("fetched.log")
    kit.open_gate("built")
    return {"n": n}

def uses(row):
    assert kit.is_open("built")
"#,
    );
    env.run(&["run"]).exits(0);
    env.run(&["run"]).exits(0);
    assert_eq!(env.read("fetched.log"), "x\n");
    assert_eq!(env.rows("fetch"), [json!({"stdout": "fetched"})]);
    assert_eq!(env.rows("build"), [json!({"n": 3})]);
    counts(&env.plan_of("build"), &[("total", 1), ("done", 1)]);
}

#[test]
fn after_waits_for_all_of_a_stage() {
    let env = TestEnv::with(
        r#"
sources: { n: { range: {start: 0, stop: 40} } }
stages:
  work: { map: n, python: "f:work", chunk_size: 1 }
  end: { map: n, python: "f:end", after: [work] }
"#,
        r#"
import time
import kit

def work(row):
    time.sleep(0.003)
    kit.log("order", "work")

def end(row):
    kit.log("order", "end")
"#,
    );
    env.run(&["run"]).exits(0);
    let order = env.logged("order");
    assert_eq!(order.len(), 80);
    assert!(order[..40].iter().all(|s| s == "work"));
}

#[test]
fn after_a_failure_is_blocked() {
    let env = TestEnv::with(
        r#"
sources: { n: { range: {start: 0, stop: 3} } }
stages:
  work: { map: n, python: "f:work" }
  end: { map: n, python: "f:end", after: [work] }
  once: { python: "f:end", after: [end] }
"#,
        r#"
import kit

def work(row):
    if row["value"] == 1 and not kit.is_open("mended"):
        raise ValueError()

def end(*row):
    kit.log("end", 1)
"#,
    );
    let summary = env.run_json(&[], 100);
    counts(&stage_of(&summary, "end"), &[("ran", 0), ("blocked", 3)]);
    counts(&stage_of(&summary, "once"), &[("ran", 0), ("blocked", 1)]);
    assert!(env.logged("end").is_empty());
    counts(&env.plan_of("end"), &[("blocked", 3), ("due", 0)]);
    env.open_gate("mended");
    env.run(&["retry", "--failed"]).exits(0);
    assert_eq!(env.logged("end").len(), 4);
}

#[test]
fn blocked_items_are_counted_through_all_stages() {
    let env = TestEnv::with(
        r#"
sources: { n: { range: {start: 0, stop: 10} } }
stages:
  a: { map: n, python: "f:a" }
  b: { map: a, assign: { x: "item.value" } }
  c: { filter: b, where: "item.value >= 5" }
  d: { map: c, assign: { y: "item.value" } }
"#,
        "def a(row):\n    if row['value'] in (2, 7):\n        raise ValueError(row['value'])\n",
    );
    let summary = env.run_json(&[], 100);
    counts(&stage_of(&summary, "a"), &[("ran", 10), ("failed", 2), ("blocked", 0)]);
    counts(&stage_of(&summary, "b"), &[("failed", 0), ("blocked", 2)]);
    counts(&stage_of(&summary, "d"), &[("failed", 0), ("blocked", 2)]);
    assert_eq!(ints(&env.column("d", "value")), [5, 6, 8, 9]);
    counts(&env.status_of("b"), &[("done", 8), ("blocked", 2), ("due", 0), ("failed", 0)]);
}

#[test]
fn keep_narrows_what_is_passed_on() {
    let env = TestEnv::with(
        r#"
sources: { s: { values: [{a: 1, b: 2, c: 3}] } }
stages:
  first: { map: s, python: "f:first", keep: [a, y] }
  second: { map: first, python: "f:second" }
"#,
        r#"
def first(row):
    return {"y": row["b"] + row["c"], "z": 9}

def second(row):
    return {"saw": sorted(row)}
"#,
    );
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("second", "saw"), [json!(["a", "y"])]);
}

#[test]
fn a_new_column_wins() {
    let env = TestEnv::with(
        r#"
sources: { s: { values: [{a: 1, b: 2}] } }
stages:
  first: { map: s, python: "f:first" }
  second: { map: first, python: "f:second" }
"#,
        "def first(row):\n    return {'a': 'new'}\n\ndef second(row):\n    return {'saw': row['a']}\n",
    );
    env.run(&["run"]).exits(0);
    assert_eq!(env.rows("second"), [json!({"a": "new", "b": 2, "saw": "new"})]);
}

#[test]
fn defaults_are_for_all_stages() {
    let env = TestEnv::with(
        r#"
sources: { n: { values: [1] } }
defaults: { retries: 2, env: { WHO: all } }
stages:
  a: { map: n, python: "f:flaky" }
  b: { map: n, python: "f:flaky", retries: 0, env: { WHO: b } }
"#,
        "import os\nimport kit\n\ndef flaky(row):\n    kit.log(os.environ['WHO'], 1)\n    raise ValueError()\n",
    );
    env.run(&["run"]).exits(100);
    assert_eq!((env.logged("all").len(), env.logged("b").len()), (3, 1));
}

#[test]
fn a_column_may_be_missing_here_and_there() {
    let env = TestEnv::with(
        r#"
sources: { n: { range: {start: 0, stop: 4} } }
stages:
  odd: { map: n, python: "f:odd", chunk_size: 1 }
  next: { map: odd, python: "f:next" }
"#,
        r#"
def odd(row):
    if row["value"] % 2:
        return {"x": row["value"]}

def next(row):
    return {"has": "x" in row}
"#,
    );
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("odd", "x"), [Json::Null, json!(1), Json::Null, json!(3)]);
    assert_eq!(env.column("next", "has"), [json!(false), json!(true), json!(false), json!(true)]);
}
