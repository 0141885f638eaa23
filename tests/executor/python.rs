//! Python workers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bpp_flow::data::{FailureKind, Table, Value};
use bpp_flow::executor::{Executor, Job, PoolKey, PythonEnv, Report, Shape, TaskInput, Work};
use bpp_flow::spec::model::{Call, ChunkFormat};

use crate::bench::*;

const FUNCTIONS: &str = r#"
import ctypes, faulthandler, multiprocessing, os, signal, subprocess, sys, time

def double(row):
    return {"y": row["x"] * 2}

def odd(row):
    """What is asked for in the column `do` happens at that row."""
    do = row["do"]
    if do == "abort":
        print("about to abort", flush=True)
        os.abort()
    if do == "_exit":
        os._exit(3)
    if do == "sys.exit":
        sys.exit(3)
    if do == "raise":
        raise ValueError("no good")
    if do == "segfault":
        faulthandler.disable()
        ctypes.string_at(0)
    if do == "sleep":
        print("sleepy", flush=True)
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
        time.sleep(1000)
    if do == "fork":
        # A child that holds every descriptor, and outlives the worker.
        if os.fork() == 0:
            time.sleep(1000)
            os._exit(0)
        os._exit(4)
    if do == "wait":
        open(row["begun"], "w").close()
        while not os.path.exists(row["gate"]):
            time.sleep(0.005)
    return {"y": row["x"]}

def chunk(rows):
    if any(row["x"] == 13 for row in rows):
        os.abort()
    return [{"y": row["x"]} for row in rows]

def total(rows):
    return {"total": sum(row["x"] for row in rows)}

def first(rows):
    return {"first": next(iter(rows))["x"]}

def marked(row):
    return {"marker": os.environ["MARKER"]}
"#;

struct Lab {
    bench: Bench,
}

impl Lab {
    fn new(limit: usize) -> Lab {
        Lab::with(Bench::new(limit))
    }

    fn with(bench: Bench) -> Lab {
        std::fs::write(bench.dir.path().join("functions.py"), FUNCTIONS).unwrap();
        Lab { bench }
    }

    fn job(&self, function: &str, workers: usize, threads: bool, timeout: Option<Duration>) -> Job {
        let path = self.bench.dir.path().to_path_buf();
        Job {
            stage: "stage".into(),
            work: Work::Python {
                module: "functions".into(),
                function: function.into(),
                call: Call::Row,
                returns: None,
                args: Vec::new(),
            },
            shape: Shape::One,
            pool: PoolKey {
                threads,
                python: Some(PythonEnv {
                    interpreter: "python3".into(),
                    path: path.clone(),
                    init: None,
                    share: Vec::new(),
                }),
                env: vec![("MARKER".into(), self.marker())],
                cwd: path,
                ..PoolKey::default()
            },
            workers,
            timeout,
            files: Vec::new(),
        }
    }

    fn marker(&self) -> String {
        format!("bpp-test-{}", self.bench.dir.path().display())
    }

    /// The process that an item started, in a session of its own.
    fn sleep(&self) -> Option<i32> {
        let name = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let found = processes_with(&self.marker()).into_iter().find(|pid| name(pid).trim() == "sleep");
        found.map(|pid| pid as i32)
    }

    fn assert_nothing_runs(&self) {
        assert_eq!(processes_with(&self.marker()), Vec::<u32>::new());
    }
}

fn numbers(n: i64) -> TaskInput {
    rows(Table::from_rows((0..n).map(|x| vec![("x".to_string(), Value::Int(x))])))
}

fn rows(table: Table) -> TaskInput {
    let n = table.rows();
    TaskInput::Rows { table, args: Table::empty(n), env: Table::empty(n) }
}

/// Rows of which some do something odd.
fn doing(n: i64, odd: &[(i64, &str)]) -> TaskInput {
    rows(Table::from_rows((0..n).map(|x| {
        let what = odd.iter().find(|(at, _)| *at == x).map_or("", |(_, what)| what);
        vec![("x".to_string(), Value::Int(x)), ("do".to_string(), Value::Text(what.into()))]
    })))
}

