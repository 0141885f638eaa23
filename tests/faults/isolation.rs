//! An item that dies, exits, raises or sleeps fails alone, whatever shares its chunk or its process.

use crate::env::*;

const MODULE: &str = r#"
import os
import sys
import time
import kit

def work(row):
    n = row["id"]
    kit.log("work", n)
    if n == 100:
        os.abort()
    if n == 300:
        sys.exit(3)
    if n == 500:
        raise ValueError("five hundred")
    if n == 700:
        time.sleep(600)
    return {"y": n + 1}
"#;

fn thousand(settings: &str) -> TestEnv {
    let env = TestEnv::with(
        &format!(
            "sources: {{ s: {{ csv: a.csv, key: id }} }}\nstages:\n  work: {{ map: s, python: \"f:work\", timeout: 2s, {settings} }}\n"
        ),
        MODULE,
    );
    env.write("a.csv", numbers_csv(1000));
    env
}

fn four_fail(env: &TestEnv, code_of_exit: &str) {
    let summary = env.run_json(&[], 100);
    counts(&stage_of(&summary, "work"), &[("ran", 1000), ("failed", 4)]);
    assert_eq!(env.rows("work").len(), 996);
    assert_eq!(
        ints(&env.column("work", "y")),
        (1..=1000).filter(|n| ![101, 301, 501, 701].contains(n)).collect::<Vec<_>>()
    );
    let mut told: Vec<(i64, String)> = Vec::new();
    for group in env.errors() {
        assert_eq!(group["count"], 1, "{group}");
        told.push((text(&group["keys"][0]).parse().expect("a key"), text(&group["kind"])));
    }
    told.sort();
    let kinds = [(100, "crash"), (300, code_of_exit), (500, "exception"), (700, "timeout")];
    assert_eq!(told, kinds.map(|(key, kind)| (key, kind.to_string())));
    env.run(&["errors", "--item", "100"]).exits(0).says(&["ABRT"]);
    env.run(&["errors", "--item", "300"]).exits(0).says(&["3"]);
    env.run(&["errors", "--item", "500"]).exits(0).says(&["five hundred", "Traceback"]);
    env.run(&["errors", "--item", "700"]).exits(0).says(&["2"]);
}

#[test]
fn four_of_a_thousand_in_one_chunk() {
    let env = thousand("chunk_size: 1000, batch_size: 1000");
    four_fail(&env, "exception");
}

#[test]
fn four_of_a_thousand_by_default() {
    four_fail(&thousand("chunk_size: auto"), "exception");
}

#[test]
fn four_of_a_thousand_serially() {
    four_fail(&thousand("backend: serial"), "exception");
}

#[test]
fn four_of_a_thousand_among_threads() {
    // An abort takes its siblings' process with it: they are suspects, run alone, and come through.
    four_fail(&thousand("backend: threads, workers: 4, chunk_size: 50"), "exception");
}

#[test]
fn deaths_in_a_row() {
    let env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 40} } }\nstages:\n  work: { map: n, python: \"f:work\", workers: 2, chunk_size: 10 }\n",
        "import os\n\ndef work(row):\n    if row['value'] % 2:\n        os.kill(os.getpid(), 9)\n    return {'y': 1}\n",
    );
    env.run(&["run"]).exits(100);
    assert_eq!(env.rows("work").len(), 20);
    assert_eq!(env.failures_by_kind(), [("crash".to_string(), 20)].into());
}

#[test]
fn an_exit_code_is_a_crash_too() {
    let env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 4} } }\nstages:\n  work: { map: n, python: \"f:work\" }\n",
        "import os\n\ndef work(row):\n    if row['value'] == 2:\n        os._exit(42)\n",
    );
    env.run(&["run"]).exits(100);
    assert_eq!(env.failures_by_kind(), [("crash".to_string(), 1)].into());
    env.run(&["errors", "--item", "2"]).exits(0).says(&["42"]);
}

#[test]
fn unusual_exceptions_fail_their_item() {
    let env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 9} } }\nstages:\n  work: { map: n, python: \"f:work\", chunk_size: 9 }\n",
        r#"
class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no words")

class Base(BaseException):
    pass

def deep(n):
    return deep(n + 1)

def work(row):
    n = row["value"]
    if n == 1:
        raise KeyboardInterrupt()
    if n == 2:
        raise Base("base")
    if n == 3:
        raise Silent()
    if n == 4:
        deep(0)
    if n == 5:
        raise GeneratorExit()
    if n == 6:
        raise ValueError("\ud800 and \x00")
    if n == 7:
        raise MemoryError()
    return {"y": 1}
"#,
    );
    env.run(&["run"]).exits(100);
    assert_eq!(env.rows("work").len(), 2);
    assert_eq!(env.failures_by_kind(), [("exception".to_string(), 7)].into());
}

#[test]
fn a_reduce_that_dies_fails_its_group() {
    let env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 9} } }\nstages:\n  mod: { map: n, assign: { g: \"item.value % 3\" } }\n  work: { reduce: mod, python: \"f:work\", group_by: [g] }\n",
        "import os\n\ndef work(rows):\n    n = [row['g'] for row in rows]\n    if n[0] == 1:\n        os.abort()\n    return {'n': len(n)}\n",
    );
    env.run(&["run"]).exits(100);
    assert_eq!(env.rows("work").len(), 2);
    assert_eq!(env.failures_by_kind(), [("crash".to_string(), 1)].into());
}

