//! Values in SQL: as literals, and where a template may stand.
//!
//! A literal is whole in itself only where SQL reads code. Inside quotes, comments and behind a word it would be read as
//! something else, so a template there is refused. Where databases differ (comments within comments, `$$`), what either
//! takes for a quote counts as one.

use std::iter::Peekable;
use std::str::Chars;

use super::engine::Part;
use super::names;
use super::{RenderError, TemplateError};
use crate::data::Value;

/// Refuses templates where their values would not stand alone; those that are `| raw` may stand anywhere.
pub(super) fn check(parts: &[Part], sqlite: bool) -> Result<(), TemplateError> {
    let mut scanner = Scanner { sqlite, place: Place::Code, before: ' ' };
    let mut parts = parts.iter().peekable();
    while let Some(part) = parts.next() {
        let (expr, at) = match part {
            Part::Text(text) => {
                scanner.text(text);
                continue;
            }
            Part::Value { expr, at } => (expr, at),
        };
        if names::take_raw(expr, true)?.1 {
            scanner.before = ' ';
            continue;
        }
        let behind = match parts.peek() {
            Some(Part::Text(text)) => text.chars().next().is_some_and(joins),
            Some(Part::Value { .. }) => true,
            None => false,
        };
        let place = match scanner.place {
            Place::Code if joins(scanner.before) || behind => "right beside a word or a quote",
            Place::Code => continue,
            Place::Comment(_) | Place::Line => "in a comment",
            _ => "inside quotes",
        };
        return Err(TemplateError {
            message: format!(
                "a template cannot stand {place} of a query: its value would be quoted twice or not at all"
            ),
            help: Some(
                "a value is a literal of its own: `where day = {{ params.day }}`; `'%' || {{ … }}` joins texts".into(),
            ),
            at: at.clone(),
        });
    }
    Ok(())
}

/// Whether a literal would become one with what stands beside it.
fn joins(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$' | '\'' | '"' | '`' | '\\' | '&')
}

/// What surrounds the end of what was read.
#[derive(Debug, Clone, PartialEq)]
enum Place {
    Code,
    /// In quotes that end with this; whether a backslash takes the next character.
    Quoted(char, bool),
    /// `$tag$`
    Dollar(String),
    Line,
    /// Comments, one in another.
    Comment(u32),
}

struct Scanner {
    sqlite: bool,
    place: Place,
    /// The character read last.
    before: char,
}

impl Scanner {
    fn text(&mut self, text: &str) {
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            self.place = match std::mem::replace(&mut self.place, Place::Code) {
                Place::Code => self.code(c, &mut rest),
                Place::Quoted(end, _) if c == end && rest.peek() != Some(&end) => Place::Code,
                Place::Quoted(end, escapes) => {
                    if c == end || (escapes && c == '\\') {
                        rest.next();
                    }
                    Place::Quoted(end, escapes)
                }
                Place::Dollar(tag) if c == '$' && follows(&rest, &tag) => {
                    rest.by_ref().take(tag.chars().count()).for_each(drop);
                    Place::Code
                }
                Place::Line if c == '\n' => Place::Code,
                Place::Comment(depth) if c == '*' && rest.next_if_eq(&'/').is_some() => match depth {
                    1 => Place::Code,
                    depth => Place::Comment(depth - 1),
                },
                Place::Comment(depth) if c == '/' && rest.next_if_eq(&'*').is_some() => Place::Comment(depth + 1),
                inside => inside,
            };
            self.before = c;
        }
    }

    fn code(&self, c: char, rest: &mut Peekable<Chars<'_>>) -> Place {
        match c {
            '\'' => Place::Quoted('\'', matches!(self.before, 'e' | 'E')),
            '"' | '`' => Place::Quoted(c, false),
            '[' if self.sqlite => Place::Quoted(']', false),
            '-' if rest.next_if_eq(&'-').is_some() => Place::Line,
            '/' if rest.next_if_eq(&'*').is_some() => Place::Comment(1),
            '$' if !self.before.is_alphanumeric() => {
                let tag: String = rest.clone().take_while(|c| *c == '_' || c.is_alphanumeric()).collect();
                match follows(rest, &format!("{tag}$")) {
                    true => {
                        rest.by_ref().take(tag.chars().count() + 1).for_each(drop);
                        Place::Dollar(format!("{tag}$"))
                    }
                    false => Place::Code,
                }
            }
            _ => Place::Code,
        }
    }
}

