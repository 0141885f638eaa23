//! `run`: to the end, again, resumed; where the file is found; what is said.

use serde_json::json;

use crate::env::*;

const PIPELINE: &str = r#"
name: simple
sources:
  numbers: { csv: numbers.csv, key: id }
stages:
  double:
    map: numbers
    python: f:double
"#;

const DOUBLE: &str = r#"
import kit

def double(row):
    kit.log("double", row["id"])
    return {"y": row["x"] * 2}
"#;

fn simple(rows: usize) -> TestEnv {
    let env = TestEnv::with(PIPELINE, DOUBLE);
    env.write("numbers.csv", numbers_csv(rows));
    env
}

#[test]
fn a_run_gives_rows_in_order() {
    let env = simple(100);
    let summary = env.run_json(&[], 0);
    assert_eq!(summary["state"], "finished");
    assert!(summary["run"].is_string());
    counts(&stage_of(&summary, "double"), &[("ran", 100), ("cached", 0), ("failed", 0), ("blocked", 0)]);
    assert!(stage_of(&summary, "double")["seconds"].is_number());
    let rows = env.rows("double");
    assert_eq!(rows.len(), 100);
    assert_eq!(rows[7], json!({"id": 7, "x": 70, "y": 140}));
    assert_eq!(ints(&env.column("double", "id")), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_second_run_runs_nothing() {
    let env = simple(50);
    env.run(&["run"]).exits(0);
    let summary = env.run_json(&[], 0);
    counts(&stage_of(&summary, "double"), &[("ran", 0), ("cached", 50), ("failed", 0)]);
    assert_eq!(env.logged("double").len(), 50);
}

#[test]
fn data_go_to_stdout_and_talk_to_stderr() {
    let env = simple(3);
    let run = env.run(&["run"]).exits(0);
    assert_eq!(run.stdout, "");
    assert!(run.stderr.contains("double"), "{}", run.stderr);
    assert!(!run.stderr.contains('\u{1b}'), "colour where there is no terminal: {}", run.stderr);
    let results = env.run(&["results", "double", "--format", "csv"]).exits(0);
    assert_eq!(results.stdout, "id,x,y\n0,0,0\n1,10,20\n2,20,40\n");
    assert_eq!(results.stderr, "");
}

#[test]
fn quiet_is_quiet() {
    let env = simple(3);
    let run = env.run(&["run", "-q"]).exits(0);
    assert_eq!(run.all().trim(), "");
}

#[test]
fn the_file_is_found_by_its_name() {
    let env = simple(3);
    std::fs::rename(env.path("pipeline.yaml"), env.path("workflow.yaml")).expect("rename");
    env.run(&["run"]).exits(0);
    assert!(env.path(".bpp-flow/simple").is_dir());
    let none = TestEnv::new();
    none.run(&["run"]).exits(2).says(&["pipeline.yaml"]);
    none.run(&["run", "other.yaml"]).exits(2).says(&["other.yaml"]);
}

#[test]
fn paths_are_relative_to_the_file() {
    let env = TestEnv::new();
    env.write("sub/flow.yaml", PIPELINE.replace("name: simple\n", ""));
    env.write("sub/f.py", DOUBLE);
    env.write("sub/kit.py", env.read("kit.py"));
    env.write("sub/numbers.csv", numbers_csv(4));
    env.run(&["run", "sub/flow.yaml"]).exits(0);
    assert!(env.path("sub/.bpp-flow/flow").is_dir(), "the name is the file's stem");
    let rows = env.run(&["results", "double", "-f", "sub/flow.yaml", "--format", "jsonl"]).exits(0).json_lines();
    assert_eq!(rows.len(), 4);
    env.run(&["run", "-f", "sub/flow.yaml"]).exits(0);
    assert_eq!(env.logged("double").len(), 4);
}

#[test]
fn the_state_lies_where_it_is_told() {
    let mut env = simple(4);
    env.run(&["run", "--state", "elsewhere"]).exits(0);
    assert!(!env.path(".bpp-flow").exists());
    assert!(env.path("elsewhere").is_dir());
    let rows = env.run(&["results", "double", "--state", "elsewhere", "--format", "jsonl"]).exits(0).json_lines();
    assert_eq!(rows.len(), 4);
    env.run(&["run", "--state", "elsewhere"]).exits(0);
    assert_eq!(env.logged("double").len(), 4);
    let place = env.path("by-variable").display().to_string();
    env.set_var("BPP_FLOW_STATE", &place);
    env.run(&["run"]).exits(0);
    assert!(env.path("by-variable").is_dir());
    assert_eq!(env.logged("double").len(), 8);
}

#[test]
fn the_file_may_say_where_the_state_lies() {
    let env = simple(4);
    env.write("pipeline.yaml", format!("state: kept/here\n{PIPELINE}"));
    env.run(&["run"]).exits(0);
    assert!(env.path("kept/here").is_dir());
    assert!(!env.path(".bpp-flow").exists());
    assert_eq!(env.rows("double").len(), 4);
}

#[test]
fn order_is_the_inputs_whatever_comes_first() {
    let env = TestEnv::with(
        r#"
sources:
  numbers: { range: {start: 0, stop: 60} }
defaults: { workers: 4, chunk_size: 1 }
stages:
  shuffle: { map: numbers, python: "f:slow_first" }
  again: { map: shuffle, python: "f:slow_first" }
outputs:
  again: out.csv
"#,
        r#"
import time

def slow_first(row):
    time.sleep((row["value"] * 7919 % 13) * 0.002)
    return {"seen": row["value"]}
"#,
    );
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("again", "value")), (0..60).collect::<Vec<_>>());
    let expected: String = (0..60).map(|i| format!("{i},{i}\n")).collect();
    assert_eq!(env.read("out.csv"), format!("value,seen\n{expected}"));
}

