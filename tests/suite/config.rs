//! `config`: a workflow that does the same, with the origin of every value.

use serde_json::{Value as Json, json};

use crate::env::*;

const FLOW: &str = r#"
name: shapes
params:
  n: 3
  root: "{{ env.HOME }}/data"
  word: plain
sources:
  s: { values: [1, "{{ params.n }}", {value: 4, other: "a: b"}] }
backends:
  big: { kind: processes, workers: "{{ params.n }}" }
x-anchor: &limits { timeout: 30s }
defaults:
  retries: 1
  env: { A: defaults, B: defaults }
  interpreter: python3
  deps: "*.dat"
stages:
  work:
    <<: *limits
    map: s
    python: f:work
    args: { n: "{{ params.n }}", word: "{{ params.word }}", deep: { list: [1.50, 007, "007", null, true, "yes"] } }
    env: { B: "{{ item.value }}" }
    version: 1.10
  shout:
    map: work
    shell: |
      echo "$B"   {{ params.word }}

      echo two
    stdout: ignore
  more: { map: shout, assign: { twice: "item.value * 2", "a b": "'a: b'" } }
outputs:
  more: [out.csv, { path: "out.{{ params.word }}.jsonl", columns: [value, twice] }]
profiles:
  hpc:
    params: { word: from-hpc }
    defaults: { retries: 4, workers: "{{ params.n }}" }
    stages: { work: { backend: big, env: { B: null, C: hpc } } }
"#;

const WORK: &str = "def work(row, *, n, word, deep):\n    return {'n': n, 'word': word, 'deep': repr(deep)}\n";

fn flow() -> TestEnv {
    let env = TestEnv::with(FLOW, WORK);
    env.write("x.dat", "x");
    env
}

/// The origin of each value by its path, from `config --json`.
fn at<'j>(config: &'j Json, path: &str) -> &'j Json {
    path.split('.').fold(config, |part, name| &part[name])
}

#[test]
fn every_value_has_its_origin() {
    let env = flow();
    let config = env.run(&["config", "--json", "--profile", "hpc", "--param", "n=5"]).exits(0).json();
    for (path, value, origin) in [
        ("name", json!("shapes"), "pipeline.yaml:2"),
        ("params.n", json!(5), "--param"),
        ("params.word", json!("from-hpc"), "profile hpc, pipeline.yaml:37"),
        ("sources.s.values", json!([1, 5, {"value": 4, "other": "a: b"}]), "pipeline.yaml:8"),
        ("backends.big.workers", json!(5), "pipeline.yaml:10"),
        ("stages.work.map", json!("s"), "pipeline.yaml:20"),
        ("stages.work.timeout", json!("30s"), "pipeline.yaml:11"),
        ("stages.work.args.n", json!("{{ params.n }}"), "pipeline.yaml:22"),
        ("stages.work.retries", json!(4), "profile hpc, pipeline.yaml:38"),
        ("stages.work.workers", json!(5), "profile hpc, pipeline.yaml:38"),
        ("stages.work.backend", json!("big"), "profile hpc, pipeline.yaml:39"),
        ("stages.work.env.A", json!("defaults"), "pipeline.yaml:14"),
        ("stages.work.env.B", json!("defaults"), "pipeline.yaml:14"),
        ("stages.work.env.C", json!("hpc"), "profile hpc, pipeline.yaml:39"),
        ("stages.work.cpus", json!(1), "default"),
        ("stages.work.interpreter", json!("python3"), "pipeline.yaml:15"),
        ("stages.shout.interpreter", json!(null), ""),
        ("stages.shout.backend", json!("processes"), "default"),
        (
            "outputs.more",
            json!(["out.csv", {"path": "out.{{ params.word }}.jsonl", "columns": ["value", "twice"]}]),
            "pipeline.yaml:34",
        ),
        ("state", json!(".bpp-flow/shapes"), "default"),
    ] {
        let part = at(&config, path);
        assert_eq!(part["value"], value, "{path}");
        assert_eq!(part["origin"].as_str().unwrap_or(""), origin, "{path}");
    }
    env.write("site/own.yaml", "stages:\n  more: { batch_size: 7 }\n");
    let own = env.run(&["config", "--json", "--profile", "hpc", "--profile", "site/own.yaml"]).exits(0).json();
    assert_eq!(own["stages"]["more"]["batch_size"], json!({"value": 7, "origin": "profile site/own.yaml:2"}));
    assert_eq!(own["stages"]["more"]["retries"]["origin"], "profile hpc, pipeline.yaml:38");
    assert!(config.get("profiles").is_none() && config.get("defaults").is_none() && config.get("x-anchor").is_none());
    let text = env.run(&["config", "--profile", "hpc", "--param", "n=5"]).exits(0).stdout;
    for line in ["  n: 5  # --param", "    retries: 4  # profile hpc, pipeline.yaml:38", "    cpus: 1  # default"] {
        let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.lines().any(|l| squeezed(l) == squeezed(line)), "{line}\n{text}");
    }
}

