//! `profiles`, `backends`, `--profile`, `--backend`: which value wins, and what none of it makes due.

use serde_json::{Value as Json, json};

use crate::env::*;

/// Every item tells what it sees of its settings.
const TELL: &str = r#"
import os

def tell(row, *, n):
    names = ("A", "B", "C", "OMP_NUM_THREADS")
    return {"n": n, "pid": os.getpid(), **{name: os.environ.get(name) for name in names}}

def same(row, *, n):
    return {"n": n}
"#;

const FLOW: &str = r#"
params: { n: 3 }
sources: { s: { range: { stop: 6 } } }
defaults: { cpus: 2, env: { A: defaults, B: defaults, C: defaults }, timeout: 50s }
stages:
  own: { map: s, python: "f:tell", args: { n: "{{ params.n }}" }, cpus: 3, env: { B: stage } }
  other: { map: s, python: "f:tell", args: { n: "{{ params.n }}" } }
profiles:
  hpc:
    params: { n: 30 }
    defaults: { cpus: 4, env: { C: profile-defaults } }
    stages: { own: { env: { A: profile-stage } } }
  more:
    params: { n: 300 }
    stages: { own: { cpus: null, env: { B: null } }, other: { cpus: 5 } }
"#;

/// What the first row of a stage tells, with these options.
fn told(env: &TestEnv, stage: &str, options: &[&str]) -> Vec<String> {
    env.run(&[&["run", "--fresh"], options].concat()).exits(0);
    let rows = env.run(&[&["results", stage, "--format", "jsonl"], options].concat()).exits(0).json_lines();
    let show = |value: &Json| value.as_str().map_or(value.to_string(), str::to_string);
    ["n", "OMP_NUM_THREADS", "A", "B", "C"].iter().map(|name| show(&rows[0][*name])).collect()
}

#[test]
fn the_nearest_value_wins() {
    let env = TestEnv::with(FLOW, TELL);
    assert_eq!(told(&env, "own", &[]), ["3", "3", "defaults", "stage", "defaults"]);
    assert_eq!(told(&env, "other", &[]), ["3", "2", "defaults", "defaults", "defaults"]);
    let hpc = ["--profile", "hpc"];
    assert_eq!(told(&env, "own", &hpc), ["30", "3", "profile-stage", "stage", "profile-defaults"]);
    assert_eq!(told(&env, "other", &hpc), ["30", "4", "defaults", "defaults", "profile-defaults"]);
    let more = ["--profile", "more", "--param", "n=1"];
    assert_eq!(told(&env, "own", &more), ["1", "2", "defaults", "defaults", "defaults"], "null takes away");
    let both = ["--profile", "hpc", "--profile", "more"];
    assert_eq!(told(&env, "own", &both), ["300", "4", "profile-stage", "defaults", "profile-defaults"]);
    assert_eq!(told(&env, "other", &both), ["300", "5", "defaults", "defaults", "profile-defaults"]);
    let turned = ["--profile", "more", "--profile", "hpc"];
    assert_eq!(told(&env, "own", &turned)[0], "30", "the later one wins");
}

#[test]
fn a_profile_of_its_own_file() {
    let env = TestEnv::with(FLOW, TELL);
    env.write("sites/here.yaml", "params: { n: 7 }\nstages: { own: { cpus: 6 } }\nstate: elsewhere\n");
    assert_eq!(told(&env, "own", &["--profile", "sites/here.yaml"])[..2], ["7", "6"]);
    assert!(env.path("elsewhere/store.redb").exists(), "`state` is relative to the workflow file");
    env.write("sites/wrong.yaml", "params: { n: 7 }\nstages:\n  own: { wrkers: 6, map: s }\n  onw: { workers: 6 }\n");
    let wrong = env.run(&["check", "--profile", "sites/wrong.yaml"]).exits(2);
    wrong.says(&["sites/wrong.yaml:3:10", "did you mean `workers`?", "sites/wrong.yaml:3:21", "sites/wrong.yaml:4:3"]);
    let json = env.run(&["check", "--json", "--profile", "sites/wrong.yaml"]).exits(2).json();
    assert_eq!((&json[0]["file"], &json[0]["line"]), (&json!("sites/wrong.yaml"), &json!(3)));
    env.run(&["check", "--profile", "sites/none.yaml"]).exits(2).says(&["sites/none.yaml"]);
    env.write("sites/none.yaml", "a: [");
    env.run(&["check", "--profile", "sites/none.yaml"]).exits(2).says(&["sites/none.yaml:1:", "YAML"]);
}

#[test]
fn names_that_are_not_there() {
    let env = TestEnv::with(FLOW, TELL);
    for command in ["run", "plan", "check", "status"] {
        env.run(&[command, "--profile", "hcp"]).exits(2).says(&["no profile `hcp`", "did you mean `hpc`?"]);
    }
    env.run(&["run", "--profile", "zzz"]).exits(2).says(&["there are hpc, more"]);
    env.run(&["run", "--backend", "proceses"]).exits(2).says(&["did you mean `processes`?"]);
    env.run(&["run", "--backend", "ssh"]).exits(2).says(&["`ssh` needs to be configured"]);
}

#[test]
fn every_profile_is_checked_whether_chosen_or_not() {
    let env = TestEnv::with(&format!("{FLOW}  bad:\n    stages: {{ other: {{ workers: 0, bach_size: 3 }} }}\n"), TELL);
    let said = env.run(&["check"]).exits(2);
    said.says(&["pipeline.yaml:17:33", "`workers` must be", "did you mean `batch_size`?"]);
}

