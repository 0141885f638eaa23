//! From YAML text to a tree of [`Node`]s with spans: the only place that knows YAML.
//!
//! YAML 1.2, core schema (`yes` is text, `007` is 7, `0o7` is octal). Anchors, aliases and merge keys are resolved
//! within a budget, so that no small file becomes a large tree. Duplicate keys are mistakes.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Tag};

use crate::data::Value;
use crate::diagnostic::{Diagnostic, Diagnostics, Lines, Sources, Span};

/// Nodes that a file may have once its aliases are resolved.
const MAX_NODES: usize = 200_000;
/// Levels of nesting that a file may have once its aliases are resolved.
const MAX_DEPTH: usize = 100;

const UNQUOTED: &str = "a template that is not quoted";

/// A value and its place.
#[derive(Debug, Clone)]
pub struct Node {
    pub span: Span,
    pub kind: Kind,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Kind {
    Scalar(Scalar),
    List(Vec<Node>),
    /// In file order, keys unique (as text).
    Map(Vec<(Node, Node)>),
}

/// A leaf.
#[derive(Debug, Clone)]
pub struct Scalar {
    /// The text, unquoted: `007` keeps its zeros here.
    pub text: String,
    /// Whether it stands in quotes or is a block of text.
    pub quoted: bool,
    /// Null, a truth value, an integer of any size, a float or text.
    pub value: Value,
}

impl Node {
    /// A value that stands at `span`.
    pub fn of_value(value: &Value, span: Span) -> Node {
        let node = |v: &Value| Node::of_value(v, span);
        let kind = match value {
            Value::List(items) => Kind::List(items.iter().map(node).collect()),
            Value::Map(entries) => {
                Kind::Map(entries.iter().map(|(k, v)| (node(&Value::Text(k.clone())), node(v))).collect())
            }
            scalar => Kind::Scalar(Scalar { text: scalar.to_string(), quoted: false, value: scalar.clone() }),
        };
        Node { span, kind }
    }

