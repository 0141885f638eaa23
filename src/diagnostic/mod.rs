//! Spans and messages: a mistake as a value, rendered elsewhere.
//!
//! A [`Diagnostic`] says what is wrong, where, and what to do about it. [`render()`] prints it for people, with the
//! source line; [`Report`] is the same for machines.

mod json;
mod render;
mod sources;

use std::collections::HashSet;

pub use json::Report;
pub use render::render;
pub use sources::{Lines, Position, Sources};

/// A place in the [`Sources`]: byte offsets `start .. end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    /// The bytes `start .. end`.
    pub fn new(start: usize, end: usize) -> Span {
        Span { start, end: end.max(start) }
    }

    /// Whether `other` lies in it.
    pub fn contains(self, other: Span) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// The same length, `by` bytes further on.
    pub fn shifted(self, by: usize) -> Span {
        Span { start: self.start + by, end: self.end + by }
    }

    /// The part of this span that starts `offset` bytes in and is `len` bytes long.
    pub fn part(self, offset: usize, len: usize) -> Span {
        let start = (self.start + offset).min(self.end);
        Span { start, end: (start + len).min(self.end) }
    }
}

/// A mistake.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Diagnostic {
    /// Where it is; `None`: not in the file (a parameter of the command line).
    pub span: Option<Span>,
    /// What is wrong: a lower-case fragment.
    pub message: String,
    /// Ways out, most likely first.
    pub help: Vec<String>,
    /// Other places that belong to it.
    pub related: Vec<Related>,
}

/// Another place that belongs to a mistake.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Related {
    pub span: Span,
    pub message: String,
}

impl Diagnostic {
    /// A mistake at `span`.
    pub fn new(span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic { span: Some(span), message: message.into(), help: Vec::new(), related: Vec::new() }
    }

    /// A mistake that is not in the file.
    pub fn outside(message: impl Into<String>) -> Diagnostic {
        Diagnostic { span: None, message: message.into(), help: Vec::new(), related: Vec::new() }
    }

    /// Adds a way out.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help.push(help.into());
        self
    }

    /// Adds another place.
    #[must_use]
    pub fn related(mut self, span: Span, message: impl Into<String>) -> Diagnostic {
        self.related.push(Related { span, message: message.into() });
        self
    }
}

/// A list of mistakes, in the order in which they were found.
#[derive(Debug, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    known: HashSet<Diagnostic>,
}

impl Diagnostics {
    /// Adds a mistake; one that is known already is told once.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.known.insert(diagnostic.clone()) {
            self.list.push(diagnostic);
        }
    }

    /// Adds several mistakes.
    pub fn extend(&mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) {
        diagnostics.into_iter().for_each(|d| self.push(d));
    }

    /// Whether this mistake is known.
    pub fn contains(&self, diagnostic: &Diagnostic) -> bool {
        self.known.contains(diagnostic)
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The number of mistakes.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// The mistakes in the order of the file; those outside of it first.
    pub fn into_sorted(self) -> Vec<Diagnostic> {
        let mut list = self.list;
        list.sort_by_key(|d| d.span.map_or((0, 0), |s| (s.start + 1, s.end)));
        list
    }
}
