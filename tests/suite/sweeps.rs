//! Parameter sweeps: `product`, `zip`, and the `where` beside them.

use serde_json::{Value as Json, json};

use crate::env::*;

fn sweeping(source: &str) -> TestEnv {
    TestEnv::with(&format!("{source}\nstages:\n  s: {{ map: grid, assign: {{ seen: \"item | length\" }} }}\n"), "")
}

/// The rows of the sweep, without what the stage added.
fn combinations(env: &TestEnv) -> Vec<Json> {
    let mut rows = env.rows("s");
    rows.iter_mut().for_each(|row| {
        row.as_object_mut().expect("an object").remove("seen");
    });
    rows
}

/// Starts the program and tells its highest resident memory, in MiB.
fn peak_mib(env: &TestEnv, args: &[&str]) -> u64 {
    let script = "import resource, subprocess, sys\n\
                  code = subprocess.call(sys.argv[1:], stdout=sys.stderr)\n\
                  print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)\n\
                  sys.exit(code)";
    let mut command = env.command("python3");
    command.args(["-c", script]).arg(bpp_flow()).args(args);
    env.start(command).wait().exits(0).stdout.trim().parse().expect("a number")
}

#[test]
fn the_last_name_of_a_product_varies_fastest() {
    let env = sweeping(
        r#"
params: { top: 2, sizes: [1, 2] }
sources:
  grid:
    product:
      b: [1, "{{ params.top }}"]
      a: [x, {k: [1, y]}, "{{ params.sizes }}"]
      c: { range: { start: 0, stop: 1, step: 0.5 } }"#,
    );
    env.run(&["run"]).exits(0);
    let mut expected = Vec::new();
    for b in [1, 2] {
        for a in [json!("x"), json!({"k": [1, "y"]}), json!([1, 2])] {
            for c in [0.0, 0.5] {
                expected.push(json!({"b": b, "a": a, "c": c}));
            }
        }
    }
    assert_eq!(combinations(&env), expected);
    let summary = env.run_json(&["--param", "top=3"], 0);
    counts(&stage_of(&summary, "s"), &[("ran", 6), ("cached", 6)]);
}

#[test]
fn a_zip_goes_in_step() {
    let env = sweeping(
        "sources:\n  pairs: { values: [{name: u}, {name: v}] }\n  grid: { zip: { a: [1, 2], b: pairs.name, c: { range: { stop: 2 } } } }",
    );
    env.run(&["run"]).exits(0);
    assert_eq!(combinations(&env), [json!({"a": 1, "b": "u", "c": 0}), json!({"a": 2, "b": "v", "c": 1})]);
}

#[test]
fn columns_of_unequal_length_are_told() {
    let env = sweeping("sources:\n  grid: { zip: { a: [1, 2], b: [1], c: [1, 2] } }");
    env.run(&["check"]).exits(2).says(&["`a` has 2 values and `b` has 1", "pipeline.yaml:2:11"]);
    let env = sweeping("sources:\n  pairs: { lines: names }\n  grid: { zip: { a: [1, 2], b: pairs.line } }");
    env.write("names", "u\nv\nw\n");
    env.run(&["run"]).exits(1).says(&["source grid", "a has 2 values and b has 3"]);
}

#[test]
fn where_keeps_some_combinations() {
    let env = sweeping(
        r#"
params: { most: 3 }
sources:
  grid: { product: { a: { range: { stop: 200 } }, b: { range: { stop: 200 } } }, where: "item.a + item.b < params.most" }"#,
    );
    env.run(&["run"]).exits(0);
    let pairs: Vec<(i64, i64)> =
        combinations(&env).iter().map(|r| (r["a"].as_i64().unwrap(), r["b"].as_i64().unwrap())).collect();
    assert_eq!(pairs, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)]);
    let summary = env.run_json(&["--param", "most=4"], 0);
    counts(&stage_of(&summary, "s"), &[("ran", 4), ("cached", 6)]);
}

#[test]
fn a_condition_that_fails_fails_its_combination() {
    let env = sweeping(
        "sources:\n  grid: { product: { a: [1, x, 3], b: [1, 2] }, where: \"item.a + item.b > 3\", key: [a, b] }",
    );
    env.run(&["run"]).exits(100);
    assert_eq!(combinations(&env), [json!({"a": 3, "b": 1}), json!({"a": 3, "b": 2})]);
    let failed = env.failed_rows("s");
    assert_eq!(failed.len(), 2);
    let error = text(&failed[0]["error"]);
    assert!(error.starts_with("input: where: ") && error.contains("a: x, b: 1"), "{error}");
}

