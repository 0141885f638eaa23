//! SIGINT, SIGTERM and SIGHUP: the first lets items in hand finish and commits, a second SIGINT stops at once.

use crate::env::*;

const MODULE: &str = r#"
import time
import kit

def gated(row):
    kit.log("begun", row["value"])
    kit.pass_gate("go")
    time.sleep(0.01)
    kit.log("ended", row["value"])
    return {"y": row["value"]}
"#;

fn gated(settings: &str) -> TestEnv {
    TestEnv::with(
        &format!(
            "sources: {{ n: {{ range: {{start: 0, stop: 3000}} }} }}\nstages:\n  work: {{ map: n, python: \"f:gated\", {settings} }}\noutputs: {{ work: out.csv }}\n"
        ),
        MODULE,
    )
}

fn drains(signal: i32, settings: &str) {
    let env = gated(settings);
    let run = env.spawn(&["run", "--events", "events.jsonl"]);
    until("two items are in hand", || env.logged("begun").len() >= 2);
    run.signal(signal);
    until("the signal is seen", || {
        std::fs::read_to_string(env.path("events.jsonl")).is_ok_and(|text| text.contains("draining"))
    });
    env.open_gate("go");
    run.wait().exits(130);
    let (begun, ended) = (env.logged("begun"), env.logged("ended"));
    assert_eq!(distinct(&begun), distinct(&ended), "items in hand finish");
    assert!(begun.len() < 200, "no new items start: {}", begun.len());
    assert_eq!(env.rows("work").len(), ended.len(), "what is finished is committed");
    assert!(!env.path("out.csv").exists());
    env.assert_nothing_runs();
    counts(&env.status_of("work"), &[("done", ended.len() as u64), ("failed", 0), ("running", 0)]);
    let runs = env.run(&["runs"]).exits(0).stdout;
    assert!(runs.contains("interrupted"), "{runs}");
}

#[test]
fn an_interrupt_drains() {
    drains(libc::SIGINT, "workers: 2, chunk_size: 1");
}

#[test]
fn an_interrupt_drains_within_chunks() {
    drains(libc::SIGINT, "workers: 2, chunk_size: 1000");
}

#[test]
fn an_interrupt_drains_threads() {
    drains(libc::SIGINT, "backend: threads, workers: 3");
}

#[test]
fn a_termination_drains() {
    drains(libc::SIGTERM, "workers: 2");
}

#[test]
fn a_hangup_drains() {
    drains(libc::SIGHUP, "workers: 2");
}

#[test]
fn a_termination_has_a_deadline() {
    let env = gated("workers: 2, chunk_size: 10");
    let run = env.spawn(&["run", "--grace", "300ms"]);
    until("two items are in hand", || env.logged("begun").len() >= 2);
    run.signal(libc::SIGTERM);
    run.wait().exits(130).says(&["SIGTERM: finishing 2 items in hand, for at most 0.3s"]);
    env.assert_nothing_runs();
    assert!(env.errors().is_empty(), "an interrupted item has not failed");
    assert!(!env.path(".bpp-flow/pipeline/in-hand").exists(), "and is no suspect");
}

#[test]
fn no_item_is_taken_up_after_a_time() {
    let env = gated("workers: 2, chunk_size: 10");
    env.open_gate("go");
    env.run(&["run", "--limit", "1000", "--stop-after", "3s"])
        .exits(1)
        .says(&["--stop-after: finishing", "run again to go on"]);
    let ended = env.logged("ended").len();
    assert!(ended < 1000, "{ended}");
    assert_eq!(env.logged("begun").len(), ended, "what was in hand finished");
    assert_eq!(env.rows("work").len(), ended);
    env.run(&["run", "--limit", "1000", "--stop-after", "1h30m"]).exits(0);
    assert_eq!((env.logged("begun").len(), distinct(&env.logged("begun")).len()), (1000, 1000));
}

