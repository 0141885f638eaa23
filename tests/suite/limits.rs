//! Limits per item and worker: memory, items a worker takes, threads; and what is kept of what each item used.

use std::collections::BTreeMap;

use crate::env::*;

const MODULE: &str = r#"
import os
import subprocess
import sys
import time
import kit

HOG = "import time; x = bytearray(%d << 20); time.sleep(20)"

def greedy(row):
    kit.log("pid", "%d %d" % (row["value"], os.getpid()))
    if row["value"] == 3:
        held = bytearray(400 << 20)
        time.sleep(20)
    if row["value"] == 5:
        subprocess.run([sys.executable, "-c", HOG % 400])
    if row["value"] == 7:
        held = bytearray(100 << 20)
        time.sleep(0.05)
    return {"y": row["value"]}

def shared(row):
    held = bytearray(os.urandom(1 << 20)) * 120
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            time.sleep(0.4)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return {"y": row["value"]}

def leaky(row):
    kit.log("pid", "%d %d" % (row["value"], os.getpid()))
    return {"y": row["value"]}

def caps(row):
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS",
             "POLARS_MAX_THREADS", "RAYON_NUM_THREADS")
    return {name: os.environ.get(name) for name in names}

def quick_then_slow(row):
    if row["value"] == 5:
        kit.log("slow", 5)
        kit.pass_gate("go")
    return {"y": row["value"]}

def too_large_to_start():
    global held
    held = bytearray(400 << 20)
    time.sleep(20)
"#;

fn stage(stage: &str) -> TestEnv {
    let pipeline = format!("sources: {{ s: {{ range: {{stop: 20}} }} }}\nstages:\n  work: {{ map: s, {stage} }}\n");
    TestEnv::with(&pipeline, MODULE)
}

fn failed(env: &TestEnv) -> Vec<(i64, String)> {
    let rows = env.failed_rows("work").into_iter();
    rows.map(|row| (row["value"].as_i64().expect("a number"), text(&row["error"]))).collect()
}

#[test]
fn a_worker_over_its_memory_fails_the_item_in_hand() {
    let env = stage(r#"python: "f:greedy", memory: 250MiB, workers: 2, chunk_size: 10"#);
    env.run(&["run"]).exits(100);
    let failures = failed(&env);
    assert_eq!(failures.iter().map(|f| f.0).collect::<Vec<_>>(), [3, 5], "{failures:?}");
    assert!(failures.iter().all(|(_, e)| e.starts_with("memory: over 250 MiB: held ")), "{failures:?}");
    assert_eq!(env.column("work", "y").len(), 18);
    let begun = env.logged("pid").len();
    assert_eq!(begun, distinct(&env.logged("pid")).len(), "none of the others ran twice");
    let story = env.run(&["errors", "--item", "5"]).exits(0).stdout;
    assert!(story.contains("1 attempt, at most ") && story.contains(" MiB of memory"), "{story}");
    // The failures hold, until the limit is another.
    counts(&env.plan_of("work"), &[("failed", 2), ("due", 0)]);
    env.write("pipeline.yaml", env.read("pipeline.yaml").replace("250MiB", "300MiB"));
    counts(&env.plan_of("work"), &[("failed", 0), ("due", 2)]);
}

#[test]
fn a_worker_among_threads_over_its_memory() {
    let env = stage(r#"python: "f:greedy", memory: 250MiB, backend: threads, workers: 3"#);
    env.run(&["run"]).exits(100);
    assert_eq!(failed(&env).iter().map(|f| f.0).collect::<Vec<_>>(), [3, 5]);
    assert_eq!(env.column("work", "y").len(), 18);
}

#[test]
fn a_command_over_its_memory() {
    let hog = r#"shell: "if [ {{ item.value }} = 3 ]; then (python3 -c 'x = bytearray(400 << 20); import time; time.sleep(20)'); fi", stdout: ignore"#;
    let env = stage(&format!("{hog}, memory: 250MiB, workers: 2"));
    env.run(&["run"]).exits(100);
    let failures = failed(&env);
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].1.starts_with("memory: over 250 MiB: held "), "{failures:?}");
}

