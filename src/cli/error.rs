//! What went wrong, for people: the error with its causes, hints, an exit code.

use std::error::Error;
use std::fmt;
use std::io;

use crate::data::export::ExportError;
use crate::engine::api::EngineError;
use crate::plan::PlanError;
use crate::report::{Style, Tint};
use crate::spec::nearest;
use crate::store::StoreError;

use super::Exit;

/// A command failed.
#[derive(Debug)]
pub(super) struct CliError {
    error: Box<dyn Error>,
    hints: Vec<String>,
    exit: Exit,
    /// Already printed in full; only the exit code is left.
    told: bool,
}

impl CliError {
    /// The command line or the workflow is wrong.
    pub(super) fn usage(error: impl Into<Box<dyn Error>>) -> CliError {
        CliError { error: error.into(), hints: Vec::new(), exit: Exit::Usage, told: false }
    }

    /// The environment or the run failed.
    pub(super) fn failed(error: impl Into<Box<dyn Error>>) -> CliError {
        CliError { exit: Exit::Failed, ..CliError::usage(error) }
    }

    /// A usage error whose text stands on stderr already.
    pub(super) fn told() -> CliError {
        CliError { told: true, ..CliError::usage("") }
    }

    /// A later version will know it.
    pub(super) fn later(what: &str) -> CliError {
        CliError::usage(format!("{what} is not yet supported"))
    }

    /// Adds the way out.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> CliError {
        self.hints.push(hint.into());
        self
    }

    /// Adds the way out, if there is one.
    pub(super) fn maybe_hint(self, hint: Option<String>) -> CliError {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    pub(super) fn exit(&self) -> Exit {
        self.exit
    }

    /// Whether the reader of our output has gone.
    pub(super) fn is_broken_pipe(&self) -> bool {
        self.chain().any(tells_of_broken_pipe)
    }

    fn chain(&self) -> impl Iterator<Item = &(dyn Error + 'static)> {
        std::iter::successors(Some(&*self.error), |&e| e.source())
    }

    /// `error: …`, its causes, `hint: …`, a line each.
    pub(super) fn render(&self, style: Style) -> String {
        if self.told {
            return String::new();
        }
        let mut out = format!("{} {}\n", style.paint(Tint::Red, "error:"), self.error);
        let mut last = self.error.to_string();
        for cause in self.chain().skip(1).map(ToString::to_string) {
            // A transparent error says what its cause says.
            if cause != last {
                out.push_str(&format!("  caused by: {cause}\n"));
            }
            last = cause;
        }
        for hint in &self.hints {
            out.push_str(&format!("{} {hint}\n", style.paint(Tint::Cyan, "hint:")));
        }
        out
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// The CSV writer wraps what happened to its file, and is wrapped again.
fn tells_of_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    if let Some(io) = error.downcast_ref::<io::Error>() {
        return io.kind() == io::ErrorKind::BrokenPipe || io.get_ref().is_some_and(|inner| tells_of_broken_pipe(inner));
    }
    match error.downcast_ref::<csv::Error>().map(csv::Error::kind) {
        Some(csv::ErrorKind::Io(io)) => tells_of_broken_pipe(io),
        _ => false,
    }
}

impl From<io::Error> for CliError {
    /// Writing to stdout failed: the only place where an I/O error has no better story.
    fn from(error: io::Error) -> CliError {
        CliError::failed(Context { doing: "cannot write to standard output".into(), source: error.into() })
    }
}

impl From<EngineError> for CliError {
    fn from(error: EngineError) -> CliError {
        let near = match &error {
            EngineError::NoStage { name, stages } => did_you_mean(name, stages.iter().map(String::as_str)),
            _ => None,
        };
        let hint = near.or_else(|| way_out(&error).map(str::to_string));
        let error = match error {
            EngineError::NoStage { .. } => CliError::usage(error),
            other => CliError::failed(other),
        };
        error.maybe_hint(hint)
    }
}

impl From<ExportError> for CliError {
    fn from(error: ExportError) -> CliError {
        CliError::failed(error)
    }
}

/// What to do about an error of the engine.
fn way_out(error: &EngineError) -> Option<&'static str> {
    match error {
        EngineError::StalePlan { .. } => {
            Some("look at what would run now, and make a new one: `bpp-flow plan --out FILE`")
        }
        EngineError::NoState => Some("`bpp-flow run` makes results"),
        EngineError::Plan(PlanError::NoInterpreter { .. }) => {
            Some("activate a virtual environment, or set `interpreter:` in the workflow")
        }
        EngineError::Store(StoreError::Locked(_)) => {
            Some("`bpp-flow status` shows how far it is; wait for it, or choose another state with --state DIR")
        }
        EngineError::Store(StoreError::NetworkFileSystem { .. }) => {
            Some("choose a local folder with --state DIR, BPP_FLOW_STATE or `state:`; --state-on-network-fs insists")
        }
        EngineError::Store(StoreError::Damaged { .. }) => {
            Some("`bpp-flow store verify` says what is lost; `bpp-flow store verify --repair` keeps the rest")
        }
        EngineError::Store(StoreError::Newer { .. }) => {
            Some("use a newer bpp-flow, or choose another state with --state DIR")
        }
        EngineError::Store(error) => match error.io_kind()? {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Some("make room, then `bpp-flow run` goes on: nothing that was committed is lost")
            }
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Some("choose a state that can be written with --state DIR, BPP_FLOW_STATE or `state:`")
            }
            io::ErrorKind::IsADirectory => Some("move it away, or choose another state with --state DIR"),
            _ => None,
        },
        _ => None,
    }
}

