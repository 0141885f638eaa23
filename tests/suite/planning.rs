//! `plan`: counts and reasons, and that it changes nothing.

use serde_json::Value as Json;

use crate::env::*;

const PIPELINE: &str = r#"
params: { by: 2 }
sources:
  numbers: { csv: numbers.csv, key: id }
stages:
  first:
    map: numbers
    python: f:first
    args: { by: "{{ params.by }}" }
  second:
    map: first
    python: g:second
  total:
    reduce: second
    python: g:total
"#;

const FIRST: &str = r#"
import kit

def first(row, *, by):
    if row["x"] == 30 and not kit.is_open("mended"):
        raise ValueError("thirty")
    return {"y": row["x"] * by}
"#;

const SECOND: &str = r#"
def second(row):
    return {"z": row["y"] + 1}

def total(rows):
    return {"n": sum(1 for _ in rows)}
"#;

fn planned(rows: usize) -> TestEnv {
    let env = TestEnv::with(PIPELINE, FIRST);
    env.write("g.py", SECOND);
    env.write("numbers.csv", numbers_csv(rows));
    env
}

fn sum(stage: &Json) -> u64 {
    ["done", "due", "possible", "blocked", "failed"].iter().map(|name| number(&stage[*name])).sum()
}

#[test]
fn all_is_new_at_first() {
    let env = planned(3);
    let plan = env.plan();
    let first = stage_of(&plan, "first");
    counts(&first, &[("total", 3), ("done", 0), ("due", 3), ("possible", 0), ("blocked", 0), ("failed", 0)]);
    assert_eq!(first["total_known"], true);
    assert_eq!(reason(&first, "new"), 3);
    let second = stage_of(&plan, "second");
    counts(&second, &[("done", 0), ("due", 0), ("failed", 0)]);
    assert!(number(&second["possible"]) > 0);
    assert!(!env.path(".bpp-flow").exists(), "plan changes nothing");
    env.run(&["plan"]).exits(0).says(&["first", "second", "total", "3"]);
    assert!(!env.path(".bpp-flow").exists(), "plan changes nothing");
}

#[test]
fn nothing_is_due_after_a_run() {
    let env = planned(3);
    env.run(&["run"]).exits(0);
    let plan = env.plan();
    for (stage, total) in [("first", 3), ("second", 3), ("total", 1)] {
        let stage = stage_of(&plan, stage);
        counts(
            &stage,
            &[("total", total), ("done", total), ("due", 0), ("possible", 0), ("blocked", 0), ("failed", 0)],
        );
        assert!(stage["reasons"].as_object().expect("reasons").values().all(|n| n == 0), "{stage}");
    }
}

#[test]
fn an_inputs_change_is_told() {
    let env = planned(3);
    env.run(&["run"]).exits(0);
    env.write("numbers.csv", "id,x\n0,0\n1,11\n2,20\n");
    let first = env.plan_of("first");
    counts(&first, &[("total", 3), ("done", 2), ("due", 1)]);
    assert_eq!(reason(&first, "input_changed"), 1, "{first}");
    let words = env.run(&["plan"]).exits(0).all();
    assert!(words.contains('x') && words.to_lowercase().contains("input changed"), "{words}");
    let second = env.plan_of("second");
    counts(&second, &[("done", 2), ("possible", 1)]);
    let total = env.plan_of("total");
    counts(&total, &[("done", 0), ("possible", 1)]);
    let summary = env.run_json(&[], 0);
    counts(&stage_of(&summary, "first"), &[("ran", 1), ("cached", 2)]);
}

#[test]
fn what_follows_from_an_unknown_number_is_unknown() {
    let env = TestEnv::with(
        "sources: { s: { csv: s.csv, key: id } }\nstages:\n  many: { flat_map: s, python: \"f:many\" }\n  next: { map: many, assign: { y: \"item.n + 1\" } }\n  last: { map: next, assign: { z: \"item.y + 1\" } }\n",
        "def many(row):\n    for n in range(row['x']):\n        yield {'n': n}\n",
    );
    env.write("s.csv", "id,x\n1,1\n");
    env.run(&["run"]).exits(0);
    env.write("s.csv", "id,x\n1,1\n2,3\n");
    for stage in ["next", "last"] {
        let stage = env.plan_of(stage);
        assert_eq!(stage["total_known"], false, "three items will come: {stage}");
    }
}