    /// The value, as it stands.
    pub fn as_value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(scalar) => scalar.value.clone(),
            Kind::List(elements) => Value::List(elements.iter().map(Node::as_value).collect()),
            Kind::Map(entries) => {
                Value::Map(entries.iter().map(|(k, v)| (k.key_text().to_string(), v.as_value())).collect())
            }
        }
    }

    /// The scalar, if it is one.
    pub fn scalar(&self) -> Option<&Scalar> {
        match &self.kind {
            Kind::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// The text of a scalar that is text.
    pub fn text(&self) -> Option<&str> {
        self.scalar().filter(|s| matches!(s.value, Value::Text(_))).map(|s| s.text.as_str())
    }

    /// The entries, if it is a mapping.
    pub fn entries(&self) -> Option<&[(Node, Node)]> {
        match &self.kind {
            Kind::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The elements, if it is a list.
    pub fn elements(&self) -> Option<&[Node]> {
        match &self.kind {
            Kind::List(elements) => Some(elements),
            _ => None,
        }
    }

    /// The key's text, where it is a scalar.
    pub fn key_text(&self) -> &str {
        self.scalar().map_or("", |s| s.text.as_str())
    }

    /// The value of the entry `key`, if it is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    /// The entry `key`, if it is a mapping that has it.
    pub fn entry(&self, key: &str) -> Option<&(Node, Node)> {
        self.entries()?.iter().find(|(k, _)| k.key_text() == key)
    }

    /// Whether it is null (or nothing at all).
    pub fn is_null(&self) -> bool {
        self.scalar().is_some_and(|s| matches!(s.value, Value::Null))
    }

    /// What it is, in words: `the number 3`, `a list`.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::List(_) => "a list".into(),
            Kind::Map(_) => "a mapping".into(),
            Kind::Scalar(Scalar { text, value, .. }) => match value {
                Value::Null => "nothing".into(),
                Value::Bool(_) => format!("the truth value {text}"),
                Value::Int(_) | Value::BigInt(_) | Value::Float(_) => format!("the number {text}"),
                _ if text.is_empty() => "empty text".into(),
                _ => format!("the text {:?}", shorten(text)),
            },
        }
    }

    /// Moves all spans on by `by` bytes.
    fn shift(&mut self, by: usize) {
        self.span = self.span.shifted(by);
        match &mut self.kind {
            Kind::Scalar(_) => {}
            Kind::List(elements) => elements.iter_mut().for_each(|n| n.shift(by)),
            Kind::Map(entries) => entries.iter_mut().for_each(|(key, value)| {
                key.shift(by);
                value.shift(by);
            }),
        }
    }

    /// The place of the bytes `at` of a scalar's text; the whole scalar where that cannot be told (escapes).
    pub fn span_of(&self, source: &str, at: Range<usize>) -> Span {
        let exact = || {
            let text = &self.scalar()?.text;
            let written = source.get(self.span.start..self.span.end)?;
            let end = text.get(at.clone())?.find('\n').map_or(at.end, |i| at.start + i);
            let piece = text.get(at.start..end).filter(|p| !p.is_empty())?;
            let earlier = text[..at.start].match_indices(piece).count();
            let (start, _) = written.match_indices(piece).nth(earlier)?;
            Some(self.span.part(start, piece.len()))
        };
        exact().unwrap_or(self.span)
    }
}

fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Parses one document. All duplicate keys are told; a syntax error is told alone.
pub fn parse(text: &str) -> Result<Node, Vec<Diagnostic>> {
    let mut composer = Composer {
        parser: Parser::new_from_str_with_options(text, granit_parser::options! { emit_comments: false }),
        text,
        lines: Lines::of(text),
        anchors: HashMap::new(),
        nodes: 0,
        mistakes: Diagnostics::default(),
    };
    match composer.document() {
        Ok(node) if composer.mistakes.is_empty() => Ok(node),
        Ok(_) => Err(composer.mistakes.into_sorted()),
        Err(fatal) => {
            let mut mistakes = std::mem::take(&mut composer.mistakes).into_sorted();
            let line = |d: &Diagnostic| d.span.map(|s| composer.lines.line(s.start));
            if !mistakes.iter().any(|m| m.message == UNQUOTED && line(m) == line(&fatal)) {
                mistakes.push(*fatal);
            }
            Err(mistakes)
        }
    }
}

/// As [`parse`], the file of that number; spans count through all files.
pub fn parse_file(sources: &Sources, number: usize) -> Result<Node, Vec<Diagnostic>> {
    let (text, start) = sources.file(number);
    match parse(text) {
        Ok(mut node) => {
            node.shift(start);
            Ok(node)
        }
        Err(mut mistakes) => {
            for mistake in &mut mistakes {
                let related = mistake.related.iter_mut().map(|r| &mut r.span);
                mistake.span.iter_mut().chain(related).for_each(|span| *span = span.shifted(start));
            }
            Err(mistakes)
        }
    }
}

/// A scalar as the command line gives it (`--param n=5`): a number, a truth value, null, else text.
pub fn parse_scalar(text: &str) -> Value {
    match parse(text) {
        Ok(Node { kind: Kind::Scalar(scalar), .. }) => scalar.value,
        _ => Value::Text(text.to_string()),
    }
}

struct Composer<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    text: &'a str,
    lines: Lines,
    /// Complete anchored nodes, with their number of nodes and levels.
    anchors: HashMap<usize, (Node, usize, usize)>,
    nodes: usize,
    mistakes: Diagnostics,
}

type Composed<T> = Result<T, Box<Diagnostic>>;

