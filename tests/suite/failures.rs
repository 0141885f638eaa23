//! Failures as data: retries, limits, thresholds.

use serde_json::json;

use crate::env::*;

fn failing(settings: &str, module: &str, rows: usize) -> TestEnv {
    TestEnv::with(
        &format!(
            "sources: {{ n: {{ range: {{start: 0, stop: {rows}}} }} }}\nstages:\n  work: {{ map: n, {settings} }}\n"
        ),
        module,
    )
}

const FLAKY: &str = r#"
import os
import kit

def third_time(row):
    name = "item-%d" % row["value"]
    kit.log(name, "try")
    if row["value"] % 2 and len(kit.lines(name)) < 3:
        raise OSError("not yet")
    return {"y": 1}

def dies_once(row):
    name = "item-%d" % row["value"]
    kit.log(name, "try")
    if row["value"] == 2 and len(kit.lines(name)) < 2:
        os._exit(9)
    return {"y": 1}
"#;

#[test]
fn retries_help_a_flaky_function() {
    let env = failing("python: \"f:third_time\", retries: 2", FLAKY, 6);
    let summary = env.run_json(&[], 0);
    counts(&stage_of(&summary, "work"), &[("ran", 6), ("failed", 0)]);
    for i in 0..6 {
        assert_eq!(env.logged(&format!("item-{i}")).len(), if i % 2 == 1 { 3 } else { 1 });
    }
}

#[test]
fn too_few_retries_fail() {
    let env = failing("python: \"f:third_time\", retries: { max: 1, backoff: 10ms, factor: 2 }", FLAKY, 4);
    env.run(&["run"]).exits(100);
    assert_eq!(env.logged("item-1").len(), 2);
    assert_eq!(ints(&env.column("work", "value")), [0, 2]);
    env.run(&["retry", "--failed"]).exits(0);
    assert_eq!(env.logged("item-1").len(), 3);
}

#[test]
fn retries_only_of_some_kinds() {
    let env = failing("python: \"f:third_time\", retries: { max: 5, kinds: [crash, timeout] }", FLAKY, 2);
    env.run(&["run"]).exits(100);
    assert_eq!(env.logged("item-1").len(), 1);
    let env = failing("python: \"f:dies_once\", retries: { max: 1, kinds: [crash] }", FLAKY, 4);
    env.run(&["run"]).exits(0);
    assert_eq!(env.logged("item-2").len(), 2);
    assert_eq!(env.rows("work").len(), 4);
}

#[test]
fn commands_are_retried_too() {
    let env = failing("shell: \"echo x >> tries; test $(wc -l < tries) -ge 3\", retries: 4", "", 1);
    env.run(&["run"]).exits(0);
    assert_eq!(env.read("tries").lines().count(), 3);
}

#[test]
fn a_failure_is_told_with_traceback_and_output() {
    let env = failing(
        "python: \"f:work\"",
        r#"
import sys

def helper(n):
    print("printed for", n)
    print("complained for", n, file=sys.stderr)
    return 1 / (n - 1)

def work(row):
    return {"y": helper(row["value"])}
"#,
        3,
    );
    let run = env.run(&["run"]).exits(100);
    assert!(run.stderr.contains("ZeroDivisionError") && run.stderr.contains("retry"), "{}", run.stderr);
    assert!(!run.stderr.contains("printed for 0"), "{}", run.stderr);
    let item = env.run(&["errors", "--item", "1"]).exits(0).all();
    for part in ["Traceback", "ZeroDivisionError", "helper", "f.py", "printed for 1", "complained for 1"] {
        assert!(item.contains(part), "{part} in {item}");
    }
    assert!(!item.contains("printed for 0") && !item.contains("printed for 2"), "{item}");
    let failed = env.failed_rows("work");
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["value"], 1);
    assert!(text(&failed[0]["error"]).contains("ZeroDivisionError"));
    assert!(text(&failed[0]["traceback"]).contains("helper"));
    let errors = env.errors();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0]["stage"], "work");
    assert_eq!(errors[0]["kind"], "exception");
    assert_eq!(errors[0]["count"], 1);
    assert_eq!(errors[0]["keys"], json!(["1"]));
}

#[test]
fn failures_are_grouped_by_signature() {
    let env = failing(
        "python: \"f:work\"",
        r#"
def work(row):
    n = row["value"]
    if n % 3 == 0:
        raise ValueError("cell %d is odd" % n)
    if n % 3 == 1:
        raise KeyError("k%d" % n)
"#,
        30,
    );
    env.run(&["run"]).exits(100);
    let errors = env.errors();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors.iter().all(|group| group["count"] == 10), "{errors:?}");
    let words = env.run(&["errors"]).exits(0).stdout;
    assert!(words.contains("ValueError") && words.contains("10") && words.contains("KeyError"), "{words}");
}

