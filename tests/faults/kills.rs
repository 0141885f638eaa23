//! `kill -9` of bpp-flow in mid-run, again and again: nothing acknowledged is lost, little is repeated, nothing is
//! left running.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::env::*;
use crate::random::Random;

/// An item that ended longer than this before the kill must have been committed: the commit window, generously.
const WINDOW: f64 = 0.4;
/// The same where the disk is as busy as can be.
const BUSY_WINDOW: f64 = 3.0;

const MODULE: &str = r#"
import os
import time
import kit

NAP = float(os.environ.get("BPP_TEST_NAP", "0"))

def work(row):
    began = time.time()
    kit.log("begun", "%d %.6f" % (row["id"], began))
    time.sleep(NAP)
    if row["id"] % 100 == 7:
        kit.log("ended", "%d %.6f" % (row["id"], time.time()))
        raise ValueError("seven")
    kit.log("ended", "%d %.6f" % (row["id"], time.time()))
    return {"y": row["id"] + 1}

def total(rows):
    return {"ids": [row["id"] for row in rows]}
"#;

fn killable(rows: usize, nap: f64, settings: &str) -> TestEnv {
    let mut env = TestEnv::with(
        &format!(
            r#"
sources: {{ s: {{ csv: a.csv, key: id }} }}
stages:
  work: {{ map: s, python: "f:work", {settings} }}
  next: {{ map: work, assign: {{ z: "item.y * 2" }} }}
  total: {{ reduce: next, python: "f:total" }}
"#
        ),
        MODULE,
    );
    env.set_var("BPP_TEST_NAP", &nap.to_string());
    env.write("a.csv", numbers_csv(rows));
    env
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

fn times(env: &TestEnv, name: &str) -> Vec<(i64, f64)> {
    let parse = |line: &String| {
        let (id, time) = line.split_once(' ').expect("id and time");
        (id.parse().expect("an id"), time.parse().expect("a time"))
    };
    env.logged(name).iter().map(parse).collect()
}

/// The items that have an outcome, as somebody outside reads it.
fn outcomes(env: &TestEnv) -> BTreeSet<i64> {
    let ids = |rows: Vec<serde_json::Value>| rows.into_iter().map(|row| row["id"].as_i64().expect("an id"));
    ids(env.rows("work")).chain(ids(env.failed_rows("work"))).collect()
}

/// The items whose outcomes a run has told to be committed; the last line may be torn.
fn told(env: &TestEnv, events: &str) -> BTreeSet<i64> {
    let text = std::fs::read_to_string(env.path(events)).unwrap_or_default();
    let events = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let items = events.filter(|event| event["event"] == "item" && event["stage"] == "work");
    items.map(|event| number_in(&event["key"])).collect()
}

fn number_in(key: &serde_json::Value) -> i64 {
    text(key).parse().expect("a number")
}

/// Runs, kills after some more items each time; then runs to the end and checks all that must hold.
fn survives(env: &TestEnv, rows: usize, workers: usize, kills: usize) {
    let mut allowed: BTreeMap<i64, usize> = BTreeMap::new();
    for kill in 0..kills {
        let before = env.logged("ended").len();
        let step = rows / (kills + 2);
        let since = now();
        let events = format!("events-{kill}.jsonl");
        let run = env.spawn(&["run", "--events", &events]);
        until("the run goes on", || env.logged("ended").len() >= before + step);
        let acknowledged = told(env, &events);
        std::thread::sleep(Duration::from_millis(7 * kill as u64));
        let at = now();
        run.kill9();
        env.assert_nothing_runs();
        let kept = outcomes(env);
        assert!(acknowledged.is_subset(&kept), "acknowledged and lost: {:?}", acknowledged.difference(&kept));
        repeatable(env, (since, at), &kept, workers, &mut allowed);
    }
    env.run(&["run"]).exits(100);
    finished(env, rows, &allowed);
}

/// Which items may run again after a kill: those in hand, and those that ended within the commit window.
fn repeatable(
    env: &TestEnv,
    (since, at): (f64, f64),
    kept: &BTreeSet<i64>,
    workers: usize,
    allowed: &mut BTreeMap<i64, usize>,
) {
    let (begun, ended) = (times(env, "begun"), times(env, "ended"));
    let lately: BTreeMap<i64, f64> = ended.iter().filter(|(_, time)| *time >= since).copied().collect();
    let mut in_hand = 0;
    for (id, _) in begun.iter().filter(|(id, time)| *time >= since && !kept.contains(id)) {
        let unfinished = !lately.contains_key(id);
        in_hand += usize::from(unfinished);
        if unfinished || lately[id] > at - WINDOW {
            allowed.insert(*id, begun.iter().filter(|(i, _)| i == id).count());
        }
    }
    assert!(in_hand <= workers, "{in_hand} in hand of {workers} workers");
}

fn finished(env: &TestEnv, rows: usize, allowed: &BTreeMap<i64, usize>) {
    let good: Vec<i64> = (0..rows as i64).filter(|id| id % 100 != 7).collect();
    assert_eq!(ints(&env.column("work", "id")), good, "every item has exactly one outcome");
    assert_eq!(ints(&env.column("next", "z")), good.iter().map(|id| (id + 1) * 2).collect::<Vec<_>>());
    let mut failed = ints(&env.failed_rows("work").iter().map(|row| row["id"].clone()).collect::<Vec<_>>());
    failed.sort();
    assert_eq!(failed, (0..rows as i64).filter(|id| id % 100 == 7).collect::<Vec<_>>());
    assert_eq!(env.failures_by_kind(), [("exception".to_string(), failed.len() as u64)].into());
    assert_eq!(env.column("total", "ids"), [serde_json::json!(good)]);
    let mut times_begun: BTreeMap<i64, usize> = BTreeMap::new();
    times(env, "begun").iter().for_each(|(id, _)| *times_begun.entry(*id).or_default() += 1);
    let repeated: Vec<_> = times_begun.iter().filter(|(_, n)| **n > 1).collect();
    for (id, n) in &repeated {
        let most = allowed.get(id).map_or(1, |begun| begun + 1);
        assert!(**n <= most, "item {id} ran {n} times; it had been committed, or should have been");
    }
    let before = env.logged("begun").len();
    env.run(&["run"]).exits(100);
    assert_eq!(env.logged("begun").len(), before, "nothing is due after the end");
    env.run(&["store", "verify"]).exits(0);
}

#[test]
fn three_kills_at_5_ms_an_item() {
    let env = killable(2000, 0.005, "workers: 4");
    survives(&env, 2000, 4, 3);
}

#[test]
fn three_kills_at_50_ms_an_item() {
    let env = killable(2000, 0.050, "workers: 32, backend: threads");
    survives(&env, 2000, 32, 3);
}

#[test]
fn three_kills_at_50_ms_an_item_in_processes() {
    let env = killable(400, 0.050, "workers: 8");
    survives(&env, 400, 8, 3);
}

#[test]
fn kills_within_large_chunks() {
    let env = killable(1000, 0.005, "workers: 3, chunk_size: 300");
    survives(&env, 1000, 3, 3);
}

#[test]
fn a_kill_leaves_no_command_running() {
    let env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 50} } }\nstages:\n  work: { map: n, shell: \"echo b >> begun; test {{ item.value }} -ge 10 || exit 0; sleep 600 & setsid sleep 601; wait\", workers: 4, chunk_size: 1 }\n",
        "",
    );
    let run = env.spawn(&["run"]);
    until("commands sleep", || std::fs::read_to_string(env.path("begun")).is_ok_and(|t| t.lines().count() >= 14));
    until("short ones are committed", || env.rows("work").len() == 10);
    run.kill9();
    env.assert_nothing_runs();
    assert_eq!(env.rows("work").len(), 10);
}

