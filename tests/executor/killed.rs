//! What is left when bpp-flow itself is killed: nothing.

use std::process::{Command, Stdio};
use std::sync::Arc;

use bpp_flow::executor::{Shape, TaskInput};

use crate::bench::*;

const ROLE: &str = "BPP_TEST_ROLE";

/// Not a test of its own: what the test below starts and kills.
#[test]
fn to_be_killed() {
    if std::env::var(ROLE).is_err() {
        return;
    }
    let mut bench = Bench::new(2);
    let job = command_job(text(), Shape::One, 2, None);
    let item = shell("trap '' TERM HUP INT; (setsid sleep 1000 &); setsid setsid sleep 1000 & sleep 1000 & wait");
    bench.submit(&job, TaskInput::Commands(vec![item.clone()]));
    bench.submit(&job, TaskInput::Commands(vec![item]));
    let path = bench.dir.path().to_path_buf();
    let mut python = (*job).clone();
    python.pool.python = Some(bpp_flow::executor::PythonEnv {
        interpreter: "python3".into(),
        path: path.clone(),
        init: None,
        share: Vec::new(),
    });
    std::fs::write(path.join("functions.py"), "import time\ndef f(row):\n    time.sleep(1000)\n").unwrap();
    python.work = bpp_flow::executor::Work::Python {
        module: "functions".into(),
        function: "f".into(),
        call: bpp_flow::spec::model::Call::Row,
        returns: None,
        args: Vec::new(),
    };
    let row = bpp_flow::data::Table::empty(1);
    bench.submit(&Arc::new(python), TaskInput::Rows { table: row.clone(), args: row.clone(), env: row });
    bench.read(|_, _| false);
}

#[test]
fn kill_9_leaves_nothing_running() {
    let marker = format!("{ROLE}=killed-{}", std::process::id());
    let (name, value) = marker.split_once('=').unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let mut fake = Command::new(std::env::current_exe().unwrap())
        .args(["killed::to_be_killed", "--exact"])
        .env(name, value)
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Itself, three keepers, a Python worker, and two shells with three sleeps each.
    until("everything", || processes_with(&marker).len() >= 1 + 3 + 1 + 2 * 4);
    fake.kill().unwrap();
    fake.wait().unwrap();
    until("the end of everything", || processes_with(&marker).is_empty());
}
