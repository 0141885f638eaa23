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
    let lock = env.read(".bpp-flow/pipeline/lock");
    let since = text(&serde_json::from_str::<Json>(&lock).expect("JSON")["since"]);
    env.run(&["run"]).exits(1).says(&[&pid, host.trim(), &since, "bpp-flow status"]);
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
fn a_dead_owner_is_taken_over_without_a_word() {
    let env = TestEnv::with(PIPELINE, MODULE);
    for begun in [12, 13] {
        let run = env.spawn(&["run"]);
        // Of the two that were in hand at the first kill, one at a time is met again.
        until("the run is going", || env.logged("begun").len() >= begun);
        run.kill9();
        env.assert_nothing_runs();
        env.run(&["status"]).exits(0).says(&["killed"]);
        let left = std::fs::read_dir(env.path(".bpp-flow/pipeline")).expect("a state").flatten();
        let mut left: Vec<String> = left.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        left.sort();
        assert_eq!(left, ["in-hand", "lock", "store.redb"], "what was in hand is known to the next run");
    }
    // Whatever the lock file says, nobody holds it.
    env.write(".bpp-flow/pipeline/lock", "{\"host\":\"elsewhere\",\"pid\":1,\"since\":\"2020-01-01T00:00:00Z\"}");
    env.open_gate("go");
    env.run(&["run"]).exits(0);
    assert_eq!(env.rows("next").len(), 20);
    assert!(!env.path(".bpp-flow/pipeline/in-hand").exists());
}

#[test]
fn readers_after_a_kill_repair_at_once() {
    let env = TestEnv::with(PIPELINE, MODULE);
    let run = env.spawn(&["run"]);
    until("ten rows can be read", || env.run(&["results", "work", "--format", "jsonl"]).stdout.lines().count() == 10);
    run.kill9();
    env.assert_nothing_runs();
    let commands: [&[&str]; 4] =
        [&["results", "work", "--format", "jsonl"], &["status", "--json"], &["errors", "--json"], &["store", "stats"]];
    let readers: Vec<_> = (0..12).map(|n| env.spawn(commands[n % 4])).collect();
    for (n, reader) in readers.into_iter().enumerate() {
        let out = reader.wait().exits(0);
        if n % 4 == 0 {
            assert_eq!(json_lines(&out.stdout).len(), 10);
        }
    }
    env.open_gate("go");
    env.run(&["run"]).exits(0);
}

#[test]
fn readers_while_a_run_commits() {
    let env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 4000} } }\nstages:\n  work: { map: n, python: \"f:work\", workers: 2, chunk_size: 5 }\n  next: { map: work, assign: { z: \"item.y + 1\" } }\n",
        "import time\n\ndef work(row):\n    time.sleep(0.001)\n    if row['value'] % 100 == 7:\n        raise ValueError('seven')\n    return {'y': row['value'] * 2}\n",
    );
    let mut run = env.spawn(&["run"]);
    until("it has begun", || env.path(".bpp-flow/pipeline/store.redb").exists());
    let (mut rows, mut looks) = (0, 0);
    while !run.ended() {
        let out = env.run(&["results", "next", "--format", "jsonl"]);
        if out.code == Some(0) {
            let read = out.json_lines();
            assert!(read.iter().all(|row| row["z"].as_i64() == row["value"].as_i64().map(|n| n * 2 + 1)), "whole rows");
            assert!(read.len() >= rows, "what was there stays: {} after {rows}", read.len());
            rows = read.len();
        } else {
            assert!(out.stderr.contains("no run of this workflow yet"), "{}", out.all());
        }
        env.run(&["status", "--json"]).exits(0);
        env.run(&["errors", "--json"]).exits(0);
        looks += 1;
    }
    run.wait().exits(100);
    assert!(looks > 0);
    assert_eq!(env.rows("next").len(), 3960);
    env.run(&["store", "verify"]).exits(0);
}

#[test]
fn a_watch_sees_runs_and_their_ends() {
    let env = TestEnv::with(PIPELINE, MODULE);
    for begun in [12, 13] {
        let run = env.spawn(&["run"]);
        until("the run is going", || env.logged("begun").len() >= begun);
        until("a status shows it", || env.run(&["status"]).stdout.contains("running"));
        let watch = env.spawn(&["status", "--watch", "--json"]);
        std::thread::sleep(std::time::Duration::from_millis(1500));
        run.kill9();
        let seen = json_lines(&watch.wait().exits(0).stdout);
        assert_eq!(seen[0]["state"], "running", "{}", seen[0]);
        assert_eq!(seen.last().expect("a line")["state"], "interrupted");
    }
    let run = env.spawn(&["run"]);
    until("the run is going", || env.logged("begun").len() >= 14);
    until("a status shows it", || env.run(&["status"]).stdout.contains("running"));
    let watch = env.spawn(&["status", "--watch", "--json"]);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    env.open_gate("go");
    run.wait().exits(0);
    let seen = json_lines(&watch.wait().exits(0).stdout);
    assert_eq!(seen.last().expect("a line")["state"], "finished");
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
