//! `outputs:`: whole or not at all, in item order, left alone when current.

use std::os::unix::fs::MetadataExt as _;
use std::time::SystemTime;

use serde_json::json;

use crate::env::*;

const MODULE: &str = r#"
import kit

def work(row):
    if row["x"] == 20 and not kit.is_open("mended"):
        raise ValueError("twenty, \"quoted\"")
    return {"y": row["x"] / 4}
"#;

fn writing(outputs: &str) -> TestEnv {
    let env = TestEnv::with(
        &format!(
            "sources:\n  s: {{ csv: a.csv, key: id }}\nstages:\n  work: {{ map: s, python: \"f:work\" }}\noutputs:\n  work: {outputs}\n"
        ),
        MODULE,
    );
    env.write("a.csv", numbers_csv(4));
    env
}

fn stamp(env: &TestEnv, name: &str) -> (SystemTime, u64) {
    let meta = std::fs::metadata(env.path(name)).expect("an output");
    (meta.modified().expect("a time"), meta.ino())
}

#[test]
fn formats_by_extension() {
    let env = writing("[out/a.csv, out/a.tsv, out/a.jsonl, out/a.parquet, out/a.arrow]");
    env.run(&["run"]).exits(100);
    assert_eq!(env.read("out/a.csv"), "id,x,y\n0,0,0.0\n1,10,2.5\n3,30,7.5\n");
    assert_eq!(env.read("out/a.tsv"), "id\tx\ty\n0\t0\t0.0\n1\t10\t2.5\n3\t30\t7.5\n");
    assert_eq!(json_lines(&env.read("out/a.jsonl"))[1], json!({"id": 1, "x": 10, "y": 2.5}));
    for format in ["parquet", "arrow"] {
        env.write(
            "back.yaml",
            format!("sources: {{ s: {{ {format}: out/a.{format} }} }}\nstages:\n  b: {{ map: s, assign: {{ z: \"item.y\" }} }}\n"),
        );
        env.run(&["run", "back.yaml"]).exits(0);
        let rows = env.run(&["results", "b", "back.yaml", "--format", "jsonl"]).exits(0).json_lines();
        assert_eq!(rows[2], json!({"id": 3, "x": 30, "y": 7.5, "z": 7.5}));
    }
}

#[test]
fn an_explicit_format_and_columns() {
    let env = writing("{ path: out/data.txt, format: jsonl, columns: [y, id] }");
    env.run(&["run"]).exits(100);
    assert_eq!(env.read("out/data.txt"), "{\"y\":0.0,\"id\":0}\n{\"y\":2.5,\"id\":1}\n{\"y\":7.5,\"id\":3}\n");
}

#[test]
fn failed_rows_on_request() {
    let env = writing("{ path: out.jsonl, failed: include }");
    env.run(&["run"]).exits(100);
    let rows = json_lines(&env.read("out.jsonl"));
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[2]["id"], 2, "in item order");
    assert_eq!(rows[2]["status"], "failed");
    assert!(text(&rows[2]["error"]).contains("twenty, \"quoted\""), "{}", rows[2]);
    assert_eq!(rows[1]["status"], "done");
    assert!(rows[1]["error"].is_null());
}

#[test]
fn a_current_file_is_left_alone() {
    let env = writing("[out.csv, out.parquet]");
    env.run(&["run"]).exits(100);
    let before = (stamp(&env, "out.csv"), stamp(&env, "out.parquet"));
    env.run(&["run"]).exits(100);
    env.run(&["run"]).exits(100);
    assert_eq!(before, (stamp(&env, "out.csv"), stamp(&env, "out.parquet")));
    env.open_gate("mended");
    env.run(&["retry", "--failed"]).exits(0);
    assert_ne!(before.0, stamp(&env, "out.csv"));
    assert_eq!(env.read("out.csv").lines().count(), 5);
}

#[test]
fn a_file_that_is_gone_or_changed_is_written_again() {
    let env = writing("out.csv");
    env.open_gate("mended");
    env.run(&["run"]).exits(0);
    let whole = env.read("out.csv");
    std::fs::remove_file(env.path("out.csv")).expect("remove");
    let summary = env.run_json(&[], 0);
    counts(&stage_of(&summary, "work"), &[("ran", 0), ("cached", 4)]);
    assert_eq!(env.read("out.csv"), whole);
    env.write("out.csv", &whole[..10]);
    env.run(&["run"]).exits(0);
    assert_eq!(env.read("out.csv"), whole, "a cut file is not current");
}

#[test]
fn removed_and_moved_rows_are_written() {
    let env = writing("out.csv");
    env.open_gate("mended");
    env.run(&["run"]).exits(0);
    env.write("a.csv", "id,x\n3,30\n1,10\n");
    let summary = env.run_json(&[], 0);
    counts(&stage_of(&summary, "work"), &[("ran", 0), ("cached", 2)]);
    assert_eq!(env.read("out.csv"), "id,x,y\n3,30,7.5\n1,10,2.5\n");
}

