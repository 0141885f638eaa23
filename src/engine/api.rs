//! What the command line asks of the engine.

use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::events::{Event, FailureGroup, RunRecord, RunSummary, StagePlan};
use crate::data::{Failure, FailureKind, Table};
use crate::spec::model::{Backend, Workflow};

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
    pub backend: Option<Backend>,
    /// Cap of items at once.
    pub workers: Option<usize>,
    /// One item at a time in the terminal.
    pub debug: bool,
    /// Run failed items again.
    pub retry: Option<Retry>,
    /// [`Event::Item`] is wanted.
    pub want_items: bool,
    /// The command line, for the catalogue.
    pub command: String,
    /// How long items in hand may take after SIGTERM or SIGHUP.
    pub grace: Duration,
    /// Insist on a state on a network file system.
    pub on_network_fs: bool,
}

/// Which failed items run again; no kinds: all kinds.
#[derive(Debug, Clone, Default)]
pub struct Retry {
    pub kinds: Vec<FailureKind>,
    /// Only failures whose message or traceback has this text.
    pub matching: Option<String>,
}

/// Somebody wants the run to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C; the second one stops at once.
    Interrupt,
    Terminate,
    Hangup,
}

/// A failed item: stage, key, story, attempts, microseconds.
pub type FailedItem = (String, String, Failure, u16, u32);

/// What a sink of rows may answer.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// The engine could not do its job.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Not there yet.
    #[error("the engine is not there yet")]
    Unready,
    /// The receiver of rows failed.
    #[error("cannot hand on rows")]
    Sink(#[source] SinkError),
}

/// Plans and runs; blocks until the run is over.
pub fn run(
    _flow: &Flow,
    _options: &RunOptions,
    _events: Sender<Event>,
    _signals: Receiver<Signal>,
) -> Result<RunSummary, EngineError> {
    Err(EngineError::Unready)
}

/// What a run would do, stage by stage in the order of the graph.
pub fn plan(_flow: &Flow, _options: &RunOptions) -> Result<Vec<StagePlan>, EngineError> {
    Err(EngineError::Unready)
}

/// The latest run.
pub fn status(_flow: &Flow) -> Result<Option<RunRecord>, EngineError> {
    Err(EngineError::Unready)
}

/// Failures that hold, grouped.
pub fn errors(_flow: &Flow, _stage: Option<&str>) -> Result<Vec<FailureGroup>, EngineError> {
    Err(EngineError::Unready)
}

/// The failures of the item with this key.
pub fn failure_of(_flow: &Flow, _stage: Option<&str>, _key: &str) -> Result<Vec<FailedItem>, EngineError> {
    Err(EngineError::Unready)
}

/// Streams the rows of a stage in item order; of its failed items their input columns, `status`, `error` and
/// `traceback`.
pub fn results(
    _flow: &Flow,
    _stage: &str,
    _failed: bool,
    _limit: Option<u64>,
    _sink: &mut dyn FnMut(Table) -> Result<(), SinkError>,
) -> Result<(), EngineError> {
    Err(EngineError::Unready)
}

/// All runs, the latest last.
pub fn runs(_flow: &Flow) -> Result<Vec<RunRecord>, EngineError> {
    Err(EngineError::Unready)
}

/// Removes a run from the catalogue; false when there is none of this id.
pub fn remove_run(_flow: &Flow, _id: &str) -> Result<bool, EngineError> {
    Err(EngineError::Unready)
}