impl<'a> Composer<'a> {
    fn document(&mut self) -> Composed<Node> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if root.is_none() => {
                    let (event, span) = self.next()?;
                    root = Some(if matches!(event, Event::DocumentEnd) {
                        null(span)
                    } else {
                        self.node(event, span, 0)?.0
                    });
                }
                _ => {
                    return Err(Diagnostic::new(span, "a second document")
                        .help("a workflow is one document: drop the `---`")
                        .into());
                }
            }
        }
        Ok(root.unwrap_or_else(|| null(Span::default())))
    }

    fn next(&mut self) -> Composed<(Event<'a>, Span)> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                let range = span.byte_range().unwrap_or_default();
                Ok((event, Span::new(range.start, range.end)))
            }
            Some(Err(error)) => {
                let at = error.marker().byte_offset().unwrap_or_default();
                Err(syntax_error(self.text, at, &error.info()).into())
            }
            None => Ok((Event::StreamEnd, Span::new(self.text.len(), self.text.len()))),
        }
    }

    /// Composes the node that begins with `event`; returns it with its number of levels.
    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Composed<(Node, usize)> {
        self.nodes += 1;
        if self.nodes > MAX_NODES || depth > MAX_DEPTH {
            return Err(self.too_large(span).into());
        }
        let before = self.nodes;
        let (node, levels, anchor) = match event {
            Event::Alias(id) => return self.alias(id, span, depth),
            Event::Scalar(text, style, anchor, tag) => {
                let tag = self.core_tag(tag.as_deref(), span);
                let written = self.text.get(span.start..span.end).unwrap_or("");
                let text = if text == "~" && !written.contains('~') { "" } else { &*text };
                let scalar = resolve(text, !matches!(style, ScalarStyle::Plain), tag.as_deref());
                let scalar = scalar.map_err(|message| Diagnostic::new(span, message))?;
                (Node { span, kind: Kind::Scalar(scalar) }, 1, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.core_tag(tag.as_deref(), span);
                let (node, levels) = self.list(span, depth)?;
                (node, levels, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.core_tag(tag.as_deref(), span);
                let (node, levels) = self.map(span, depth)?;
                (node, levels, anchor)
            }
            _ => return Err(Diagnostic::new(span, "expected a value").into()),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before + 1, levels));
        }
        Ok((node, levels))
    }

    fn alias(&mut self, id: usize, span: Span, depth: usize) -> Composed<(Node, usize)> {
        let Some((node, nodes, levels)) = self.anchors.get(&id) else {
            return Err(Diagnostic::new(span, "an alias to a value that contains it").into());
        };
        if self.nodes + nodes > MAX_NODES || depth + levels > MAX_DEPTH {
            return Err(self.too_large(span).into());
        }
        self.nodes += nodes;
        Ok((Node { span: node.span, kind: node.kind.clone() }, *levels))
    }

    fn too_large(&self, span: Span) -> Diagnostic {
        Diagnostic::new(span, format!("the aliases here expand to more than {MAX_NODES} values or {MAX_DEPTH} levels"))
            .help("write the values out, or read them from a file with a source")
    }

    fn list(&mut self, start: Span, depth: usize) -> Composed<(Node, usize)> {
        let mut elements = Vec::new();
        let mut levels = 0;
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                let span = Span::new(start.start, span.end);
                return Ok((Node { span, kind: Kind::List(elements) }, levels + 1));
            }
            let (element, below) = self.node(event, span, depth + 1)?;
            levels = levels.max(below);
            elements.push(element);
        }
    }

    fn map(&mut self, start: Span, depth: usize) -> Composed<(Node, usize)> {
        let mut entries = Entries::default();
        let mut merged = Vec::new();
        let mut levels = 0;
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                merged.into_iter().for_each(|(key, value)| entries.merge(key, value));
                let span = Span::new(start.start, span.end);
                return Ok((Node { span, kind: Kind::Map(entries.list) }, levels + 1));
            }
            let (key, _) = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let (value, below) = self.node(event, span, depth + 1)?;
            levels = levels.max(below);
            if key.scalar().is_some_and(|s| s.text == "<<" && !s.quoted) {
                self.merge(&key, value, &mut merged);
            } else if key.scalar().is_none() {
                self.mistakes.push(odd_key(self.text, start, &key));
            } else if let Err(mistake) = entries.add(&self.lines, key, value) {
                self.mistakes.push(*mistake);
            }
        }
    }

    fn merge(&mut self, key: &Node, value: Node, merged: &mut Vec<(Node, Node)>) {
        match value.kind {
            Kind::Map(entries) => merged.extend(entries),
            Kind::List(parts) if parts.iter().all(|p| p.entries().is_some()) => {
                merged.extend(parts.into_iter().flat_map(|p| match p.kind {
                    Kind::Map(entries) => entries,
                    _ => Vec::new(),
                }));
            }
            _ => self.mistakes.push(
                Diagnostic::new(key.span, format!("`<<` merges mappings, not {}", value.describe()))
                    .help("name an anchor: `<<: *common`"),
            ),
        }
    }

    /// The suffix of a tag of the core schema (`str` of `!!str`).
    fn core_tag(&mut self, tag: Option<&Tag>, span: Span) -> Option<String> {
        let tag = tag?;
        let known = tag.core_suffix().filter(|s| ["str", "int", "float", "bool", "null", "seq", "map"].contains(s));
        if known.is_none() && tag.suffix() != "!" && !tag.suffix().is_empty() {
            let mistake = Diagnostic::new(span, format!("the tag {} means nothing here", tag.original()));
            self.mistakes.push(mistake.help("drop the tag"));
        }
        known.map(str::to_string)
    }
}