#[test]
fn a_kill_during_init_and_import() {
    let env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 5} } }\nstages:\n  work: { map: n, python: \"f:work\", init: { python: \"f:setup\" } }\n",
        "import kit\n\ndef setup():\n    kit.log('init', 1)\n    kit.pass_gate('go')\n\ndef work(row):\n    return {'y': 1}\n",
    );
    for n in 1..4 {
        let run = env.spawn(&["run"]);
        until("init is going", || env.logged("init").len() >= n);
        run.kill9();
        env.assert_nothing_runs();
    }
    env.open_gate("go");
    env.run(&["run"]).exits(0);
    assert_eq!(env.rows("work").len(), 5);
}

#[test]
fn an_item_in_hand_at_three_kills_is_a_suspect() {
    // The kill is no attempt of the item; but one that was alone in hand at three such ends may have caused them.
    let env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 30} } }\nstages:\n  work: { map: n, python: \"f:work\", workers: 2 }\n",
        "import kit\n\ndef work(row):\n    if row['value'] == 3:\n        kit.log('three', 1)\n        kit.pass_gate('go')\n    return {'y': 1}\n",
    );
    for n in 1..3 {
        let run = env.spawn(&["run"]);
        until("item three is in hand", || env.logged("three").len() >= n);
        run.kill9();
        env.assert_nothing_runs();
    }
    assert!(env.errors().is_empty(), "twice is no proof");
    env.open_gate("go");
    env.run(&["run"]).exits(0);
    assert_eq!(env.rows("work").len(), 30);
}

