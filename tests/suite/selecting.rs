//! `--limit`, `--item`, `--row`, `--stage`, and `retry` with all that narrows it.

use serde_json::json;

use crate::env::*;

const PIPELINE: &str = r#"
sources:
  numbers: { csv: numbers.csv, key: id }
stages:
  first: { map: numbers, python: "f:first" }
  second: { map: first, python: "f:second" }
outputs:
  second: out.csv
"#;

const MODULE: &str = r#"
import kit

def first(row):
    kit.log("first", row["id"])
    if row["x"] in (30, 50) and not kit.is_open("mended"):
        raise ValueError("no %d today" % row["x"])
    return {"y": row["x"] + 1}

def second(row):
    kit.log("second", row["id"])
    if row["x"] == 70 and not kit.is_open("mended"):
        raise KeyError("seventy")
    return {"z": row["y"] + 1}
"#;

fn selectable(rows: usize) -> TestEnv {
    let env = TestEnv::with(PIPELINE, MODULE);
    env.write("numbers.csv", numbers_csv(rows));
    env
}

#[test]
fn a_limit_takes_the_first_rows() {
    let env = selectable(10);
    let summary = env.run_json(&["--limit", "3"], 0);
    counts(&stage_of(&summary, "first"), &[("ran", 3)]);
    assert_eq!(distinct(&env.logged("first")).into_iter().collect::<Vec<_>>(), ["0", "1", "2"]);
    assert_eq!(env.logged("second").len(), 3);
    assert!(!env.path("out.csv").exists(), "a limited run writes no output");
    env.open_gate("mended");
    let summary = env.run_json(&[], 0);
    counts(&stage_of(&summary, "first"), &[("ran", 7), ("cached", 3)]);
    assert!(env.path("out.csv").exists());
}

#[test]
fn a_larger_limit_shows_more_and_a_smaller_one_no_less() {
    let env = selectable(10);
    env.open_gate("mended");
    for (limit, shown) in [("3", 3), ("6", 6), ("2", 6), ("8", 8)] {
        env.run(&["run", "--limit", limit]).exits(0);
        assert_eq!(env.rows("second").len(), shown, "after --limit {limit}");
    }
}

#[test]
fn a_limited_run_forgets_nothing() {
    let env = selectable(3);
    env.run(&["run"]).exits(0);
    env.run(&["run", "--limit", "1"]).exits(0);
    assert_eq!(env.rows("second").len(), 3);
    counts(&env.status_of("first"), &[("total", 3), ("done", 3)]);
    env.run(&["run", "--item", "1"]).exits(0);
    env.run(&["run", "--stage", "first"]).exits(0);
    assert_eq!(env.rows("second").len(), 3);
    assert_eq!(env.logged("first").len(), 3);
}

#[test]
fn items_by_key_and_by_row() {
    let env = selectable(10);
    let summary = env.run_json(&["--item", "7", "--item", "2", "--row", "0"], 100);
    counts(&stage_of(&summary, "first"), &[("ran", 3)]);
    assert_eq!(distinct(&env.logged("first")).into_iter().collect::<Vec<_>>(), ["0", "2", "7"]);
    assert!(!env.path("out.csv").exists());
    let unknown = env.run(&["run", "--item", "77"]);
    assert_ne!(unknown.code, Some(0), "an item that is not there: {}", unknown.all());
    assert!(unknown.all().contains("77"));
}

#[test]
fn the_exit_code_is_that_of_the_scope() {
    let env = selectable(5);
    env.run(&["run"]).exits(100);
    env.run(&["run"]).exits(100).says(&["retry"]);
    assert_eq!(env.logged("first").len(), 5, "a failed item is not run again");
    env.run(&["run", "--item", "1"]).exits(0);
    env.run(&["run", "--limit", "2"]).exits(0);
    env.run(&["run", "--item", "3"]).exits(100);
}

#[test]
fn a_stage_and_what_comes_before_it() {
    let env = selectable(3);
    let summary = env.run_json(&["--stage", "first"], 0);
    counts(&stage_of(&summary, "first"), &[("ran", 3)]);
    assert!(env.logged("second").is_empty());
    assert!(!env.path("out.csv").exists());
    env.run(&["run", "--stage", "fist"]).exits(2).says(&["fist", "first"]);
    env.run(&["run", "--stage", "second"]).exits(0);
    assert!(env.path("out.csv").exists());
}