/// Entries of a mapping, found by their key.
#[derive(Default)]
struct Entries {
    list: Vec<(Node, Node)>,
    places: HashMap<String, usize>,
}

impl Entries {
    fn add(&mut self, lines: &Lines, key: Node, value: Node) -> Composed<()> {
        if let Some(&first) = self.places.get(key.key_text()) {
            let first = self.list[first].0.span;
            let line = |span: Span| lines.line(span.start);
            let message =
                format!("the key `{}` stands twice, on lines {} and {}", key.key_text(), line(first), line(key.span));
            return Err(Diagnostic::new(key.span, message)
                .related(first, "first here")
                .help("remove or rename one of them")
                .into());
        }
        self.places.insert(key.key_text().to_string(), self.list.len());
        self.list.push((key, value));
        Ok(())
    }

    fn merge(&mut self, key: Node, value: Node) {
        if !self.places.contains_key(key.key_text()) {
            self.places.insert(key.key_text().to_string(), self.list.len());
            self.list.push((key, value));
        }
    }
}

fn null(span: Span) -> Node {
    Node { span, kind: Kind::Scalar(Scalar { text: String::new(), quoted: false, value: Value::Null }) }
}

/// A key that is no scalar; most often an unquoted template, which YAML reads as a mapping in a mapping.
fn odd_key(text: &str, outer: Span, key: &Node) -> Diagnostic {
    let written = text.get(outer.start..).unwrap_or("");
    if key.entries().is_some() && written.starts_with("{{") {
        let line = written.lines().next().unwrap_or("");
        let close = line.find("}}").map_or(line.len(), |end| end + 2);
        let end = line[close..].find([' ', ',', '}', ']']).map_or(line.len(), |i| close + i);
        return Diagnostic::new(Span::new(outer.start, outer.start + end), UNQUOTED)
            .help(format!("YAML reads {{{{ as a mapping: write {}", quoted(&line[..end])));
    }
    Diagnostic::new(key.span, format!("a key must be text, not {}", key.describe())).help("quote the key")
}

fn quoted(template: &str) -> String {
    if template.contains('"') && !template.contains('\'') { format!("'{template}'") } else { format!("\"{template}\"") }
}

