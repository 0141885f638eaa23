//! `results`: the rows of a stage.

use super::Exit;
use super::error::CliError;
use super::globals::Globals;
use super::terminal::Terminal;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    stage: String,
}

pub(super) fn run(_args: &Args, _globals: &Globals, _terminal: &Terminal) -> Result<Exit, CliError> {
    Ok(Exit::Success)
}
