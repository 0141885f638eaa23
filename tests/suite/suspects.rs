//! Items that were in hand when bpp-flow was killed: one that kills it is found out and not met for ever; the others
//! are none the worse for it.

use std::collections::BTreeMap;

use crate::env::*;

const MODULE: &str = r#"
import os
import signal
import time
import kit

def parent(pid):
    with open("/proc/%d/stat" % pid) as stat:
        return int(stat.read().rsplit(")", 1)[1].split()[1])

def kill_bpp_flow():
    keeper = os.getppid()
    os.kill(parent(keeper), signal.SIGKILL)

def at_once(row):
    kit.log("begun", row["value"])
    if row["value"] == 77:
        kill_bpp_flow()
    return {"y": row["value"]}

def slow(row):
    kit.log("begun", row["value"])
    time.sleep(0.01)
    if row["value"] == 77:
        kill_bpp_flow()
        time.sleep(5)
    return {"y": row["value"]}

def chunk(rows):
    for row in rows:
        kit.log("begun", row["value"])
        if row["value"] == 77:
            kill_bpp_flow()
    return [{"y": row["value"]} for row in rows]
"#;

fn with_a_killer(stage: &str) -> TestEnv {
    let pipeline = format!("sources: {{ s: {{ range: {{stop: 200}} }} }}\nstages:\n  work: {{ map: s, {stage} }}\n");
    TestEnv::with(&pipeline, MODULE)
}

/// How often each item began.
fn begun(env: &TestEnv) -> BTreeMap<i64, usize> {
    let mut times = BTreeMap::new();
    env.logged("begun").iter().for_each(|id| *times.entry(id.parse().expect("a number")).or_default() += 1);
    times
}

/// Runs until a run ends by itself; how many were killed.
fn runs_until_the_end(env: &TestEnv) -> usize {
    for killed in 0..12 {
        let out = env.run(&["run"]);
        assert!(killed != 1 || out.stderr.contains(" in hand when an earlier run was killed: "), "{}", out.all());
        env.assert_nothing_runs();
        match out.code {
            None => {}
            Some(code) => {
                assert_eq!(code, 100, "{}", out.all());
                return killed;
            }
        }
    }
    panic!("the item that kills bpp-flow is met for ever: {:?}", begun(env));
}

/// The killer is found out after three kills, and is the only one that fails.
fn is_found_out(env: &TestEnv, kills: usize) {
    let killed = runs_until_the_end(env);
    assert!(killed <= kills, "{killed} kills");
    let failed = env.failed_rows("work");
    assert_eq!(failed.iter().map(|row| row["value"].as_i64()).collect::<Vec<_>>(), [Some(77)]);
    assert_eq!(
        text(&failed[0]["error"]),
        "crash: in hand each of the 3 times that bpp-flow was killed or the machine went down"
    );
    let rest: Vec<i64> = (0..200).filter(|&value| value != 77).collect();
    assert_eq!(ints(&env.column("work", "y")), rest);
    let before = env.logged("begun").len();
    env.run(&["run"]).exits(100);
    assert_eq!(env.logged("begun").len(), before, "nothing is due");
    assert!(!env.path(".bpp-flow/pipeline/in-hand").exists());
    // Whoever asks for it gets it: it is met again, as if for the first time. Its outcome holds until there is another.
    assert_eq!(env.run(&["retry", "-q"]).code, None);
    assert_eq!(runs_until_the_end(env), 0);
}

#[test]
fn an_item_that_kills_bpp_flow_and_goes_on_at_once() {
    is_found_out(&with_a_killer(r#"python: "f:at_once", workers: 2, chunk_size: 50"#), 4);
}

#[test]
fn an_item_that_kills_bpp_flow_and_takes_its_time() {
    let env = with_a_killer(r#"python: "f:slow", workers: 2"#);
    is_found_out(&env, 3);
    let innocents = begun(&env).into_iter().filter(|(id, _)| *id != 77);
    let most = innocents.map(|(_, times)| times).max();
    assert!(most <= Some(3), "{:?}", begun(&env));
}

#[test]
fn an_item_alone_in_its_chunk() {
    is_found_out(&with_a_killer(r#"python: "f:at_once", workers: 2, chunk_size: 1"#), 4);
}

#[test]
fn an_item_among_threads() {
    is_found_out(&with_a_killer(r#"python: "f:slow", backend: threads, workers: 4"#), 3);
}

#[test]
fn a_chunk_with_a_killer() {
    let action = r#"python: "f:chunk", call: chunk, chunk_format: rows, workers: 2, chunk_size: 20"#;
    is_found_out(&with_a_killer(action), 3);
}

#[test]
fn a_command_that_kills_bpp_flow() {
    let shell =
        r#"shell: "if [ {{ item.value }} = 77 ]; then kill -9 $(ps -o ppid= -p $PPID); fi; echo {{ item.value }}""#;
    let env = with_a_killer(&format!("{shell}, stdout: json, workers: 2"));
    let killed = runs_until_the_end(&env);
    assert!(killed <= 4, "{killed} kills");
    assert_eq!(env.failed_rows("work").iter().filter(|row| text(&row["error"]).starts_with("crash")).count(), 1);
}

#[test]
fn a_drained_run_leaves_no_suspects() {
    let env = with_a_killer(r#"python: "f:slow", workers: 2"#);
    env.write("f.py", MODULE.replace("== 77", "== -1"));
    for signal in [2, 15, 1] {
        let before = env.logged("begun").len();
        let run = env.spawn(&["run", "-q"]);
        until("items run", || env.logged("begun").len() > before + 3);
        run.signal(signal);
        run.wait();
        assert!(!env.path(".bpp-flow/pipeline/in-hand").exists(), "after signal {signal}");
    }
    env.run(&["run"]).exits(0);
    assert!(begun(&env).values().all(|&times| times == 1));
}
