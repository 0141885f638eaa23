//! `status`, `errors`, `results`, `runs`, `store`, `check`, `init`, `schema`, `completions`, `--help`.

use serde_json::{Value as Json, json};

use crate::env::*;

const PIPELINE: &str = r#"
name: inspected
sources: { s: { csv: a.csv, key: id } }
stages:
  work: { map: s, python: "f:work" }
"#;

const MODULE: &str = r#"
def work(row):
    if row["x"] == 20:
        raise ValueError("twenty")
    return {"y": row["x"] + 0.5}
"#;

fn finished(rows: usize) -> TestEnv {
    let env = TestEnv::with(PIPELINE, MODULE);
    env.write("a.csv", numbers_csv(rows));
    env.run(&["run"]);
    env
}

#[test]
fn results_in_all_formats() {
    let env = finished(4);
    let of = |format: &str| env.run(&["results", "work", "--format", format]).exits(0).stdout;
    assert_eq!(of("csv"), "id,x,y\n0,0,0.5\n1,10,10.5\n3,30,30.5\n");
    assert_eq!(of("tsv"), "id\tx\ty\n0\t0\t0.5\n1\t10\t10.5\n3\t30\t30.5\n");
    assert_eq!(json_lines(&of("jsonl"))[2], json!({"id": 3, "x": 30, "y": 30.5}));
    let table = of("table");
    assert!(table.contains("id") && table.contains("30.5"), "{table}");
    for (format, magic) in [("parquet", "PAR1"), ("arrow", "ARROW1")] {
        let path = format!("o.{format}");
        env.run(&["results", "work", "-o", &path]).exits(0);
        assert!(std::fs::read(env.path(&path)).expect("a file").starts_with(magic.as_bytes()));
    }
    env.run(&["results", "work", "-o", "o.csv"]).exits(0);
    assert_eq!(env.read("o.csv"), of("csv"));
    env.run(&["results", "work", "-o", "o.data", "--format", "jsonl"]).exits(0);
    assert_eq!(env.read("o.data"), of("jsonl"));
}

#[test]
fn results_narrowed() {
    let env = finished(6);
    let out = env.run(&["results", "work", "--columns", "y,id", "--limit", "2", "--format", "csv"]).exits(0);
    assert_eq!(out.stdout, "y,id\n0.5,0\n10.5,1\n");
    env.run(&["results", "work", "--columns", "z"]).exits(2).says(&["z"]);
    env.run(&["results", "wrok"]).exits(2).says(&["wrok", "work"]);
    let json: Json = env
        .run(&["results", "work", "--json"])
        .exits(0)
        .stdout
        .lines()
        .next()
        .map_or(Json::Null, |line| serde_json::from_str(line).unwrap_or(Json::Null));
    assert!(!json.is_null());
}

#[test]
fn results_of_failed_items() {
    let env = finished(4);
    let failed = env.failed_rows("work");
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["id"], 2);
    assert_eq!(failed[0]["x"], 20);
    assert_eq!(failed[0]["status"], "failed");
    assert!(text(&failed[0]["error"]).contains("ValueError: twenty"), "{}", failed[0]);
    assert!(text(&failed[0]["traceback"]).contains("Traceback"), "{}", failed[0]);
    let csv = env.run(&["results", "work", "--failed", "--format", "csv"]).exits(0).stdout;
    assert!(csv.starts_with("id,x,"), "{csv}");
}

#[test]
fn results_before_any_run() {
    let env = TestEnv::with(PIPELINE, MODULE);
    env.write("a.csv", numbers_csv(3));
    let out = env.run(&["results", "work", "--format", "jsonl"]);
    assert!(matches!(out.code, Some(0 | 1)), "{}", out.all());
    assert_eq!(out.stdout, "");
    assert!(!env.path(".bpp-flow").exists());
}

#[test]
fn results_of_a_cut_pipe() {
    let env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 60000} } }\nstages:\n  work: { map: n, assign: { y: \"item.value\" } }\n",
        "",
    );
    env.run(&["run"]).exits(0);
    for format in ["csv", "jsonl", "table", "arrow"] {
        let out = env.bash(&format!(
            "\"$BPP\" results work --format {format} | head -c 20 > /dev/null; echo ${{PIPESTATUS[0]}}"
        ));
        assert_eq!(out.stderr, "", "{format}: a broken pipe is a quiet exit");
        assert!(["0", "141"].contains(&out.stdout.trim()), "{format}: {}", out.stdout);
    }
    let out = env.bash("\"$BPP\" plan --json | true; \"$BPP\" --help | true; \"$BPP\" status | true");
    assert_eq!(out.stderr, "");
}

#[test]
fn status_tells_all_counts() {
    let env = finished(5);
    let work = env.status_of("work");
    counts(
        &work,
        &[("total", 5), ("done", 4), ("failed", 1), ("due", 0), ("possible", 0), ("blocked", 0), ("running", 0)],
    );
    env.run(&["status"]).exits(0).says(&["work", "4", "1"]);
}

#[test]
fn errors_without_failures() {
    let env = finished(2);
    assert!(env.errors().is_empty());
    env.run(&["errors"]).exits(0);
    env.run(&["retry", "--failed"]).exits(0);
}

#[test]
fn errors_of_an_item_that_has_not_failed() {
    let env = finished(4);
    let out = env.run(&["errors", "--item", "1"]);
    assert!(!out.all().contains("Traceback"), "{}", out.all());
    let out = env.run(&["errors", "--item", "77"]);
    assert!(out.all().contains("77"), "{}", out.all());
}

