//! What the program's streams are: terminals or not, coloured or not, how wide.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::io::{self, IsTerminal};

use crate::data::Secrets;
use crate::engine::api::environments_secrets;
use crate::report::Style;

/// When there is colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

impl Color {
    /// The same for clap's own messages.
    pub(super) fn for_clap(self) -> clap::ColorChoice {
        match self {
            Color::Auto => clap::ColorChoice::Auto,
            Color::Always => clap::ColorChoice::Always,
            Color::Never => clap::ColorChoice::Never,
        }
    }

    /// Whether a stream is coloured.
    fn decide(self, is_terminal: bool, refused: bool) -> Style {
        Style::new(match self {
            Color::Auto => is_terminal && !refused,
            Color::Always => true,
            Color::Never => false,
        })
    }
}

/// The streams.
#[derive(Debug, Clone)]
pub(super) struct Terminal {
    /// How stdout looks.
    pub out: Style,
    /// How stderr looks.
    pub err: Style,
    pub out_is_terminal: bool,
    pub err_is_terminal: bool,
    /// Columns of stdout's terminal.
    pub out_width: Option<usize>,
    /// Columns of stderr's terminal.
    pub err_width: Option<usize>,
    /// What no error may show, once a workflow is known.
    pub secrets: OnceCell<Secrets>,
}

impl Terminal {
    /// Looks at the streams and the environment.
    pub(super) fn detect(color: Color) -> Terminal {
        let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let refused = set("NO_COLOR") || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let (out, err) = (io::stdout(), io::stderr());
        Terminal {
            out: color.decide(out.is_terminal(), refused),
            err: color.decide(err.is_terminal(), refused),
            out_is_terminal: out.is_terminal(),
            err_is_terminal: err.is_terminal(),
            out_width: width(&out),
            err_width: width(&err),
            secrets: OnceCell::new(),
        }
    }

    /// A message about what went wrong, without what it must not show.
    pub(super) fn hide(&self, message: &str) -> String {
        match self.secrets.get() {
            Some(secrets) => secrets.hide(message).into_owned(),
            None => environments_secrets().hide(message).into_owned(),
        }
    }
}

fn width(stream: &impl std::os::fd::AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stream).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// `--color` as it stands on the command line, before that is parsed: for messages about mistakes in it.
pub(super) fn color_asked(args: impl IntoIterator<Item = OsString>) -> Color {
    let mut color = Color::Auto;
    let mut args = args.into_iter().map(|a| a.to_string_lossy().into_owned()).take_while(|a| a != "--");
    while let Some(arg) = args.next() {
        let value = match arg.strip_prefix("--color") {
            Some("") => args.next(),
            Some(rest) => rest.strip_prefix('=').map(str::to_string),
            None => continue,
        };
        color = match value.as_deref() {
            Some("always") => Color::Always,
            Some("never") => Color::Never,
            _ => color,
        };
    }
    color
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_asked_for_or_fits_the_stream() {
        assert!(Color::Auto.decide(true, false).color());
        assert!(!Color::Auto.decide(true, true).color());
        assert!(!Color::Auto.decide(false, false).color());
        assert!(Color::Always.decide(false, true).color());
        assert!(!Color::Never.decide(true, false).color());
    }

    #[test]
    fn colour_is_known_before_parsing() {
        let asked = |line: &str| color_asked(line.split(' ').map(OsString::from));
        assert_eq!(asked("bpp-flow run --color never --oops"), Color::Never);
        assert_eq!(asked("bpp-flow --color=always run"), Color::Always);
        assert_eq!(asked("bpp-flow run -- --color=always"), Color::Auto);
    }
}