#[test]
fn a_termination_cuts_the_time_of_what_is_finishing() {
    let env = gated("workers: 2, chunk_size: 10");
    let run = env.spawn(&["run", "--stop-after", "500ms", "--grace", "200ms", "--events", "events.jsonl"]);
    until("it drains", || {
        std::fs::read_to_string(env.path("events.jsonl")).is_ok_and(|text| text.contains("draining"))
    });
    run.signal(libc::SIGTERM);
    run.wait().exits(1);
    env.assert_nothing_runs();
}

#[test]
fn a_second_interrupt_stops_at_once() {
    let env = gated("workers: 2, chunk_size: 10");
    let mut run = env.spawn(&["run"]);
    until("two items are in hand", || env.logged("begun").len() >= 2);
    run.signal(libc::SIGINT);
    let mut last = std::time::Instant::now();
    until("it stops", || {
        if run.ended() {
            return true;
        }
        if last.elapsed().as_millis() > 400 {
            run.signal(libc::SIGINT);
            last = std::time::Instant::now();
        }
        false
    });
    run.wait().exits(130);
    env.assert_nothing_runs();
    assert!(env.logged("ended").is_empty());
    assert!(env.errors().is_empty(), "an interrupted item has not failed: {:?}", env.errors());
    env.open_gate("go");
    env.run(&["run", "--limit", "20"]).exits(0);
    assert_eq!(distinct(&env.logged("ended")).len(), 20);
}

#[test]
fn an_interrupt_of_the_whole_group_drains() {
    // As a terminal does it: every process of the foreground group gets the signal.
    let env = gated("workers: 2, chunk_size: 1");
    let mut command = env.bpp(&["run", "--events", "events.jsonl"]);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let run = env.start(command);
    until("two items are in hand", || env.logged("begun").len() >= 2);
    // SAFETY: kill(2) takes two integers; the group is the child's own.
    assert_eq!(unsafe { libc::kill(-(run.id() as i32), libc::SIGINT) }, 0);
    until("the signal is seen", || {
        std::fs::read_to_string(env.path("events.jsonl")).is_ok_and(|text| text.contains("draining"))
    });
    env.open_gate("go");
    run.wait().exits(130);
    assert_eq!(distinct(&env.logged("begun")), distinct(&env.logged("ended")));
    assert!(env.errors().is_empty());
}

#[test]
fn commands_in_hand_finish() {
    let env = TestEnv::with(
        r#"
sources: { n: { range: {start: 0, stop: 500} } }
stages:
  work: { map: n, shell: "echo b >> begun; until test -e go; do sleep 0.02; done; echo e >> ended", workers: 2 }
"#,
        "",
    );
    let lines = |name: &str| std::fs::read_to_string(env.path(name)).map_or(0, |text| text.lines().count());
    let run = env.spawn(&["run", "--events", "events.jsonl"]);
    until("two commands are in hand", || lines("begun") >= 2);
    run.signal(libc::SIGINT);
    until("the signal is seen", || {
        std::fs::read_to_string(env.path("events.jsonl")).is_ok_and(|text| text.contains("draining"))
    });
    env.write("go", "");
    run.wait().exits(130);
    assert_eq!(lines("begun"), lines("ended"));
    assert_eq!(env.rows("work").len(), lines("ended"));
    assert!(lines("begun") < 100);
}

#[test]
fn an_interrupt_while_standard_input_is_open() {
    let env =
        TestEnv::with("sources: { s: { lines: stdin } }\nstages:\n  work: { map: s, assign: { y: \"1\" } }\n", "");
    let mut command = env.bpp(&["run"]);
    command.stdin(std::process::Stdio::piped());
    let mut run = env.start(command);
    until("the store is there", || env.path(".bpp-flow").exists());
    let mut last = std::time::Instant::now();
    until("it stops", || {
        if run.ended() {
            return true;
        }
        if last.elapsed().as_millis() > 300 {
            run.signal(libc::SIGINT);
            last = std::time::Instant::now();
        }
        false
    });
    run.wait().exits(130);
}
