//! `config`: the effective workflow, with the origin of every value.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::data::Value;
use crate::engine::api::environments_secrets;
use crate::report::{config, json};
use crate::spec::effective::{Part, effective};

use super::Exit;
use super::error::CliError;
use super::globals::Globals;
use super::load::{Loaded, load, read, with_options};
use super::terminal::Terminal;

const EXAMPLE: &str = "\
Examples:
  bpp-flow config                        pipeline.yaml of this folder, with its defaults applied
  bpp-flow config --profile hpc          what a profile changes
  bpp-flow config flow.yaml --param n=5 > as-run.yaml
  bpp-flow config --json | jq '.stages.measure.timeout'";

/// Prints the effective workflow, with the origin of every value
///
/// Profiles, defaults and parameters are applied; what is printed is a workflow that does the same in the same folder.
/// Secrets are left out: what a template gives stands as the template, other values as ***.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// The workflow file; default: pipeline.yaml, then workflow.yaml
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Prints JSON: for every value its `value` and its `origin`
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, globals: &Globals, terminal: &Terminal) -> Result<Exit, CliError> {
    let loaded = load(args.file.as_deref(), globals, terminal)?;
    let files = read(args.file.as_deref(), globals)?;
    let mut workflow = with_options(&files, None, globals, |options| effective(&files.sources, options))
        .map_err(|_| CliError::failed("the workflow file has changed while it was read"))?;
    if let Some((dir, origin)) = state(&loaded, globals) {
        workflow.put("state", Part::of(&Value::Text(dir), origin));
    }
    workflow.sort();
    let mut secrets = environments_secrets();
    let variables = loaded.flow.workflow.stages.iter().flat_map(|stage| &stage.settings.env);
    variables.for_each(|(name, template)| secrets.add_named(name, template.source()));
    workflow.hide(&secrets);
    let mut out = io::stdout().lock();
    match args.json {
        true => json::print(&mut out, &config::document(&workflow))?,
        false => out.write_all(config::yaml(&workflow).as_bytes())?,
    }
    Ok(Exit::Success)
}

/// Where the state lies, unless the file says it.
fn state(loaded: &Loaded, globals: &Globals) -> Option<(String, &'static str)> {
    let from_env = || std::env::var_os("BPP_FLOW_STATE").is_some_and(|dir| !dir.is_empty());
    let dir = || loaded.flow.state_dir.display().to_string();
    match &loaded.flow.workflow.state {
        _ if globals.state.is_some() => Some((dir(), "--state")),
        _ if from_env() => Some((dir(), "environment")),
        Some(_) => None,
        None => Some((format!(".bpp-flow/{}", loaded.flow.workflow.name), "default")),
    }
}
