//! Items that are bad company: what they do to their process, or leave behind, stays theirs.

use crate::env::*;

fn company(settings: &str, work: &str) -> TestEnv {
    TestEnv::with(
        &format!(
            "sources: {{ n: {{ range: {{start: 0, stop: 8}} }} }}\nstages:\n  work: {{ map: n, python: \"f:work\", workers: 1, {settings} }}\n"
        ),
        &format!(
            "import kit\nimport multiprocessing\nimport os\nimport signal\nimport sys\nimport threading\nimport time\n\n\n{work}"
        ),
    )
}

fn only_item_3_fails(env: &TestEnv, kind: &str) {
    let run = env.run(&["run"]).exits(100);
    assert_eq!(env.failures_by_kind(), [(kind.to_string(), 1)].into(), "{}", run.all());
    assert_eq!(ints(&env.column("work", "value")), [0, 1, 2, 4, 5, 6, 7]);
    env.assert_nothing_runs();
}

fn nothing_fails(env: &TestEnv) {
    env.run(&["run"]).exits(0);
    assert_eq!(ints(&env.column("work", "y")), [0, 1, 4, 9, 16, 25, 36, 49]);
    env.assert_nothing_runs();
}

/// Not isolated, and no promise is made: the worker cannot tell which of its last items took its socket away. But the
/// run comes to an end, keeps what it has, and goes on without that item.
fn ruins_its_worker_and_no_more(work: &str) {
    for settings in ["chunk_size: 8, batch_size: 8", "chunk_size: 1", "backend: threads"] {
        let env = company(settings, work);
        let run = env.run(&["run"]);
        assert!(matches!(run.code, Some(0 | 1 | 100)), "{}", run.all());
        env.assert_nothing_runs();
        env.open_gate("mended");
        env.run(&["run"]);
        env.run(&["retry", "--failed"]).exits(0);
        assert_eq!(ints(&env.column("work", "y")), [0, 1, 4, 9, 16, 25, 36, 49], "{settings}");
    }
}

#[test]
fn an_item_that_closes_all_files_of_its_process() {
    ruins_its_worker_and_no_more(
        "def work(row):\n    if row['value'] == 3 and not kit.is_open('mended'):\n        os.closerange(0, 4096)\n    return {'y': row['value'] ** 2}\n",
    );
}

#[test]
fn an_item_that_changes_everything_about_its_process_fails_no_other() {
    let env = company(
        "chunk_size: 8, batch_size: 8",
        r#"
import gc
import locale

def work(row):
    if row["value"] == 3:
        os.umask(0o777)
        os.chdir("/")
        os.environ.clear()
        sys.path.clear()
        sys.modules.clear()
        sys.setrecursionlimit(60)
        sys.stdout = None
        sys.stderr = None
        gc.disable()
        os.nice(5)
        for number in range(1, 32):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
    return {"y": row["value"] ** 2}
"#,
    );
    env.write(
        "pipeline.yaml",
        env.read("pipeline.yaml") + "  after: { map: work, shell: \"umask; pwd; echo $HOME\", chunk_size: 1 }\n",
    );
    nothing_fails(&env);
    let told = env.column("after", "stdout");
    assert_eq!(told.len(), 8);
    assert!(told.iter().all(|text| *text == told[0]), "commands start afresh: {told:?}");
}

#[test]
fn threads_that_exit_raise_or_go_on_fail_nobody() {
    nothing_fails(&company(
        "chunk_size: 8",
        r#"
def late():
    time.sleep(0.05)
    raise ValueError("late")

def work(row):
    for target in (sys.exit, late, lambda: time.sleep(600)):
        threading.Thread(target=target, daemon=row["value"] % 2 == 0).start()
    return {"y": row["value"] ** 2}
"#,
    ));
}