fn syntax_error(text: &str, at: usize, message: &str) -> Diagnostic {
    let at = at.min(text.len());
    let end = text.get(at..).and_then(|rest| rest.chars().next()).map_or(at, |c| at + c.len_utf8());
    let mut diagnostic = Diagnostic::new(Span::new(at, end), format!("not valid YAML: {}", message.trim()));
    let line_start = text.get(..at).and_then(|t| t.trim_end().rfind('\n')).map_or(0, |i| i + 1);
    let line = text.get(line_start..).unwrap_or("").lines().next().unwrap_or("");
    let value = line.split_once(": ").map_or(line, |(_, value)| value).trim_start_matches(['-', ' ']);
    if value.starts_with("{{") {
        diagnostic = diagnostic.help(format!("a value that begins with {{{{ must be quoted: {}", quoted(value.trim())));
    } else if value.starts_with('*') {
        let help =
            format!("`*name` stands for what `&name` marks before; a glob must be quoted: {}", quoted(value.trim()));
        diagnostic = diagnostic.help(help);
    } else if line.contains('\t') && line.trim_start_matches(' ').starts_with('\t') {
        diagnostic = diagnostic.help("indent with spaces, not with tabs");
    } else if value.contains(": ") && !value.starts_with(['"', '\'', '{', '[']) {
        diagnostic = diagnostic.help(format!("text with a colon in it must be quoted: {}", quoted(value.trim())));
    }
    diagnostic
}

/// The core schema; an error says why a tag does not fit.
fn resolve(text: &str, quoted: bool, tag: Option<&str>) -> Result<Scalar, String> {
    let plain = || core_value(text).unwrap_or_else(|| Value::Text(text.to_string()));
    let value = match tag {
        Some("str") => Value::Text(text.to_string()),
        Some(tag) => {
            let value = plain();
            let fits = match (tag, &value) {
                ("int", Value::Int(_) | Value::BigInt(_)) | ("float", Value::Float(_)) => Some(value),
                ("float", Value::Int(i)) => Some(Value::Float(*i as f64)),
                ("bool", Value::Bool(_)) | ("null", Value::Null) => Some(value),
                _ => None,
            };
            fits.ok_or_else(|| format!("{text:?} is not what its tag !!{tag} says"))?
        }
        None if quoted => Value::Text(text.to_string()),
        None => plain(),
    };
    Ok(Scalar { text: text.to_string(), quoted, value })
}

fn core_value(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "true" | "True" | "TRUE" => return Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Some(Value::Bool(false)),
        ".nan" | ".NaN" | ".NAN" => return Some(Value::Float(f64::NAN)),
        _ => {}
    }
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return Some(Value::Float(if negative { f64::NEG_INFINITY } else { f64::INFINITY }));
    }
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        let kept = digits.trim_start_matches('0');
        let kept = if kept.is_empty() { "0" } else { kept };
        let sign = if negative && kept != "0" { "-" } else { "" };
        return Some(Value::integer(&format!("{sign}{kept}")));
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(rest) = text.strip_prefix(prefix)
            && !rest.starts_with('+')
        {
            return i128::from_str_radix(rest, radix).ok().map(|v| Value::integer(&v.to_string()));
        }
    }
    core_float(digits).then(|| text.parse().ok().map(Value::Float))?
}

