//! The workflow, and what must hold for it on every engine.

use std::collections::BTreeMap;
use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::engine::Engine;
use crate::env::*;

const STAGES: [&str; 5] = ["measure", "told", "parts", "long", "total"];
const FAILING: [&str; 5] = ["s0100", "s0300", "s0500", "s0700", "s0900"];
/// How long what a killed bpp-flow leaves on an engine may take to notice.
const GRACE: Duration = Duration::from_secs(15);

/// The workflow's folder, with the engine as the backend `engine`.
pub fn folder(engine: &Engine) -> TestEnv {
    let mut env = TestEnv::new();
    // Dask never removes the folder that it makes there.
    env.set_var("DASK_TEMPORARY_DIRECTORY", env.path("dask").to_str().expect("UTF-8"));
    for (name, value) in &engine.vars {
        env.set_var(name, value);
    }
    let pipeline = include_str!("flow/pipeline.yaml");
    env.write("pipeline.yaml", format!("{pipeline}\nbackends:\n  engine: {}\n", engine.backend));
    env.write("flow.py", include_str!("flow/flow.py"));
    env.write("pool.py", include_str!("flow/pool.py"));
    env.write("tell.sh", include_str!("flow/tell.sh"));
    env.write("table.json", "[5, 3, 8, 1]");
    let rows: String = (0..1000).map(|n| format!("s{n:04},{n}\n")).collect();
    env.write("samples.csv", format!("id,x\n{rows}"));
    env
}

/// All that a finished run has to say, in lines: the rows of every stage; of every failed item its row, its error, its
/// output and how often it was tried; and the causes with their keys.
fn outcome(env: &TestEnv) -> BTreeMap<String, Vec<String>> {
    let lines = |rows: Vec<Json>| rows.iter().map(Json::to_string).collect();
    let mut outcome = BTreeMap::from([("causes".to_string(), sorted(lines(env.errors())))]);
    for stage in STAGES {
        outcome.insert(format!("rows of {stage}"), lines(env.rows(stage)));
        outcome.insert(format!("failed items of {stage}"), lines(env.failed_rows(stage)));
    }
    for key in FAILING {
        let told = env.run(&["errors", "--item", key]).exits(0).stdout;
        outcome.insert(format!("errors --item {key}"), settled(&told));
    }
    let dir = env.dir().into_os_string().into_string().expect("UTF-8");
    for line in outcome.values_mut().flatten() {
        *line = line.replace(&dir, "DIR");
    }
    outcome
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// What `errors --item` says, without how long the item took, how much memory it had, and what Python says of the
/// threads of a process that crashed.
fn settled(told: &str) -> Vec<String> {
    let (first, rest) = told.split_once('\n').expect("lines");
    let (what, how) = first.split_once(" after ").unwrap_or_else(|| panic!("no time in {first:?}"));
    assert!(how.contains("of memory"), "no peak memory: {first:?}");
    let attempts = how.split_once('(').and_then(|(_, rest)| rest.split_once(',')).expect("attempts").0;
    let mut lines = vec![format!("{what} ({attempts})")];
    lines.extend(rest.lines().take_while(|line| !line.starts_with("Current thread")).map(str::to_string));
    lines
}

/// What `--backend serial` gives.
fn expected() -> &'static BTreeMap<String, Vec<String>> {
    static EXPECTED: OnceLock<BTreeMap<String, Vec<String>>> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        let env = folder(&Engine::here("{ kind: serial }"));
        env.run(&["run", "--backend", "serial"]).exits(100);
        let outcome = outcome(&env);
        assert_eq!(outcome["rows of told"].len(), 1000 - FAILING.len());
        outcome
    })
}

/// Fails unless the run, which had ended, has given what `--backend serial` gives.
#[track_caller]
pub fn assert_as_serial(env: &TestEnv, run: &Output) {
    let (found, expected) = (outcome(env), expected());
    for (what, expected) in expected {
        let found = &found[what];
        let differing = expected.iter().zip(found).find(|(expected, found)| expected != found);
        assert!(
            differing.is_none() && found.len() == expected.len(),
            "{what}: {} lines for {}, of which the first that differ are {differing:#?}\n{}",
            found.len(),
            expected.len(),
            run.all()
        );
    }
}

/// Runs the workflow to its end on the engine.
pub fn run(env: &TestEnv) -> Output {
    env.run(&["run", "--backend", "engine"]).exits(100)
}

/// Starts it, each item taking some time, and waits until some have begun; the processes of workers, the last first.
pub fn start(env: &TestEnv) -> (Running, Vec<u32>) {
    env.open_gate("slowly");
    let mut running = env.spawn(&["run", "--backend", "engine"]);
    until("items begin", || env.logged("begun").len() >= 40 || running.ended());
    let begun = env.logged("begun");
    assert!(begun.len() >= 40, "ended before: {}", running.wait().all());
    (running, begun.iter().rev().map(|pid| pid.parse().expect("a number")).collect())
}

/// The same rows, keys, errors and attempts as by `--backend serial`, and nothing due there.
pub fn as_serial(engine: &Engine) {
    let env = folder(engine);
    let first = run(&env);
    assert_as_serial(&env, &first);
    for backend in ["serial", "engine"] {
        let again = env.run_json(&["--backend", backend], 100);
        for stage in STAGES {
            counts(&stage_of(&again, stage), &[("ran", 0)]);
        }
    }
}

/// A worker of the engine is killed in mid-run: nothing is lost, no item fails that would not have.
pub fn worker_killed(engine: &Engine) {
    let env = folder(engine);
    let (running, workers) = start(&env);
    let victim = ancestor(workers[0], engine.generations);
    // SAFETY: kill(2) takes two integers.
    assert_eq!(unsafe { libc::kill(victim as i32, libc::SIGKILL) }, 0, "kill {victim}");
    let run = running.wait().exits(100);
    assert_as_serial(&env, &run);
}

/// bpp-flow is killed in mid-run: nothing of it goes on, and the next run goes on where it was.
pub fn killed(engine: &Engine) {
    let env = folder(engine);
    start(&env).0.kill9();
    env.assert_nothing_runs();
    if engine.generations > 0 {
        assert_no_keeper_runs();
    }
    env.clear_log("slowly");
    let again = env.run_json(&["--backend", "engine"], 100);
    assert!(number(&stage_of(&again, "measure")["cached"]) > 0, "nothing was kept: {again}");
    assert_as_serial(&env, &run(&env));
}

/// No worker comes: the run ends soon, and says so in these words.
pub fn no_worker_comes(engine: &Engine, words: &[&str]) {
    let env = folder(engine);
    env.run(&["run", "--backend", "engine"]).exits(1).says(words);
    assert_eq!(number(&env.status_of("measure")["failed"]), 0, "nothing has failed");
    env.run(&["run", "--backend", "serial"]).exits(100);
}

/// The process from which this one descends by so many births.
fn ancestor(pid: u32, generations: usize) -> u32 {
    (0..generations).fold(pid, |pid, _| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)).expect("a parent");
        parent.parse().expect("a number")
    })
}

/// Fails unless soon no keeper is left on the engine. They do not carry a test's mark, which is why these tests run one
/// by one and alone.
fn assert_no_keeper_runs() {
    let end = Instant::now() + GRACE;
    loop {
        let keepers: Vec<_> =
            fs::read_dir("/proc").expect("/proc").flatten().filter(|p| is_keeper(&p.path())).collect();
        if keepers.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "keepers are left: {keepers:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_keeper(process: &std::path::Path) -> bool {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).contains("<bpp-flow>")
}
