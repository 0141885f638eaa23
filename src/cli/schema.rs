//! `schema`: the JSON Schema of workflow files.

use std::io;

use crate::report::json;
use crate::spec::json_schema;

use super::Exit;
use super::error::CliError;

const EXAMPLE: &str = "\
Example:
  bpp-flow schema > workflow.schema.json

An editor with a YAML language server then completes and checks a workflow that begins with
  # yaml-language-server: $schema=workflow.schema.json";

/// Prints the JSON Schema of workflow files, for editors
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args) -> Result<Exit, CliError> {
    json::print(&mut io::stdout().lock(), &json_schema())?;
    Ok(Exit::Success)
}
