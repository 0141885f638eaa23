//! What the command line asks of the engine.

use std::path::PathBuf;
use std::time::Duration;

use crate::data::{Failure, Usage};
use crate::spec::model::Workflow;

pub use super::EngineError;
pub use super::accept::{Accepted, accept};
pub use super::explain::{Wanted, plan};
pub use super::gc::{GcOptions, collect};
pub use super::look::{Rows, errors, failure_of, inspect, remove_run, repair, results, runs, status};
pub use super::outputs::check;
pub use super::resolve::{Retry, USAGE_COLUMNS};
pub use super::run::{environments_secrets, run, secrets, try_engines};
pub use super::sources::programs;
pub use super::ticket::Ticket;

/// A loaded workflow.
#[derive(Debug, Clone)]
pub struct Flow {
    pub workflow: Workflow,
    /// Where its state lies.
    pub state_dir: PathBuf,
    /// The workflow file.
    pub file: PathBuf,
    /// Its text.
    pub source_text: String,
}

/// What is selected of a workflow, and how it runs.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Take no earlier result of what is selected.
    pub fresh: bool,
    /// Up to this stage.
    pub stage: Option<String>,
    /// The first items of each source.
    pub limit: Option<u64>,
    /// Items by key.
    pub items: Vec<String>,
    /// Items by position.
    pub rows: Vec<u64>,
    /// Cap of items at once.
    pub workers: Option<usize>,
    /// One item at a time in the terminal.
    pub debug: bool,
    /// Run failed items again.
    pub retry: Option<Retry>,
    /// [`super::events::Event::Item`] is wanted.
    pub want_items: bool,
    /// The command line, for the catalogue.
    pub command: String,
    /// How long items in hand may take after SIGTERM or SIGHUP.
    pub grace: Duration,
    /// No new item is taken up after this time.
    pub stop_after: Option<Duration>,
    /// A plan that this run keeps to.
    pub ticket: Option<Ticket>,
    /// Insist on a state on a network file system.
    pub on_network_fs: bool,
}

impl RunOptions {
    /// Whether nothing narrows the run or makes it run again what holds.
    pub fn asks_for_everything(&self) -> bool {
        !self.fresh && self.limit.is_none() && !self.selects_items() && self.retry.is_none()
    }

    /// Whether `--item` or `--row` is given.
    pub fn selects_items(&self) -> bool {
        !self.items.is_empty() || !self.rows.is_empty()
    }
}

/// Somebody wants the run to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C; the second one stops at once.
    Interrupt,
    Terminate,
    Hangup,
}

/// A failed item: stage, key, story, attempts, what the last one used.
pub type FailedItem = (String, String, Failure, u16, Usage);

/// What a sink of rows may answer.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;