/// `[0-9]+(\.[0-9]*)?` or `\.[0-9]+`, then perhaps an exponent.
fn core_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let all_digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    let mantissa_fits = match mantissa.split_once('.') {
        Some((whole, part)) => all_digits(whole) && all_digits(part) && !(whole.is_empty() && part.is_empty()),
        None => !mantissa.is_empty() && all_digits(mantissa),
    };
    let exponent_fits = exponent.is_none_or(|e| {
        let digits = e.strip_prefix(['+', '-']).unwrap_or(e);
        !digits.is_empty() && all_digits(digits)
    });
    mantissa_fits && exponent_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        match parse(text).expect("valid").kind {
            Kind::Scalar(scalar) => scalar.value,
            other => panic!("not a scalar: {other:?}"),
        }
    }

    #[test]
    fn the_core_schema() {
        for (text, expected) in [
            ("3", Value::Int(3)),
            ("-0", Value::Int(0)),
            ("007", Value::Int(7)),
            ("0x1F", Value::Int(31)),
            ("0o17", Value::Int(15)),
            ("123456789012345678901234567890", Value::BigInt("123456789012345678901234567890".into())),
            ("1.5", Value::Float(1.5)),
            ("1e3", Value::Float(1000.0)),
            (".5", Value::Float(0.5)),
            ("-.inf", Value::Float(f64::NEG_INFINITY)),
            (".nan", Value::Float(f64::NAN)),
            ("yes", Value::Text("yes".into())),
            ("1_000", Value::Text("1_000".into())),
            ("12:30", Value::Text("12:30".into())),
            ("1.2.3", Value::Text("1.2.3".into())),
            ("e3", Value::Text("e3".into())),
            (".", Value::Text(".".into())),
            ("-", Value::List(vec![])),
            ("'3'", Value::Text("3".into())),
            ("!!str 3", Value::Text("3".into())),
            ("!!float 3", Value::Float(3.0)),
            ("~", Value::Null),
            ("", Value::Null),
        ] {
            if text != "-" {
                assert_eq!(value(text), expected, "{text}");
            }
        }
    }

    #[test]
    fn anchors_and_merge_keys() {
        let root = parse("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [{z: 1}, *a]}\n").expect("valid");
        let b = root.get("b").expect("there");
        assert_eq!(b.get("x").and_then(Node::scalar).map(|s| s.text.as_str()), Some("1"));
        assert_eq!(b.get("y").and_then(Node::scalar).map(|s| s.text.as_str()), Some("3"));
        assert_eq!(root.get("c").and_then(|c| c.entries()).map(<[_]>::len), Some(3));
    }

    #[test]
    fn an_alias_bomb_is_refused_at_once() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for i in 1..20 {
            let before = format!("*a{}", i - 1);
            bomb += &format!("a{i}: &a{i} [{}]\n", [before.as_str(); 9].join(", "));
        }
        let mut chain = String::from("a0: &a0 [x]\n");
        (1..50_000).for_each(|i| chain += &format!("a{i}: &a{i} [*a{}]\n", i - 1));
        for text in [bomb, chain] {
            let start = std::time::Instant::now();
            let mistakes = parse(&text).expect_err("refused");
            assert!(mistakes[0].message.contains("expand"), "{mistakes:?}");
            assert!(start.elapsed().as_secs_f64() < 1.0, "{:?}", start.elapsed());
        }
    }

    #[test]
    fn an_alias_to_itself() {
        assert!(parse("a: &a [*a]").expect_err("refused")[0].message.contains("contains it"));
    }

    #[test]
    fn all_duplicates_are_told() {
        let mistakes = parse("a: 1\nb: 1\na: 2\nb: 2\n").expect_err("refused");
        assert_eq!(mistakes.len(), 2);
        assert!(mistakes[0].message.contains("lines 1 and 3"), "{mistakes:?}");
    }

    #[test]
    fn places_within_scalars() {
        let find = |source: &str, key: &str, piece: &str| {
            let root = parse(source).expect("valid");
            let node = root.get(key).expect("there").clone();
            let at = node.scalar().expect("a scalar").text.rfind(piece).expect("in it");
            let span = node.span_of(source, at..at + piece.len());
            (span.start, source[span.start..span.end].to_string())
        };
        for source in [
            "k: |\n  one two\n  two\nz: 1\n",
            "k: one two two\n",
            "k: \"one two two\"\n",
            "k: 'it''s two two'\n",
            "k: >\n  two\n  two\n",
        ] {
            let (start, text) = find(source, "k", "two");
            assert_eq!((start, text.as_str()), (source.rfind("two").expect("there"), "two"), "{source}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = parse(&text);
        }

        #[test]
        fn never_panics_on_things_like_yaml(text in "([a-c]|: |\n|  |- |\\{|\\}|\\[|\\]|,|\"|'|&a |\\*a|<<|!|\\||>|#|\\?|%|@|`){0,60}") {
            if let Err(mistakes) = parse(&text) {
                crate::diagnostic::render(&Sources::new("f", &text), &mistakes, false);
            }
        }
    }
}
