//! Parameter sweeps: what their columns take on, and that no two wait for each other.

use super::Builder;
use super::references::{Place, Rows};
use super::sources::columns_of;
use crate::diagnostic::Diagnostic;
use crate::spec::model::{Reader, Source, Sweep, SweepFilter, SweepValues};
use crate::spec::template::{Root, Scope};
use crate::spec::yaml::{self, Node};

impl<'a> Builder<'a> {
    /// `product:` or `zip:`, with the `where` beside it.
    pub(super) fn sweep(&mut self, key: &Node, value: &Node, source: &Node) -> Option<Reader> {
        let entries = value.entries()?;
        if entries.is_empty() {
            let help = format!("write for example `{}: {{size: [1, 2, 3]}}`", key.key_text());
            self.mistake(key.span, format!("`{}` has no columns", key.key_text()), help);
            return None;
        }
        let columns: Vec<_> =
            entries.iter().map(|(name, node)| Some((name.key_text().to_string(), self.sweep_values(node)?))).collect();
        let names: Vec<String> = entries.iter().map(|(name, _)| name.key_text().to_string()).collect();
        let filter = match source.get("where") {
            Some(node) => Some(self.sweep_filter(node, &names)?),
            None => None,
        };
        let columns: Vec<_> = columns.into_iter().collect::<Option<_>>()?;
        let in_step = key.key_text() == "zip";
        (!in_step || self.equally_long(key, &columns)).then_some(Reader::Sweep(Sweep { in_step, columns, filter }))
    }

    fn sweep_values(&mut self, node: &Node) -> Option<SweepValues> {
        match &node.kind {
            yaml::Kind::List(elements) => Some(SweepValues::Listed(elements.iter().map(Node::as_value).collect())),
            yaml::Kind::Map(_) => {
                let (start, stop, step) = self.range(node.get("range")?)?;
                Some(SweepValues::Range { start, stop, step })
            }
            yaml::Kind::Scalar(_) => self.column_of_source(node),
        }
    }

    /// `SOURCE.COLUMN`; both names may have dots.
    fn column_of_source(&mut self, node: &Node) -> Option<SweepValues> {
        // A template that could not be settled is told already.
        let text = super::text_of(node).filter(|text| !text.contains("{{"))?;
        let splits = || text.match_indices('.').map(|(at, _)| (&text[..at], &text[at + 1..]));
        if let Some((source, column)) = splits().find(|(source, _)| self.sources.contains_key(source)) {
            let (source, _) = self.sources[source];
            if !column.is_empty() {
                return Some(SweepValues::Column { source, column: column.to_string() });
            }
        }
        let (message, help) = match splits().next() {
            _ if self.sources.contains_key(text.as_str()) => {
                (format!("`{text}` is a source: which of its columns?"), format!("write {text}.COLUMN"))
            }
            Some((source, column)) if !column.is_empty() && !column.contains(' ') => {
                let known = self.sources.keys().copied();
                let otherwise = "values of its own are a list: [a, b]";
                (format!("there is no source `{source}`"), self.suggestion(source, known, otherwise))
            }
            _ => {
                let what = format!("`{text}` is no column of a source");
                (what, format!("write SOURCE.COLUMN, or a list of values: [{text}]"))
            }
        };
        self.mistake(node.span, message, help);
        None
    }

    fn sweep_filter(&mut self, node: &Node, columns: &[String]) -> Option<SweepFilter> {
        let rows = Rows::Item { columns: Some(columns), uses: None };
        let condition = self.expression(node, Place { what: "a sweep", rows, run: false, files: None })?;
        for reference in condition.references().iter().filter(|r| matches!(r.root, Root::Key | Root::Index)) {
            let at = node.span_of(self.text, reference.at.clone());
            let help = "it sees the columns of a combination, as `item.NAME`";
            self.mistake(at, format!("`{}` is not known in a sweep", reference.root.name()), help);
        }
        let names = condition.names();
        let scope: Scope = self.scope();
        let params = self.params.iter().filter(|(n, _)| names.whole_params || names.params.contains(n)).cloned();
        let env = names.env.iter().filter_map(|n| Some((n.clone(), scope.env.and_then(|env| env(n))?)));
        let (params, env) = (params.collect(), env.collect());
        Some(SweepFilter { condition, params, env })
    }

    /// Whether all columns of a `zip` that stand in the file have as many values.
    fn equally_long(&mut self, key: &Node, columns: &[(String, SweepValues)]) -> bool {
        let mut listed = columns.iter().filter_map(|(name, values)| match values {
            SweepValues::Listed(values) => Some((name, values.len())),
            _ => None,
        });
        let Some((first, len)) = listed.next() else { return true };
        let Some((other, other_len)) = listed.find(|(_, l)| *l != len) else { return true };
        let message = format!(
            "`zip` goes through its columns in step, but `{first}` has {len} values and `{other}` has {other_len}"
        );
        self.mistake(key.span, message, "give all as many, or write `product` for all combinations");
        false
    }

    /// Checks what sweeps name of other sources, once all are known.
    pub(super) fn sweeps(&mut self, sources: &'a [(Node, Node)], built: &[Option<Source>]) {
        for (at, (key, node)) in sources.iter().enumerate() {
            let Some(Source { reader: Reader::Sweep(sweep), .. }) = &built[at] else { continue };
            for (name, values) in &sweep.columns {
                let SweepValues::Column { source, column } = values else { continue };
                let Some(value) = node.get("product").or(node.get("zip")).and_then(|n| n.get(name)) else { continue };
                if let Some(cycle) = cycle(at, *source, built) {
                    let names: Vec<&str> = [at].iter().chain(&cycle).map(|s| sources[*s].0.key_text()).collect();
                    let message = format!("these sources wait for each other: {}", names.join(" -> "));
                    // Each cycle is told at the first of its sources.
                    if cycle.iter().all(|s| *s >= at) {
                        let told = Diagnostic::new(value.span, message).related(key.span, "the sweep");
                        self.mistakes.push(told.help("none of them could ever be read: cut the circle somewhere"));
                    }
                    continue;
                }
                let Some(other) = &built[*source] else { continue };
                if matches!(other.reader, Reader::Lines { path: None }) {
                    let help = "save it to a file and read that with `lines: FILE`";
                    self.mistake(value.span, "standard input can be read only once, not by a sweep", help);
                } else if let Some(known) = columns_of(&other.reader).filter(|known| !known.contains(column)) {
                    let help = self.suggestion(column, known.iter().map(String::as_str), "`check` knows its columns");
                    self.mistake(value.span, format!("source `{}` has no column `{column}`", other.name), help);
                }
            }
        }
    }
}

/// The way from `from` over `next` back to `from`, if there is one.
fn cycle(from: usize, next: usize, built: &[Option<Source>]) -> Option<Vec<usize>> {
    let mut ways = vec![vec![next]];
    let mut seen = vec![false; built.len()];
    while let Some(way) = ways.pop() {
        let last = *way.last()?;
        if last == from {
            return Some(way);
        }
        if std::mem::replace(&mut seen[last], true) {
            continue;
        }
        if let Some(Source { reader: Reader::Sweep(sweep), .. }) = &built[last] {
            ways.extend(sweep.sources().map(|source| [way.clone(), vec![source]].concat()));
        }
    }
    None
}
