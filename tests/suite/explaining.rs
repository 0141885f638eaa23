//! `plan --explain`, `--check`, `--out` with `run --plan`; `accept`; which version made a row; `store gc`.

use serde_json::Value as Json;

use crate::env::*;

const PIPELINE: &str = r#"
params: { by: 2 }
sources:
  cells: { csv: cells.csv, key: id }
stages:
  measure:
    map: cells
    python: f:measure
    args: { by: "{{ params.by }}" }
    use: [x]
  kept:
    filter: measure
    where: "item.y != 4"
  total:
    reduce: kept
    python: f:total
    group_by: [region]
  late:
    map: cells
    assign: { z: "item.x + 1" }
    after: [total]
"#;

const CODE: &str = r#"
def measure(row, *, by):
    if row["x"] == 7:
        raise ValueError("seven")
    return {"y": row["x"] * by}

def total(rows):
    return {"n": sum(row["y"] for row in rows)}
"#;

fn cells(rows: usize) -> String {
    let row = |i: usize| format!("c{i},{i},{}\n", if i.is_multiple_of(2) { "north" } else { "south" });
    format!("id,x,region\n{}", (0..rows).map(row).collect::<String>())
}

fn flow(rows: usize) -> TestEnv {
    let env = TestEnv::with(PIPELINE, CODE);
    env.write("cells.csv", cells(rows));
    env
}

fn followed(env: &TestEnv, key: &str) -> Vec<(String, String, String, String)> {
    let plan = env.run(&["plan", "--json", "--explain", key]).exits(0).json();
    let text = |met: &Json, name: &str| met[name].as_str().unwrap_or_default().to_string();
    let told = plan["item"].as_array().expect("an item").iter();
    told.map(|met| (text(met, "stage"), text(met, "key"), text(met, "state"), text(met, "why"))).collect()
}

fn states(env: &TestEnv, key: &str) -> Vec<(String, String)> {
    followed(env, key).into_iter().map(|(stage, _, state, _)| (stage, state)).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
}

#[test]
fn one_item_is_followed_through_all_stages() {
    let env = flow(6);
    let expected = [("measure", "due"), ("kept", "possible"), ("total", "possible"), ("late", "possible")];
    assert_eq!(states(&env, "c3"), pairs(&expected));
    env.run(&["run"]).exits(0);
    assert_eq!(
        followed(&env, "c3").into_iter().map(|(stage, key, state, _)| (stage, key, state)).collect::<Vec<_>>(),
        [("measure", "c3", "done"), ("kept", "c3", "done"), ("total", "south", "done"), ("late", "c3", "done")]
            .map(|(a, b, c)| (a.to_string(), b.to_string(), c.to_string()))
    );
    let expected = [("measure", "done"), ("kept", "dropped"), ("total", "gone"), ("late", "done")];
    assert_eq!(states(&env, "c2"), pairs(&expected), "the filter drops it");
    env.write("f.py", CODE.replace("* by", "* by * 1"));
    let told = followed(&env, "c3");
    assert!(told[0].2 == "due" && told[0].3.contains("f.py"), "{told:?}");
    env.run(&["plan", "--explain", "c77"]).exits(1).says(&["c77"]);
}

#[test]
fn a_failed_item_and_what_it_blocks_are_followed() {
    let env = flow(8);
    env.run(&["run"]).exits(100);
    let told = followed(&env, "c7");
    assert_eq!((told[0].2.as_str(), told[1].2.as_str()), ("failed", "blocked"), "{told:?}");
    assert!(told[0].3.contains("seven") && told[1].3.contains("measure"), "{told:?}");
    let late = told.iter().find(|met| met.0 == "late").expect("met");
    assert_eq!(late.2, "done", "total has no failure of its own: {told:?}");
}

