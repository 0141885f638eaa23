//! Spans and messages: a mistake as a value, rendered elsewhere.

/// A place in a workflow file: byte offsets `start .. end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}
