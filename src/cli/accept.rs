//! `accept`: stored results hold for the workflow as it is now.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::engine::api::{self, RunOptions};
use crate::report::{accepted, json};

use super::Exit;
use super::error::CliError;
use super::globals::Globals;
use super::load::load;
use super::terminal::Terminal;

const EXAMPLE: &str = "\
Examples:
  bpp-flow accept                  all stages
  bpp-flow accept --stage measure  one stage
  bpp-flow accept --item c17       one item";

/// Declares stored results valid for the code as it is now
///
/// After a change that does not alter results: every due item that succeeded before with the same input takes that
/// result, the latest one, and is not run again. Failures, new and changed items stay due.
/// `results STAGE --columns version` and `status` tell which version made which rows.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// The workflow file; default: pipeline.yaml, then workflow.yaml
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only this stage
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
    /// Only this item, by its key; repeatable
    #[arg(long = "item", value_name = "KEY", allow_hyphen_values = true)]
    items: Vec<String>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, globals: &Globals, terminal: &Terminal) -> Result<Exit, CliError> {
    let loaded = load(args.file.as_deref(), globals, terminal)?;
    if let Some(stage) = &args.stage {
        loaded.check_stage(stage)?;
    }
    let options = RunOptions {
        items: args.items.clone(),
        on_network_fs: globals.state_on_network_fs,
        command: super::options::command_line(),
        ..RunOptions::default()
    };
    let stages = api::accept(&loaded.flow, &options, args.stage.as_deref())?;
    let mut out = io::stdout().lock();
    if args.json {
        json::print(&mut out, &serde_json::json!({ "stages": stages }))?;
    } else {
        out.write_all(accepted::render(&stages, terminal.out, terminal.out_width).as_bytes())?;
        out.flush()?;
    }
    Ok(Exit::Success)
}
