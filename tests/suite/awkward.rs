//! Functions that print, fork, leave children, close what they should not, or are otherwise bad company.

use serde_json::json;

use crate::env::*;

fn company(settings: &str, module: &str) -> TestEnv {
    TestEnv::with(
        &format!(
            "sources: {{ n: {{ range: {{start: 0, stop: 4}} }} }}\nstages:\n  work: {{ map: n, python: \"f:work\", timeout: 100s, {settings} }}\n"
        ),
        module,
    )
}

fn all_well(settings: &str, module: &str) -> TestEnv {
    let env = company(settings, module);
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("work", "y")), [0, 1, 4, 9]);
    env.assert_nothing_runs();
    env
}

#[test]
fn printing_much() {
    let env = all_well(
        "workers: 2",
        r#"
import os
import sys

def work(row):
    if row["value"] == 1:
        for _ in range(1000):
            print("x" * 49_999)
        for _ in range(50):
            os.write(2, b"y" * 1_000_000)
    return {"y": row["value"] ** 2}
"#,
    );
    let kept = env.bash("du -s --block-size=1 .bpp-flow | cut -f1").exits(0);
    let bytes: u64 = kept.stdout.trim().parse().expect("a size");
    assert!(bytes < 40_000_000, "100 MB of prints are not kept: {bytes}");
}

#[test]
fn printing_much_before_failing() {
    let env = company(
        "workers: 1",
        r#"
import os

def work(row):
    if row["value"] == 1:
        print("the beginning")
        for _ in range(100):
            os.write(1, b"y" * 1_000_000)
            print("z" * 1000)
        print("the end", flush=True)
        if row["value"] == 1:
            os.abort()
    return {"y": 1}
"#,
    );
    env.run(&["run"]).exits(100);
    let item = env.run(&["errors", "--item", "1"]).exits(0);
    assert!(item.stdout.len() < 5_000_000, "{}", item.stdout.len());
    item.says(&["the end"]);
    let failed = env.failed_rows("work");
    assert_eq!(failed.len(), 1);
}

#[test]
fn a_pool_by_fork() {
    all_well(
        "workers: 2, chunk_size: 1",
        r#"
import multiprocessing

def square(n):
    print("in the pool")
    return n * n

def work(row):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return {"y": pool.map(square, [row["value"]] * 3)[0]}
"#,
    );
}

#[test]
fn a_pool_by_spawn() {
    all_well(
        "workers: 2, chunk_size: 1",
        r#"
import multiprocessing

def square(n):
    return n * n

def work(row):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return {"y": pool.map(square, [row["value"]] * 3)[0]}
"#,
    );
}

#[test]
fn a_pool_of_the_futures() {
    all_well(
        "workers: 1",
        r#"
import concurrent.futures

def square(n):
    return n * n

def work(row):
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        return {"y": list(pool.map(square, [row["value"]]))[0]}
"#,
    );
}

#[test]
fn a_forked_child_that_comes_back() {
    // The child leaves the function as if it were the worker; it must never answer for it.
    let env = company(
        "workers: 1, chunk_size: 4",
        r#"
import os

def work(row):
    pid = os.fork()
    if pid == 0:
        return {"y": -1}
    os.waitpid(pid, 0)
    return {"y": row["value"] ** 2}
"#,
    );
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("work", "y")), [0, 1, 4, 9]);
    env.assert_nothing_runs();
}

#[test]
fn a_forked_child_that_raises() {
    let env = company(
        "workers: 1, chunk_size: 4",
        r#"
import os
import sys

def work(row):
    pid = os.fork()
    if pid == 0:
        if row["value"] % 2:
            raise ValueError("in the child")
        sys.exit(4)
    os.waitpid(pid, 0)
    return {"y": row["value"] ** 2}
"#,
    );
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("work", "y")), [0, 1, 4, 9]);
}

#[test]
fn children_left_behind_are_ended() {
    all_well(
        "workers: 2",
        r#"
import subprocess

def work(row):
    subprocess.Popen(["sleep", "600"])
    subprocess.Popen(["sleep", "601"], start_new_session=True)
    subprocess.Popen("setsid sleep 602 & disown", shell=True, executable="/bin/bash")
    return {"y": row["value"] ** 2}
"#,
    );
}

#[test]
fn a_worker_that_dies_with_children_holding_its_pipes() {
    let env = company(
        "workers: 1, chunk_size: 4",
        r#"
import os
import subprocess

def work(row):
    if row["value"] == 2:
        subprocess.Popen(["sleep", "600"], close_fds=False, start_new_session=True)
        os.abort()
    return {"y": row["value"] ** 2}
"#,
    );
    env.run(&["run"]).exits(100);
    assert_eq!(env.rows("work").len(), 3);
    env.assert_nothing_runs();
}

#[test]
fn standard_streams_that_are_closed() {
    all_well(
        "workers: 1",
        r#"
import os
import sys

def work(row):
    if row["value"] == 0:
        sys.stdout.close()
        sys.stderr = None
        os.close(0)
    return {"y": row["value"] ** 2}
"#,
    );
}

#[test]
fn reading_standard_input_finds_nothing() {
    all_well(
        "workers: 1",
        "import sys\n\ndef work(row):\n    assert sys.stdin.read() == ''\n    return {'y': row['value'] ** 2}\n",
    );
}

#[test]
fn a_changed_folder_and_environment_stay_with_the_item() {
    let env = company(
        "workers: 1, chunk_size: 4",
        r#"
import os

def work(row):
    os.chdir("/")
    return {"y": row["value"] ** 2}
"#,
    );
    env.run(&["run"]).exits(0);
    assert_eq!(env.rows("work").len(), 4);
}

#[test]
fn threads_that_go_on() {
    all_well(
        "workers: 1",
        r#"
import threading
import time

def work(row):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    if row["value"] == 3:
        threading.Thread(target=time.sleep, args=(600,)).start()
    return {"y": row["value"] ** 2}
"#,
    );
}

#[test]
fn signals_set_by_a_function() {
    all_well(
        "workers: 1",
        r#"
import signal

def work(row):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.alarm(0)
    return {"y": row["value"] ** 2}
"#,
    );
}

#[test]
fn a_name_that_is_also_a_library() {
    // The user's module is called as one that the worker itself may import.
    for name in ["worker", "bpp_flow", "main"] {
        let env = TestEnv::new();
        env.write(
            "pipeline.yaml",
            format!("sources: {{ n: {{ values: [1] }} }}\nstages:\n  work: {{ map: n, python: \"{name}_:work\" }}\n")
                .replace("_:", ":"),
        );
        env.write(&format!("{name}.py"), "def work(row):\n    return {'y': 'mine'}\n");
        env.run(&["run"]).exits(0);
        assert_eq!(env.column("work", "y"), [json!("mine")], "{name}");
    }
}

#[test]
fn main_is_not_the_users_module() {
    let env = company(
        "workers: 1",
        "import sys\n\nassert __name__ == 'f'\n\ndef work(row):\n    return {'y': row['value'] ** 2}\n",
    );
    env.run(&["run"]).exits(0);
}
