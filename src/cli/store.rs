//! `store`: the state itself.

use std::io::{self, Write};
use std::path::PathBuf;

use super::Exit;
use super::error::CliError;
use super::globals::Globals;
use super::later;
use super::load::load;
use super::terminal::Terminal;
use crate::engine::api::{self, GcOptions};
use crate::report::{holdings, json, tell};

const EXAMPLE: &str = "\
Examples:
  bpp-flow store verify            read everything, say what is damaged
  bpp-flow store verify --repair   keep all that is whole; `bpp-flow run` computes the rest
  bpp-flow store stats flow.yaml   what is kept of each stage, and its size
  bpp-flow store gc --dry-run      what nothing needs any more";

/// Looks after the stored results of a workflow
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Reads all that is stored and says what is damaged (exit code 1)
    #[command(after_help = EXAMPLE)]
    Verify(Verify),
    /// Counts what is stored of each stage and version
    #[command(after_help = EXAMPLE)]
    Stats(Which),
    /// Drops what nothing needs any more: results of earlier versions, and of items that are gone
    ///
    /// Until then, going back to earlier code or arguments, or adding a row again, finds the earlier results.
    #[command(after_help = EXAMPLE)]
    Gc(Gc),
    #[command(hide = true)]
    Dump(later::Args),
    #[command(hide = true)]
    Restore(later::Args),
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The workflow file; default: pipeline.yaml, then workflow.yaml
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Verify {
    #[command(flatten)]
    which: Which,
    /// Writes all that is whole into a new store; the damaged file is kept beside it
    #[arg(long)]
    repair: bool,
}

#[derive(Debug, clap::Args)]
struct Gc {
    #[command(flatten)]
    which: Which,
    /// Keeps the results of N earlier versions of each stage
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_versions: usize,
    /// Only tells what would go
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub(super) fn run(args: &Args, globals: &Globals, terminal: &Terminal) -> Result<Exit, CliError> {
    match &args.action {
        Action::Verify(args) => verify(args, globals, terminal),
        Action::Stats(which) => stats(which, globals, terminal),
        Action::Gc(args) => gc(args, globals, terminal),
        Action::Dump(_) => later::refuse("store dump"),
        Action::Restore(_) => later::refuse("store restore"),
    }
}

fn verify(args: &Verify, globals: &Globals, terminal: &Terminal) -> Result<Exit, CliError> {
    let loaded = load(args.which.file.as_deref(), globals, terminal)?;
    if args.repair {
        let repaired = api::repair(&loaded.flow)?;
        print(args.which.json, &repaired, &holdings::repaired(&repaired))?;
        if repaired.set_aside.is_some() {
            tell("hint: `bpp-flow run` computes what is lost\n");
        }
        return Ok(Exit::Success);
    }
    let found = api::inspect(&loaded.flow, true)?;
    print(args.which.json, &found, &holdings::verified(&found))?;
    if found.damaged.is_empty() {
        return Ok(Exit::Success);
    }
    tell("hint: `bpp-flow store verify --repair` keeps all that is whole\n");
    Ok(Exit::Failed)
}

fn stats(which: &Which, globals: &Globals, terminal: &Terminal) -> Result<Exit, CliError> {
    let loaded = load(which.file.as_deref(), globals, terminal)?;
    let found = api::inspect(&loaded.flow, false)?;
    print(which.json, &found, &holdings::held(&found, false))?;
    Ok(Exit::Success)
}

fn gc(args: &Gc, globals: &Globals, terminal: &Terminal) -> Result<Exit, CliError> {
    let loaded = load(args.which.file.as_deref(), globals, terminal)?;
    let options =
        GcOptions { versions: args.keep_versions, dry_run: args.dry_run, on_network_fs: globals.state_on_network_fs };
    let collected = api::collect(&loaded.flow, &options)?;
    print(args.which.json, &collected, &holdings::collected(&collected, args.dry_run))?;
    Ok(Exit::Success)
}

fn print(as_json: bool, found: &impl serde::Serialize, text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if as_json { json::print(&mut out, found) } else { out.write_all(text.as_bytes()) }
}