#[test]
fn memory_that_forked_processes_share_counts_once() {
    let env = stage(r#"python: "f:shared", memory: 400MiB, workers: 1"#);
    env.run(&["run", "--limit", "2"]).exits(0);
}

#[test]
fn memory_failures_are_retried_when_asked() {
    let env = stage(r#"python: "f:greedy", memory: 250MiB, retries: {max: 1, backoff: 0s, on: memory}"#);
    env.run(&["run", "--row", "3"]).exits(100);
    assert_eq!(env.logged("pid").len(), 2);
    assert_eq!(env.errors()[0]["kind"], "memory");
}

#[test]
fn a_worker_too_large_to_start_is_no_items_fault() {
    let env = stage(r#"python: "f:leaky", memory: 250MiB, init: {python: "f:too_large_to_start"}, workers: 1"#);
    env.run(&["run"]).exits(1).says(&["over 250 MiB: held", "before any item could run"]);
    assert_eq!(env.failed_rows("work").len(), 0);
}

#[test]
fn no_worker_takes_more_items_than_it_may() {
    for backend in ["processes", "threads", "serial"] {
        let env = stage(&format!(r#"python: "f:leaky", backend: {backend}, workers: 2, max_tasks_per_worker: 3"#));
        env.run(&["run"]).exits(0);
        assert_eq!(ints(&env.column("work", "y")), (0..20).collect::<Vec<_>>());
        let mut taken: BTreeMap<String, usize> = BTreeMap::new();
        for line in env.logged("pid") {
            *taken.entry(line.split(' ').nth(1).expect("a pid").to_string()).or_default() += 1;
        }
        assert!(taken.values().all(|&items| items <= 3), "{backend}: {taken:?}");
        assert_eq!(taken.values().sum::<usize>(), 20, "{backend}: no item ran twice");
    }
}

#[test]
fn what_each_item_used_is_kept() {
    let env = stage(r#"python: "f:greedy", workers: 1, retries: 0"#);
    env.write("f.py", MODULE.replace("== 3:", "== -3:").replace("== 5:", "== -5:"));
    env.run(&["run"]).exits(0);
    let rows =
        env.run(&["results", "work", "--format", "jsonl", "--columns", "y,attempts,seconds,peak_memory"]).json_lines();
    assert_eq!(rows.len(), 20);
    assert!(rows.iter().all(|row| row["attempts"] == 1));
    let bytes = |row: usize| rows[row]["peak_memory"].as_u64().expect("known");
    assert!(bytes(7) > 100 << 20, "{}", bytes(7));
    assert!(bytes(15) < 100 << 20, "what an item gave back is not the next one's: {}", bytes(15));
    assert!(rows[7]["seconds"].as_f64().expect("seconds") >= 0.05);
    // Columns of the user's own go first.
    env.write("f.py", "def greedy(row):\n    return {'seconds': -1}\n");
    env.run(&["run"]).exits(0);
    assert_eq!(
        ints(
            &env.run(&["results", "work", "--format", "jsonl", "--columns", "seconds"])
                .json_lines()
                .iter()
                .map(|r| r["seconds"].clone())
                .collect::<Vec<_>>()
        ),
        [-1; 20]
    );
}

#[test]
fn commands_tell_what_they_used() {
    let hog = r#"command: [python3, "-c", "x = bytearray(100 << 20)"], stdout: ignore"#;
    let env = stage(hog);
    env.run(&["run", "--limit", "2"]).exits(0);
    let rows = env.run(&["results", "work", "--format", "jsonl", "--columns", "peak_memory"]).json_lines();
    assert!(rows.iter().all(|row| row["peak_memory"].as_u64() > Some(100 << 20)), "{rows:?}");
}

#[test]
fn cpus_cap_the_threads_of_libraries() {
    let env = stage(r#"python: "f:caps", cpus: 2"#);
    env.run(&["run", "--limit", "1"]).exits(0);
    let row = env.rows("work").remove(0);
    let caps = row.as_object().expect("a row").iter().filter(|(name, _)| name.ends_with("THREADS"));
    assert!(caps.clone().count() == 7 && caps.clone().all(|(_, value)| text(value) == "2"), "{row}");
}

#[test]
fn finished_items_do_not_wait_behind_a_slow_one() {
    let env = stage(r#"python: "f:quick_then_slow", workers: 1, chunk_size: 20"#);
    let run = env.spawn(&["run", "-q"]);
    until("the slow one began", || !env.logged("slow").is_empty());
    until("those before it are kept", || env.rows("work").len() == 5);
    env.open_gate("go");
    assert_eq!(run.wait().code, Some(0));
    assert_eq!(ints(&env.column("work", "y")), (0..20).collect::<Vec<_>>());
}
