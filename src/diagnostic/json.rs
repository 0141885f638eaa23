//! Diagnostics for machines: what `check --json` prints.

use serde::Serialize;

use super::{Diagnostic, Sources};

/// A mistake with its place in lines and columns, both from 1; all four are null where it is not in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub message: String,
    pub file: String,
    pub line: Option<usize>,
    pub column: Option<usize>,
    pub end_line: Option<usize>,
    pub end_column: Option<usize>,
    pub help: Vec<String>,
    pub related: Vec<RelatedReport>,
}

/// Another place that belongs to a mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RelatedReport {
    pub message: String,
    pub file: String,
    pub line: usize,
    pub column: usize,
}

impl Report {
    /// The mistake as it stands in its file; one that is in none is told of the first.
    pub fn new(sources: &Sources, diagnostic: &Diagnostic) -> Report {
        let start = diagnostic.span.map(|s| sources.place(s.start).1);
        let end = diagnostic.span.map(|s| sources.place(s.end).1);
        let related = diagnostic.related.iter().map(|r| {
            let (file, at) = sources.place(r.span.start);
            RelatedReport { message: r.message.clone(), file: file.to_string(), line: at.line, column: at.column }
        });
        Report {
            message: diagnostic.message.clone(),
            file: sources.place(diagnostic.span.map_or(0, |s| s.start)).0.to_string(),
            line: start.map(|p| p.line),
            column: start.map(|p| p.column),
            end_line: end.map(|p| p.line),
            end_column: end.map(|p| p.column),
            help: diagnostic.help.clone(),
            related: related.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Span;

    #[test]
    fn columns_count_characters() {
        let source = "ä: b\nüü: c\n";
        let at = source.find('c').expect("there");
        let report = Report::new(
            &Sources::new("f.yaml", source),
            &Diagnostic::new(Span::new(at, at + 1), "wrong").help("right"),
        );
        let json = serde_json::to_value(&report).expect("plain data");
        assert_eq!(json["line"], 2);
        assert_eq!(json["column"], 5);
        assert_eq!(json["end_column"], 6);
        assert_eq!(json["help"][0], "right");
    }
}
