//! `runs`: the catalogue of runs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;

use crate::engine::api;
use crate::engine::events::RunRecord;
use crate::report::{catalogue, json, tell};

use super::Exit;
use super::error::CliError;
use super::globals::Globals;
use super::load::{Loaded, load};
use super::terminal::Terminal;

const EXAMPLE: &str = "\
Examples:
  bpp-flow runs                   all runs of pipeline.yaml of this folder
  bpp-flow runs flow.yaml --json
  bpp-flow runs show 20260102-03  one of them, by the start of its id
  bpp-flow runs rm 20260102-03";

const SHOW_EXAMPLE: &str = "\
Example:
  bpp-flow runs show 20260102-03 flow.yaml";

const RM_EXAMPLE: &str = "\
Example:
  bpp-flow runs rm 20260102-03 flow.yaml";

/// Lists the runs of a workflow, shows one, or removes one from the list
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE, args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Sub>,
    /// The workflow file; default: pipeline.yaml, then workflow.yaml
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Sub {
    /// Shows all that is known of a run
    #[command(after_help = SHOW_EXAMPLE)]
    Show(One),
    /// Removes a run from the list; results stay
    #[command(after_help = RM_EXAMPLE)]
    Rm(One),
}

#[derive(Debug, clap::Args)]
struct One {
    /// The run's id, or the start of it
    #[arg(value_name = "ID")]
    id: String,
    /// The workflow file; default: pipeline.yaml, then workflow.yaml
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, globals: &Globals, terminal: &Terminal) -> Result<Exit, CliError> {
    let open = |file: &Option<PathBuf>| load(file.as_deref().map(Path::new), globals, terminal);
    match &args.command {
        None => list(&open(&args.file)?, args.json, terminal),
        Some(Sub::Show(one)) => show(&open(&one.file)?, one, terminal),
        Some(Sub::Rm(one)) => remove(&open(&one.file)?, one, globals),
    }
}

fn list(loaded: &Loaded, as_json: bool, terminal: &Terminal) -> Result<Exit, CliError> {
    let runs = api::runs(&loaded.flow)?;
    let mut out = io::stdout().lock();
    if as_json {
        json::print(&mut out, &runs)?;
    } else if runs.is_empty() {
        tell(&format!("{} has not run yet\n", loaded.invocation.file));
    } else {
        let table = catalogue::table(&runs, &TimeZone::system(), terminal.out, terminal.out_width);
        out.write_all(table.as_bytes())?;
        out.flush()?;
    }
    Ok(Exit::Success)
}

fn show(loaded: &Loaded, one: &One, terminal: &Terminal) -> Result<Exit, CliError> {
    let run = find(loaded, &one.id)?;
    let mut out = io::stdout().lock();
    if one.json {
        json::print(&mut out, &run)?;
    } else {
        let text = catalogue::details(&run, &TimeZone::system(), terminal.out, terminal.out_width);
        out.write_all(text.as_bytes())?;
        out.flush()?;
    }
    Ok(Exit::Success)
}

fn remove(loaded: &Loaded, one: &One, globals: &Globals) -> Result<Exit, CliError> {
    let id = find(loaded, &one.id)?.id;
    let removed = api::remove_run(&loaded.flow, &id)?;
    if one.json {
        json::print(&mut io::stdout().lock(), &serde_json::json!({ "removed": removed.then_some(id) }))?;
    } else if !globals.quiet {
        tell(&format!("removed {id}\n"));
    }
    Ok(Exit::Success)
}

/// The one run whose id starts so.
fn find(loaded: &Loaded, id: &str) -> Result<RunRecord, CliError> {
    pick(api::runs(&loaded.flow)?, id).map_err(|error| {
        let all = loaded.invocation.command(&["runs"], &[]);
        CliError::failed(error).hint(format!("all runs: {all}"))
    })
}

fn pick(runs: Vec<RunRecord>, id: &str) -> Result<RunRecord, String> {
    if let Some(at) = runs.iter().position(|run| run.id == id) {
        return Ok(runs.into_iter().nth(at).expect("found there"));
    }
    let mut found: Vec<RunRecord> = runs.into_iter().filter(|run| run.id.starts_with(id)).collect();
    match (found.pop(), found.len()) {
        (Some(run), 0) => Ok(run),
        (Some(_), others) => Err(format!("{} runs have an id that starts with `{id}`", others + 1)),
        (None, _) => Err(format!("no run `{id}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::events::RunState;

    fn run(id: &str) -> RunRecord {
        RunRecord {
            id: id.into(),
            command: String::new(),
            started: String::new(),
            ended: None,
            host: String::new(),
            pid: 1,
            state: RunState::Finished,
            reason: None,
            stages: Vec::new(),
            seconds: 0.0,
            rates: Vec::new(),
            versions: Vec::new(),
            made: Vec::new(),
            engines: Vec::new(),
        }
    }

    #[test]
    fn a_run_is_found_by_the_start_of_its_id() {
        let runs = || vec![run("a-1"), run("a-12"), run("b-1")];
        assert_eq!(pick(runs(), "b").map(|r| r.id), Ok("b-1".to_string()));
        assert_eq!(pick(runs(), "a-1").map(|r| r.id), Ok("a-1".to_string()), "the whole id wins");
        assert_eq!(pick(runs(), "a"), Err("2 runs have an id that starts with `a`".to_string()));
        assert_eq!(pick(runs(), "c"), Err("no run `c`".to_string()));
    }
}
