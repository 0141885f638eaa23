//! A worker, a command or a keeper that dies or stops: the item in hand is blamed or runs again, all others go on.

use crate::env::*;
use crate::killer::{family, kill};

/// `range` from 0 to `rows`, one stage `work` of the function `f:work`.
fn flow(rows: usize, settings: &str, work: &str) -> TestEnv {
    TestEnv::with(
        &format!(
            "sources: {{ n: {{ range: {{start: 0, stop: {rows}}} }} }}\nstages:\n  work: {{ map: n, python: \"f:work\", {settings} }}\n"
        ),
        &format!("import ctypes\nimport faulthandler\nimport os\nimport signal\nimport time\nimport kit\n\n\n{work}"),
    )
}

/// Item 3 waits for a gate when it runs for the first time; the log `work` has a line `item pid` for each item begun.
const GATED: &str = r#"
def work(row):
    kit.log("work", "%d %d" % (row["value"], os.getpid()))
    if row["value"] == 3 and not kit.is_open("go"):
        kit.log("in hand", os.getpid())
        kit.pass_gate("go")
    return {"y": row["value"] * 2}
"#;

/// The process that has an item in hand, which waits for the gate.
fn pid_in_hand(env: &TestEnv) -> i32 {
    until("an item is in hand", || !env.logged("in hand").is_empty());
    env.logged("in hand")[0].parse().expect("a pid")
}

/// How often item 3 was begun.
fn times_begun(env: &TestEnv) -> usize {
    env.logged("work").iter().filter(|line| line.split(' ').next() == Some("3")).count()
}

/// After the run: item 3 crashed and comes through when it is retried; the others were never in doubt.
fn only_the_item_in_hand_crashed(env: &TestEnv, run: Running, rows: usize) {
    env.open_gate("go");
    run.wait().exits(100);
    assert_eq!(env.rows("work").len(), rows - 1);
    assert_eq!(env.failures_by_kind(), [("crash".to_string(), 1)].into());
    env.run(&["errors", "--item", "3"]).exits(0).says(&["SIGKILL"]);
    env.run(&["retry", "--failed"]).exits(0);
    assert_eq!(env.rows("work").len(), rows);
    assert_eq!(times_begun(env), 2, "the one that was hit ran again");
}

/// The item in hand was nobody's fault: it ran again, and the run is without failures.
fn nothing_failed(env: &TestEnv, run: Running, rows: usize) {
    env.open_gate("go");
    run.wait().exits(0);
    assert_eq!(env.rows("work").len(), rows);
    assert_eq!(times_begun(env), 2, "the item in hand ran again");
}

#[test]
fn a_segfault_in_a_chunk_of_a_thousand_costs_one_dispatch_more() {
    for workers in [1, 3] {
        let env = flow(
            1000,
            &format!("chunk_size: 1000, batch_size: 1000, workers: {workers}"),
            "def work(row):\n    kit.log('work', '%d %d' % (row['value'], os.getpid()))\n    time.sleep(0.0015)\n    if row['value'] == 500:\n        ctypes.string_at(0)\n    return {'y': 1}\n",
        );
        env.run(&["run"]).exits(100);
        assert_eq!(env.rows("work").len(), 999);
        assert_eq!(env.failures_by_kind(), [("crash".to_string(), 1)].into());
        env.run(&["errors", "--item", "500"]).exits(0).says(&["SIGSEGV"]);
        let lines = env.logged("work");
        let items: Vec<&str> = lines.iter().map(|line| line.split(' ').next().expect("an item")).collect();
        let expected: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        assert_eq!(items, expected, "each item ran once, in order");
        let pids: Vec<&str> = lines.iter().map(|line| line.split(' ').nth(1).expect("a pid")).collect();
        assert!(pids[..501].iter().all(|pid| *pid == pids[0]), "the first dispatch");
        assert!(pids[501..].iter().all(|pid| *pid == pids[501] && *pid != pids[0]), "one further dispatch");
    }
}