#[test]
fn runs_are_catalogued() {
    let env = finished(4);
    env.run(&["run"]).exits(100);
    let id = text(&env.run_json(&[], 100)["run"]);
    let list = env.run(&["runs"]).exits(0).stdout;
    assert!(list.contains(&id), "{list}");
    let all = env.run(&["runs", "--json"]).exits(0).json();
    assert_eq!(all.as_array().expect("a list").len(), 3);
    env.run(&["runs", "show", &id]).exits(0).says(&[&id, "work"]);
    env.run(&["runs", "rm", &id]).exits(0);
    assert_eq!(env.run(&["runs", "--json"]).exits(0).json().as_array().expect("a list").len(), 2);
    assert_eq!(env.rows("work").len(), 3, "results stay");
    let gone = env.run(&["runs", "show", &id]);
    assert_ne!(gone.code, Some(0));
    assert!(gone.all().contains(&id));
}

#[test]
fn a_killed_run_is_not_running() {
    let env =
        TestEnv::with(PIPELINE, "import kit\n\ndef work(row):\n    kit.log('begun', 1)\n    kit.pass_gate('go')\n");
    env.write("a.csv", numbers_csv(4));
    let run = env.spawn(&["run"]);
    until("an item is in hand", || !env.logged("begun").is_empty());
    until("the record tells", || number(&env.status_of("work")["total"]) == 4);
    run.kill9();
    env.assert_nothing_runs();
    counts(&env.status_of("work"), &[("running", 0), ("due", 4), ("done", 0)]);
    env.run(&["runs"]).exits(0);
}

#[test]
fn the_store_is_sound() {
    let env = finished(100);
    env.run(&["store", "verify"]).exits(0);
    env.run(&["store", "stats"]).exits(0).says(&["work"]);
}

#[test]
fn check_finds_every_mistake() {
    let env = TestEnv::with(
        r#"name: broken
sources:
  s: { csv: a.csv }
stages:
  first:
    map: s
    pyton: f:work
  second:
    map: frist
    assign: { y: "item.x +" }
  third:
    map: s
    python: f:work
    batchsize: 10
"#,
        MODULE,
    );
    let out = env.run(&["check"]).exits(2);
    let all =
        out.says(&["pipeline.yaml:7:5", "pyton", "python", "frist", "first", "pipeline.yaml:14:5", "batch_size"]).all();
    assert!(all.contains("pipeline.yaml:9:"), "{all}");
    assert!(all.contains("pipeline.yaml:10:"), "{all}");
    env.run(&["run"]).exits(2);
    env.run(&["plan"]).exits(2);
    assert!(!env.path(".bpp-flow").exists());
}

#[test]
fn check_likes_what_is_right() {
    let env = finished(1);
    env.run(&["check"]).exits(0);
    env.run(&["check", "pipeline.yaml"]).exits(0);
    env.run(&["check", "nowhere.yaml"]).exits(2).says(&["nowhere.yaml"]);
}

#[test]
fn usage_mistakes_are_2() {
    let env = finished(1);
    env.run(&["rnu"]).exits(2).says(&["run"]);
    env.run(&["run", "--limt", "3"]).exits(2).says(&["--limit"]);
    env.run(&["run", "--limit", "three"]).exits(2);
    env.run(&["run", "-j", "0"]).exits(2);
    env.run(&["results"]).exits(2);
    env.run(&[]).exits(2);
}

#[test]
fn help_teaches() {
    let env = TestEnv::new();
    env.run(&["--help"]).exits(0).says(&["run", "plan", "retry", "status", "errors", "results"]);
    for command in [
        "run",
        "plan",
        "retry",
        "status",
        "errors",
        "results",
        "runs",
        "check",
        "init",
        "schema",
        "store",
        "completions",
    ] {
        let help = env.run(&[command, "--help"]).exits(0).stdout;
        assert!(help.contains("bpp-flow"), "{command}: {help}");
        assert!(help.to_lowercase().contains("example"), "{command} has no example: {help}");
    }
    env.run(&["--version"]).exits(0).says(&["bpp-flow"]);
}

#[test]
fn init_makes_a_workflow_that_runs() {
    let env = TestEnv::new();
    env.run(&["init", "fresh"]).exits(0);
    let out = env.bash("cd fresh && \"$BPP\" check && \"$BPP\" run && \"$BPP\" run && \"$BPP\" status");
    assert!(matches!(out.code, Some(0)), "{}", out.all());
    let again = env.run(&["init", "fresh"]);
    assert_ne!(again.code, Some(0), "nothing is overwritten");
}

#[test]
fn schema_and_completions() {
    let env = TestEnv::new();
    let schema = env.run(&["schema"]).exits(0).json();
    assert!(schema["properties"]["stages"].is_object() || schema["$defs"].is_object(), "{schema}");
    for shell in ["bash", "zsh", "fish"] {
        env.run(&["completions", shell]).exits(0).says(&["bpp-flow"]);
    }
    let syntax = env.bash("\"$BPP\" completions bash > c.bash && bash -n c.bash");
    syntax.exits(0);
}

#[test]
fn what_is_not_there_yet_says_so() {
    let env = finished(1);
    for args in [&["report", "-o", "r.html"][..], &["store", "dump"], &["store", "restore"]] {
        let out = env.run(args);
        assert_ne!(out.code, Some(0), "{args:?}");
    }
}