/// Items that log nothing but when they ended.
const QUICK: &str = r#"
import os
import time

LOG = os.open(os.path.join(os.environ["BPP_TEST_LOG"], "ended"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
NAP = float(os.environ.get("BPP_TEST_NAP", "0"))

def work(row):
    if NAP:
        time.sleep(NAP)
    os.write(LOG, b"%d %.6f\n" % (row["value"], time.time()))
    return {"y": row["value"] + 1}
"#;

/// What kills cost: items that had ended and have to run again.
#[derive(Debug, Default)]
struct Cost {
    kills: usize,
    /// Of all kills, and of the worst.
    repeated: usize,
    most: usize,
    /// How long before the kill they had ended, at most: seconds.
    oldest: f64,
}

fn kept(env: &TestEnv) -> Option<BTreeSet<i64>> {
    let rows = env.run(&["results", "work", "--format", "csv", "--columns", "value"]);
    let values = rows.stdout.lines().skip(1).map(|line| line.parse().expect("a number"));
    (rows.code == Some(0)).then(|| values.collect())
}

/// Kills bpp-flow so often, at random moments; nothing committed is lost, and little is repeated.
fn kills_at_random(rows: usize, nap: f64, seed: u64) {
    let kills: usize = std::env::var("BPP_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let rows = rows * if kills > 10 { 15 } else { 1 };
    let mut env = TestEnv::with(
        &format!(
            "sources: {{ n: {{ range: {{start: 0, stop: {rows}}} }} }}\nstages:\n  work: {{ map: n, python: \"f:work\", workers: 4 }}\n"
        ),
        QUICK,
    );
    env.set_var("BPP_TEST_NAP", &nap.to_string());
    let (mut random, mut cost, mut seen) = (Random(seed), Cost::default(), BTreeSet::<i64>::new());
    while cost.kills < kills {
        env.clear_log("ended");
        let mut run = env.spawn(&["run"]);
        if !random.one_in(5) {
            until("items run", || run.ended() || !env.logged("ended").is_empty());
        }
        std::thread::sleep(Duration::from_millis(random.below(400)));
        let (ended, at) = (run.ended(), now());
        run.kill9();
        env.assert_nothing_runs();
        let after = kept(&env).unwrap_or_default();
        let ran = times(&env, "ended");
        let lost: Vec<i64> = ran.iter().map(|(id, _)| *id).filter(|id| seen.contains(id)).collect();
        assert!(lost.is_empty(), "seen to be committed, and run again: {lost:?}");
        let again: Vec<f64> = ran.into_iter().filter(|(id, _)| !after.contains(id)).map(|(_, time)| time).collect();
        let oldest = again.iter().fold(0.0, |age: f64, time| age.max(at - time));
        assert!(oldest < BUSY_WINDOW, "an item that had ended {oldest} s before the kill runs again");
        cost.kills += usize::from(!ended);
        cost.repeated += again.len();
        cost.most = cost.most.max(again.len());
        cost.oldest = cost.oldest.max(oldest);
        seen.extend(&after);
        if after.len() == rows {
            env.run(&["store", "verify"]).exits(0);
            std::fs::remove_dir_all(env.path(".bpp-flow")).expect("remove");
            seen.clear();
        }
    }
    env.run(&["run"]).exits(0);
    assert_eq!(kept(&env).expect("results").len(), rows);
    env.run(&["store", "verify"]).exits(0);
    let Cost { kills, repeated, most, oldest } = cost;
    eprintln!(
        "{kills} kills with {rows} items of {nap} s: lost 0, left running 0, repeated {repeated} in all and {most} at most, ended up to {:.0} ms before",
        oldest * 1e3
    );
}

#[test]
fn kills_at_full_speed() {
    kills_at_random(20_000, 0.0, 1);
}

#[test]
fn kills_at_random_moments_of_5_ms_items() {
    kills_at_random(1_000, 0.005, 2);
}
