//! `status`: how far the latest run is.

use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::engine::api;
use crate::engine::events::{RunRecord, RunState};
use crate::report::{json, status, tell};

use super::Exit;
use super::error::CliError;
use super::globals::Globals;
use super::load::{Loaded, load};
use super::terminal::Terminal;

/// `--watch` looks this often.
const EVERY: Duration = Duration::from_secs(1);

const EXAMPLE: &str = "\
Examples:
  bpp-flow status            the latest run of pipeline.yaml of this folder
  bpp-flow status --watch    each second, until it ends
  bpp-flow status flow.yaml --json | jq '.stages[] | {name, done, running}'";

/// Tells how far the latest run is, also while it goes
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// The workflow file; default: pipeline.yaml, then workflow.yaml
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Again each second, until the run ends
    #[arg(long, short)]
    watch: bool,
    /// Prints JSON; with --watch a line each time
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, globals: &Globals, terminal: &Terminal) -> Result<Exit, CliError> {
    let loaded = load(args.file.as_deref(), globals, terminal)?;
    let mut shown = 0;
    loop {
        let record = api::status(&loaded.flow)?;
        shown = show(args, &loaded, record.as_ref(), shown, terminal)?;
        let going = record.is_some_and(|r| r.state == RunState::Running);
        if !args.watch || !going {
            return Ok(Exit::Success);
        }
        thread::sleep(EVERY);
    }
}

/// Prints the status over what was shown before; returns the number of lines.
fn show(
    args: &Args,
    loaded: &Loaded,
    record: Option<&RunRecord>,
    before: usize,
    terminal: &Terminal,
) -> Result<usize, CliError> {
    let mut out = io::stdout().lock();
    if args.json {
        let names: Vec<&str> = loaded.flow.workflow.stages.iter().map(|s| s.name.as_str()).collect();
        let document = json::status(&loaded.flow.workflow.name, &names, record);
        if args.watch {
            writeln!(out, "{document}")?;
        } else {
            json::print(&mut out, &document)?;
        }
        return Ok(0);
    }
    let Some(record) = record else {
        tell(&format!("{} has not run yet\n", loaded.invocation.file));
        return Ok(0);
    };
    let text = status::render(record, terminal.out, terminal.out_width);
    if terminal.out_is_terminal && before > 0 {
        // Up to where the last one began, and from there to the end of the screen nothing.
        write!(out, "\x1b[{before}A\x1b[J")?;
    }
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(text.lines().count())
}