#[test]
fn every_way_to_die_is_a_crash_of_that_item() {
    const WORK: &str = r#"
WAYS = [
    lambda: ctypes.string_at(0),
    lambda: faulthandler._stack_overflow(),
    lambda: os.abort(),
    lambda: os._exit(0),
    lambda: os._exit(42),
    lambda: signal.raise_signal(signal.SIGKILL),
    lambda: signal.raise_signal(signal.SIGTERM),
    lambda: signal.raise_signal(signal.SIGBUS),
    lambda: signal.raise_signal(signal.SIGXCPU),
    lambda: os.killpg(0, signal.SIGKILL),
    lambda: os.kill(os.getppid(), signal.SIGTERM),
]

def work(row):
    n, odd = divmod(row["value"], 2)
    if odd and n < len(WAYS):
        WAYS[n]()
    return {"y": 1}
"#;
    for backend in ["processes, workers: 1, chunk_size: 100", "threads, workers: 3", "serial"] {
        let env = flow(30, &format!("backend: {backend}"), WORK);
        env.run(&["run"]).exits(100);
        // The last of them is a signal to the keeper, which no item can end so.
        assert_eq!(env.failures_by_kind(), [("crash".to_string(), 10)].into(), "{backend}");
        assert_eq!(env.rows("work").len(), 20, "{backend}");
        for (item, words) in [(1, "SIGSEGV"), (3, "SIGSEGV"), (5, "SIGABRT"), (7, "code 0"), (9, "code 42")] {
            env.run(&["errors", "--item", &item.to_string()]).exits(0).says(&[words]);
        }
    }
}

#[test]
fn a_worker_killed_from_outside_fails_the_item_in_hand() {
    for settings in ["workers: 2", "workers: 2, chunk_size: 10", "backend: serial", "backend: threads, workers: 1"] {
        let env = flow(10, settings, GATED);
        let run = env.spawn(&["run"]);
        let pid = pid_in_hand(&env);
        assert!(kill(pid, libc::SIGKILL));
        until("it is gone", || !kill(pid, 0));
        only_the_item_in_hand_crashed(&env, run, 10);
    }
}

#[test]
fn a_process_of_threads_killed_from_outside_with_several_in_hand_blames_none() {
    // Who is to blame cannot be told: all in hand run again, alone.
    let env = flow(
        10,
        "backend: threads, workers: 3, chunk_size: 1",
        "def work(row):\n    kit.log('work', '%d %d' % (row['value'], os.getpid()))\n    if not kit.is_open('go'):\n        kit.meet('met', row['value'], 3)\n        kit.log('in hand', os.getpid())\n        kit.pass_gate('go')\n    return {'y': 1}\n",
    );
    let run = env.spawn(&["run"]);
    until("three are in hand", || env.logged("in hand").len() == 3);
    assert!(kill(pid_in_hand(&env), libc::SIGKILL));
    env.open_gate("go");
    run.wait().exits(0);
    assert_eq!(env.rows("work").len(), 10);
    assert_eq!(env.logged("work").len(), 13, "those in hand ran twice");
}

#[test]
fn a_worker_killed_while_it_is_idle_blames_nobody() {
    let env = flow(4, "workers: 2, chunk_size: 1, batch_size: 4", GATED);
    let run = env.spawn(&["run"]);
    let busy = pid_in_hand(&env);
    until("the others are done", || env.rows("work").len() == 3);
    let idle: Vec<i32> = family(&run).workers.into_iter().filter(|&pid| pid != busy).collect();
    for pid in idle {
        kill(pid, libc::SIGKILL);
    }
    env.open_gate("go");
    run.wait().exits(0);
    assert_eq!(env.rows("work").len(), 4);
    assert_eq!(env.logged("work").len(), 4);
}

#[test]
fn a_keeper_that_is_killed_takes_its_worker_along_and_the_item_runs_again() {
    for both in [false, true] {
        let env = flow(10, "workers: 1, chunk_size: 10", GATED);
        let run = env.spawn(&["run"]);
        let worker = pid_in_hand(&env);
        let keepers = family(&run).keepers;
        if both {
            kill(keepers[0], libc::SIGSTOP);
            kill(worker, libc::SIGKILL);
        }
        assert!(kill(keepers[0], libc::SIGKILL));
        until("the worker is gone", || !kill(worker, 0));
        nothing_failed(&env, run, 10);
    }
}