#[test]
fn an_output_that_cannot_be_written_loses_nothing() {
    let env = writing("blocked/out.csv");
    env.open_gate("mended");
    env.write("blocked", "a file where a folder should be");
    env.run(&["run"]).exits(1).says(&["blocked"]);
    assert_eq!(env.rows("work").len(), 4);
    std::fs::remove_file(env.path("blocked")).expect("remove");
    let summary = env.run_json(&[], 0);
    counts(&stage_of(&summary, "work"), &[("ran", 0), ("cached", 4)]);
    assert!(env.path("blocked/out.csv").exists());
}

#[test]
fn a_failing_export_leaves_the_old_file() {
    let env = TestEnv::with(
        "sources: { s: { jsonl: a.jsonl } }\nstages:\n  work: { map: s, assign: { y: \"1\" } }\noutputs: { work: out/x.parquet }\n",
        "",
    );
    env.write("a.jsonl", "{\"v\": 1}\n");
    env.run(&["run"]).exits(0);
    let before = std::fs::read(env.path("out/x.parquet")).expect("a file");
    env.write("a.jsonl", "{\"v\": 1}\n{\"v\": \"two\"}\n");
    env.run(&["run"]).exits(1).says(&["v"]);
    assert_eq!(std::fs::read(env.path("out/x.parquet")).expect("a file"), before);
    assert_eq!(std::fs::read_dir(env.path("out")).expect("out").count(), 1, "no half file is left");
}

#[test]
fn a_stopped_run_writes_no_output() {
    let env = TestEnv::with(
        r#"
sources: { n: { range: {start: 0, stop: 100} } }
stages:
  work: { map: n, python: "f:work", on_error: stop, chunk_size: 1 }
outputs: { work: out.csv }
"#,
        "def work(row):\n    if row['value'] == 5:\n        raise ValueError()\n",
    );
    env.run(&["run"]).exits(1);
    assert!(!env.path("out.csv").exists());
}

#[test]
fn csv_cells_are_quoted() {
    let env = TestEnv::with(
        "sources: { s: { jsonl: a.jsonl } }\nstages:\n  work: { map: s, assign: { n: \"1\" } }\noutputs: { work: out.csv }\n",
        "",
    );
    env.write(
        "a.jsonl",
        "{\"v\": \"a,b\"}\n{\"v\": \"say \\\"hi\\\"\"}\n{\"v\": \"two\\nlines\"}\n{\"v\": null}\n{\"v\": \"ä\", \"l\": [1, 2]}\n",
    );
    env.run(&["run"]).exits(0);
    let read = env.bash(
        "python3 -c 'import csv, json; print(json.dumps([r[:2] for r in csv.reader(open(\"out.csv\", newline=\"\"))]))'",
    );
    let rows = read.exits(0).json();
    let cells: Vec<String> = rows.as_array().expect("rows").iter().map(|row| text(&row[0])).collect();
    assert_eq!(cells, ["v", "a,b", "say \"hi\"", "two\nlines", "", "ä"]);
    let list = text(&rows[5][1]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&list).expect("json"), json!([1, 2]));
}

#[test]
fn an_output_of_a_middle_stage() {
    let env = TestEnv::with(
        r#"
sources: { n: { range: {start: 0, stop: 5} } }
stages:
  a: { map: n, assign: { x: "item.value * 2" } }
  b: { filter: a, where: "item.x > 4" }
  c: { flat_map: b, python: "f:c" }
outputs: { a: a.csv, b: b.csv, c: c.csv }
"#,
        "def c(row):\n    return [{'i': 0}, {'i': 1}]\n",
    );
    env.run(&["run"]).exits(0);
    assert_eq!(env.read("a.csv"), "value,x\n0,0\n1,2\n2,4\n3,6\n4,8\n");
    assert_eq!(env.read("b.csv"), "value,x\n3,6\n4,8\n");
    assert_eq!(env.read("c.csv"), "value,x,i\n3,6,0\n3,6,1\n4,8,0\n4,8,1\n");
    env.run(&["run", "--stage", "a"]).exits(0);
}

#[test]
fn the_runs_id_stands_in_a_path() {
    let env = TestEnv::with(
        "sources: { s: { values: [1] } }\nstages:\n  one: { map: s, assign: { y: \"1\" } }\noutputs: { one: \"out/{{ run.id }}.csv\" }\n",
        "",
    );
    let run = text(&env.run_json(&[], 0)["run"]);
    assert_eq!(env.read(&format!("out/{run}.csv")).lines().count(), 2);
}
