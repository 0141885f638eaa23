//! What a run tells while it goes: the contract between the engine and whoever reports.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data::Failure;
use crate::executor::EngineNews;

/// Something happened. Written as JSON lines by `--events`.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run begins.
    RunStarted { run: String, workflow: String, stages: Vec<String> },
    /// More of a source has been read.
    SourceRead { source: String, rows: u64, complete: bool },
    /// A stage's counts changed (sent after each commit; not for every item).
    Progress { stage: String, counts: Counts },
    /// An item ended; sent after its outcome is committed, and only if somebody asked for items.
    Item {
        stage: String,
        key: String,
        status: ItemStatus,
        attempt: u32,
        seconds: f64,
        /// In bytes, where it is known.
        peak_memory: Option<u64>,
        kind: Option<String>,
    },
    /// An item failed for good (after its retries).
    ItemFailed { stage: String, key: String, failure: Failure },
    /// A stage has no more to do.
    StageFinished { stage: String, summary: StageSummary },
    /// What an engine beyond this machine has, when that has changed.
    Engine { engine: EngineNews },
    /// An output file was written.
    OutputWritten { stage: String, path: String, rows: u64 },
    /// Items were in hand when an earlier run was killed: they run alone first.
    Suspects { stage: String, items: u64 },
    /// The first signal: items in hand finish, no new ones start.
    Draining {
        signal: String,
        in_hand: u64,
        /// How many seconds they may take.
        grace: Option<f64>,
    },
    /// The run is over.
    RunFinished { summary: RunSummary },
}

/// How an item ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemStatus {
    Done,
    Failed,
}

/// A stage's items, counted. Every item known is in exactly one of done, failed, blocked, due, possible, running.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Items known so far.
    pub total: u64,
    /// Whether more may come.
    pub total_known: bool,
    /// How many there will be, where a source says so before it is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
    /// Results that hold, earlier ones included.
    pub done: u64,
    /// Of these, results that this run made.
    pub ran: u64,
    /// Failures that hold, earlier ones included.
    pub failed: u64,
    /// Behind a failure.
    pub blocked: u64,
    /// To be run.
    pub due: u64,
    /// Behind something that is to be run.
    pub possible: u64,
    /// In hand.
    pub running: u64,
}

impl Counts {
    /// How many items there are or will be, as far as that can be told.
    pub fn end(&self) -> Option<u64> {
        if self.total_known { Some(self.total) } else { self.expected.filter(|expected| *expected >= self.total) }
    }
}

/// What became of a stage in a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StageSummary {
    pub name: String,
    /// Items that this run ran to an end, failed ones included.
    pub ran: u64,
    /// Results that held already.
    pub cached: u64,
    /// Failures that hold, earlier ones included.
    pub failed: u64,
    pub blocked: u64,
    /// From its first item to its last commit.
    pub seconds: f64,
    /// All items.
    pub total: u64,
    /// Rows that a reduce had to do without.
    #[serde(default)]
    pub missing: u64,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Still going (or killed).
    Running,
    /// Nothing due is left, no failures.
    Finished,
    /// Nothing due is left, some items failed.
    Failures,
    /// `on_error: stop` or `max_failures`.
    Stopped,
    /// A signal.
    Interrupted,
    /// What fails before any item could start, or bpp-flow itself.
    Broken,
}

/// What a run did; `run --json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// The run's id.
    pub run: String,
    pub state: RunState,
    pub stages: Vec<StageSummary>,
    /// Wall time.
    pub seconds: f64,
    /// Why it stopped, where it did not finish.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Failures that hold, grouped: what `errors` prints.
    #[serde(default)]
    pub failures: Vec<FailureGroup>,
    /// Outputs written by this run.
    #[serde(default)]
    pub outputs: Vec<String>,
}

/// Failures with one cause; `errors --json` prints a list of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailureGroup {
    pub stage: String,
    pub kind: String,
    pub signature: String,
    pub count: u64,
    /// The first few.
    pub keys: Vec<String>,
}

/// What `plan` says of one stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StagePlan {
    pub name: String,
    pub total: u64,
    pub total_known: bool,
    pub done: u64,
    pub due: u64,
    pub possible: u64,
    pub blocked: u64,
    pub failed: u64,
    /// Why the due items are due: `new`, `input_changed`, `code_changed`, `args_changed`, `version_changed`,
    /// `deps_changed`, `init_changed`, `file_missing`, `failed_before`, `fresh`, …
    pub reasons: BTreeMap<String, u64>,
    /// For each reason the first few keys, with what changed where that is known.
    pub samples: BTreeMap<String, Vec<String>>,
    /// What changed for all items of the stage, in words: `function measure in features.py changed`.
    pub changes: Vec<String>,
    /// How long the due items will take together, and the possible ones: by what items took before, with as many at
    /// once as the stage has workers. `None`: none of it ran before.
    pub seconds: Option<f64>,
    pub possible_seconds: Option<f64>,
    /// The jobs that it will be spread over, where an engine has such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<Jobs>,
    /// Names of the inputs.
    pub inputs: Vec<String>,
    /// Names of the stages that it comes after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// `map`, `flat_map`, `filter`, `reduce`, `once`.
    pub verb: String,
    /// `python features:measure`, `command true …`, `assign ratio`.
    pub action: String,
}

/// Jobs of a batch system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jobs {
    pub backend: String,
    /// At most so many.
    pub jobs: u64,
}

/// What a run would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanReport {
    /// In the order of the graph.
    pub stages: Vec<StagePlan>,
    /// What was followed through them.
    #[serde(skip)]
    pub followed: Vec<Followed>,
    /// Of each stage: its version in hex, and which items are due, where that was asked for.
    #[serde(skip)]
    pub due: Vec<DueItems>,
}

/// The items of a stage that are due.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueItems {
    pub name: String,
    /// Of the stage, in hex.
    pub version: String,
    /// A hash of all of them, in order, and of the counts beside them.
    pub digest: String,
    /// Their keys; the first of many.
    pub due: Vec<String>,
    /// How many there are.
    pub count: u64,
    /// How many may follow from what runs.
    pub possible: u64,
}

/// An item as it was met in a stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Followed {
    pub stage: String,
    pub key: String,
    /// `done`, `due`, `possible`, `blocked`, `failed`, `dropped` (by a filter) or `gone` (it gave no rows).
    pub state: String,
    /// Why, in words.
    pub why: String,
    /// The number of the version that made its result.
    pub version: Option<u32>,
    pub attempts: Option<u16>,
    pub seconds: Option<f64>,
}

/// A run's entry in the catalogue; also what `status` reads of a run that is going.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Sortable: the start time, to a small part of a second.
    pub id: String,
    /// The command line.
    pub command: String,
    /// RFC 3339.
    pub started: String,
    pub ended: Option<String>,
    pub host: String,
    pub pid: u32,
    pub state: RunState,
    pub reason: Option<String>,
    /// Name and counts of each stage at the last commit.
    pub stages: Vec<(String, Counts)>,
    /// Seconds from the start to the last commit.
    pub seconds: f64,
    /// Items per second of each stage lately.
    #[serde(default)]
    pub rates: Vec<f64>,
    /// The version each stage ran with, in hex.
    #[serde(default)]
    pub versions: Vec<(String, String)>,
    /// Of stages whose results several versions made (some were accepted): how many are of which, by its number.
    #[serde(default)]
    pub made: Vec<(String, Vec<(u32, u64)>)>,
    /// What engines beyond this machine had last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub engines: Vec<EngineNews>,
}
