//! One writer at a time; readers at any time.

use serde_json::Value as Json;

use crate::env::*;

const PIPELINE: &str = r#"
sources: { n: { range: {start: 0, stop: 20} } }
stages:
  work: { map: n, python: "f:gated", workers: 2, chunk_size: 1 }
  next: { map: work, assign: { z: "item.y + 1" } }
"#;

const MODULE: &str = r#"
import kit

def gated(row):
    kit.log("begun", row["value"])
    if row["value"] >= 10:
        kit.pass_gate("go")
    return {"y": row["value"] * 2}
"#;

#[test]
fn a_second_run_is_refused_and_names_the_first() {
    let env = TestEnv::with(PIPELINE, MODULE);
    let first = env.spawn(&["run"]);
    until("the first run is going", || env.logged("begun").len() >= 12);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a host name");
    let pid = first.id().to_string();
    env.run(&["run"]).exits(1).says(&[&pid, host.trim()]);
    env.run(&["retry", "--failed"]).exits(1).says(&[&pid]);
    env.open_gate("go");
    first.wait().exits(0);
    env.run(&["run"]).exits(0);
    assert_eq!(env.logged("begun").len(), 20);
}

#[test]
fn a_lock_ends_with_its_owner() {
    let env = TestEnv::with(PIPELINE, MODULE);
    let first = env.spawn(&["run"]);
    until("the first run is going", || env.logged("begun").len() >= 12);
    first.kill9();
    env.open_gate("go");
    env.run(&["run"]).exits(0);
}

#[test]
fn another_state_is_another_lock() {
    let env = TestEnv::with(PIPELINE, MODULE);
    let first = env.spawn(&["run"]);
    until("the first run is going", || env.logged("begun").len() >= 12);
    env.run(&["run", "--state", "other", "--limit", "5"]).exits(0);
    env.open_gate("go");
    first.wait().exits(0);
}

fn sum(stage: &Json) -> u64 {
    ["done", "failed", "blocked", "due", "possible", "running"].iter().map(|name| number(&stage[*name])).sum()
}

#[test]
fn readers_follow_a_run() {
    let env = TestEnv::with(PIPELINE, MODULE);
    let first = env.spawn(&["run"]);
    until("ten items are done, two in hand", || {
        let out = env.run(&["status", "--json"]);
        if out.code != Some(0) {
            return false;
        }
        let json = out.json();
        let Some(stage) = json["stages"].as_array().and_then(|s| s.iter().find(|s| s["name"] == "work").cloned())
        else {
            return false;
        };
        assert!(number(&stage["done"]) <= 10);
        if stage["total_known"] == true {
            assert_eq!(sum(&stage), number(&stage["total"]), "{stage}");
        }
        number(&stage["done"]) == 10 && number(&stage["running"]) == 2
    });
    until("ten rows can be read", || env.rows("work").len() == 10);
    until("the second stage has followed", || env.rows("next").len() == 10);
    env.run(&["plan", "--json"]).exits(0);
    assert!(env.errors().is_empty());
    env.run(&["status"]).exits(0).says(&["work", "next"]);
    env.run(&["runs"]).exits(0);
    env.open_gate("go");
    first.wait().exits(0);
    counts(&env.status_of("next"), &[("done", 20), ("running", 0), ("due", 0), ("possible", 0)]);
}

#[test]
fn status_before_any_run() {
    let env = TestEnv::with(PIPELINE, MODULE);
    let out = env.run(&["status", "--json"]).exits(0);
    let work = stage_of(&out.json(), "work");
    counts(&work, &[("done", 0), ("failed", 0), ("running", 0)]);
    assert!(!env.path(".bpp-flow").exists(), "reading makes nothing");
}
