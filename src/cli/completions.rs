//! `completions`: for the shell's own completion.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::error::CliError;
use super::{Cli, Exit};

const EXAMPLE: &str = "\
Examples:
  bpp-flow completions bash > ~/.local/share/bash-completion/completions/bpp-flow
  bpp-flow completions fish > ~/.config/fish/completions/bpp-flow.fish
  bpp-flow completions zsh > ~/.zfunc/_bpp-flow";

/// Prints completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &Args) -> Result<Exit, CliError> {
    // Into memory first: the generator panics where a pipe breaks.
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "bpp-flow", &mut script);
    io::stdout().write_all(&script)?;
    Ok(Exit::Success)
}
