//! `errors`: what failed, and why.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::engine::api;
use crate::report::json::{self, FailedItem};
use crate::report::{errors, tell};

use super::Exit;
use super::error::CliError;
use super::globals::Globals;
use super::load::{Loaded, load};
use super::terminal::Terminal;

const EXAMPLE: &str = "\
Examples:
  bpp-flow errors              failures by cause
  bpp-flow errors --item c17   the traceback and the output of one item
  bpp-flow errors flow.yaml --stage measure --json | jq '.[].keys'";

/// Shows failures by cause, or one item's traceback and output
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// The workflow file; default: pipeline.yaml, then workflow.yaml
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The whole story of this item
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    item: Option<String>,
    /// Only failures of this stage
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, globals: &Globals, terminal: &Terminal) -> Result<Exit, CliError> {
    let loaded = load(args.file.as_deref(), globals, terminal)?;
    if let Some(stage) = &args.stage {
        loaded.check_stage(stage)?;
    }
    match &args.item {
        Some(key) => one(&loaded, key, args, terminal),
        None => all(&loaded, args, globals, terminal),
    }
}

fn all(loaded: &Loaded, args: &Args, globals: &Globals, terminal: &Terminal) -> Result<Exit, CliError> {
    let groups = api::errors(&loaded.flow, args.stage.as_deref())?;
    let mut out = io::stdout().lock();
    if args.json {
        json::print(&mut out, &groups)?;
    } else if groups.is_empty() {
        tell("no failures\n");
    } else {
        out.write_all(errors::table(&groups, terminal.out, terminal.out_width).as_bytes())?;
        out.flush()?;
        if !globals.quiet {
            tell(&format!("\n{}", errors::next_steps(&groups, &loaded.invocation)));
        }
    }
    Ok(Exit::Success)
}

fn one(loaded: &Loaded, key: &str, args: &Args, terminal: &Terminal) -> Result<Exit, CliError> {
    let found = api::failure_of(&loaded.flow, args.stage.as_deref(), key)?;
    let item = |(stage, key, failure, attempts, usage)| FailedItem { stage, key, failure, attempts, usage };
    let items: Vec<FailedItem> = found.into_iter().map(item).collect();
    if items.is_empty() {
        let all = loaded.invocation.command(&["errors"], &[]);
        return Err(CliError::failed(format!("no failed item `{key}`")).hint(format!("what failed: {all}")));
    }
    let mut out = io::stdout().lock();
    if args.json {
        json::print(&mut out, &json::failed_items(&items))?;
    } else {
        let stories: Vec<String> = items.iter().map(|item| errors::story(item, terminal.out)).collect();
        out.write_all(stories.join("\n").as_bytes())?;
        out.flush()?;
    }
    Ok(Exit::Success)
}