#[test]
fn a_profile_for_another_machine_does_no_harm_here() {
    let mut env = TestEnv::with(
        &format!(
            "{FLOW}  cluster:
    backends: {{ many: {{ kind: slurm, partition: long, account: \"{{{{ env.NO_SUCH_ACCOUNT }}}}\" }} }}
    params: {{ n: \"{{{{ env.NO_SUCH_NUMBER }}}}\" }}
    defaults: {{ backend: many, workers: \"{{{{ params.n }}}}\" }}
  laptop: {{ defaults: {{ backend: threads }} }}\n"
        ),
        TELL,
    );
    env.run(&["run"]).exits(0);
    env.run(&["run", "--profile", "laptop"]).exits(0);
    let refused = env.run(&["run", "--profile", "cluster", "--param", "n=3"]).exits(2);
    refused.says(&["pipeline.yaml:17:68", "NO_SUCH_ACCOUNT"]);
    env.run(&["run", "--profile", "cluster"]).exits(2).says(&["NO_SUCH_NUMBER"]);
    let elsewhere = ["run", "--profile", "cluster", "--param", "n=3", "--backend", "threads"];
    env.set_var("NO_SUCH_ACCOUNT", "ours");
    env.run(&elsewhere).exits(0);
}

#[test]
fn engines_have_names() {
    let env = TestEnv::with(
        r#"
sources: { s: { range: { stop: 40 } } }
backends:
  one: { kind: processes, workers: 1 }
  pair: { kind: processes, workers: 2 }
  threads: { kind: serial }
stages:
  work: { map: s, python: "f:tell", args: { n: 1 }, backend: one, chunk_size: 1 }
  wide: { map: s, python: "f:tell", args: { n: 2 }, backend: one, workers: 2, chunk_size: 1 }
"#,
        &TELL.replace("return {\"n\"", "__import__('time').sleep(0.02)\n    return {\"n\""),
    );
    let pids = |stage, options: &[&str]| {
        env.run(&[&["run", "--fresh", "--stage", stage], options].concat()).exits(0);
        distinct(&env.column(stage, "pid").iter().map(Json::to_string).collect::<Vec<_>>()).len()
    };
    assert_eq!(pids("work", &[]), 1);
    assert_eq!(pids("wide", &[]), 2, "the stage's own `workers` wins");
    assert_eq!(pids("work", &["--backend", "pair"]), 2);
    assert_eq!(pids("wide", &["--backend", "threads"]), 1, "a configured engine has the name before a kind");
}

#[test]
fn hints_carry_the_profile() {
    let env = TestEnv::with(FLOW, "def tell(row, *, n):\n    raise ValueError(n)\n");
    let run = env.run(&["run", "--profile", "hpc"]).exits(100);
    run.says(&["bpp-flow retry --failed pipeline.yaml --profile hpc"]);
}

/// A setting by which results are made, never what they are.
const HARMLESS: [&str; 13] = [
    "backend: threads",
    "backend: big",
    "workers: 3",
    "cpus: 2",
    "chunk_size: 2",
    "batch_size: 3",
    "retries: 2",
    "timeout: 20s",
    "memory: 2GiB",
    "max_tasks_per_worker: 2",
    "on_error: stop",
    "max_failures: 5%",
    "env: { X: y }",
];

#[test]
fn backends_sizes_limits_and_profiles_make_nothing_due() {
    let flow = r#"
params: { n: 3 }
sources: { s: { range: { stop: 12 } } }
backends: { big: { kind: processes, workers: 3 } }
stages:
  work: { map: s, python: "f:same", args: { n: "{{ params.n }}" } }
  sum: { reduce: work, command: [cat], stdout: jsonl }
"#;
    let profiles: String = HARMLESS
        .iter()
        .enumerate()
        .map(|(at, set)| {
            format!("  d{at}: {{ defaults: {{ {set} }} }}\n  s{at}: {{ stages: {{ work: {{ {set} }} }} }}\n")
        })
        .collect();
    let env = TestEnv::with(&format!("{flow}profiles:\n{profiles}  count: {{ params: {{ n: 4 }} }}\n"), TELL);
    env.run(&["run"]).exits(0);
    let due = |options: &[&str]| {
        let plan = env.run(&[&["plan", "--json"], options].concat()).exits(0).json();
        ["work", "sum"]
            .map(|stage| number(&stage_of(&plan, stage)["due"]) + number(&stage_of(&plan, stage)["possible"]))
    };
    for (at, set) in HARMLESS.iter().enumerate() {
        for name in ["d", "s"] {
            assert_eq!(due(&["--profile", &format!("{name}{at}")]), [0, 0], "{set}");
        }
        env.write(
            "pipeline.yaml",
            env.read("pipeline.yaml").replace("sources:", &format!("defaults: {{ {set} }}\nsources:")),
        );
        assert_eq!(due(&[]), [0, 0], "{set}");
        env.write(
            "pipeline.yaml",
            env.read("pipeline.yaml").replace(&format!("defaults: {{ {set} }}\nsources:"), "sources:"),
        );
    }
    assert_eq!(due(&["--profile", "count"])[0], 12, "a parameter of a profile counts as `--param` does");
    env.run(&["run", "--profile", "count"]).exits(0);
    assert_eq!(due(&["--param", "n=4"]), [0, 0]);
    assert_eq!(
        due(&["--profile", "count", "--param", "n=3"]),
        [0, 0],
        "`--param` wins, and the earlier results are found"
    );
}