#[test]
fn what_waits_for_a_stage_is_possible_only() {
    let env = flow(4);
    let late = env.plan_of("late");
    counts(&late, &[("due", 0), ("possible", 4)]);
    env.run(&["run"]).exits(0);
    env.write("cells.csv", cells(5));
    let plan = env.plan();
    counts(&stage_of(&plan, "measure"), &[("due", 1), ("possible", 0)]);
    counts(&stage_of(&plan, "late"), &[("done", 4), ("due", 0), ("possible", 1)]);
}

#[test]
fn check_tells_by_its_exit_code() {
    let env = flow(4);
    env.run(&["plan", "--check"]).exits(3);
    env.run(&["run"]).exits(0);
    env.run(&["plan", "--check"]).exits(0);
    env.run(&["plan", "--check", "--param", "by=3"]).exits(3);
}

#[test]
fn a_plan_that_was_written_down_is_kept_to() {
    let env = flow(4);
    env.run(&["plan", "--stage", "measure", "--limit", "2", "--out", "plan.json"]).exits(0);
    assert!(!env.path(".bpp-flow").exists(), "plan changes nothing");
    let ticket: Json = serde_json::from_str(&env.read("plan.json")).expect("JSON");
    assert_eq!(ticket["stages"][0]["due"], serde_json::json!(["c0", "c1"]));
    let summary = env.run_json(&["--plan", "plan.json"], 0);
    counts(&stage_of(&summary, "measure"), &[("ran", 2)]);
    env.run(&["run", "--plan", "plan.json"]).exits(1).says(&["stale", "measure", "plan --out"]);
    env.run(&["run", "--plan", "plan.json", "--limit", "1"]).exits(2);
    env.run(&["run", "--plan", "nothing.json"]).exits(2).says(&["nothing.json", "plan --out"]);
}

#[test]
fn a_plan_is_stale_when_anything_else_would_run() {
    let env = flow(4);
    env.run(&["plan", "--out", "plan.json"]).exits(0);
    env.write("cells.csv", cells(4).replace("c1,1", "c1,11"));
    env.run(&["run", "--plan", "plan.json"]).exits(1).says(&["stale", "other items of stage measure"]);
    env.write("cells.csv", cells(4));
    env.run(&["run", "--plan", "plan.json", "--param", "by=3"]).exits(1).says(&["stale", "measure"]);
    let summary = env.run_json(&["--plan", "plan.json"], 0);
    counts(&stage_of(&summary, "measure"), &[("ran", 4)]);
}

#[test]
fn accepted_results_hold_and_tell_their_version() {
    let env = flow(6);
    env.run(&["run"]).exits(0);
    env.write("f.py", CODE.replace("* by", "* by + 0"));
    counts(&env.plan_of("measure"), &[("due", 6)]);
    let accepted = env.run(&["accept", "--json"]).exits(0).json();
    assert_eq!(accepted["stages"][0]["accepted"], 6, "{accepted}");
    assert_eq!(accepted["stages"][0]["versions"], serde_json::json!([[1, 6]]));
    env.run(&["plan", "--check"]).exits(0);
    env.write("cells.csv", cells(7));
    let summary = env.run_json(&[], 0);
    counts(&stage_of(&summary, "measure"), &[("ran", 1), ("cached", 6)]);
    env.run(&["status"]).exits(0).says(&["measure: 6 rows from version 1, 1 from version 2"]);
    env.run(&["run"]).exits(0);
    env.run(&["status"]).exits(0).says(&["measure: 6 rows from version 1, 1 from version 2"]);
    let rows = env.run(&["results", "measure", "--columns", "id,version", "--format", "csv"]).exits(0).stdout;
    assert_eq!(rows, "id,version\nc0,1\nc1,1\nc2,1\nc3,1\nc4,1\nc5,1\nc6,2\n");
}

