//! `plan`: what a run would do, and why.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::engine::api::{self, RunOptions, Ticket, Wanted};
use crate::report::{json, plan, tell};

use super::Exit;
use super::error::{CliError, Context};
use super::globals::Globals;
use super::load::{Loaded, load_on};
use super::options::{Selection, Where};
use super::terminal::Terminal;

const EXAMPLE: &str = "\
Examples:
  bpp-flow plan                                  pipeline.yaml of this folder
  bpp-flow plan --stage measure                  up to a stage
  bpp-flow plan --explain c17                    one item through all stages
  bpp-flow plan --check || bpp-flow run          run if anything is due
  bpp-flow plan --out plan.json                  write it down, for `run --plan plan.json`
  bpp-flow plan flow.yaml --json | jq '.stages[].due'";

/// Tells what a run would do, stage by stage, and why; changes nothing
///
/// An item is done (its result holds), due (it will run), possible (it may run: it stands behind one that will),
/// blocked (behind a failure) or failed (`retry` runs it again).
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// The workflow file; default: pipeline.yaml, then workflow.yaml
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    what: What,
}

/// What is told of a plan, and how.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct What {
    /// Follows one item through all stages, by its key
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub explain: Option<String>,
    /// Exits with 3 when anything is due or possible
    #[arg(long)]
    pub check: bool,
    /// Writes the plan to FILE, for `run --plan FILE`
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Prints JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(args: &Args, globals: &Globals, terminal: &Terminal) -> Result<Exit, CliError> {
    let loaded = load_on(args.place.backend.as_deref(), args.file.as_deref(), globals, terminal)?;
    let options = args.selection.options(&loaded, globals)?;
    show(&loaded, &options, &args.what, terminal)
}

/// Prints the plan of a run with these options.
pub(super) fn show(loaded: &Loaded, options: &RunOptions, what: &What, terminal: &Terminal) -> Result<Exit, CliError> {
    for (source, program) in api::programs(&loaded.flow, options)? {
        tell(&format!("source {source} is read by running {program}\n"));
    }
    let wanted = Wanted { follow: what.explain.clone(), due: what.out.is_some() };
    let report = api::plan(&loaded.flow, options, &wanted)?;
    if let Some(path) = &what.out {
        write(&Ticket::new(&loaded.flow, options, &report), path)?;
    }
    let mut out = io::stdout().lock();
    if what.json {
        json::print(&mut out, &json::plan(&loaded.flow.workflow.name, &report))?;
    } else {
        let text = match what.explain {
            Some(_) => plan::render_followed(&report.followed, terminal.out, terminal.out_width),
            None => plan::render(&report.stages, terminal.out, terminal.out_width),
        };
        out.write_all(text.as_bytes())?;
        out.flush()?;
    }
    let due = what.check && plan::anything_to_do(&report.stages);
    Ok(if due { Exit::Due } else { Exit::Success })
}

fn write(ticket: &Ticket, path: &Path) -> Result<(), CliError> {
    let written = io::Error::other;
    let mut text = serde_json::to_string_pretty(ticket).map_err(written).map_err(|e| unwritten(path, e))?;
    text.push('\n');
    std::fs::write(path, text).map_err(|e| unwritten(path, e))
}

fn unwritten(path: &Path, error: io::Error) -> CliError {
    CliError::failed(Context { doing: format!("cannot write {}", path.display()), source: error.into() })
}

/// A plan that `--out` wrote.
pub(super) fn read(path: &Path) -> Result<Ticket, CliError> {
    let wrong = |source: Box<dyn std::error::Error + Send + Sync>| {
        CliError::usage(Context { doing: format!("cannot read the plan {}", path.display()), source })
            .hint("`bpp-flow plan --out FILE` writes one")
    };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.into()))?;
    serde_json::from_str(&text).map_err(|e| wrong(e.into()))
}
