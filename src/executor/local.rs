//! The executor of this machine: backends `serial`, `threads` and `processes`.
//!
//! Tasks wait in pools of equal processes ([`super::queue`]). Every worker is a thread here and a keeper outside
//! ([`super::keeper`]) that looks after the Python process or runs the commands. Workers start as there is work for
//! them. A job's frames are encoded on rayon at submission, so that the next one is ready when a worker is.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crossbeam_channel::Sender;

use super::keeper::protocol::task_frame;
use super::queue::{Payload, Phase, Queued, Rows};
use super::seat::{Seat, Shared};
use super::{Executor, Job, Report, Task, TaskInput, Work, command, in_hand, python, wire};
use crate::spec::model::Stdout;

/// How workers are started.
pub(super) struct Settings {
    /// bpp-flow itself.
    pub program: PathBuf,
    /// Where captured output lies, in files without a name.
    pub state_dir: PathBuf,
    /// Python workers share the terminal, so that a debugger can be used in them.
    pub terminal: bool,
    /// What interpreters turned out to be: a shim's detour is taken once.
    pub executables: Mutex<HashMap<PathBuf, PathBuf>>,
    /// The threads of workers.
    pub threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Settings {
    /// The program behind an interpreter, as far as it is known.
    pub(super) fn executable(&self, interpreter: &Path) -> PathBuf {
        let known = self.executables.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        known.get(interpreter).cloned().unwrap_or_else(|| interpreter.to_path_buf())
    }

    /// An interpreter said what it is.
    pub(super) fn learn_executable(&self, interpreter: &Path, executable: &Path) {
        if executable.is_absolute() {
            let mut known = self.executables.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            known.insert(interpreter.to_path_buf(), executable.to_path_buf());
        }
    }
}

/// Runs tasks on this machine. Dropping it stops it.
pub struct LocalExecutor {
    shared: Arc<Shared>,
}

impl LocalExecutor {
    /// An executor that runs at most `limit` items at once and tells of them in `reports`. With `debug_terminal`,
    /// Python workers share the terminal.
    ///
    /// The process must call [`super::keeper::main_if_keeper`] first of all: it is executed again as a keeper.
    pub fn new(limit: usize, reports: Sender<Report>, state_dir: &Path, debug_terminal: bool) -> LocalExecutor {
        LocalExecutor::with_program(Path::new("/proc/self/exe"), limit, reports, state_dir, debug_terminal)
    }

    /// The same, with keepers that are executed from `program`.
    pub fn with_program(
        program: &Path,
        limit: usize,
        reports: Sender<Report>,
        state_dir: &Path,
        debug_terminal: bool,
    ) -> LocalExecutor {
        let settings = Settings {
            program: program.to_path_buf(),
            state_dir: state_dir.to_path_buf(),
            terminal: debug_terminal,
            executables: Mutex::default(),
            threads: Mutex::default(),
        };
        LocalExecutor { shared: Arc::new(Shared::new(settings, limit, reports)) }
    }
}

impl Executor for LocalExecutor {
    fn submit(&mut self, task: Task) {
        let mut queues = self.shared.queues();
        let Task { id, job, input, marks, .. } = task;
        let items = input.len();
        let (pool, job_id, seq) = (queues.pool(&job.pool), queues.job_id(&job), queues.next_seq());
        if queues.phase != Phase::Open || items == 0 {
            drop(queues);
            return self.shared.give_back(id, items);
        }
        let payload = encode(seq, job_id, &job, input);
        let queued = Queued { id, seq, job_id, job, items, marks, payload };
        queues.pools[pool].queue.push_back(queued);
        queues.sleepers().for_each(|w| w.wake());
        drop(queues);
        staff(&self.shared, pool);
    }

    fn keep_in_hand(&mut self) {
        let queues = self.shared.queues();
        let slots = queues.pools.iter().flat_map(|p| &p.members).filter_map(|m| m.slot.clone());
        slots.filter(|slot| slot.should_be_kept()).for_each(|slot| rayon::spawn(move || slot.keep()));
    }

    fn drain(&mut self) {
        let mut queues = self.shared.queues();
        if queues.phase != Phase::Open {
            return;
        }
        queues.phase = Phase::Draining;
        let slots = queues.pools.iter().flat_map(|p| &p.members).filter_map(|m| m.slot.as_ref());
        slots.for_each(|slot| slot.stop());
        let waiting = queues.clear();
        drop(queues);
        waiting.iter().for_each(|task| self.shared.give_back(task.id, task.items));
    }

    fn stop(&mut self) {
        let mut queues = self.shared.queues();
        queues.phase = Phase::Stopping;
        let waiting = queues.clear();
        queues.pools.iter().flat_map(|p| &p.members).for_each(|m| m.wake.wake());
        drop(queues);
        waiting.iter().for_each(|task| self.shared.give_back(task.id, task.items));
        while let Some(thread) = self.shared.settings.threads.lock().ok().and_then(|mut t| t.pop()) {
            // A thread that panicked has dropped, and so ended, its keeper.
            let _ = thread.join();
        }
        in_hand::remove_folder(&self.shared.settings.state_dir);
    }
}

impl Drop for LocalExecutor {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts workers for a pool as it needs them.
pub(super) fn staff(shared: &Arc<Shared>, pool: usize) {
    loop {
        let mut queues = shared.queues();
        if queues.vacancies(pool) == 0 {
            return;
        }
        let seat = Seat::new(shared, &mut queues, pool);
        let is_python = queues.pools[pool].key.python.is_some();
        let lanes = queues.lanes(pool);
        drop(queues);
        let started = seat.and_then(|seat| {
            let name = if is_python { "python worker" } else { "command worker" };
            std::thread::Builder::new().name(name.into()).spawn(move || match is_python {
                true => python::work(seat, lanes),
                false => command::work(seat),
            })
        });
        match (started, shared.settings.threads.lock()) {
            (Ok(thread), Ok(mut threads)) => {
                threads.retain(|t| !t.is_finished());
                threads.push(thread);
            }
            _ => return,
        }
    }
}

/// Has the task's frame made.
fn encode(seq: u64, job_id: u32, job: &Arc<Job>, input: TaskInput) -> Payload {
    if let TaskInput::Group { rows, args, command } = input {
        return Payload::Group { rows, args, command };
    }
    // Bounded to the one frame: its sender never waits.
    let (sender, frame) = crossbeam_channel::bounded(1);
    let rows = match &input {
        TaskInput::Rows { table, args, env } => {
            Some(Rows { table: table.clone(), args: args.clone(), env: env.clone() })
        }
        _ => None,
    };
    let job = job.clone();
    rayon::spawn(move || {
        // Nobody waits for it any more when it cannot be sent.
        let _ = sender.send(match &input {
            TaskInput::Commands(items) => task_frame(seq, job.timeout, keeps_stdout(&job), false, items),
            _ => wire::task_frame(seq, job_id, 0, &job, &input),
        });
    });
    Payload::Frame { frame, rows }
}

/// Whether a command's standard output is of any use.
pub(super) fn keeps_stdout(job: &Job) -> bool {
    !matches!(job.work, Work::Command { stdout: Stdout::Ignore, .. })
}