#[test]
fn columns_of_other_sources() {
    let env = sweeping(
        r#"
sources:
  grid: { product: { scan: scans.path, size: more.a.b, m: methods.m } }
  scans: { glob: "scans/{id}.txt" }
  more: { jsonl: more.jsonl }
  methods: { product: { m: [u, v] } }"#,
    );
    env.write("scans/1.txt", "one");
    env.write("scans/2.txt", "two");
    env.write("more.jsonl", "{\"a.b\": 5, \"c\": 1}\n{\"c\": 2}\n");
    env.run(&["run"]).exits(0);
    let rows = combinations(&env);
    assert_eq!(rows.len(), 8);
    assert_eq!(rows[0], json!({"scan": "scans/1.txt", "size": 5, "m": "u"}));
    assert_eq!(rows[7], json!({"scan": "scans/2.txt", "size": null, "m": "v"}));
    env.run(&["run"]).exits(0).says(&["nothing to do"]);
    env.write("more.jsonl", "{\"a.b\": 5, \"c\": 7}\n{\"c\": 2}\n");
    counts(&stage_of(&env.run_json(&[], 0), "s"), &[("ran", 0), ("cached", 8)]);
    env.write("scans/3.txt", "three");
    counts(&env.plan_of("s"), &[("due", 4), ("done", 8)]);
}

#[test]
fn a_file_that_changes_makes_its_combinations_due() {
    let env = TestEnv::with(
        r#"
sources:
  scans: { glob: "scans/*.txt" }
  grid: { product: { scan: scans.path, n: [1, 2] } }
stages:
  s: { map: grid, command: [cat, "{{ item.scan }}"] }"#,
        "",
    );
    env.write("scans/1.txt", "one");
    env.write("scans/2.txt", "two");
    env.run(&["run"]).exits(0);
    env.write("scans/2.txt", "TWO");
    counts(&stage_of(&env.run_json(&[], 0), "s"), &[("ran", 2), ("cached", 2)]);
    assert_eq!(env.column("s", "stdout"), ["one", "one", "TWO", "TWO"]);
}

#[test]
fn a_row_that_cannot_be_read_fails_its_combinations() {
    let env = sweeping(
        "sources:\n  rows: { jsonl: a.jsonl }\n  grid: { product: { n: [1, 2], x: rows.x } }\n  steps: { zip: { n: [1, 2, 3], x: rows.x } }",
    );
    env.write("a.jsonl", "{\"x\": 1}\nnonsense\n{\"x\": 3}\n");
    env.run(&["run"]).exits(100);
    let pairs: Vec<Json> = combinations(&env);
    assert_eq!(
        pairs,
        [json!({"n": 1, "x": 1}), json!({"n": 1, "x": 3}), json!({"n": 2, "x": 1}), json!({"n": 2, "x": 3})]
    );
    let failed = env.failed_rows("s");
    assert_eq!(failed.len(), 2);
    assert!(text(&failed[1]["error"]).starts_with("input: a.jsonl:2: "), "{failed:?}");
}

#[test]
fn missing_columns_and_circles() {
    let env = sweeping("sources:\n  rows: { jsonl: a.jsonl }\n  grid: { product: { x: rows.valeu } }");
    env.write("a.jsonl", "{\"value\": 1}\n");
    env.run(&["run"]).exits(1).says(&["source rows: there is no column \"valeu\"; did you mean \"value\"?"]);
    let env = sweeping("sources:\n  a: { product: { x: grid.y } }\n  grid: { product: { x: a.x } }");
    env.run(&["run"]).exits(2).says(&["a -> grid -> a", "pipeline.yaml:2:22"]);
}

#[test]
fn a_huge_product_is_made_as_it_is_read() {
    let dimension = "{ range: { stop: 1000 } }";
    let source =
        format!("sources:\n  grid: {{ product: {{ a: {dimension}, b: {dimension}, c: {{ range: {{ stop: 3 }} }} }} }}");
    let env = sweeping(&source);
    let few = peak_mib(&env, &["run", "--limit", "5"]);
    assert_eq!(combinations(&env).last(), Some(&json!({"a": 0, "b": 1, "c": 1})));
    assert!(few < 100, "{few} MiB for five of three million combinations");
    let env = sweeping(&source);
    env.write(
        "pipeline.yaml",
        format!("{source}\nstages:\n  s: {{ filter: grid, where: \"item.a + item.b + item.c == 0\" }}\n"),
    );
    let summary = env.run_json(&["--limit", "20000"], 0);
    counts(&stage_of(&summary, "s"), &[("ran", 20000)]);
}
