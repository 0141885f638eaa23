//! Runs a plan: decides what is due, hands chunks to executors, commits outcomes, moves rows on.
//!
//! One loop ([`dispatcher`]) owns the state of a run; threads that read sources, replay the store, evaluate and
//! commit only send it messages. [`resolve`] decides what is due, [`pace`] how much a worker gets at once; both are
//! pure. [`replay`] joins rosters and results to the rows of a stage, in item order; results, outputs, reduces and
//! plans all read through it.

pub mod accept;
pub mod api;
pub mod books;
pub mod budget;
pub mod dispatcher;
pub mod events;
pub mod explain;
pub mod feed;
mod gc;
pub mod groups;
pub mod look;
pub mod made;
pub mod outputs;
pub mod pace;
pub mod prepare;
pub mod replay;
pub mod resolve;
pub mod run;
pub mod selection;
mod shared;
pub mod sources;
pub mod stage;
mod suspects;
mod ticket;
mod versions;
pub mod writer;

/// bpp-flow could not do its own job. (A failing item is data, not one of these.)
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error(transparent)]
    Source(#[from] crate::data::source::SourceError),
    #[error(transparent)]
    Plan(#[from] crate::plan::PlanError),
    #[error(transparent)]
    Export(#[from] crate::data::export::ExportError),
    /// The spill files of a reduce.
    #[error("cannot write or read the temporary files of a reduce")]
    Spill(#[source] std::io::Error),
    /// An output file cannot be written.
    #[error("cannot write {path}")]
    Output {
        path: String,
        #[source]
        source: std::io::Error,
    },
    /// What fails before any item could start.
    #[error("stage {stage} cannot run: {message}")]
    Broken { stage: String, message: String },
    /// An engine has no workers, or none any more.
    #[error("backend {engine}: {message}")]
    Unavailable { engine: String, message: String },
    /// A name on the command line.
    #[error("no stage {name:?}")]
    NoStage { name: String, stages: Vec<String> },
    /// `--item` or `--row` names what is not there.
    #[error("no item {keys}")]
    NoItem { keys: String },
    /// A template of an output path.
    #[error("output of stage {stage}: {problem}")]
    OutputPath { stage: String, problem: String },
    /// What a plan told is no longer what a run would do.
    #[error("the plan is stale: {what}")]
    StalePlan { what: String },
    /// What a killed run left of files that items make cannot be removed, or a journal of it not be kept.
    #[error("cannot keep the journal of files that are being made, or remove what an earlier run left")]
    Journal(#[source] std::io::Error),
    /// A file that an item made cannot be made durable.
    #[error("cannot sync {path}")]
    Sync {
        path: String,
        #[source]
        source: std::io::Error,
    },
    /// There is nothing to look at yet.
    #[error("no run of this workflow yet")]
    NoState,
    /// The receiver of rows failed.
    #[error("cannot hand on rows")]
    Sink(#[source] api::SinkError),
}