#[test]
fn composite_keys_are_json_lists() {
    let env = TestEnv::with(
        r#"
sources:
  pairs: { jsonl: pairs.jsonl, key: [a, b] }
stages:
  join: { map: pairs, python: "f:join" }
"#,
        "import kit\n\ndef join(row):\n    kit.log('join', row['a'])\n    raise ValueError(row['a'])\n",
    );
    env.write("pairs.jsonl", "{\"a\": \"x\", \"b\": 1}\n{\"a\": \"y\", \"b\": 2}\n");
    env.run(&["run", "--item", r#"["y", 2]"#]).exits(100);
    assert_eq!(env.logged("join"), ["y"]);
    let key = text(&env.errors()[0]["keys"][0]);
    env.clear_log("join");
    env.run(&["retry", "--item", &key]).exits(100);
    assert_eq!(env.logged("join"), ["y"], "a printed key can be pasted back: {key}");
    env.run(&["errors", "--item", &key]).exits(0).says(&["ValueError", "Traceback"]);
}

#[test]
fn keys_of_a_flat_map_are_paths() {
    let env = TestEnv::with(
        r#"
sources:
  words: { jsonl: words.jsonl, key: word }
stages:
  letters: { flat_map: words, python: "f:letters" }
  check: { map: letters, python: "f:check" }
"#,
        r#"
import kit

def letters(row):
    for letter in row["word"]:
        yield {"letter": letter}

def check(row):
    kit.log("check", row["letter"])
    if row["letter"] == "o":
        raise ValueError("o")
"#,
    );
    env.write("words.jsonl", "{\"word\": \"go\"}\n{\"word\": \"foo/0\"}\n");
    env.run(&["run"]).exits(100);
    let keys: Vec<String> = env.errors()[0]["keys"].as_array().expect("keys").iter().map(text).collect();
    assert_eq!(keys, ["go/1", "foo/0/1", "foo/0/2"]);
    env.clear_log("check");
    env.run(&["retry", "--item", "go/1"]).exits(100);
    assert_eq!(env.logged("check"), ["o"]);
    env.run(&["errors", "--item", "foo/0/2"]).exits(0).says(&["ValueError"]);
}

#[test]
fn retry_runs_the_failed_ones_and_what_follows() {
    let env = selectable(10);
    env.run(&["run"]).exits(100).says(&["retry --failed"]);
    assert_eq!(env.rows("second").len(), 7);
    env.clear_log("first");
    env.clear_log("second");
    env.run(&["retry", "--failed"]).exits(100);
    assert_eq!(distinct(&env.logged("first")).into_iter().collect::<Vec<_>>(), ["3", "5"]);
    assert_eq!(env.logged("second"), ["7"]);
    env.open_gate("mended");
    env.clear_log("first");
    env.clear_log("second");
    env.run(&["retry", "--failed"]).exits(0);
    assert_eq!(distinct(&env.logged("first")).into_iter().collect::<Vec<_>>(), ["3", "5"]);
    assert_eq!(distinct(&env.logged("second")).into_iter().collect::<Vec<_>>(), ["3", "5", "7"]);
    assert_eq!(ints(&env.column("second", "id")), (0..10).collect::<Vec<_>>());
    assert_eq!(env.read("out.csv").lines().count(), 11, "outputs are brought up to date");
    env.run(&["retry"]).exits(0);
    assert!(env.errors().is_empty());
}

#[test]
fn retry_leaves_what_was_never_run_due() {
    let env = selectable(10);
    env.open_gate("mended");
    env.run(&["retry", "--failed"]).exits(0);
    assert!(!env.path("out.csv").exists(), "an output of nothing");
    let summary = env.run_json(&[], 0);
    counts(&stage_of(&summary, "second"), &[("ran", 10)]);
    assert!(env.path("out.csv").exists());
}

#[test]
fn retry_does_not_run_what_never_failed() {
    let env = selectable(6);
    env.run(&["run", "--limit", "4"]).exits(100);
    env.open_gate("mended");
    env.run(&["retry", "--failed"]).exits(0);
    assert_eq!(env.logged("first").len(), 5, "items that are new are for run");
}

#[test]
fn retry_can_be_narrowed() {
    let ran = |env: &TestEnv, args: &[&str]| {
        env.clear_log("first");
        env.clear_log("second");
        let mut all = vec!["retry", "--failed"];
        all.extend(args);
        let code = env.run(&all).code;
        assert!(matches!(code, Some(0 | 100)), "{args:?}: {code:?}");
        let of = |name| distinct(&env.logged(name)).into_iter().collect::<Vec<_>>().join(",");
        (of("first"), of("second"))
    };
    let env = selectable(10);
    env.run(&["run"]).exits(100);
    assert_eq!(ran(&env, &["--item", "5"]), ("5".into(), String::new()));
    assert_eq!(ran(&env, &["--match", "no 30"]), ("3".into(), String::new()));
    assert_eq!(ran(&env, &["--kind", "exception"]), ("3,5".into(), "7".into()));
    assert_eq!(ran(&env, &["--stage", "second"]), (String::new(), "7".into()));
    assert_eq!(ran(&env, &["--kind", "timeout"]), (String::new(), String::new()));
    env.run(&["retry", "--kind", "tiredness"]).exits(2);
}

#[test]
fn rows_are_numbered_from_nought_where_there_is_no_key() {
    let env = TestEnv::with(
        r#"
sources: { n: { values: [a, b, c] } }
stages:
  say: { map: n, python: "f:say" }
"#,
        "import kit\n\ndef say(row):\n    kit.log('say', row['value'])\n    raise ValueError()\n",
    );
    env.run(&["run", "--row", "1"]).exits(100);
    assert_eq!(env.logged("say"), ["b"]);
    assert_eq!(env.errors()[0]["keys"], json!(["1"]));
    env.run(&["run", "--item", "2"]).exits(100);
    assert_eq!(env.logged("say"), ["b", "c"]);
}
