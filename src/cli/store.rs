//! `store`: the state itself.

use std::io::{self, Write};
use std::path::PathBuf;

use super::Exit;
use super::error::CliError;
use super::globals::Globals;
use super::later;
use super::load::load;
use super::terminal::Terminal;
use crate::engine::api;
use crate::report::json;

const EXAMPLE: &str = "\
Examples:
  bpp-flow store verify            read everything, say what is damaged
  bpp-flow store stats flow.yaml   what is kept of each stage, and its size";

/// Looks after the stored results of a workflow
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Reads all that is stored and says what cannot be read (exit code 1)
    #[command(after_help = EXAMPLE)]
    Verify(Which),
    /// Counts what is stored of each stage and version
    #[command(after_help = EXAMPLE)]
    Stats(Which),
    #[command(hide = true)]
    Gc(later::Args),
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

pub(super) fn run(args: &Args, globals: &Globals, terminal: &Terminal) -> Result<Exit, CliError> {
    let (which, verify) = match &args.action {
        Action::Verify(which) => (which, true),
        Action::Stats(which) => (which, false),
        Action::Gc(_) => return later::refuse("store gc"),
        Action::Dump(_) => return later::refuse("store dump"),
        Action::Restore(_) => return later::refuse("store restore"),
    };
    let loaded = load(which.file.as_deref(), globals, terminal)?;
    let found = api::inspect(&loaded.flow, verify)?;
    let mut out = io::stdout().lock();
    if which.json {
        json::print(&mut out, &serde_json::to_value(&found).unwrap_or_default())?;
    } else {
        for stage in found.stages.iter().filter(|s| verify || s.segments > 0) {
            let version = &stage.version[..8];
            writeln!(
                out,
                "{} {version}: {} items, {} failed, {} segments, {} bytes",
                stage.stage, stage.items, stage.failed, stage.segments, stage.bytes
            )?;
        }
        writeln!(out, "sources: {} batches, {} bytes", found.roster_batches, found.roster_bytes)?;
        found.damaged.iter().try_for_each(|what| writeln!(out, "damaged: {what}"))?;
        if verify && found.damaged.is_empty() {
            writeln!(out, "everything can be read")?;
        }
    }
    Ok(if found.damaged.is_empty() { Exit::Success } else { Exit::Failed })
}
