//! `run`: from a loaded workflow through the engine to a summary.

use std::io;
use std::path::PathBuf;
use std::thread;

use crossbeam_channel::bounded;

use crate::engine::api::{self, RunOptions};
use crate::engine::events::{RunState, RunSummary};
use crate::report::{Live, Reporter, json, summary, tell};

use super::Exit;
use super::error::{CliError, Context};
use super::globals::Globals;
use super::load::{Loaded, load_on};
use super::options::{Execution, Selection};
use super::plan::What;
use super::signals::Listener;
use super::terminal::Terminal;

const EXAMPLE: &str = "\
Examples:
  bpp-flow run                             pipeline.yaml of this folder; again to go on
  bpp-flow run flow.yaml --param n=5       with another parameter
  bpp-flow run --stage measure --limit 10  try ten items, up to a stage
  bpp-flow run --item c17 --debug          one item, with breakpoint()
  bpp-flow run -j 2 --events log.jsonl     two items at once, with a log for programs";

/// Runs what is due and keeps every item's outcome; goes on where an earlier run stopped
///
/// The first Ctrl-C lets items in hand finish, the second stops at once; nothing that was finished is lost. The exit
/// code is 0 when all is done, 100 when some items failed, 1 when the run could not go on, 130 when it was interrupted.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// The workflow file; default: pipeline.yaml, then workflow.yaml
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    execution: Execution,
    /// Only tells what would run, as `plan` does
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Does what a plan says that `plan --out FILE` wrote, or nothing if it is stale
    #[arg(long, value_name = "FILE", conflicts_with_all = ["stage", "limit", "items", "rows", "fresh"])]
    plan: Option<PathBuf>,
}

pub(super) fn run(args: &Args, globals: &Globals, terminal: &Terminal) -> Result<Exit, CliError> {
    let loaded = load_on(args.execution.place.backend.as_deref(), args.file.as_deref(), globals, terminal)?;
    let options = args.execution.apply(args.selection.options(&loaded, globals)?, globals);
    if args.dry_run {
        let what = What { json: args.execution.json, ..What::default() };
        return super::plan::show(&loaded, &options, &what, terminal);
    }
    let options = match &args.plan {
        Some(path) => super::plan::read(path)?.options(options),
        None => options,
    };
    execute(&loaded, &options, &args.execution, globals, terminal)
}

/// Runs, shows how it goes, tells how it ended.
pub(super) fn execute(
    loaded: &Loaded,
    options: &RunOptions,
    how: &Execution,
    globals: &Globals,
    terminal: &Terminal,
) -> Result<Exit, CliError> {
    let reporter = reporter(how, globals, terminal)?;
    let listener = Listener::start()
        .map_err(|e| CliError::failed(Context { doing: "cannot listen to signals".into(), source: e.into() }))?;
    // Bounded: a reporter that cannot keep up holds the engine back instead of filling the memory.
    let (sender, events) = bounded(4096);
    let (outcome, logged) = thread::scope(|scope| {
        let reporting = scope.spawn(|| reporter.run(&events));
        let outcome = api::run(&loaded.flow, options, sender, listener.signals.clone());
        (outcome, reporting.join())
    });
    match logged {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tell(&format!("warning: the events file is not whole: {error}\n")),
        Err(panic) => std::panic::resume_unwind(panic),
    }
    conclude(&outcome?, loaded, how.json, globals, terminal)
}

fn reporter(how: &Execution, globals: &Globals, terminal: &Terminal) -> Result<Reporter, CliError> {
    let live = match (globals.quiet, how.debug, terminal.err_is_terminal) {
        // The item under the debugger has the terminal.
        (true, _, _) | (_, true, _) => Live::Nothing,
        (_, _, true) => Live::Bars,
        (_, _, false) => Live::Lines,
    };
    let reporter = Reporter::new(live, terminal.err, globals.verbose > 0);
    let Some(path) = &how.events else { return Ok(reporter) };
    let doing = format!("cannot write the events file {}", path.display());
    reporter.with_log(path).map_err(|e| CliError::failed(Context { doing, source: e.into() }))
}

/// The summary on stderr, and on stdout for programs; then the exit code.
fn conclude(
    summary: &RunSummary,
    loaded: &Loaded,
    as_json: bool,
    globals: &Globals,
    terminal: &Terminal,
) -> Result<Exit, CliError> {
    tell(&summary::render(summary, &loaded.invocation, terminal.err, terminal.err_width, globals.quiet));
    if as_json {
        match json::print(&mut io::stdout().lock(), &json::summary(summary)) {
            // Whoever read has gone; how the run ended still counts.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            printed => printed?,
        }
    }
    let reason = || summary.reason.clone().unwrap_or_else(|| "for an unknown reason".to_string());
    match summary.state {
        RunState::Finished => Ok(Exit::Success),
        RunState::Failures => Ok(Exit::Failures),
        RunState::Interrupted => Ok(Exit::Interrupted),
        RunState::Stopped => Err(CliError::failed(format!("the run was stopped: {}", reason()))),
        RunState::Broken | RunState::Running => Err(CliError::failed(reason())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_tells_how_the_run_ended() {
        let terminal = Terminal::detect(super::super::terminal::Color::Never);
        let globals = Globals { quiet: true, ..Globals::default() };
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("p.yaml");
        std::fs::write(&file, "stages: {one: {command: ['true']}}\n").expect("writes");
        let loaded = load_on(None, Some(&file), &globals, &terminal).expect("loads");
        let code = |state, reason: Option<&str>| {
            let summary = RunSummary {
                run: "r".into(),
                state,
                stages: Vec::new(),
                seconds: 0.0,
                reason: reason.map(str::to_string),
                failures: Vec::new(),
                outputs: Vec::new(),
            };
            match conclude(&summary, &loaded, false, &globals, &terminal) {
                Ok(exit) => (exit.code(), String::new()),
                Err(error) => (error.exit().code(), error.to_string()),
            }
        };
        assert_eq!(code(RunState::Finished, None), (0, String::new()));
        assert_eq!(code(RunState::Failures, None), (100, String::new()));
        assert_eq!(code(RunState::Interrupted, Some("SIGINT")), (130, String::new()));
        let stopped = "the run was stopped: max_failures".to_string();
        assert_eq!(code(RunState::Stopped, Some("max_failures")), (1, stopped));
        assert_eq!(code(RunState::Broken, Some("no python3")), (1, "no python3".to_string()));
    }
}
