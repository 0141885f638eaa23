//! Texts that spans point into: [`Sources`] holds the workflow file and the profiles' files, one behind the other.

use super::Span;

/// Line and column, both from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// Where the lines of a text begin.
#[derive(Debug, Clone)]
pub struct Lines(Vec<usize>);

impl Lines {
    /// Of `text`.
    pub fn of(text: &str) -> Lines {
        Lines(std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect())
    }

    /// The line, from 1, in which byte `offset` is.
    pub fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }

    /// The line's bytes without its end.
    fn text<'t>(&self, text: &'t str, line: usize) -> &'t str {
        let end = self.0.get(line).map_or(text.len(), |next| next - 1);
        text[self.0[line - 1]..end].trim_end_matches('\r')
    }
}

/// One or more named texts; a span's bytes count through all of them.
#[derive(Debug, Clone)]
pub struct Sources {
    text: String,
    lines: Lines,
    /// Names as the user gave them, and where each text begins.
    files: Vec<(String, usize)>,
}

impl Sources {
    /// The one text.
    pub fn new(name: impl Into<String>, text: &str) -> Sources {
        Sources { text: text.to_string(), lines: Lines::of(text), files: vec![(name.into(), 0)] }
    }

    /// Adds a text behind the others.
    #[must_use]
    pub fn and(mut self, name: impl Into<String>, text: &str) -> Sources {
        self.text.push('\n');
        self.files.push((name.into(), self.text.len()));
        self.text.push_str(text);
        self.lines = Lines::of(&self.text);
        self
    }

    /// All texts, as spans count.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How many files there are, never none.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// The text of a file, by its number, and where its first byte stands.
    pub fn file(&self, number: usize) -> (&str, usize) {
        let start = self.files[number].1;
        let end = self.files.get(number + 1).map_or(self.text.len(), |(_, next)| next - 1);
        (&self.text[start..end], start)
    }

    /// The file in which byte `offset` is, and where in it.
    pub fn place(&self, offset: usize) -> (&str, Position) {
        let offset = self.boundary(offset);
        let (name, start) = &self.files[self.files.partition_point(|(_, start)| *start <= offset) - 1];
        let line = self.lines.line(offset);
        let column = self.text[self.lines.0[line - 1]..offset].chars().count() + 1;
        (name, Position { line: line + 1 - self.lines.line(*start), column })
    }

    /// The line in which byte `offset` is.
    pub fn line(&self, offset: usize) -> &str {
        self.lines.text(&self.text, self.lines.line(self.boundary(offset)))
    }

    /// The part of a span that is in its first line.
    pub fn first_line(&self, span: Span) -> Span {
        let rest = self.text.get(span.start..).unwrap_or("");
        Span::new(span.start, span.start + rest.lines().next().map_or(0, str::len))
    }

    fn boundary(&self, offset: usize) -> usize {
        let end = offset.min(self.text.len());
        (0..=end).rev().find(|&at| self.text.is_char_boundary(at)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_counts_its_own_lines() {
        let sources = Sources::new("a.yaml", "x\nü: y").and("b.yaml", "").and("c.yaml", "1\r\n2\n");
        let place = |offset| {
            let (name, at) = sources.place(offset);
            (name.to_string(), at.line, at.column)
        };
        assert_eq!(place(0), ("a.yaml".into(), 1, 1));
        assert_eq!(place(4), ("a.yaml".into(), 2, 2), "columns are characters");
        assert_eq!(sources.file(1), ("", 8));
        assert_eq!(place(8), ("b.yaml".into(), 1, 1));
        assert_eq!(sources.file(2), ("1\r\n2\n", 9));
        assert_eq!(place(12), ("c.yaml".into(), 2, 1));
        assert_eq!((sources.line(9), sources.line(12), sources.line(2)), ("1", "2", "ü: y"));
        assert_eq!(place(999), ("c.yaml".into(), 3, 1), "beyond the end is the end");
    }
}