#[test]
fn stages_share_workers_but_not_failures() {
    let env = TestEnv::with(
        r#"
sources: { n: { range: {start: 0, stop: 30} } }
stages:
  a: { map: n, python: "f:a" }
  b: { map: n, python: "f:b" }
"#,
        "import os\n\ndef a(row):\n    if row['value'] == 7:\n        os.abort()\n\ndef b(row):\n    return {'y': 1}\n",
    );
    env.run(&["run"]).exits(100);
    assert_eq!(env.rows("a").len(), 29);
    assert_eq!(env.rows("b").len(), 30);
}

/// An item that is found out although nobody sees at once that it was the one.
fn the_only_culprit(statement: &str, settings: &str, message: &str) {
    let module = format!(
        "import os, signal, time, kit\n\ndef work(row):\n    kit.log('begun', row['value'])\n    if row['value'] == 3:\n        {statement}\n    return {{'y': row['value']}}\n"
    );
    let pipeline = format!(
        "sources: {{ s: {{ range: {{stop: 40}} }} }}\nstages:\n  work: {{ map: s, python: \"f:work\", {settings} }}\n"
    );
    let env = TestEnv::with(&pipeline, &module);
    env.run(&["run"]).exits(100);
    let failed = env.failed_rows("work");
    assert_eq!(failed.iter().map(|row| row["value"].as_i64()).collect::<Vec<_>>(), [Some(3)], "{failed:?}");
    assert!(text(&failed[0]["error"]).contains(message), "{failed:?}");
    assert_eq!(ints(&env.column("work", "y")), (0..40).filter(|v| *v != 3).collect::<Vec<_>>());
    let most = (0..40).map(|v| env.logged("begun").iter().filter(|id| **id == v.to_string()).count()).max();
    assert!(most <= Some(20), "{most:?} times");
}

#[test]
fn an_item_that_writes_into_the_socket_of_its_worker() {
    let message = "crash: its worker stopped answering (descriptor 3 is not an item's";
    the_only_culprit(r"os.write(3, b'\xff' * 1000)", "workers: 1", message);
    the_only_culprit(r"os.write(3, b'\xff' * 1000)", "workers: 2, chunk_size: 1", message);
    the_only_culprit(r"os.write(3, b'\x00' * 1000)", "workers: 2", "crash: its worker sent ");
}

#[test]
fn an_item_that_closes_all_descriptors_of_its_worker() {
    for settings in ["workers: 1", "workers: 2, chunk_size: 1", "workers: 1, chunk_size: 40"] {
        the_only_culprit("os.closerange(0, 4096)", settings, "crash: ");
    }
}

#[test]
fn an_item_that_scribbles_over_all_it_can_reach() {
    let statement = r"[os.write(fd, b'\xff' * 1000) for fd in range(3, 64) if os.path.exists('/proc/self/fd/%d' % fd)]";
    the_only_culprit(statement, "workers: 1", "crash: ");
}

#[test]
fn an_item_that_kills_the_keeper_of_its_worker() {
    let kill = "os.kill(os.getppid(), signal.SIGKILL); os.system(\"sleep 9\")";
    the_only_culprit(kill, "workers: 2", "crash: its worker was killed");
    the_only_culprit(kill, "workers: 2, chunk_size: 1", "crash: its worker was killed");
}

#[test]
fn an_item_among_threads_that_kills_the_keeper() {
    // The others take a while, so that all lanes have something in hand when it strikes.
    let kill = "os.kill(os.getppid(), signal.SIGKILL); os.system(\"sleep 9\")\n    time.sleep(0.05)";
    for settings in ["workers: 4, backend: threads, chunk_size: 1", "workers: 4, backend: threads, chunk_size: 10"] {
        the_only_culprit(kill, settings, "crash: its worker was killed");
    }
}

#[test]
fn a_lane_that_waits_for_a_new_process_goes_on_though_another_finds_nothing_to_do() {
    let module = r#"
import os, signal, threading, time, kit

def work(row):
    if row["value"] % 2 == 0 and not kit.is_open("killed"):
        kit.log("lanes", threading.get_native_id())
        while len(kit.lines("lanes")) < 2:
            time.sleep(0.01)
        if threading.get_native_id() == max(map(int, kit.lines("lanes"))):
            while len(kit.lines("done")) < 2:
                time.sleep(0.01)
            time.sleep(0.2)
            kit.open_gate("killed")
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
    kit.log("done", row["value"])
    return {"y": row["value"]}
"#;
    let env = TestEnv::with(
        "sources: { s: { range: {stop: 4} } }\nstages:\n  work: { map: s, python: \"f:work\", backend: threads, workers: 2, chunk_size: 2 }\n",
        module,
    );
    env.run(&["run", "-j", "2"]).exits(0);
    assert_eq!(ints(&env.column("work", "y")), [0, 1, 2, 3]);
}

#[test]
fn a_keeper_that_is_killed_as_its_item_ends() {
    for settings in ["workers: 2, chunk_size: 1", "workers: 1", "workers: 2, backend: threads"] {
        let pipeline = format!(
            "sources: {{ s: {{ range: {{stop: 40}} }} }}\nstages:\n  work: {{ map: s, python: \"f:work\", {settings} }}\n"
        );
        let module = "import os, signal\n\ndef work(row):\n    if row['value'] % 10 == 3:\n        os.kill(os.getppid(), signal.SIGKILL)\n    return {'y': row['value']}\n";
        let env = TestEnv::with(&pipeline, module);
        let run = env.run(&["run"]);
        assert!(matches!(run.code, Some(0 | 1 | 100)), "{}", run.all());
        env.assert_nothing_runs();
    }
}
