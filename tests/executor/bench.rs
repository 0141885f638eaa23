//! A bench to drive an executor on: real processes, kept by the real binary.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bpp_flow::data::{Failure, Value};
use bpp_flow::executor::{
    CommandItem, Executor, Job, LocalExecutor, PoolKey, Report, Shape, Task, TaskId, TaskInput, Work,
};
use bpp_flow::spec::model::Stdout;
use crossbeam_channel::Receiver;

/// Nothing in these tests takes as long.
pub const LIMIT: Duration = Duration::from_secs(60);

pub struct Bench {
    pub executor: LocalExecutor,
    pub reports: Receiver<Report>,
    pub dir: tempfile::TempDir,
    next: TaskId,
}

/// What became of a task.
#[derive(Debug, Default)]
pub struct Ended {
    pub rows: BTreeMap<u32, Vec<Vec<(String, Value)>>>,
    pub failed: BTreeMap<u32, Failure>,
    pub unfinished: Vec<u32>,
    pub broken: Option<String>,
    pub over: bool,
}

impl Bench {
    pub fn new(limit: usize) -> Bench {
        Bench::with_terminal(limit, false)
    }

    /// With workers that share this process's standard streams, or without.
    pub fn with_terminal(limit: usize, terminal: bool) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let (sender, reports) = crossbeam_channel::unbounded();
        let program = Path::new(env!("CARGO_BIN_EXE_bpp-flow"));
        let executor = LocalExecutor::with_program(program, limit, sender, dir.path(), terminal);
        Bench { executor, reports, dir, next: 0 }
    }

    pub fn submit(&mut self, job: &Arc<Job>, input: TaskInput) -> TaskId {
        self.next += 1;
        self.executor.submit(Task { id: self.next, job: job.clone(), input, marks: Vec::new(), expected: None });
        self.next
    }

    /// Reads reports until `enough` says so.
    pub fn read(&self, mut enough: impl FnMut(&BTreeMap<TaskId, Ended>, &Report) -> bool) -> BTreeMap<TaskId, Ended> {
        let mut tasks: BTreeMap<TaskId, Ended> = BTreeMap::new();
        let deadline = Instant::now() + LIMIT;
        loop {
            let report = self.reports.recv_deadline(deadline).expect("a report in time");
            note(&mut tasks, &report);
            if enough(&tasks, &report) {
                return tasks;
            }
        }
    }

    /// Reads reports until all tasks submitted are over.
    pub fn finish(&self) -> BTreeMap<TaskId, Ended> {
        self.read(|tasks, _| tasks.len() as u64 == self.next && tasks.values().all(|t| t.over))
    }

    /// Runs one task to its end.
    pub fn run(&mut self, job: &Arc<Job>, input: TaskInput) -> Ended {
        let id = self.submit(job, input);
        self.read(|tasks, _| tasks.get(&id).is_some_and(|t| t.over)).remove(&id).unwrap()
    }

    /// Reads reports until that task has been taken up.
    pub fn wait_started(&self, id: TaskId) {
        self.read(|_, report| matches!(report, Report::Started { task } if *task == id));
    }
}

fn note(tasks: &mut BTreeMap<TaskId, Ended>, report: &Report) {
    match report {
        Report::Engine(_) | Report::Unavailable { .. } => {}
        Report::Started { task } => {
            tasks.entry(*task).or_default();
        }
        Report::Part { task, outcomes } => {
            let ended = tasks.entry(*task).or_default();
            assert_eq!(outcomes.usage.len(), outcomes.done.len() + outcomes.failed.len());
            let mut row = 0;
            for (at, item) in outcomes.done.iter().enumerate() {
                let rows = outcomes.counts.as_ref().map_or(1, |c| c[at]) as usize;
                let given = (row..row + rows).map(|r| outcomes.added.row(r)).collect();
                assert!(ended.rows.insert(*item, given).is_none(), "item {item} was reported twice");
                row += rows;
            }
            assert_eq!(row, outcomes.added.rows());
            for (item, failure) in &outcomes.failed {
                assert!(ended.failed.insert(*item, failure.clone()).is_none(), "item {item} was reported twice");
                assert!(!ended.rows.contains_key(item));
            }
        }
        Report::End { task, unfinished } => {
            let ended = tasks.entry(*task).or_default();
            assert!(!ended.over);
            ended.unfinished = unfinished.clone();
            ended.over = true;
        }
        Report::Broken { task, message, .. } => {
            let ended = tasks.entry(*task).or_default();
            ended.broken = Some(message.clone());
            ended.over = true;
        }
    }
}

/// A job of commands that run in `/`.
pub fn command_job(stdout: Stdout, shape: Shape, workers: usize, timeout: Option<Duration>) -> Arc<Job> {
    Arc::new(Job {
        stage: "stage".into(),
        work: Work::Command { stdout, ok_codes: vec![0] },
        shape,
        pool: PoolKey { cwd: "/".into(), ..PoolKey::default() },
        workers,
        timeout,
        files: Vec::new(),
    })
}

pub fn text() -> Stdout {
    Stdout::Text { column: "stdout".into() }
}

pub fn command(argv: &[&str]) -> CommandItem {
    let argv = argv.iter().map(|a| a.to_string()).collect();
    CommandItem { argv, env: Vec::new(), cwd: None, stdin: None }
}

pub fn shell(script: &str) -> CommandItem {
    command(&["bash", "-c", script])
}

/// The processes in whose environment `marker` stands.
pub fn processes_with(marker: &str) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        *pid != std::process::id() && environ.windows(marker.len()).any(|w| w == marker.as_bytes())
    })
    .collect()
}

/// Waits until a condition holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} in time");
        std::thread::sleep(Duration::from_millis(2));
    }
}
