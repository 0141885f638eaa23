//! Slurm: jobs of bpp-flow's own, and those of Dask by dask-jobqueue.

use std::process::Command;

use crate::engine::{Engine, until_no_output};
use crate::flow;

const BACKEND: &str = "kind: slurm, jobs: 2, workers_per_job: 2, cpus: 2, setup: [\"PATH=$VENV/bin:$PATH\"]";

/// Jobs of which each has two keepers.
fn jobs() -> Engine {
    Engine::up("slurm", &format!("{{ {BACKEND} }}")).with_generations(1)
}

holds!(jobs());

mod jobqueue {
    use crate::engine::Engine;

    fn dask() -> Engine {
        Engine::up(
            "slurm",
            "{ kind: dask, jobs: 2, cluster: { slurm: { cores: 1, memory: 1GB, walltime: \"00:30:00\", interface: lo } } }",
        )
    }

    holds!(dask());
}

/// A command of Slurm's.
fn slurm(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).envs(jobs().vars);
    let out = command.output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}

#[test]
#[ignore = "needs the engine: tests/run --engines"]
fn no_job_is_left_after_a_run_or_a_kill() {
    let queue = || slurm("squeue", &["--noheader"]);
    let env = flow::folder(&jobs());
    flow::run(&env);
    until_no_output("jobs of a run that has ended", queue);
    flow::start(&flow::folder(&jobs())).0.kill9();
    until_no_output("jobs of a run that was killed", queue);
}

#[test]
#[ignore = "needs the engine: tests/run --engines"]
fn a_node_that_goes_down_costs_nothing() {
    let env = flow::folder(&jobs());
    let (running, _) = flow::start(&env);
    slurm("scontrol", &["update", "NodeName=n1", "State=DOWN", "Reason=test"]);
    let run = running.wait();
    slurm("scontrol", &["update", "NodeName=n1", "State=RESUME"]);
    flow::assert_as_serial(&env, &run.exits(100));
}

#[test]
#[ignore = "needs the engine: tests/run --engines"]
fn says_why_no_job_runs() {
    let held = Engine::up("slurm", &format!("{{ {BACKEND}, sbatch: [--hold], start_timeout: 3s }}"));
    flow::no_worker_comes(&held, &["JobHeldUser"]);
    let refused = Engine::up("slurm", &format!("{{ {BACKEND}, partition: nowhere, start_timeout: 3s }}"));
    flow::no_worker_comes(&refused, &["invalid partition specified: nowhere"]);
}
