//! Options that several commands share: what of a workflow, and how it runs.

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::api::RunOptions;
use crate::report::phrase::shell_line;
use crate::spec::units::duration_of;

use super::error::CliError;
use super::globals::Globals;
use super::load::Loaded;

/// What of a workflow.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Selection {
    /// Up to this stage
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<String>,
    /// The first N items of each source
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// This item, by its key; repeatable
    #[arg(long = "item", value_name = "KEY", allow_hyphen_values = true)]
    pub items: Vec<String>,
    /// This item, by its position in its source, from 0; repeatable
    #[arg(long = "row", value_name = "N")]
    pub rows: Vec<u64>,
    /// Takes no earlier result of what is selected; deletes nothing
    #[arg(long)]
    pub fresh: bool,
}

impl Selection {
    /// As the engine wants it.
    pub(super) fn options(&self, loaded: &Loaded, globals: &Globals) -> Result<RunOptions, CliError> {
        if let Some(stage) = &self.stage {
            loaded.check_stage(stage)?;
        }
        Ok(RunOptions {
            fresh: self.fresh,
            stage: self.stage.clone(),
            limit: self.limit,
            items: self.items.clone(),
            rows: self.rows.clone(),
            on_network_fs: globals.state_on_network_fs,
            ..RunOptions::default()
        })
    }
}

/// Where it runs.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Where {
    /// Where items run: serial, threads, processes, dask, …, or a name under `backends`
    #[arg(long, value_name = "BACKEND")]
    pub backend: Option<String>,
}

/// How it runs.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Execution {
    #[command(flatten)]
    pub place: Where,
    /// At most N items at once, in the whole run
    #[arg(short = 'j', long, value_name = "N", value_parser = workers)]
    pub workers: Option<usize>,
    /// One item at a time in this terminal, so that breakpoint() works
    #[arg(long)]
    pub debug: bool,
    /// How long items in hand may take after SIGTERM or SIGHUP
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "30s")]
    pub grace: Duration,
    /// Takes up no new item after this time, such as 3h50m: what is in hand finishes, the next run goes on
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub stop_after: Option<Duration>,
    /// Writes all events to FILE, as JSON lines
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Prints the final summary as JSON
    #[arg(long)]
    pub json: bool,
}

impl Execution {
    /// Completes a selection with how it runs.
    pub(super) fn apply(&self, options: RunOptions, globals: &Globals) -> RunOptions {
        RunOptions {
            workers: self.workers,
            debug: self.debug,
            want_items: self.events.is_some() || globals.verbose > 0,
            command: command_line(),
            grace: self.grace,
            stop_after: self.stop_after,
            ..options
        }
    }
}

/// The command line, for the catalogue of runs.
pub(super) fn command_line() -> String {
    let words: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    shell_line(std::iter::once("bpp-flow").chain(words.iter().map(String::as_str)))
}

fn duration(text: &str) -> Result<Duration, String> {
    duration_of(text).ok_or_else(|| "a time is given as 30s, 10m, 3h50m or 1d".to_string())
}

fn workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least one worker is needed".to_string()),
        Ok(n) => Ok(n),
        Err(_) => Err("not a number".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_at_least_one_worker() {
        assert_eq!(workers("4"), Ok(4));
        assert!(workers("0").is_err());
        assert!(workers("x").is_err());
    }
}