#[test]
fn what_is_printed_need_not_be_text() {
    let env = company(
        "chunk_size: 8",
        r#"
def work(row):
    print("nul \x00 and surrogate \udc80")
    os.write(1, b"\xff\xfe\x00" * 1000)
    os.write(2, bytes(range(256)) * 100)
    if row["value"] == 3:
        raise ValueError("three")
    return {"y": 1}
"#,
    );
    only_item_3_fails(&env, "exception");
    env.run(&["errors", "--item", "3"]).exits(0).says(&["three", "nul"]);
}

#[test]
fn a_forked_child_that_goes_on_writing_is_ended() {
    nothing_fails(&company(
        "chunk_size: 8",
        r#"
def work(row):
    if row["value"] == 3 and os.fork() == 0:
        while True:
            print("still here", flush=True)
            os.write(1, b"words")
    return {"y": row["value"] ** 2}
"#,
    ));
}

/// Item 3 starts a pool whose children sleep, and then comes to its end; item 4 finds them gone.
const POOL: &str = r#"
def rest(_):
    kit.log("children", os.getpid())
    time.sleep(600)

def is_there(pid):
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

def work(row):
    if row["value"] == 3:
        pool = multiprocessing.get_context(METHOD).Pool(2)
        pool.map_async(rest, range(2), chunksize=1)
        while len(kit.lines("children")) < 2:
            time.sleep(0.01)
        if END == "timeout":
            time.sleep(600)
        if END == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
    if row["value"] == 4 and END != "success":
        end = time.monotonic() + 10
        children = [int(pid) for pid in kit.lines("children")]
        while any(map(is_there, children)):
            assert time.monotonic() < end, "children of an item that has ended: %r" % children
            time.sleep(0.01)
    return {"y": row["value"] ** 2}
"#;

fn pool(method: &str) {
    for end in ["success", "timeout", "kill"] {
        let work = POOL.replace("METHOD", &format!("{method:?}")).replace("END", &format!("{end:?}"));
        let env = company("timeout: 4s, chunk_size: 8, batch_size: 8", &work);
        match end {
            "success" => nothing_fails(&env),
            "timeout" => only_item_3_fails(&env, "timeout"),
            _ => only_item_3_fails(&env, "crash"),
        }
        assert_eq!(env.logged("children").len(), 2, "{method} {end}");
        // What a library wanted to clear away at its process's exit stays when that is killed.
        env.bash("rm -rf \"$TMPDIR\"/pymp-*").exits(0);
    }
}

#[test]
fn a_pool_by_fork_ends_with_its_item() {
    pool("fork");
}

#[test]
fn a_pool_by_spawn_ends_with_its_item() {
    pool("spawn");
}

#[test]
fn a_pool_by_forkserver_ends_with_its_item() {
    pool("forkserver");
}

#[test]
fn a_command_that_becomes_a_daemon_is_gone_after_its_item() {
    let env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 3} } }\nstages:\n  work: { map: n, workers: 1, command: [python3, daemon.py] }\n",
        "",
    );
    env.write(
        "daemon.py",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        os.chdir('/')\n        os.closerange(0, 64)\n        time.sleep(600)\n    os._exit(0)\nos.wait()\nprint('ok')\n",
    );
    env.run(&["run"]).exits(0);
    assert_eq!(env.rows("work").len(), 3);
    env.assert_nothing_runs();
}

#[test]
fn a_command_that_ignores_signals_is_killed_with_its_children() {
    let env = TestEnv::with(
        "sources: { n: { range: {start: 0, stop: 3} } }\nstages:\n  work: { map: n, workers: 1, timeout: 500ms, shell: \"if test {{ item.value }} = 1; then trap '' TERM INT HUP; (trap '' TERM; sleep 600) & setsid sleep 600 & sleep 600; sleep 600; fi\" }\n",
        "",
    );
    env.run(&["run"]).exits(100);
    assert_eq!(env.failures_by_kind(), [("timeout".to_string(), 1)].into());
    assert_eq!(env.rows("work").len(), 2);
    env.assert_nothing_runs();
}