#[test]
fn what_it_prints_is_the_same_workflow() {
    for options in [&[][..], &["--profile", "hpc"], &["--param", "n=8", "--param", "word={{ 1 }}"]] {
        let env = flow();
        let with = |command: &[&'static str]| [command, options].concat();
        env.run(&with(&["run"])).exits(0);
        let printed = env.run(&with(&["config"])).exits(0).stdout;
        env.write("as-run.yaml", &printed);
        env.run(&["check", "as-run.yaml"]).exits(0);
        let stages = |plan: Json| plan["stages"].clone();
        let plan = stages(env.run(&["plan", "as-run.yaml", "--json"]).exits(0).json());
        assert_eq!(plan, stages(env.run(&with(&["plan", "--json"])).exits(0).json()), "{printed}");
        for stage in plan.as_array().expect("stages") {
            counts(stage, &[("due", 0), ("possible", 0), ("done", 3)]);
        }
        let rows = |args: &[&str]| env.run(&[&["results", "more", "--format", "jsonl"], args].concat()).exits(0).stdout;
        assert_eq!(rows(&["as-run.yaml"]), rows(options), "{printed}");
        let again = env.run(&["config", "as-run.yaml"]).exits(0).stdout;
        let values = |text: &str| -> Vec<String> {
            text.lines().map(|line| line.split("  # ").next().unwrap_or(line).trim_end().to_string()).collect()
        };
        assert_eq!(values(&again), values(&printed), "printing it again changes nothing");
    }
}

#[test]
fn secrets_are_not_shown() {
    let mut env = TestEnv::with(
        r#"
params: { url: "db://me:{{ env.DB_PASSWORD }}@host", plain: "{{ env.HOME }}" }
sources: { s: { values: ["{{ params.url }}", 1] } }
stages:
  a:
    map: s
    command: [echo, "{{ params.url }}", tangerine-in-the-file]
    env: { MY_TOKEN: tangerine-in-the-file, PASSED_KEY: "{{ env.DB_PASSWORD }}", MODE: fast }
"#,
        "",
    );
    env.set_var("DB_PASSWORD", "sesame-open");
    for args in [&["config"][..], &["config", "--json"], &["config", "--param", "plain=sesame-open"]] {
        let said = env.run(args).exits(0);
        assert!(!said.all().contains("sesame-open"), "{}", said.all());
        assert!(!said.all().contains("tangerine"), "{}", said.all());
    }
    let config = env.run(&["config", "--json"]).exits(0).json();
    assert_eq!(config["params"]["url"]["value"], "db://me:{{ env.DB_PASSWORD }}@host");
    assert_eq!(config["sources"]["s"]["values"]["value"][0], "{{ params.url }}");
    assert_eq!(config["stages"]["a"]["env"]["MY_TOKEN"]["value"], "***");
    assert_eq!(config["stages"]["a"]["env"]["PASSED_KEY"]["value"], "{{ env.DB_PASSWORD }}");
    assert_eq!(config["stages"]["a"]["env"]["MODE"]["value"], "fast");
}

#[test]
fn where_the_state_lies() {
    let mut env = TestEnv::with("stages: { a: { command: [echo] } }\nprofiles: { p: { state: there } }\n", "");
    let state = |env: &TestEnv, args: &[&str]| {
        let state = env.run(&[&["config", "--json"], args].concat()).exits(0).json()["state"].clone();
        (text(&state["value"]).rsplit('/').next().unwrap_or("").to_string(), text(&state["origin"]))
    };
    let is = |name: &str, origin: &str| (name.to_string(), origin.to_string());
    assert_eq!(state(&env, &[]), is("pipeline", "default"));
    assert_eq!(state(&env, &["--profile", "p"]), is("there", "profile p, pipeline.yaml:2"));
    assert_eq!(state(&env, &["--profile", "p", "--state", "here"]), is("here", "--state"));
    env.set_var("BPP_FLOW_STATE", "/scratch");
    assert_eq!(state(&env, &["--profile", "p"]), is("pipeline", "environment"));
    env.run(&["config", "--profile", "q"]).exits(2).says(&["no profile `q`"]);
}

#[test]
fn every_workflow_of_ours_prints_as_one() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["workflows", "examples"].iter().flat_map(|name| root.join(name).read_dir().expect("a folder"));
    let files: Vec<_> = folders
        .flat_map(|entry| entry.expect("readable").path().read_dir().into_iter().flatten())
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        // Not the files that hold a profile alone.
        .filter(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("\nstages:")))
        .collect();
    assert!(files.len() >= 6, "{files:?}");
    let env = TestEnv::new();
    for file in files {
        let name = file.to_str().expect("text");
        let printed = env.run(&["config", name]).exits(0).stdout;
        env.write("as-run.yaml", &printed);
        env.run(&["check", "as-run.yaml"]).exits(0);
    }
}