#[test]
fn batches_do_not_wait_for_each_other() {
    // The last item of the first stage waits for the second stage to have seen the first one.
    let env = TestEnv::with(
        r#"
sources:
  numbers: { range: {start: 0, stop: 8} }
defaults: { workers: 2, chunk_size: 1, batch_size: 1 }
stages:
  first: { map: numbers, python: "f:first" }
  second: { map: first, python: "f:second" }
"#,
        r#"
import kit

def first(row):
    if row["value"] == 7:
        kit.pass_gate("second-began", 30)

def second(row):
    kit.open_gate("second-began")
"#,
    );
    env.run(&["run"]).exits(0);
}

#[test]
fn small_batches_do_not_lower_the_parallelism() {
    for sizes in ["chunk_size: 1", "batch_size: 1", "batch_size: 1, chunk_size: 50"] {
        let env = TestEnv::with(
            &format!(
                r#"
sources:
  numbers: {{ range: {{start: 0, stop: 4}} }}
defaults: {{ workers: 4, {sizes} }}
stages:
  meet: {{ map: numbers, python: "f:together" }}
"#
            ),
            "import kit\n\ndef together(row):\n    kit.meet('here', row['value'], 4, 20)\n",
        );
        env.run(&["run"]).exits(0);
    }
}

#[test]
fn automatic_chunks_leave_no_worker_idle() {
    // Ten quick items tempt to large chunks; then each of four workers must get one of the others.
    let env = TestEnv::with(
        r#"
sources: { n: { range: {start: 0, stop: 50} } }
stages:
  python: { map: n, python: "f:work", workers: 4 }
  shell:
    map: n
    workers: 4
    after: [python]
    shell: |
      if test {{ item.value }} -lt 10 || test -e met; then exit 0; fi
      echo here >> here
      for i in $(seq 300); do
        if test "$(wc -l < here)" -ge 4; then touch met; exit 0; fi
        sleep 0.05
      done
      exit 1
"#,
        r#"
import kit

def work(row):
    if row["value"] >= 10 and not kit.is_open("met"):
        kit.meet("here", row["value"], 4, 15)
        kit.open_gate("met")
"#,
    );
    env.run(&["run"]).exits(0);
}

#[test]
fn workers_are_capped() {
    for (setting, flags) in [("workers: 2", &[][..]), ("workers: 8", &["-j", "2"][..]), ("backend: serial", &[][..])] {
        let env = TestEnv::with(
            &format!(
                r#"
sources:
  numbers: {{ range: {{start: 0, stop: 24}} }}
stages:
  count: {{ map: numbers, python: "f:count", chunk_size: 1, {setting} }}
"#
            ),
            r#"
import time
import kit

def count(row):
    kit.log("steps", 1)
    time.sleep(0.01)
    kit.log("steps", -1)
"#,
        );
        let mut args = vec!["run"];
        args.extend(flags);
        env.run(&args).exits(0);
        let mut now = 0;
        let steps = env.logged("steps");
        assert_eq!(steps.len(), 48);
        for step in steps {
            now += step.parse::<i32>().expect("a step");
            assert!(now <= 2, "{setting}: {now} at once");
        }
    }
}

