//! `check`: every mistake of a workflow file, in one pass.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::diagnostic::Report;
use crate::engine::api::{environments_secrets, try_engines};
use crate::report::json;
use crate::report::phrase::count;
use crate::spec::model::Workflow;

use super::Exit;
use super::error::CliError;
use super::globals::Globals;
use super::load::{load_on, parse, read};
use super::options::Where;
use super::terminal::Terminal;

const EXAMPLE: &str = "\
Examples:
  bpp-flow check              pipeline.yaml of this folder
  bpp-flow check flow.yaml --json | jq '.[] | \"\\(.line): \\(.message)\"'";

/// Validates a workflow file: every mistake with its line and the way out
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// The workflow file; default: pipeline.yaml, then workflow.yaml
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    place: Where,
    /// Prints the mistakes as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, globals: &Globals, terminal: &Terminal) -> Result<Exit, CliError> {
    if args.json {
        return as_json(args, globals);
    }
    let loaded = load_on(args.place.backend.as_deref(), args.file.as_deref(), globals, terminal)?;
    let answers = try_engines(&loaded.flow)?;
    let mut out = io::stdout().lock();
    for (engine, words) in answers {
        writeln!(out, "{engine}: {}", words.trim())?;
    }
    writeln!(out, "{}: {}", loaded.invocation.file, describe(&loaded.flow.workflow))?;
    Ok(Exit::Success)
}

fn as_json(args: &Args, globals: &Globals) -> Result<Exit, CliError> {
    let files = read(args.file.as_deref(), globals)?;
    let mistakes = parse(&files, args.place.backend.as_deref(), globals).err().unwrap_or_default();
    let secrets = environments_secrets();
    let mut reports: Vec<Report> = mistakes.iter().map(|m| Report::new(&files.sources, m)).collect();
    for report in &mut reports {
        let related = report.related.iter_mut().map(|r| &mut r.message);
        report.help.iter_mut().chain(related).chain([&mut report.message]).for_each(|text| secrets.hide_in(text));
    }
    json::print(&mut io::stdout().lock(), &reports)?;
    Ok(if mistakes.is_empty() { Exit::Success } else { Exit::Usage })
}

fn describe(workflow: &Workflow) -> String {
    let sources = count(workflow.sources.len() as u64, "source");
    let stages = count(workflow.stages.len() as u64, "stage");
    format!("ok ({sources}, {stages}, {})", count(workflow.outputs.len() as u64, "output"))
}
