//! Sources: one reader each, and its options.

use std::collections::BTreeMap;

use super::references::{Place, Rows};
use super::stages::misspelt;
use super::{Builder, names_of, text_of, texts_of};
use crate::data::Value;
use crate::data::sql::Database;
use crate::diagnostic::Diagnostic;
use crate::spec::grammar::{READERS, SOURCE};
use crate::spec::model::{CellType, Format, Header, Program, Reader, Source, TextOptions};
use crate::spec::nearest::nearest;
use crate::spec::units;
use crate::spec::yaml::Node;

/// The columns of `glob` rows beside the wildcards.
const GLOB_COLUMNS: [&str; 6] = ["path", "name", "stem", "parent", "size", "modified"];

impl<'a> Builder<'a> {
    pub(super) fn source(&mut self, key: &'a Node, node: &'a Node) -> Option<Source> {
        let name = key.key_text();
        let readers: Vec<&(Node, Node)> =
            node.entries()?.iter().filter(|(k, _)| READERS.iter().any(|r| r.name == k.key_text())).collect();
        let (reader_key, reader_node) = match readers.as_slice() {
            [] => {
                if !misspelt(node, &SOURCE, READERS) {
                    let known: Vec<&str> = READERS.iter().map(|r| r.name).collect();
                    let help = format!("give it one of {}", known.join(", "));
                    self.mistake(key.span, format!("source `{name}` has no reader"), help);
                }
                return None;
            }
            [one] => (&one.0, &one.1),
            [first, second, ..] => {
                let (a, b) = (first.0.key_text(), second.0.key_text());
                let message = format!("source `{name}` has two readers, `{a}` and `{b}`");
                self.mistakes.push(
                    Diagnostic::new(second.0.span, message)
                        .related(first.0.span, "the first")
                        .help("keep one; make two sources of it and `map: [a, b]` reads both"),
                );
                return None;
            }
        };
        self.options_of_readers_fit(reader_key.key_text(), node);
        let reader = self.reader(reader_key, reader_node, node)?;
        let key_columns = self.key_columns(node, &reader);
        Some(Source { name: name.to_string(), reader, key: key_columns?, span: key.span })
    }

    fn reader(&mut self, key: &Node, value: &Node, source: &Node) -> Option<Reader> {
        let format = match key.key_text() {
            "csv" => Format::Csv,
            "tsv" => Format::Tsv,
            "jsonl" => Format::Jsonl,
            "parquet" => Format::Parquet,
            "arrow" => Format::Arrow,
            "glob" => return self.glob(value),
            "lines" => {
                let path = text_of(value)?;
                return Some(Reader::Lines { path: (!matches!(path.as_str(), "stdin" | "-")).then_some(path) });
            }
            "values" => return Some(Reader::Values { rows: value.elements()?.iter().map(row_of).collect() }),
            "range" => return self.range(value).map(|(start, stop, step)| Reader::Range { start, stop, step }),
            "product" | "zip" => return self.sweep(key, value, source),
            "sql" => return self.sql(value),
            "python" => return self.generator(value, source),
            "command" => return self.command_source(value),
            _ => return None,
        };
        let paths = names_of(value);
        if value.elements().is_some_and(<[Node]>::is_empty) {
            self.mistake(value.span, format!("`{}` names no file", key.key_text()), "name a file, several, or a glob");
        }
        let text = self.text_options(source)?;
        (!paths.is_empty()).then_some(Reader::Files { format, paths, text })
    }

    /// Options that only some readers have.
    fn options_of_readers_fit(&mut self, reader: &str, source: &Node) {
        for (option, readers) in [
            ("header", ["csv", "tsv"].as_slice()),
            ("delimiter", ["csv", "tsv"].as_slice()),
            ("schema", ["csv", "tsv", "jsonl"].as_slice()),
            ("where", ["product", "zip"].as_slice()),
            ("args", ["python"].as_slice()),
            ("length", ["python"].as_slice()),
        ] {
            if let Some((key, _)) = source.entry(option).filter(|_| !readers.contains(&reader)) {
                let message = format!("`{option}` means nothing to `{reader}`");
                let help = match option {
                    "where" => "a stage drops rows: `filter: SOURCE` with `where`".to_string(),
                    _ => format!("it belongs to {}", readers.join(", ")),
                };
                self.mistake(key.span, message, help);
            }
        }
    }