/// An error with what was being done.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub(super) struct Context {
    pub doing: String,
    pub source: Box<dyn Error + Send + Sync>,
}

/// The nearest of some names, as a question.
pub(super) fn did_you_mean<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(wrong, names).map(|name| format!("did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_its_causes_and_hints() {
        let source = io::Error::new(io::ErrorKind::PermissionDenied, "permission denied");
        let error = CliError::failed(Context { doing: "cannot open the store".into(), source: source.into() })
            .hint("set --state DIR");
        insta::assert_snapshot!(error.render(Style::PLAIN), @r"
        error: cannot open the store
          caused by: permission denied
        hint: set --state DIR
        ");
        assert!(!error.is_broken_pipe());
    }

    #[test]
    fn a_broken_pipe_is_found_below() {
        let source = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(
            CliError::failed(Context { doing: "cannot hand on rows".into(), source: source.into() }).is_broken_pipe()
        );
        assert!(CliError::from(io::Error::from(io::ErrorKind::BrokenPipe)).is_broken_pipe());
    }

    #[test]
    fn the_engines_errors_have_ways_out() {
        let stages = vec!["measure".to_string(), "ratio".to_string()];
        let error = CliError::from(EngineError::NoStage { name: "measrue".into(), stages });
        assert_eq!(error.exit(), Exit::Usage);
        assert!(error.render(Style::PLAIN).ends_with("hint: did you mean `measure`?\n"));
        let network = StoreError::NetworkFileSystem { dir: "/n".into(), kind: "nfs" };
        let error = CliError::from(EngineError::from(network));
        assert_eq!(error.exit(), Exit::Failed);
        let text = error.render(Style::PLAIN);
        assert!(text.contains("--state DIR") && text.contains("--state-on-network-fs"), "{text}");
        assert!(!text.contains("caused by"), "a transparent error is told once: {text}");
    }

    #[test]
    fn the_nearest_name_is_asked_for() {
        assert_eq!(did_you_mean("measrue", ["measure", "ratio"]).as_deref(), Some("did you mean `measure`?"));
        assert_eq!(did_you_mean("zzz", ["measure", "ratio"]), None);
    }
}