#[test]
fn new_rows_are_told() {
    let env = planned(3);
    env.run(&["run"]).exits(0);
    env.write("numbers.csv", "id,x\n0,0\n9,90\n1,10\n2,20\n");
    let first = env.plan_of("first");
    counts(&first, &[("total", 4), ("done", 3), ("due", 1)]);
    assert_eq!(reason(&first, "new"), 1, "{first}");
}

#[test]
fn a_code_change_is_told() {
    let env = planned(3);
    env.run(&["run"]).exits(0);
    env.write("f.py", FIRST.replace("* by", "* by + 1"));
    let plan = env.plan();
    let first = stage_of(&plan, "first");
    counts(&first, &[("done", 0), ("due", 3)]);
    assert_eq!(reason(&first, "code_changed"), 3, "{first}");
    counts(&stage_of(&plan, "second"), &[("due", 0), ("possible", 3)]);
    env.run(&["plan"]).exits(0).says(&["f.py"]);
}

#[test]
fn an_arguments_change_is_told() {
    let env = planned(3);
    env.run(&["run"]).exits(0);
    let plan = env.run(&["plan", "--json", "--param", "by=5"]).exits(0).json();
    let first = stage_of(&plan, "first");
    counts(&first, &[("done", 0), ("due", 3)]);
    assert_eq!(reason(&first, "args_changed"), 3, "{first}");
    let words = env.run(&["plan", "--param", "by=5"]).exits(0).all();
    assert!(words.contains("by") && words.contains('2') && words.contains('5'), "{words}");
    counts(&env.plan_of("first"), &[("done", 3), ("due", 0)]);
}

#[test]
fn earlier_failures_are_told_and_block() {
    let env = planned(5);
    env.run(&["run"]).exits(100);
    let plan = env.plan();
    let first = stage_of(&plan, "first");
    counts(&first, &[("total", 5), ("done", 4), ("due", 0), ("failed", 1)]);
    let second = stage_of(&plan, "second");
    counts(&second, &[("done", 4), ("due", 0), ("blocked", 1)]);
    for stage in plan["stages"].as_array().expect("stages") {
        assert_eq!(sum(stage), number(&stage["total"]), "{stage}");
    }
}

#[test]
fn a_failed_item_whose_input_changed_is_due() {
    let env = planned(5);
    env.run(&["run"]).exits(100);
    env.write("numbers.csv", numbers_csv(5).replace("3,30", "3,31"));
    let first = env.plan_of("first");
    counts(&first, &[("done", 4), ("due", 1), ("failed", 0)]);
    let summary = env.run_json(&[], 0);
    counts(&stage_of(&summary, "first"), &[("ran", 1), ("cached", 4), ("failed", 0)]);
    counts(&stage_of(&summary, "second"), &[("ran", 1), ("cached", 4)]);
    assert_eq!(ints(&env.column("total", "n")), [5]);
}

#[test]
fn a_failed_item_whose_code_changed_is_due() {
    let env = planned(5);
    env.run(&["run"]).exits(100);
    env.write("f.py", FIRST.replace("== 30", "== 31"));
    let summary = env.run_json(&[], 0);
    counts(&stage_of(&summary, "first"), &[("failed", 0)]);
    assert_eq!(env.rows("second").len(), 5);
}

#[test]
fn a_plan_of_a_limited_run_counts_all() {
    let env = planned(9);
    env.run(&["run", "--limit", "2"]).exits(0);
    counts(&env.plan_of("first"), &[("total", 9), ("done", 2), ("due", 7)]);
}

#[test]
fn a_plan_after_a_kill_needs_no_repair() {
    let env = planned(200);
    let run = env.spawn(&["run"]);
    until("the store is there", || env.path(".bpp-flow").exists());
    run.kill9();
    env.assert_nothing_runs();
    let first = env.plan_of("first");
    assert_eq!(number(&first["total"]), 200);
    assert_eq!(sum(&first), 200);
}
