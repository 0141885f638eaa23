//! Diagnostics for people: the message, the place, the source line with the mistake underlined, the way out.

use std::fmt::Write as _;

use super::{Diagnostic, Sources, Span};

/// Characters of a source line that are shown; longer lines are cut around the mistake.
const MAX_WIDTH: usize = 140;

/// Renders mistakes in the order given. Columns are characters, from 1.
pub fn render(sources: &Sources, diagnostics: &[Diagnostic], color: bool) -> String {
    let paint = Paint { color };
    let mut out = String::new();
    for diagnostic in diagnostics {
        if !out.is_empty() {
            out.push('\n');
        }
        render_one(&mut out, sources, diagnostic, paint);
    }
    out
}

fn render_one(out: &mut String, sources: &Sources, diagnostic: &Diagnostic, paint: Paint) {
    let message = one_line(&diagnostic.message);
    line(out, format_args!("{}{}", paint.red("error"), paint.bold(&format!(": {message}"))));
    let lines = diagnostic.span.iter().chain(diagnostic.related.iter().map(|r| &r.span));
    let width = lines.map(|s| sources.place(s.start).1.line.to_string().len()).max().unwrap_or(1);
    if let Some(span) = diagnostic.span {
        snippet(out, &Place { sources, span, width, arrow: "-->", mark: '^' }, "", paint);
    }
    for related in &diagnostic.related {
        let place = Place { sources, span: related.span, width, arrow: ":::", mark: '-' };
        snippet(out, &place, &related.message, paint);
    }
    for help in &diagnostic.help {
        line(out, format_args!("{:width$} {} {}", "", paint.blue("="), paint.help(&one_line(help))));
    }
}

struct Place<'a> {
    sources: &'a Sources,
    span: Span,
    /// Of the widest line number.
    width: usize,
    arrow: &'a str,
    mark: char,
}

fn snippet(out: &mut String, place: &Place, label: &str, paint: Paint) {
    let Place { sources, span, width, arrow, mark } = *place;
    let (file, start) = sources.place(span.start);
    let (_, end) = sources.place(span.end);
    let number = start.line;
    line(out, format_args!("{:width$}{} {file}:{number}:{}", "", paint.blue(arrow), start.column));
    let text = sources.line(span.start);
    let (shown, column) = window(text, start.column);
    let last = if end.line == number { end.column } else { text.trim_end().chars().count() + 1 };
    let len = last.saturating_sub(start.column);
    let room = shown.chars().count().saturating_sub(column - 1);
    let marks = mark.to_string().repeat(len.min(room).max(1));
    let indent: String = shown.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    line(out, format_args!("{:width$} {}", "", paint.blue("|")));
    line(out, format_args!("{} {} {shown}", paint.blue(&format!("{number:>width$}")), paint.blue("|")));
    let label = if label.is_empty() { String::new() } else { format!(" {label}") };
    let marks = if mark == '^' { paint.red(&marks) } else { paint.blue(&marks) };
    line(out, format_args!("{:width$} {} {indent}{marks}{label}", "", paint.blue("|")));
}

/// The part of a long line around `column`, without control characters, and the column in that part.
fn window(text: &str, column: usize) -> (String, usize) {
    let clean = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
    let chars: Vec<char> = text.trim_end().chars().map(clean).collect();
    if chars.len() <= MAX_WIDTH {
        return (chars.into_iter().collect(), column);
    }
    let from = column.saturating_sub(MAX_WIDTH / 2).min(chars.len() - MAX_WIDTH);
    let cut = |yes: bool| if yes { "…" } else { "" };
    let part: String = chars[from..from + MAX_WIDTH].iter().collect();
    let shown = format!("{}{part}{}", cut(from > 0), cut(from + MAX_WIDTH < chars.len()));
    (shown, column - from + usize::from(from > 0))
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn line(out: &mut String, text: std::fmt::Arguments) {
    let start = out.len();
    let _ = write!(out, "{text}");
    out.truncate(start + out[start..].trim_end().len());
    out.push('\n');
}

/// Colours, or none.
#[derive(Clone, Copy)]
struct Paint {
    color: bool,
}

impl Paint {
    fn style(self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    fn red(self, text: &str) -> String {
        self.style("1;31", text)
    }

    fn bold(self, text: &str) -> String {
        self.style("1", text)
    }

    fn blue(self, text: &str) -> String {
        self.style("1;34", text)
    }

    fn help(self, text: &str) -> String {
        format!("{} {text}", self.bold("help:"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_line_and_underlines_the_mistake() {
        let source = "stages:\n  a:\n    bach_size: 3\n";
        let at = source.find("bach").expect("there");
        let mistake = Diagnostic::new(Span::new(at, at + 9), "unknown key `bach_size`")
            .help("did you mean `batch_size`?")
            .related(Span::new(0, 6), "in here");
        let text = render(&Sources::new("p.yaml", source), &[mistake], false);
        assert_eq!(
            text,
            "error: unknown key `bach_size`\n --> p.yaml:3:5\n  |\n3 |     bach_size: 3\n  |     ^^^^^^^^^\n \
             ::: p.yaml:1:1\n  |\n1 | stages:\n  | ------ in here\n  = help: did you mean `batch_size`?\n"
        );
    }

    #[test]
    fn a_place_beyond_the_end_and_a_mistake_outside_the_file() {
        let text = render(
            &Sources::new("p.yaml", ""),
            &[Diagnostic::new(Span::new(7, 9), "empty"), Diagnostic::outside("no")],
            false,
        );
        assert!(text.contains("p.yaml:1:1"), "{text}");
        assert!(text.ends_with("error: no\n"), "{text}");
    }

    #[test]
    fn long_lines_are_cut_and_control_characters_replaced() {
        let source = format!("{}\u{1b}X{}", "a".repeat(500), "b".repeat(500));
        let at = source.find('X').expect("there");
        let text = render(&Sources::new("p", &source), &[Diagnostic::new(Span::new(at, at + 1), "m")], false);
        assert!(!text.contains('\u{1b}'));
        assert!(text.lines().all(|l| l.chars().count() < 160), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        let caret = lines[4].chars().position(|c| c == '^').expect("a caret");
        assert_eq!(lines[3].chars().nth(caret), Some('X'));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(source in "\\PC*\n?\\PC*", start in 0usize..200, len in 0usize..50) {
            render(&Sources::new("f", &source), &[Diagnostic::new(Span::new(start, start + len), "m")], true);
        }
    }
}