#[test]
fn rows_come_back_from_several_workers() {
    let mut lab = Lab::new(4);
    let job = Arc::new(lab.job("double", 4, false, None));
    for _ in 0..8 {
        lab.bench.submit(&job, numbers(5000));
    }
    for task in lab.bench.finish().values() {
        assert_eq!(task.rows.len(), 5000);
        assert!(task.rows.iter().all(|(i, r)| r[0] == [("y".to_string(), Value::Int(i64::from(*i) * 2))]));
    }
    lab.bench.executor.stop();
    lab.assert_nothing_runs();
}

#[test]
fn each_death_fails_its_item_and_nothing_else() {
    let mut lab = Lab::new(1);
    let limit = Duration::from_millis(500);
    let job = Arc::new(lab.job("odd", 1, false, Some(limit)));
    let odd = [
        (100, "abort"),
        (200, "_exit"),
        (300, "raise"),
        (400, "sleep"),
        (500, "segfault"),
        (600, "fork"),
        (700, "sys.exit"),
    ];
    let mut left: Vec<u32> = (0..1000).collect();
    let (mut done, mut failed) = (0, std::collections::BTreeMap::new());
    while !left.is_empty() {
        let TaskInput::Rows { table, .. } = doing(1000, &odd) else { unreachable!() };
        let ended = lab.bench.run(&job, rows(table.take(&left)));
        assert_eq!(ended.broken, None);
        done += ended.rows.len();
        failed.extend(ended.failed.into_iter().map(|(i, f)| (left[i as usize], f)));
        assert!(ended.unfinished.len() < left.len(), "every round gets on");
        left = ended.unfinished.iter().map(|&i| left[i as usize]).collect();
    }
    assert_eq!((done, failed.len()), (993, 7));
    let told = |i: u32| (failed[&i].kind, failed[&i].message.as_str());
    assert_eq!(told(100), (FailureKind::Crash, "killed by signal 6 (SIGABRT)"));
    assert!(failed[&100].output.contains("about to abort"), "{}", failed[&100].output);
    assert_eq!(told(200), (FailureKind::Crash, "exited with code 3 while the item was running"));
    assert_eq!(told(300), (FailureKind::Exception, "ValueError: no good"));
    assert_eq!(told(400), (FailureKind::Timeout, "over 500ms"));
    assert_eq!((failed[&400].output.trim(), failed[&400].limit), ("sleepy", Some(500)));
    assert_eq!(told(500), (FailureKind::Crash, "killed by signal 11 (SIGSEGV)"));
    assert_eq!(told(600), (FailureKind::Crash, "exited with code 4 while the item was running"));
    assert!(failed[&700].message.contains('3'), "{:?}", failed[&700]);
    lab.bench.executor.stop();
    lab.assert_nothing_runs();
}