#[test]
fn on_error_stop_stops() {
    let env = failing(
        "python: \"f:work\", on_error: stop, chunk_size: 1, workers: 1, batch_size: 10",
        "import kit\n\ndef work(row):\n    kit.log('work', row['value'])\n    if row['value'] == 3:\n        raise ValueError('three')\n",
        2000,
    );
    let run = env.run(&["run", "--json"]).exits(1);
    assert_eq!(run.json()["state"], "stopped");
    assert!(run.stderr.contains("three"), "{}", run.stderr);
    assert!(env.logged("work").len() < 2000);
    let rows = env.rows("work").len();
    assert!((3..2000).contains(&rows), "what was done is kept: {rows}");
}

#[test]
fn a_threshold_of_failures_stops() {
    let module = "import kit\n\ndef work(row):\n    kit.log('work', row['value'])\n    if row['value'] >= 50:\n        raise ValueError('late')\n";
    let env = failing("python: \"f:work\", max_failures: 10, chunk_size: 1, workers: 2", module, 2000);
    let run = env.run(&["run", "--json"]).exits(1);
    assert_eq!(run.json()["state"], "stopped");
    let failed = env.failures_by_kind()["exception"];
    assert!((10..1000).contains(&failed), "{failed}");
    assert_eq!(env.rows("work").len(), 50);
    let env = failing("python: \"f:work\", max_failures: 10", module, 55);
    env.run(&["run"]).exits(100);
}

#[test]
fn a_share_of_failures_stops() {
    let module = "def work(row):\n    if row['value'] >= 100:\n        raise ValueError('late')\n";
    let env = failing("python: \"f:work\", max_failures: 20%, chunk_size: 1, workers: 1", module, 110);
    env.run(&["run"]).exits(100);
    let env = failing("python: \"f:work\", max_failures: 20%, chunk_size: 1, workers: 1", module, 200);
    env.run(&["run"]).exits(1);
}

#[test]
fn a_timeout_stops_an_item() {
    let env = failing(
        "python: \"f:work\", timeout: 400ms, chunk_size: 4, workers: 1",
        "import time\n\ndef work(row):\n    if row['value'] == 1:\n        print('dozing', flush=True)\n        time.sleep(600)\n    return {'y': 1}\n",
        4,
    );
    env.run(&["run"]).exits(100);
    assert_eq!(ints(&env.column("work", "value")), [0, 2, 3]);
    assert_eq!(env.failures_by_kind(), [("timeout".to_string(), 1)].into());
    env.run(&["errors", "--item", "1"]).exits(0).says(&["dozing"]);
    env.assert_nothing_runs();
}

#[test]
fn a_timeout_stops_a_command_with_its_children() {
    let env = failing(
        "shell: \"if test {{ item.value }} = 1; then sleep 600 & sleep 601; fi; echo ok\", timeout: 500ms",
        "",
        3,
    );
    env.run(&["run"]).exits(100);
    assert_eq!(env.rows("work").len(), 2);
    assert_eq!(env.failures_by_kind(), [("timeout".to_string(), 1)].into());
    env.assert_nothing_runs();
}

#[test]
fn a_timeout_among_threads() {
    let env = failing(
        "python: \"f:work\", timeout: 500ms, chunk_size: 1, workers: 3, backend: threads",
        "import time\n\ndef work(row):\n    if row['value'] == 4:\n        time.sleep(600)\n    return {'y': row['value']}\n",
        12,
    );
    env.run(&["run"]).exits(100);
    assert_eq!(env.failures_by_kind(), [("timeout".to_string(), 1)].into());
    assert_eq!(env.rows("work").len(), 11);
}

#[test]
fn a_function_that_ignores_signals_is_stopped() {
    let env = failing(
        "python: \"f:work\", timeout: 400ms, workers: 1",
        r#"
import signal
import time

def work(row):
    if row["value"] == 0:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        while True:
            try:
                time.sleep(600)
            except BaseException:
                pass
"#,
        2,
    );
    env.run(&["run"]).exits(100);
    assert_eq!(env.failures_by_kind(), [("timeout".to_string(), 1)].into());
    assert_eq!(env.rows("work").len(), 1);
}

#[test]
fn a_new_limit_makes_a_timeout_due() {
    let module = "import time\n\ndef work(row):\n    time.sleep(0.6 * row['value'])\n";
    let env = failing("python: \"f:work\", timeout: 200ms", module, 2);
    env.run(&["run"]).exits(100);
    env.run(&["run"]).exits(100);
    let limit = env.read("pipeline.yaml").replace("200ms", "50s");
    env.write("pipeline.yaml", limit);
    counts(&env.plan_of("work"), &[("due", 1), ("done", 1)]);
    env.run(&["run"]).exits(0);
}

#[test]
fn the_kinds_can_be_retried_apart() {
    let env = failing(
        "python: \"f:work\", timeout: 500ms, chunk_size: 1",
        r#"
import os
import time
import kit

def work(row):
    kit.log("work", row["value"])
    if row["value"] == 0:
        time.sleep(600)
    if row["value"] == 1:
        os.abort()
    if row["value"] == 2:
        raise ValueError()
"#,
        4,
    );
    env.run(&["run"]).exits(100);
    for (kind, item) in [("timeout", "0"), ("crash", "1"), ("exception", "2")] {
        env.clear_log("work");
        env.run(&["retry", "--kind", kind]).exits(100);
        assert_eq!(env.logged("work"), [item], "{kind}");
    }
}