#[test]
fn single_items_and_stages_are_accepted() {
    let env = flow(4);
    env.run(&["run"]).exits(0);
    env.write("f.py", CODE.replace("* by", "* by + 0").replace("sum(row", "sum(1 * row"));
    env.run(&["accept", "--stage", "measure", "--item", "c1"]).exits(0);
    counts(&env.plan_of("measure"), &[("done", 1), ("due", 3)]);
    env.run(&["accept", "--stage", "measure"]).exits(0);
    let plan = env.plan();
    counts(&stage_of(&plan, "measure"), &[("done", 4), ("due", 0)]);
    counts(&stage_of(&plan, "total"), &[("done", 0), ("due", 2)]);
    env.run(&["accept", "--item", "nobody"]).exits(1).says(&["nobody"]);
    env.run(&["accept", "--stage", "nothing"]).exits(2);
}

#[test]
fn neither_failures_nor_other_rows_are_accepted() {
    let env = flow(9);
    env.run(&["run"]).exits(100);
    env.write("f.py", CODE.replace("* by", "* by + 0"));
    env.write("cells.csv", cells(9).replace("c1,1", "c1,11"));
    // The rows as they were last read count: only those were seen by the code.
    env.run(&["accept"]).exits(0);
    let measure = env.plan_of("measure");
    counts(&measure, &[("done", 7), ("due", 2)]);
    assert_eq!((reason(&measure, "code_changed"), reason(&measure, "input_changed")), (1, 1), "{measure}");
}

#[test]
fn gc_drops_what_nothing_needs() {
    let env = flow(6);
    env.run(&["run"]).exits(0);
    env.run(&["run", "--param", "by=3"]).exits(0);
    env.run(&["run"]).exits(0);
    env.write("cells.csv", cells(5));
    env.run(&["run"]).exits(0);
    let rows = |env: &TestEnv| env.run(&["results", "measure", "--format", "csv"]).exits(0).stdout;
    let before = rows(&env);
    let would = env.run(&["store", "gc", "--dry-run", "--json"]).exits(0).json();
    assert!(number(&would["of_versions"]) > 0 && number(&would["of_items"]) > 0, "{would}");
    counts(&stage_of(&env.run(&["plan", "--json", "--param", "by=3"]).exits(0).json(), "measure"), &[("done", 5)]);
    env.run(&["store", "gc", "--keep-versions", "1"]).exits(0);
    counts(&stage_of(&env.run(&["plan", "--json", "--param", "by=3"]).exits(0).json(), "measure"), &[("done", 5)]);
    env.run(&["store", "gc"]).exits(0).says(&["earlier versions"]);
    counts(&stage_of(&env.run(&["plan", "--json", "--param", "by=3"]).exits(0).json(), "measure"), &[("due", 5)]);
    assert_eq!(rows(&env), before);
    env.run(&["plan", "--check"]).exits(0);
    env.run(&["store", "verify"]).exits(0);
    env.write("cells.csv", cells(6));
    counts(&env.plan_of("measure"), &[("done", 5), ("due", 1)]);
    env.run(&["store", "gc"]).exits(0).says(&["nothing to drop"]);
}

#[test]
fn gc_keeps_the_last_results_of_code_that_has_changed_since() {
    let env = flow(4);
    env.run(&["run"]).exits(0);
    env.write("f.py", CODE.replace("* by", "* by + 0"));
    env.run(&["store", "gc"]).exits(0);
    env.write("f.py", CODE);
    env.run(&["plan", "--check"]).exits(0);
}

#[test]
fn only_what_is_selected_is_run_afresh() {
    let env = flow(6);
    env.run(&["run"]).exits(0);
    let plan = env.run(&["plan", "--json", "--fresh", "--item", "c3"]).exits(0).json();
    counts(&stage_of(&plan, "measure"), &[("done", 5), ("due", 1)]);
    let summary = env.run_json(&["--fresh", "--item", "c3"], 0);
    for (stage, ran) in [("measure", 1), ("kept", 1), ("total", 0)] {
        counts(&stage_of(&summary, stage), &[("ran", ran)]);
    }
    env.run(&["plan", "--check"]).exits(0);
    assert_eq!(env.rows("total").len(), 2);
    counts(&stage_of(&env.run_json(&["--fresh", "--stage", "measure"], 0), "measure"), &[("ran", 6)]);
    env.run(&["plan", "--check"]).exits(0);
}