#[test]
fn a_keeper_of_commands_that_is_killed_takes_the_command_along_and_the_item_runs_again() {
    let env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 10} } }\nstages:\n  work: { map: n, workers: 1, shell: \"echo {{ item.value }} $$ >> $BPP_TEST_LOG/work; if test {{ item.value }} = 3 -a ! -e $BPP_TEST_LOG/go; then echo $$ >> $BPP_TEST_LOG/hand; until test -e $BPP_TEST_LOG/go; do sleep 0.02; done; fi\" }\n",
        "",
    );
    let run = env.spawn(&["run"]);
    until("item 3 is in hand", || !env.logged("hand").is_empty());
    let command: i32 = env.logged("hand")[0].parse().expect("a pid");
    assert!(kill(family(&run).keepers[0], libc::SIGKILL));
    until("the command is gone", || !kill(command, 0));
    nothing_failed(&env, run, 10);
}

#[test]
fn a_command_killed_from_outside_has_crashed() {
    let env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 10} } }\nstages:\n  work: { map: n, workers: 2, shell: \"echo {{ item.value }} >> $BPP_TEST_LOG/work; if test {{ item.value }} = 3 -a ! -e $BPP_TEST_LOG/go; then echo $$ >> $BPP_TEST_LOG/hand; sleep 600 & wait; fi\" }\n",
        "",
    );
    let run = env.spawn(&["run"]);
    until("item 3 is in hand", || !env.logged("hand").is_empty());
    assert!(kill(env.logged("hand")[0].parse().expect("a pid"), libc::SIGKILL));
    only_the_item_in_hand_crashed(&env, run, 10);
}

#[test]
fn a_stopped_worker_is_over_its_limit_and_is_killed() {
    let env = flow(10, "workers: 1, timeout: 1s", GATED);
    let run = env.spawn(&["run"]);
    let pid = pid_in_hand(&env);
    assert!(kill(pid, libc::SIGSTOP));
    run.wait().exits(100);
    assert_eq!(env.failures_by_kind(), [("timeout".to_string(), 1)].into());
    assert_eq!(env.rows("work").len(), 9);
    env.assert_nothing_runs();
}

#[test]
fn a_stopped_command_is_over_its_limit_and_is_killed() {
    let env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 5} } }\nstages:\n  work: { map: n, timeout: 1s, shell: \"if test {{ item.value }} = 3; then kill -STOP $$; fi\" }\n",
        "",
    );
    env.run(&["run"]).exits(100);
    assert_eq!(env.failures_by_kind(), [("timeout".to_string(), 1)].into());
    assert_eq!(env.rows("work").len(), 4);
}

#[test]
fn a_paused_bpp_flow_goes_on() {
    let env = flow(300, "workers: 2, chunk_size: 5", "def work(row):\n    time.sleep(0.002)\n    return {'y': 1}\n");
    let mut run = env.spawn(&["run"]);
    for _ in 0..5 {
        std::thread::sleep(std::time::Duration::from_millis(60));
        if !run.ended() {
            run.signal(libc::SIGSTOP);
            std::thread::sleep(std::time::Duration::from_millis(120));
            run.signal(libc::SIGCONT);
        }
    }
    run.wait().exits(0);
    assert_eq!(env.rows("work").len(), 300);
}

#[test]
fn limits_that_all_items_exceed_do_not_break_the_stage() {
    for settings in ["workers: 1", "workers: 1, chunk_size: 1", "backend: threads, workers: 2"] {
        let env = flow(
            6,
            &format!("timeout: 100ms, {settings}"),
            "def work(row):\n    if row['value'] > 0:\n        time.sleep(600)\n",
        );
        env.run(&["run"]).exits(100);
        assert_eq!(env.failures_by_kind(), [("timeout".to_string(), 5)].into(), "{settings}");
    }
}
