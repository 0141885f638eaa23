//! `retry`: failed items again.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::data::FailureKind;
use crate::engine::api::{Retry, RunOptions};

use super::Exit;
use super::error::CliError;
use super::globals::Globals;
use super::load::load_on;
use super::options::Execution;
use super::run::execute;
use super::terminal::Terminal;

const EXAMPLE: &str = "\
Examples:
  bpp-flow retry --failed                    everything that failed
  bpp-flow retry --kind timeout -j 1         what took too long, one at a time
  bpp-flow retry --stage measure --item c17  one item of one stage
  bpp-flow retry --match refused             what failed for one cause";

/// Runs failed items again, with what follows from them
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// The workflow file; default: pipeline.yaml, then workflow.yaml
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// All failed items, as without it
    #[arg(long)]
    failed: bool,
    /// Up to this stage
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
    /// Only this item, by its key; repeatable
    #[arg(long = "item", value_name = "KEY", allow_hyphen_values = true)]
    items: Vec<String>,
    /// Only failures of this kind; repeatable
    #[arg(long = "kind", value_name = "KIND", value_parser = kinds())]
    kinds: Vec<FailureKind>,
    /// Only failures whose message or traceback has this text
    #[arg(long = "match", value_name = "TEXT", allow_hyphen_values = true)]
    matching: Option<String>,
    #[command(flatten)]
    execution: Execution,
}

pub(super) fn run(args: &Args, globals: &Globals, terminal: &Terminal) -> Result<Exit, CliError> {
    let loaded = load_on(args.execution.place.backend.as_deref(), args.file.as_deref(), globals, terminal)?;
    if let Some(stage) = &args.stage {
        loaded.check_stage(stage)?;
    }
    let options = RunOptions {
        items: args.items.clone(),
        retry: Some(Retry { stage: args.stage.clone(), kinds: args.kinds.clone(), matching: args.matching.clone() }),
        on_network_fs: globals.state_on_network_fs,
        ..RunOptions::default()
    };
    execute(&loaded, &args.execution.apply(options, globals), &args.execution, globals, terminal)
}

fn kinds() -> impl TypedValueParser<Value = FailureKind> {
    let names = PossibleValuesParser::new(FailureKind::ALL.map(FailureKind::name));
    names.try_map(|name| FailureKind::ALL.into_iter().find(|k| k.name() == name).ok_or("not a kind"))
}
