//! Commands that a later version will have: known, hidden, refused.

use super::Exit;
use super::error::CliError;

/// Anything.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(super) struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<std::ffi::OsString>,
}

/// Says so.
pub(super) fn refuse(name: &str) -> Result<Exit, CliError> {
    Err(CliError::later(&format!("`{name}`")))
}