fn follows(rest: &Peekable<Chars<'_>>, text: &str) -> bool {
    let mut rest = rest.clone();
    text.chars().all(|c| rest.next() == Some(c))
}

/// Appends a value as a literal: a list as several, an empty one as `null`.
pub(super) fn quote(value: &Value, out: &mut String) -> Result<(), RenderError> {
    match value {
        Value::List(items) if items.is_empty() => out.push_str("null"),
        Value::List(items) => {
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                literal(item, out)?;
            }
        }
        value => literal(value, out)?,
    }
    Ok(())
}

fn literal(value: &Value, out: &mut String) -> Result<(), RenderError> {
    let plain = match value {
        Value::Null => "null".to_string(),
        Value::Bool(_) | Value::Int(_) | Value::BigInt(_) => value.to_string(),
        Value::Float(v) if v.is_finite() => value.to_string(),
        Value::Text(text) if text.contains('\0') => {
            return Err(RenderError("text with a NUL character cannot stand in a query".into()));
        }
        Value::Text(_) | Value::Time(..) | Value::File { .. } => {
            out.push_str(&format!("'{}'", value.to_string().replace('\'', "''")));
            return Ok(());
        }
        other => return Err(RenderError(format!("{other} ({}) cannot stand in a query", other.type_name()))),
    };
    // Two minus signs would begin a comment.
    out.push_str(&if plain.starts_with('-') { format!("({plain})") } else { plain });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Scope, Template};
    use super::*;

    fn rendered(source: &str, value: Value) -> Result<String, String> {
        let template = Template::parse_query(source, false).map_err(|e| e.message)?;
        let params = [("x".to_string(), value)];
        template.render_text(&Scope { params: &params, ..Scope::default() }).map_err(|e| e.to_string())
    }

    #[test]
    fn values_are_literals() {
        let all = [
            (Value::Text("it's".into()), "'it''s'"),
            (Value::Int(-1), "(-1)"),
            (Value::Float(0.5), "0.5"),
            (Value::Bool(true), "true"),
            (Value::Null, "null"),
            (Value::List(vec![Value::Int(1), Value::Text("a".into())]), "1, 'a'"),
            (Value::List(Vec::new()), "null"),
        ];
        for (value, expected) in all {
            assert_eq!(rendered("a in ({{ params.x }})", value).expect("good"), format!("a in ({expected})"));
        }
        for value in [Value::Float(f64::NAN), Value::Text("a\0".into()), Value::Map(Vec::new())] {
            assert!(rendered("{{ params.x }}", value).is_err());
        }
        assert_eq!(rendered("from {{ params.x | raw }}", Value::Text("a b".into())).as_deref(), Ok("from a b"));
    }

    #[test]
    fn templates_stand_in_code_only() {
        let here = "{{ params.x }}";
        for good in [
            "= {}",
            "'a''b' || {}",
            "/* ' */ {}",
            "-- '\n{}",
            "$$ ' $$ || {}",
            "\"a'b\" = {}",
            "E'\\'' || {}",
            "arr[{}]",
        ] {
            assert!(rendered(&good.replace("{}", here), Value::Null).is_ok(), "{good}");
        }
        for bad in [
            "'{}'",
            "'a''{}'",
            "\"{}\"",
            "`{}`",
            "-- {}",
            "/* {} */",
            "/* /* */ {} */",
            "$$ {} $$",
            "$a$ $$ {} $a$",
            "E'\\'{}'",
            "E{}",
            "a{}",
            "{}b",
            "{}'",
            "{}{}",
            "'a'{}",
            "U&{}",
        ] {
            assert!(rendered(&bad.replace("{}", here), Value::Null).is_err(), "{bad}");
        }
        assert!(Template::parse_query("select [{{ params.x }}]", true).is_err());
    }

    proptest::proptest! {
        /// A value never ends its literal: the scanner reads it as one quoted text, and code follows.
        #[test]
        fn a_literal_is_whole(text in ".{0,20}") {
            let mut out = String::new();
            literal(&Value::Text(text.replace('\0', "")), &mut out).expect("text");
            let mut scanner = Scanner { sqlite: false, place: Place::Code, before: ' ' };
            let inner = &out[..out.len() - 1];
            scanner.text(inner);
            proptest::prop_assert_eq!(&scanner.place, &Place::Quoted('\'', false));
            let mut scanner = Scanner { sqlite: false, place: Place::Code, before: ' ' };
            scanner.text(&out);
            proptest::prop_assert_eq!(&scanner.place, &Place::Code);
        }
    }
}
