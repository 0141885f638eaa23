//! bpp-flow: a declarative workflow engine.
//!
//! The way of the data: [`spec`] turns a YAML file into a workflow, `plan` into a graph of stages, [`engine`] reads
//! its sources in batches, decides with the [`store`] what is due, hands chunks to an [`executor`] and commits their
//! outcomes. See `docs/architecture.md`.

pub mod cli;
pub mod data;
pub mod diagnostic;
pub mod engine;
pub mod executor;
#[doc(hidden)]
pub mod fuzzing;
pub mod plan;
pub mod report;
pub mod spec;
pub mod store;