    fn text_options(&mut self, source: &Node) -> Option<TextOptions> {
        let header = match source.get("header") {
            Some(node) => match (node.elements(), node.scalar().map(|s| &s.value)) {
                (Some(_), _) => Header::Names(self.distinct(node, "`header`")?),
                (None, Some(Value::Bool(false))) => Header::None,
                _ => Header::Line,
            },
            None => Header::Line,
        };
        let delimiter = match source.get("delimiter") {
            Some(node) => Some(self.delimiter(node)?),
            None => None,
        };
        let mut schema = BTreeMap::new();
        for (key, value) in source.get("schema").and_then(Node::entries).unwrap_or_default() {
            schema.insert(key.key_text().to_string(), cell_type(value.text()?)?);
        }
        Some(TextOptions { header, delimiter, schema })
    }

    fn delimiter(&mut self, node: &Node) -> Option<u8> {
        let text = text_of(node)?;
        match text.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Some(*byte),
            _ if text == "\\t" => Some(b'\t'),
            _ => {
                let message = format!("`delimiter` must be one ASCII character, not {}", node.describe());
                self.mistake(node.span, message, "write for example \";\" or \"\\t\"");
                None
            }
        }
    }

    fn glob(&mut self, node: &Node) -> Option<Reader> {
        let pattern = text_of(node)?;
        match wildcards(&pattern) {
            Err(message) => {
                self.mistake(node.span, message, "a wildcard is {name}, one of several words {a,b}");
                None
            }
            Ok(names) => {
                if let Some(name) = names.iter().find(|n| GLOB_COLUMNS.contains(&n.as_str())) {
                    let message = format!("the wildcard {{{name}}} has the name of a column that every file has");
                    self.mistake(
                        node.span,
                        message,
                        format!("rename it; there are already {}", GLOB_COLUMNS.join(", ")),
                    );
                    return None;
                }
                Some(Reader::Glob { pattern })
            }
        }
    }

    fn generator(&mut self, node: &Node, source: &Node) -> Option<Reader> {
        let (module, function) = units::function(node.text()?).ok()?;
        let args = source.get("args").and_then(Node::entries).unwrap_or_default();
        Some(Reader::Program(Program::Python {
            module,
            function,
            args: args.iter().map(|(name, value)| (name.key_text().to_string(), value.as_value())).collect(),
            length: source.get("length").and_then(Node::scalar).and_then(|s| match s.value {
                Value::Int(v) => u64::try_from(v).ok(),
                _ => None,
            }),
            interpreter: self.root.get("defaults").and_then(|d| d.get("interpreter")).and_then(text_of),
        }))
    }

    fn command_source(&mut self, node: &Node) -> Option<Reader> {
        let rows = Rows::None("a source runs before there are rows");
        let place = Place { what: "a source", rows, run: false, files: None };
        let before = self.mistakes.len();
        let mut argv = Vec::new();
        for element in node.elements()? {
            let Some(template) = self.template(element, false, place) else { continue };
            match template.render_words(&self.scope()) {
                Ok(words) => argv.extend(words),
                Err(error) if error.0.contains("environment") => {
                    self.mistake(element.span, error.0, "set it, or give a default: {{ env.NAME | default('…') }}");
                }
                Err(error) => {
                    self.mistake(element.span, error.0, "a source's arguments are settled before anything runs")
                }
            }
        }
        if self.mistakes.len() > before {
            return None;
        }
        if argv.first().is_none_or(String::is_empty) {
            self.mistake(node.span, "`command` names no program", "write [program, argument, …]");
            return None;
        }
        Some(Reader::Program(Program::Command { argv }))
    }

    /// start, stop and step.
    pub(super) fn range(&mut self, node: &Node) -> Option<(Value, Value, Value)> {
        let value = |name: &str, default: i64| match node.get(name) {
            None => Some(Value::Int(default)),
            Some(node) => match node.scalar()?.value {
                Value::Int(v) => Some(Value::Int(v)),
                Value::Float(v) => Some(Value::Float(v)),
                _ => None,
            },
        };
        let (start, stop, step) = (value("start", 0)?, value("stop", 0)?, value("step", 1)?);
        node.get("stop")?;
        if matches!(step, Value::Int(0)) || matches!(step, Value::Float(0.0)) {
            let at = node.get("step").map_or(node.span, |n| n.span);
            self.mistake(at, "a range with a step of 0 never ends", "give a positive or a negative step");
            return None;
        }
        Some((start, stop, step))
    }

    fn sql(&mut self, node: &Node) -> Option<Reader> {
        let (url, query_node) = (node.get("url")?, node.get("query")?);
        let database = self.database(&text_of(url)?, url);
        let sqlite = matches!(database, Some(Database::Sqlite(_)));
        let why = "a source is read once, before there are items; `params` and `env` are known";
        let template =
            self.query(query_node, sqlite, Place { what: "a query", rows: Rows::None(why), run: false, files: None })?;
        let query = match template.render_text(&self.scope()) {
            Ok(query) => query,
            Err(error) => {
                self.mistake(query_node.span, error.to_string(), "only a value can stand there, or a list of values");
                return None;
            }
        };
        Some(Reader::Sql { database: database?, query })
    }

    fn key_columns(&mut self, source: &Node, reader: &Reader) -> Option<Vec<String>> {
        let Some(node) = source.get("key") else {
            let default = matches!(reader, Reader::Glob { .. }).then(|| "path".to_string());
            return Some(default.into_iter().collect());
        };
        let known = columns_of(reader);
        for (node, name) in texts_of(node) {
            if let Some(known) = known.as_ref().filter(|known| !known.iter().any(|c| c == name)) {
                let help = match nearest(name, known.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("its columns are {}", known.join(", ")),
                };
                self.mistake(node.span, format!("this source has no column `{name}`"), help);
            }
        }
        self.distinct(node, "`key`")
    }

    /// One or several names, none twice.
    pub(super) fn distinct(&mut self, node: &Node, what: &str) -> Option<Vec<String>> {
        let mut names: Vec<String> = Vec::new();
        for (node, name) in texts_of(node) {
            if names.iter().any(|n| n == name) {
                self.mistake(node.span, format!("{what} names `{name}` twice"), "name it once");
            } else {
                names.push(name.to_string());
            }
        }
        Some(names)
    }
}

