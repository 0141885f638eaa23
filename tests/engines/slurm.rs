//! Slurm: jobs of bpp-flow's own, and those of Dask by dask-jobqueue.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::engine::{Engine, until_no_output};
use crate::env::*;
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
    flow::assert_as_serial(&env, &running.wait().exits(100));
    // A node that speaks comes back by itself.
    until("the node is back", || slurm("sinfo", &["--noheader", "--nodes=n1", "--format=%T"]).starts_with("idle"));
}

#[test]
#[ignore = "needs the engine: tests/run --engines"]
fn says_why_no_job_runs() {
    let held = Engine::up("slurm", &format!("{{ {BACKEND}, sbatch: [--hold], start_timeout: 3s }}"));
    flow::no_worker_comes(&held, &["JobHeldUser"]);
    let refused = Engine::up("slurm", &format!("{{ {BACKEND}, partition: nowhere, start_timeout: 3s }}"));
    flow::no_worker_comes(&refused, &["invalid partition specified: nowhere"]);
}

/// The workflow `workflows/hpc` with some genomes; `bpp-flow` is on its path.
fn genomes() -> TestEnv {
    let mut env = TestEnv::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("workflows/hpc");
    for file in fs::read_dir(source).expect("a folder").flatten().filter(|file| file.path().is_file()) {
        fs::copy(file.path(), env.dir().join(file.file_name())).expect("a copy");
    }
    fs::create_dir(env.path("bin")).expect("a folder");
    std::os::unix::fs::symlink(bpp_flow(), env.path("bin/bpp-flow")).expect("a link");
    env.set_var("DASK_TEMPORARY_DIRECTORY", env.path("dask").to_str().expect("UTF-8"));
    for (name, value) in jobs().vars {
        match name.as_str() {
            "PATH" => env.set_var("PATH", &format!("{}:{value}", env.path("bin").display())),
            _ => env.set_var(&name, &value),
        }
    }
    env.bash("python3 make_genomes.py data --species 3 --strains 4 --length 4000").exits(0);
    env
}

/// Fails unless every genome is nearest to one of its species.
fn assert_all_placed(env: &TestEnv) {
    let misplaced: Vec<u64> = env.column("species", "misplaced").iter().map(number).collect();
    assert_eq!(misplaced, [0, 0, 0]);
    assert!(env.path("out/species.csv").exists());
}

#[test]
#[ignore = "needs the engine: tests/run --engines"]
fn the_profile_of_the_workflow_for_clusters_works() {
    let env = genomes();
    env.run(&["check", "--profile", "slurm.yaml"]).exits(0);
    env.run(&["run", "--profile", "slurm.yaml"]).exits(0);
    assert_all_placed(&env);
}

#[test]
#[ignore = "needs the engine: tests/run --engines"]
fn bpp_flow_runs_inside_allocations() {
    for script in ["one-node.sbatch", "allocation.sbatch"] {
        let env = genomes();
        env.bash(&format!("sbatch --output=said {script}")).exits(0);
        until("the job is over", || slurm("squeue", &["--noheader"]).is_empty());
        assert!(env.path("out/species.csv").exists(), "{script}: {}", env.read("said"));
        assert_all_placed(&env);
    }
}
