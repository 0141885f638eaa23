//! The command line: one file per command, and the only place that knows exit codes and hints.
//!
//! A command is an `Args` struct, whose doc comments are its help, and a `run` function that answers with an
//! [`Exit`] or a [`CliError`]. Data go to stdout, talk to stderr.

mod accept;
mod check;
mod completions;
mod config;
mod error;
mod errors;
mod globals;
mod init;
mod later;
mod load;
mod options;
mod output;
mod plan;
mod results;
mod retry;
mod run;
mod runs;
mod schema;
mod signals;
mod status;
mod store;
mod terminal;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::report::tell;

use error::CliError;
use globals::Globals;
use terminal::Terminal;

/// How the program ends when nothing is wrong with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// All is well.
    Success,
    /// The run or the environment failed, or a threshold stopped it.
    Failed,
    /// Usage, or an invalid workflow.
    Usage,
    /// `plan --check` found something to do.
    Due,
    /// The run finished, some results are failures.
    Failures,
    /// By a signal.
    Interrupted,
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Due => 3,
            Exit::Failures => 100,
            Exit::Interrupted => 130,
        }
    }
}

/// Maps functions and commands over many items, loses nothing, and recomputes only what changed.
///
/// A workflow is a YAML file. `bpp-flow run` does what is due and keeps every item's outcome; calling it again goes
/// on where it stopped.
#[derive(Debug, Parser)]
#[command(name = "bpp-flow", version, max_term_width = 100, after_help = EXAMPLE)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str = "\
Example:
  bpp-flow init demo && cd demo   write a small workflow that runs
  bpp-flow plan                   see what would run, and why
  bpp-flow run                    run it
  bpp-flow errors                 see what failed
  bpp-flow retry --failed         run that again
  bpp-flow results summary        see the rows of a stage

Exit codes:
  0 success; 1 the run or the environment failed; 2 usage or an invalid workflow;
  3 plan --check found something to do; 100 the run finished and some items failed; 130 interrupted";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Plan(plan::Args),
    Retry(retry::Args),
    Status(status::Args),
    Errors(errors::Args),
    Results(results::Args),
    Runs(runs::Args),
    Check(check::Args),
    Config(config::Args),
    Init(init::Args),
    Schema(schema::Args),
    Completions(completions::Args),
    Accept(accept::Args),
    #[command(hide = true)]
    Report(later::Args),
    Store(store::Args),
}

/// Runs the program: parses the command line, does what it says, tells what went wrong.
pub fn main() -> ExitCode {
    let color = terminal::color_asked(std::env::args_os());
    let matches = Cli::command().color(color.for_clap()).try_get_matches();
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(usage) => return usage_exit(&usage),
    };
    let terminal = Terminal::detect(cli.globals.color);
    match dispatch(&cli, &terminal) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            tell(&terminal.hide(&error.render(terminal.err)));
            ExitCode::from(error.exit().code())
        }
    }
}

fn dispatch(cli: &Cli, terminal: &Terminal) -> Result<Exit, CliError> {
    let globals = &cli.globals;
    match &cli.command {
        Command::Run(args) => run::run(args, globals, terminal),
        Command::Plan(args) => plan::run(args, globals, terminal),
        Command::Retry(args) => retry::run(args, globals, terminal),
        Command::Status(args) => status::run(args, globals, terminal),
        Command::Errors(args) => errors::run(args, globals, terminal),
        Command::Results(args) => results::run(args, globals, terminal),
        Command::Runs(args) => runs::run(args, globals, terminal),
        Command::Check(args) => check::run(args, globals, terminal),
        Command::Config(args) => config::run(args, globals, terminal),
        Command::Init(args) => init::run(args, globals, terminal),
        Command::Schema(args) => schema::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Accept(args) => accept::run(args, globals, terminal),
        Command::Report(_) => later::refuse("report"),
        Command::Store(args) => store::run(args, globals, terminal),
    }
}

/// Help and version are answers; the rest are mistakes, with clap's own exit code 2.
fn usage_exit(usage: &clap::Error) -> ExitCode {
    // A broken pipe is a quiet exit.
    let _ = usage.print();
    let answered = matches!(usage.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    ExitCode::from(if answered { Exit::Success } else { Exit::Usage }.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_commands(command: &clap::Command, path: &str, seen: &mut Vec<(String, clap::Command)>) {
        for sub in command.get_subcommands().filter(|c| c.get_name() != "help" && !c.is_hide_set()) {
            let path = format!("{path} {}", sub.get_name());
            seen.push((path.clone(), sub.clone()));
            all_commands(sub, &path, seen);
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_teaches_by_example() {
        let mut command = Cli::command();
        command.build();
        let mut seen = vec![("bpp-flow".to_string(), command.clone())];
        all_commands(&command, "bpp-flow", &mut seen);
        assert!(seen.len() > 12, "{}", seen.len());
        for (path, mut command) in seen {
            let help = command.render_long_help().to_string();
            let (_, examples) = help.split_once("Example").unwrap_or_else(|| panic!("no example: {path}\n{help}"));
            assert!(examples.contains(&path), "{path}\n{help}");
            assert!(command.get_about().is_some(), "{path} says what it does");
        }
    }

    #[test]
    fn every_example_is_a_valid_command_line() {
        let mut command = Cli::command();
        command.build();
        let mut seen = vec![("bpp-flow".to_string(), command.clone())];
        all_commands(&command, "bpp-flow", &mut seen);
        for (_, mut command) in seen {
            let help = command.render_long_help().to_string();
            for line in help.lines().map(str::trim_start).filter(|l| l.starts_with("bpp-flow ")) {
                let line = line.split("  ").next().unwrap_or(line);
                let line = line.split(['|', '>', '&']).next().unwrap_or(line);
                let words = line.split_whitespace();
                if let Err(error) = Cli::try_parse_from(words) {
                    let kind = error.kind();
                    assert!(matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion), "{line}: {error}");
                }
            }
        }
    }

    #[test]
    fn options_of_all_commands_stand_before_or_behind() {
        for line in ["--state s run x.yaml", "run --state s x.yaml", "results --state s measure x.yaml"] {
            let words = std::iter::once("bpp-flow").chain(line.split(' '));
            let cli = Cli::try_parse_from(words).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert_eq!(cli.globals.state.as_deref(), Some(std::path::Path::new("s")));
        }
    }

    #[test]
    fn what_comes_later_is_refused_with_exit_code_2() {
        let terminal = Terminal::detect(terminal::Color::Never);
        let lines = ["report -o r.html", "store dump"];
        for line in lines {
            let words = std::iter::once("bpp-flow").chain(line.split(' '));
            let error = match Cli::try_parse_from(words) {
                Ok(cli) => dispatch(&cli, &terminal).expect_err(line),
                Err(error) => {
                    assert_eq!(error.exit_code(), 2);
                    assert!(error.to_string().contains("not yet supported"), "{line}: {error}");
                    continue;
                }
            };
            assert_eq!(error.exit(), Exit::Usage, "{line}");
            assert!(error.to_string().contains("not yet supported"), "{line}: {error}");
        }
    }
}
