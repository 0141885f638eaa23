//! Runs tasks somewhere and reports what became of each item.
//!
//! The engine hands [`Task`]s to an [`Executor`] and reads [`Report`]s from the channel given at its construction.
//! An executor knows nothing of stages' order, of the store or of retries: every item of a task is reported exactly
//! once, as done, failed or unfinished. Workers never open the store.

mod channel;
mod chunk;
mod codec;
mod command;
mod ending;
mod engines;
mod in_hand;
pub mod keeper;
mod lane;
mod launch;
mod local;
pub mod marshal;
mod outcome;
mod process;
mod programs;
mod python;
mod queue;
mod remote;
mod search_path;
mod seat;
mod slot;
mod tally;
pub mod wire;

pub use engines::Engines;
pub use in_hand::{forget_in_hand, left_in_hand};
pub use local::LocalExecutor;
pub use programs::SourcePrograms;
pub use remote::{EngineNews, try_jobs};
pub use search_path::search_path;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::data::source::FileStamp;
use crate::data::{Failure, Hash, Table, Usage, Value};
use crate::spec::model::{Call, Remote, SharedFormat, Stdout};

/// What all tasks of a stage have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// The stage's name, for messages.
    pub stage: String,
    /// What is to be run.
    pub work: Work,
    /// What its rows become.
    pub shape: Shape,
    /// The processes that can run it.
    pub pool: PoolKey,
    /// How many of this stage's items may run at once.
    pub workers: usize,
    /// Limit per item.
    pub timeout: Option<Duration>,
    /// Arguments that are paths of files to be made, each in a folder of its item's own.
    pub files: Vec<String>,
}

/// How many rows an item gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// One.
    One,
    /// Any number (`flat_map`, `reduce`).
    Many,
    /// One or none, without new columns (`filter`).
    Keep,
}

/// An action, resolved.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// A Python function.
    Python {
        module: String,
        function: String,
        call: Call,
        returns: Option<Vec<String>>,
        /// Keyword arguments that are the same for all items.
        args: Vec<(String, Value)>,
    },
    /// A command line; argv, stdin and environment travel with the items.
    Command { stdout: Stdout, ok_codes: Vec<i32> },
}

/// Processes are shared by all jobs with an equal key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PoolKey {
    /// Whose workers they are; `None`: this machine's.
    pub remote: Option<Arc<Remote>>,
    /// `threads`: one process with as many threads as workers. `serial` is a pool of one.
    pub threads: bool,
    /// `None` for commands.
    pub python: Option<PythonEnv>,
    /// Environment on top of bpp-flow's own, the same for all items.
    pub env: Vec<(String, String)>,
    /// Where it runs.
    pub cwd: PathBuf,
    /// How many bytes a worker, with all that it starts, may hold.
    pub memory: Option<u64>,
    /// How many items a Python worker takes before another takes its place.
    pub most_items: Option<usize>,
}

/// What a Python worker is started with.
#[derive(Debug, Clone, PartialEq)]
pub struct PythonEnv {
    /// The interpreter: as found, or as named where it is for nodes to find; empty: theirs.
    pub interpreter: PathBuf,
    /// The folder in which modules are found first.
    pub path: PathBuf,
    /// `module`, `function`, arguments: run once before the first item.
    pub init: Option<Initializer>,
    /// What it loads once, for all functions.
    pub share: Vec<SharedObject>,
}

/// An object that a Python worker loads once, from a file, and passes as a keyword.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedObject {
    pub name: String,
    /// Where it comes from, for people.
    pub shown: String,
    pub form: SharedForm,
    pub path: PathBuf,
    /// What the file looked like when its content was hashed: another one is not loaded.
    pub stamp: FileStamp,
    /// Of the content: workers that hold another one are not asked.
    pub content: Hash,
}

/// How a shared object is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedForm {
    /// As the file's format says.
    File(SharedFormat),
    /// Rows as a table of pyarrow, memory-mapped; where there is no pyarrow, as dicts from the file beside it, which
    /// ends in `.rows`.
    Rows,
}

/// Module, function and keyword arguments of what prepares a worker.
pub type Initializer = (String, String, Vec<(String, Value)>);

/// Names a task in reports.
pub type TaskId = u64;

/// What names an item to the one who handed it out, in this run and the next.
pub type Mark = u64;

/// Items that go to one worker together: a chunk.
pub struct Task {
    pub id: TaskId,
    pub job: Arc<Job>,
    pub input: TaskInput,
    /// One for each item.
    pub marks: Vec<Mark>,
    /// How long an item took lately, where any did.
    pub expected: Option<Duration>,
}

/// What a task's items are.
pub enum TaskInput {
    /// Rows for a Python function: the columns that it sees, keyword arguments that differ by item, and environment
    /// variables that do.
    Rows { table: Table, args: Table, env: Table },
    /// Commands.
    Commands(Vec<CommandItem>),
    /// One item, the group of a reduce: its rows arrive as a stream.
    Group { rows: Box<dyn Iterator<Item = Table> + Send>, args: Table, command: Option<CommandItem> },
}

impl TaskInput {
    /// The number of items.
    pub fn len(&self) -> usize {
        match self {
            TaskInput::Rows { table, .. } => table.rows(),
            TaskInput::Commands(items) => items.len(),
            TaskInput::Group { .. } => 1,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A command, ready to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandItem {
    pub argv: Vec<String>,
    /// On top of the pool's environment.
    pub env: Vec<(String, String)>,
    /// Instead of the pool's folder.
    pub cwd: Option<PathBuf>,
    pub stdin: Option<Vec<u8>>,
}

/// What became of some of a task's items.
#[derive(Debug, Clone)]
pub struct Outcomes {
    /// Items that succeeded, by their position in the task, in the order of their rows in `added`.
    pub done: Vec<u32>,
    /// Rows that each of them gave; `None`: one each.
    pub counts: Option<Vec<u32>>,
    /// The new columns: a row per row given.
    pub added: Table,
    /// Items that failed.
    pub failed: Vec<(u32, Failure)>,
    /// What each used: those done, then those failed.
    pub usage: Vec<Usage>,
}

/// What an executor tells.
#[derive(Debug)]
pub enum Report {
    /// A worker took up the task.
    Started { task: TaskId },
    /// Some items ended.
    Part { task: TaskId, outcomes: Outcomes },
    /// The task is over; these items were not reported: not begun, or begun and dropped without fault.
    End { task: TaskId, unfinished: Vec<u32> },
    /// What an engine has.
    Engine(EngineNews),
    /// An engine cannot be used, or not any more; nothing is any item's fault.
    Unavailable { engine: String, message: String },
    /// The job cannot run at all (program, import, function, `init`, interpreter); nothing is any item's fault.
    Broken { task: TaskId, stage: String, message: String },
}

/// Runs tasks.
pub trait Executor: Send {
    /// Takes a task; it starts as soon as a worker of its pool is free, in the order of submission.
    fn submit(&mut self, task: Task);
    /// Makes durable which items are in hand, where that is worth it. To be called every second or so.
    fn keep_in_hand(&mut self);
    /// Takes up no new item: items in hand finish, all others come back as unfinished.
    fn drain(&mut self);
    /// Ends every worker at once, with whatever it started; returns when they are gone.
    fn stop(&mut self);
}