/// The columns of a source, where the file says them.
pub(super) fn columns_of(reader: &Reader) -> Option<Vec<String>> {
    match reader {
        Reader::Files { text: TextOptions { header: Header::Names(names), .. }, .. } => Some(names.clone()),
        Reader::Files { .. } | Reader::Sql { .. } | Reader::Program(_) => None,
        Reader::Glob { pattern } => {
            let wildcards = wildcards(pattern).unwrap_or_default();
            Some(GLOB_COLUMNS.iter().map(|c| c.to_string()).chain(wildcards).collect())
        }
        Reader::Lines { .. } => Some(vec!["line".into()]),
        Reader::Range { .. } => Some(vec!["value".into()]),
        Reader::Sweep(sweep) => Some(sweep.columns.iter().map(|(name, _)| name.clone()).collect()),
        Reader::Values { rows } => {
            let mut columns: Vec<String> = Vec::new();
            for (name, _) in rows.iter().flatten() {
                if !columns.contains(name) {
                    columns.push(name.clone());
                }
            }
            Some(columns)
        }
    }
}

fn row_of(node: &Node) -> Vec<(String, Value)> {
    match node.as_value() {
        Value::Map(entries) => entries,
        scalar => vec![("value".to_string(), scalar)],
    }
}

fn cell_type(name: &str) -> Option<CellType> {
    Some(match name {
        "int" => CellType::Int,
        "float" => CellType::Float,
        "bool" => CellType::Bool,
        "text" | "str" | "string" => CellType::Text,
        "date" => CellType::Date,
        "datetime" => CellType::DateTime,
        _ => return None,
    })
}

/// The names of `{name}` in a glob, in order, each once; `{a,b}` and `{}` in `[ ]` are the glob's own.
fn wildcards(pattern: &str) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    let mut rest = pattern;
    while let Some(open) = rest.find('{') {
        let Some(close) = rest[open..].find('}').map(|i| open + i) else {
            return Err("a `{` that is never closed".into());
        };
        let name = &rest[open + 1..close];
        if !name.contains(',') {
            if !crate::spec::units::is_identifier(name) {
                return Err(format!("{{{name}}} is no name for a wildcard"));
            }
            if names.iter().all(|n| n != name) {
                names.push(name.to_string());
            }
        }
        rest = &rest[close + 1..];
    }
    Ok(names)
}
