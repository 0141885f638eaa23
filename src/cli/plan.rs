//! `plan`: what a run would do, and why.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::engine::api::{self, RunOptions};
use crate::report::{json, plan};

use super::Exit;
use super::error::CliError;
use super::globals::Globals;
use super::load::{Loaded, load};
use super::options::Selection;
use super::terminal::Terminal;

const EXAMPLE: &str = "\
Examples:
  bpp-flow plan                  pipeline.yaml of this folder
  bpp-flow plan --stage measure  up to a stage
  bpp-flow plan flow.yaml --json | jq '.stages[].due'";

/// Tells what a run would do, stage by stage, and why; changes nothing
///
/// An item is done (its result holds), due (it will run), possible (it stands behind one that will run), blocked
/// (behind a failure) or failed (`retry` runs it again).
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// The workflow file; default: pipeline.yaml, then workflow.yaml
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    /// Prints JSON
    #[arg(long)]
    json: bool,
    /// Why an item is due (not yet supported)
    #[arg(long, value_name = "KEY", hide = true)]
    explain: Option<String>,
    /// Exit code 3 when there is anything to do (not yet supported)
    #[arg(long, hide = true)]
    check: bool,
}

pub(super) fn run(args: &Args, globals: &Globals, terminal: &Terminal) -> Result<Exit, CliError> {
    if args.explain.is_some() {
        return Err(CliError::later("plan --explain"));
    }
    if args.check {
        return Err(CliError::later("plan --check"));
    }
    let loaded = load(args.file.as_deref(), globals, terminal)?;
    let options = args.selection.options(&loaded, globals)?;
    show(&loaded, &options, args.json, terminal)
}

/// Prints the plan of a run with these options.
pub(super) fn show(
    loaded: &Loaded,
    options: &RunOptions,
    as_json: bool,
    terminal: &Terminal,
) -> Result<Exit, CliError> {
    let stages = api::plan(&loaded.flow, options)?;
    let mut out = io::stdout().lock();
    if as_json {
        json::print(&mut out, &json::plan(&loaded.flow.workflow.name, &stages))?;
    } else {
        out.write_all(plan::render(&stages, terminal.out, terminal.out_width).as_bytes())?;
        out.flush()?;
    }
    Ok(Exit::Success)
}