#[test]
fn serial_is_one_at_a_time_in_order() {
    let env = TestEnv::with(
        r#"
sources:
  numbers: { range: {start: 0, stop: 30} }
stages:
  one: { map: numbers, python: "f:one", backend: serial, chunk_size: 4 }
"#,
        "import kit\n\ndef one(row):\n    kit.log('one', row['value'])\n    return {}\n",
    );
    env.run(&["run"]).exits(0);
    assert_eq!(env.logged("one"), (0..30).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[test]
fn threads_share_a_process() {
    let env = TestEnv::with(
        r#"
sources:
  numbers: { range: {start: 0, stop: 6} }
stages:
  meet: { map: numbers, python: "f:together", backend: threads, workers: 3, chunk_size: 1 }
"#,
        r#"
import os
import threading
import kit

def together(row):
    if row["value"] < 3:
        kit.meet("here", threading.get_ident(), 3)
    return {"pid": os.getpid()}
"#,
    );
    env.run(&["run"]).exits(0);
    let pids: std::collections::BTreeSet<_> = ints(&env.column("meet", "pid")).into_iter().collect();
    assert_eq!(pids.len(), 1);
}

#[test]
fn a_backend_can_be_chosen_for_a_run() {
    for backend in ["serial", "threads", "processes"] {
        let env = simple(20);
        env.run(&["run", "--backend", backend]).exits(0);
        assert_eq!(env.column("double", "y").len(), 20);
    }
    simple(1).run(&["run", "--backend", "prozesses"]).exits(2).says(&["processes"]);
}

#[test]
fn cpus_are_told_to_the_worker() {
    let env = TestEnv::with(
        r#"
sources:
  one: { values: [1] }
stages:
  plain: { map: one, python: "f:caps" }
  wide: { map: one, python: "f:caps", cpus: 2 }
  shell: { map: one, shell: "echo $OMP_NUM_THREADS" }
"#,
        r#"
import os

def caps(row):
    names = "OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS NUMEXPR_NUM_THREADS".split()
    return {"caps": sorted({os.environ[name] for name in names})}
"#,
    );
    env.run(&["run"]).exits(0);
    assert_eq!(env.column("plain", "caps"), [json!(["1"])]);
    assert_eq!(env.column("wide", "caps"), [json!(["2"])]);
    assert_eq!(env.column("shell", "stdout"), [json!("1")]);
}

#[test]
fn events_are_json_lines() {
    let env = simple(5);
    env.run(&["run", "--events", "events.jsonl"]).exits(0);
    let events = json_lines(&env.read("events.jsonl"));
    assert_eq!(events.first().expect("an event")["event"], "run_started");
    assert_eq!(events.last().expect("an event")["event"], "run_finished");
    let items = events.iter().filter(|e| e["event"] == "item" && e["status"] == "done").count();
    assert_eq!(items, 5);
}

#[test]
fn a_dry_run_is_a_plan() {
    let env = simple(5);
    env.run(&["run", "-n"]).exits(0).says(&["double", "5"]);
    let plan = env.run(&["run", "-n", "--json"]).exits(0).json();
    counts(&stage_of(&plan, "double"), &[("due", 5), ("done", 0)]);
    assert!(env.logged("double").is_empty());
}

#[test]
fn two_stages_of_one_function_are_apart() {
    let env = TestEnv::with(
        r#"
params: { big: 10 }
sources:
  numbers: { csv: numbers.csv }
stages:
  a: { map: numbers, python: "f:times", args: { by: 2 } }
  b: { map: numbers, python: "f:times", args: { by: "{{ params.big }}" } }
  c: { map: [a, b], python: "f:times", args: { by: 1 } }
"#,
        "def times(row, *, by):\n    return {'y': row['x'] * by, 'by': by}\n",
    );
    env.write("numbers.csv", numbers_csv(3));
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("a", "y")), [0, 20, 40]);
    assert_eq!(ints(&env.column("b", "y")), [0, 100, 200]);
    assert_eq!(ints(&env.column("c", "id")), [0, 1, 2, 0, 1, 2], "inputs one after the other");
}