#[test]
fn a_replacement_is_there_at_once() {
    let mut lab = Lab::new(1);
    let job = Arc::new(lab.job("odd", 1, false, None));
    lab.bench.run(&job, doing(1, &[]));
    lab.bench.run(&job, doing(1, &[(0, "abort")]));
    let died = Instant::now();
    lab.bench.run(&job, doing(1, &[]));
    println!("replaced after {:?}", died.elapsed());
    assert!(died.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_chunk_that_kills_is_halved_until_the_culprit_is_alone() {
    let mut lab = Lab::new(1);
    let mut job = lab.job("chunk", 1, false, None);
    if let Work::Python { call, .. } = &mut job.work {
        *call = Call::Chunk(ChunkFormat::Rows);
    }
    let ended = lab.bench.run(&Arc::new(job), numbers(32));
    assert_eq!(ended.failed.keys().collect::<Vec<_>>(), [&13]);
    assert_eq!(ended.failed[&13].message, "killed by signal 6 (SIGABRT)");
    assert_eq!(ended.rows.len(), 31);
    assert!(ended.rows.iter().all(|(i, r)| r[0] == [("y".to_string(), Value::Int((*i).into()))]));
}

#[test]
fn groups_are_streamed() {
    let mut lab = Lab::new(2);
    for (function, name, expected) in [("total", "total", 20 * 49_995_000), ("first", "first", 0)] {
        let mut job = lab.job(function, 2, false, None);
        job.shape = Shape::Many;
        let table = Table::from_rows((0..10_000).map(|x| vec![("x".to_string(), Value::Int(x))]));
        let group = TaskInput::Group {
            rows: Box::new((0..20).map(move |_| table.clone())),
            args: Table::empty(1),
            command: None,
        };
        let ended = lab.bench.run(&Arc::new(job), group);
        assert_eq!(ended.rows.get(&0), Some(&vec![vec![(name.to_string(), Value::Int(expected))]]), "{ended:?}");
    }
}

#[test]
fn what_cannot_run_at_all_is_nobodys_fault() {
    let mut lab = Lab::new(1);
    let missing = Arc::new(lab.job("no_such_function", 1, false, None));
    let message = lab.bench.run(&missing, numbers(3)).broken.unwrap();
    assert!(message.contains("no_such_function"), "{message}");

    let mut no_python = lab.job("double", 1, false, None);
    no_python.pool.python.as_mut().unwrap().interpreter = "/no/such/python".into();
    let message = lab.bench.run(&Arc::new(no_python), numbers(3)).broken.unwrap();
    assert_eq!(message, "program \"/no/such/python\" not found");

    let mut no_worker = lab.job("double", 1, false, None);
    no_worker.pool.python.as_mut().unwrap().interpreter = "false".into();
    let message = lab.bench.run(&Arc::new(no_worker), numbers(3)).broken.unwrap();
    assert_eq!(message, "the Python worker exited with code 1, 3 times before any item could run");
}

#[test]
fn threads_share_a_process_and_survive_a_death() {
    let mut lab = Lab::new(4);
    let job = Arc::new(lab.job("odd", 4, true, None));
    let gate = |name: &str| lab.bench.dir.path().join(name);
    let (open, begun) = (gate("open"), gate("begun"));
    let waiting = rows(Table::from_rows([vec![
        ("x".to_string(), Value::Int(1)),
        ("do".to_string(), Value::Text("wait".into())),
        ("begun".to_string(), Value::Text(begun.display().to_string())),
        ("gate".to_string(), Value::Text(open.display().to_string())),
    ]]));
    let first = lab.bench.submit(&job, waiting);
    until("the first item", || begun.exists());
    let second = lab.bench.submit(&job, doing(3, &[(1, "abort")]));
    let ended = lab.bench.read(|t, _| t.len() == 2 && t.values().all(|t| t.over));
    // Two were in hand: nobody is blamed, and what was not reported runs alone.
    assert!(ended.values().all(|t| t.failed.is_empty() && t.broken.is_none()), "{ended:?}");
    assert_eq!(ended[&first].unfinished, [0]);
    std::fs::write(&open, "").unwrap();
    let again = lab.bench.run(&job, doing(2, &[(0, "abort")]));
    assert_eq!(again.failed[&0].message, "killed by signal 6 (SIGABRT)");
    assert!(ended[&second].unfinished.contains(&1));
    assert_eq!(lab.bench.run(&job, doing(50, &[])).rows.len(), 50);
    lab.bench.executor.stop();
    lab.assert_nothing_runs();
}

#[test]
fn in_threads_an_item_over_its_limit_leaves_its_siblings_alone() {
    let mut lab = Lab::new(2);
    let limited = Arc::new(lab.job("odd", 2, true, Some(Duration::from_millis(300))));
    let free = Arc::new(lab.job("odd", 2, true, None));
    let (open, begun) = (lab.bench.dir.path().join("open"), lab.bench.dir.path().join("begun"));
    let waiting = rows(Table::from_rows([vec![
        ("x".to_string(), Value::Int(1)),
        ("do".to_string(), Value::Text("wait".into())),
        ("begun".to_string(), Value::Text(begun.display().to_string())),
        ("gate".to_string(), Value::Text(open.display().to_string())),
    ]]));
    let sibling = lab.bench.submit(&free, waiting);
    until("the sibling", || begun.exists());
    let slow = lab.bench.submit(&limited, doing(2, &[(0, "sleep")]));
    let ended = lab.bench.read(|t, _| t.get(&slow).is_some_and(|t| t.over));
    assert_eq!((ended[&slow].failed[&0].message.as_str(), &ended[&slow].unfinished[..]), ("over 300ms", &[1][..]));
    assert_eq!(lab.bench.run(&limited, doing(2, &[])).rows.len(), 2, "a replacement is there");
    std::fs::write(&open, "").unwrap();
    let ended = lab.bench.read(|t, _| t.get(&sibling).is_some_and(|t| t.over));
    assert_eq!((ended[&sibling].rows.len(), ended[&sibling].failed.len()), (1, 0));
    lab.bench.executor.stop();
    lab.assert_nothing_runs();
}

#[test]
fn a_drain_finishes_the_item_in_hand() {
    let mut lab = Lab::new(1);
    let job = Arc::new(lab.job("odd", 1, false, None));
    let (open, begun) = (lab.bench.dir.path().join("open"), lab.bench.dir.path().join("begun"));
    let row = |x: i64| {
        vec![
            ("x".to_string(), Value::Int(x)),
            ("do".to_string(), Value::Text("wait".into())),
            ("begun".to_string(), Value::Text(begun.display().to_string())),
            ("gate".to_string(), Value::Text(open.display().to_string())),
        ]
    };
    let id = lab.bench.submit(&job, rows(Table::from_rows((0..5).map(row))));
    until("the first item", || begun.exists());
    lab.bench.executor.drain();
    std::fs::write(&open, "").unwrap();
    let ended = lab.bench.read(|t, _| t.get(&id).is_some_and(|t| t.over));
    assert_eq!((ended[&id].rows.len(), &ended[&id].unfinished[..]), (1, &[1, 2, 3, 4][..]));
}

#[test]
fn stop_leaves_nothing_whatever_was_started() {
    let mut lab = Lab::new(1);
    let job = Arc::new(lab.job("odd", 1, false, None));
    lab.bench.submit(&job, doing(1, &[(0, "sleep")]));
    until("the sleep", || lab.sleep().is_some());
    lab.bench.executor.stop();
    lab.assert_nothing_runs();
    assert!(lab.bench.reports.try_iter().any(|r| matches!(r, Report::End { unfinished, .. } if unfinished == [0])));
    let files = std::fs::read_dir(lab.bench.dir.path()).unwrap().flatten().map(|e| e.file_name());
    let files: Vec<_> = files.filter(|name| name != "functions.py" && name != "__pycache__").collect();
    assert!(files.is_empty(), "{files:?}");
}

#[test]
fn workers_in_the_terminal_are_ended_without_harm_to_its_other_processes() {
    let mut lab = Lab::with(Bench::with_terminal(1, true));
    let job = Arc::new(lab.job("odd", 1, false, Some(Duration::from_millis(500))));
    let ended = lab.bench.run(&job, doing(4, &[(1, "sleep")]));
    assert_eq!(ended.failed[&1].message, "over 500ms");
    let ended = lab.bench.run(&job, doing(2, &[(0, "abort")]));
    assert_eq!(ended.failed[&0].message, "killed by signal 6 (SIGABRT)");
    lab.bench.submit(&job, doing(1, &[(0, "sleep")]));
    lab.bench.executor.stop();
    lab.assert_nothing_runs();
}

#[test]
fn a_keeper_that_is_killed_takes_its_worker_along_and_is_replaced() {
    let mut lab = Lab::new(1);
    let job = Arc::new(lab.job("odd", 1, false, None));
    let id = lab.bench.submit(&job, doing(1, &[(0, "sleep")]));
    for _ in 0..2 {
        until("the sleep", || lab.sleep().is_some());
        let sleep = lab.sleep().unwrap();
        // SAFETY: signals to the keeper of the worker of the sleep, and to the sleep, all of them this test's. What the
        // worker had started in a session of its own is the stated limit.
        unsafe {
            libc::kill(parent(parent(sleep)), libc::SIGKILL);
            libc::kill(sleep, libc::SIGKILL);
        }
        until("the sleep is gone", || lab.sleep() != Some(sleep));
    }
    let ended = lab.bench.read(|t, _| t.get(&id).is_some_and(|t| t.over));
    assert_eq!(ended[&id].failed[&0].message, "its worker was killed", "the second time");
    assert_eq!(lab.bench.run(&job, doing(2, &[])).rows.len(), 2);
}

fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}
