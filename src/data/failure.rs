//! A failed item's story.

use serde::{Deserialize, Serialize};

/// Why an item failed. The names are part of the stored format and the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureKind {
    /// The function raised, or a template or expression could not be evaluated.
    Exception,
    /// A command's exit code was not among the good ones.
    Exit,
    /// A returned value cannot be kept.
    Output,
    /// A source row that cannot be read.
    Input,
    /// The process died under the item.
    Crash,
    /// The item took longer than its limit.
    Timeout,
    /// The worker took more memory than its limit.
    Memory,
    /// Worker, node or engine gone through no fault of the item.
    Lost,
}

impl FailureKind {
    /// All kinds, in the order of the documentation.
    pub const ALL: [FailureKind; 8] = [
        FailureKind::Exception,
        FailureKind::Exit,
        FailureKind::Output,
        FailureKind::Input,
        FailureKind::Crash,
        FailureKind::Timeout,
        FailureKind::Memory,
        FailureKind::Lost,
    ];

    /// The kind's name.
    pub fn name(self) -> &'static str {
        match self {
            FailureKind::Exception => "exception",
            FailureKind::Exit => "exit",
            FailureKind::Output => "output",
            FailureKind::Input => "input",
            FailureKind::Crash => "crash",
            FailureKind::Timeout => "timeout",
            FailureKind::Memory => "memory",
            FailureKind::Lost => "lost",
        }
    }
}

impl std::fmt::Display for FailureKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What is kept of a failed item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    /// One line: `ValueError: no such cell`, `exit code 3`, `killed by signal 11 (SIGSEGV)`, `over 30s`.
    pub message: String,
    /// The traceback, where there is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub traceback: String,
    /// What the item wrote to standard output and error; the middle of long output is left out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// Where it was raised (`features.py:12 in measure`), where that is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// The limit that was passed, in milliseconds or bytes: the item is due again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl Failure {
    /// A failure that is told in one line.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure {
            kind,
            message: message.into(),
            traceback: String::new(),
            output: String::new(),
            place: String::new(),
            limit: None,
        }
    }

    /// What failures with the same cause share: kind, place and the message's first line with numbers and quoted
    /// text blanked (exit codes and signals stay).
    pub fn signature(&self) -> String {
        let mut text = String::new();
        let mut quote = None;
        for c in self.message.lines().next().unwrap_or("").chars() {
            match quote {
                Some(q) if c == q => {
                    quote = None;
                    text.push('…');
                    text.push(c);
                }
                Some(_) => {}
                None if c == '\'' || c == '"' => {
                    if text.chars().next_back().is_some_and(char::is_alphanumeric) {
                        text.push(c);
                    } else {
                        quote = Some(c);
                        text.push(c);
                    }
                }
                None if c.is_ascii_digit() && !matches!(self.kind, FailureKind::Exit | FailureKind::Crash) => {
                    if !text.ends_with('#') {
                        text.push('#');
                    }
                }
                None => text.push(c),
            }
        }
        if self.place.is_empty() { text } else { format!("{text} ({})", self.place) }
    }
}
