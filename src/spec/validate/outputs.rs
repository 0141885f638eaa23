//! Outputs: which stage's rows go to which file or table.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::references::{Place, Rows};
use super::{Builder, text_of};
use crate::data::Value;
use crate::data::export::{TableMode, TableTarget};
use crate::data::sql::{Database, LONGEST_NAME, TableName};
use crate::diagnostic::{Diagnostic, Span};
use crate::spec::model::{Format, Input, Output, OutputPlace, Source, Stage, Verb};
use crate::spec::nearest::nearest;
use crate::spec::template::{Scope, Template};
use crate::spec::yaml::Node;

const FORMATS: [(&str, Format); 5] = [
    ("parquet", Format::Parquet),
    ("csv", Format::Csv),
    ("tsv", Format::Tsv),
    ("jsonl", Format::Jsonl),
    ("arrow", Format::Arrow),
];

impl<'a> Builder<'a> {
    pub(super) fn outputs(
        &mut self,
        entries: &'a [(Node, Node)],
        sources: &[Option<Source>],
        stages: &[Option<Stage>],
    ) -> Option<Vec<Output>> {
        let mut outputs = Some(Vec::new());
        let mut places = HashMap::new();
        for (key, value) in entries {
            let stage = self.output_stage(key);
            for node in value.elements().unwrap_or(std::slice::from_ref(value)) {
                let mut output = self.output(stage.unwrap_or(0), node, &mut places);
                if let (Some(_), Some(output)) = (stage, &mut output) {
                    self.upsert_key(output, node, sources, stages);
                }
                outputs = outputs.zip(output.filter(|_| stage.is_some())).map(|(mut all, one)| {
                    all.push(one);
                    all
                });
            }
        }
        outputs
    }

    fn output_stage(&mut self, key: &Node) -> Option<usize> {
        let name = key.key_text();
        if let Some((at, _)) = self.stages.get(name) {
            return Some(*at);
        }
        if self.sources.contains_key(name) {
            let help = "an output holds a stage's rows; a stage `map: SOURCE` with `assign` can pass them on";
            self.mistake(key.span, format!("`{name}` is a source, not a stage"), help);
            return None;
        }
        let mut known: Vec<&str> = self.stages.keys().copied().collect();
        known.sort_unstable();
        let help = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "an output is named after the stage whose rows it holds".into(),
        };
        self.mistake(key.span, format!("there is no stage `{name}`"), help);
        None
    }

    fn output(&mut self, stage: usize, node: &Node, places: &mut HashMap<String, Span>) -> Option<Output> {
        let (path, url) = (node.get("path"), node.get("sql"));
        let table = ["table", "mode"].iter().find_map(|key| node.entry(key));
        let file = ["format"].iter().find_map(|key| node.entry(key));
        let at = match (path, url) {
            _ if node.entries().is_none() => node,
            (Some(path), None) => path,
            (None, Some(url)) => url,
            (None, None) => {
                let help = "`path`: a file; `sql`, `table`: the URL of a database and a table in it";
                self.mistake(node.span, "an output needs the key `path` or `sql`", help);
                return None;
            }
            (Some(_), Some(url)) => {
                self.mistake(url.span, "an output goes to a file or to a database", "keep `path` or `sql`");
                return None;
            }
        };
        if let Some((key, _)) = if url.is_some() { file } else { table } {
            let (message, other) = match url {
                Some(_) => (format!("`{}` means nothing to a table", key.key_text()), "path"),
                None => (format!("`{}` means nothing to a file", key.key_text()), "sql"),
            };
            self.mistake(key.span, message, format!("it belongs to `{other}`"));
        }
        let (place, shown, constant) = match url {
            Some(url) => self.table_place(url, node)?,
            None => self.file_place(at, node)?,
        };
        let allow_outside = constant || node.get("allow_outside").is_some_and(|n| !is_false(n));
        let path = match &place {
            OutputPlace::Table(target) => target.database.path(),
            OutputPlace::File { .. } => Some(shown.as_str()),
        };
        let leads = path.filter(|_| !allow_outside).and_then(|path| outside(self.dir, Path::new(path)));
        if let Some(place) = leads {
            self.mistakes.push(leads_outside(at.span, &place));
        }
        if let Some(first) = places.insert(plain_path(&shown), at.span) {
            let what = if url.is_some() { "table" } else { "file" };
            let (message, help) = (format!("two outputs go to {shown}"), format!("give each its own {what}"));
            self.mistakes.push(Diagnostic::new(at.span, message).related(first, "the first").help(help));
        }
        let columns = match node.get("columns") {
            Some(columns) => Some(self.distinct(columns, "`columns`")?),
            None => None,
        };
        let with_failed = node.get("failed").is_some();
        Some(Output { stage, place, columns, with_failed, allow_outside, span: at.span })
    }

    /// A file, its path as it will probably be, and whether that has no templates.
    fn file_place(&mut self, at: &Node, node: &Node) -> Option<(OutputPlace, String, bool)> {
        let why = "an output is written once, not per item; `params`, `env` and `run` are known";
        let path =
            self.template(at, false, Place { what: "an output path", rows: Rows::None(why), run: true, files: None })?;
        let shown = self.likely_path(&path);
        if shown.is_empty() || shown.ends_with('/') {
            self.mistake(at.span, "an output needs the path of a file", "write for example out/rows.parquet");
            return None;
        }
        let format = match node.get("format").and_then(text_of) {
            Some(name) => FORMATS.iter().find(|(n, _)| *n == name).map(|(_, f)| *f),
            None => self.format_of(&shown, at),
        };
        let constant = path.is_constant();
        Some((OutputPlace::File { path, format: format? }, shown, constant))
    }

    /// A table of a database, as [`Builder::file`]; its key comes later.
    fn table_place(&mut self, at: &Node, node: &Node) -> Option<(OutputPlace, String, bool)> {
        let why = "an output is written once, not per item; `params` and `env` are known";
        let url = self.template(
            at,
            false,
            Place { what: "the URL of a database", rows: Rows::None(why), run: false, files: None },
        )?;
        let constant = url.is_constant();
        let database = match url.render_text(&self.scope()) {
            Ok(url) => self.database(&url, at),
            Err(error) => {
                self.mistake(at.span, error.to_string(), "set it, or give a default: {{ env.NAME | default('…') }}");
                None
            }
        };
        let Some(table) = node.get("table") else {
            self.mistake(at.span, "an output into a database needs the key `table`", "`table`: a name of your choice");
            return None;
        };
        let name = match TableName::parse(&text_of(table)?) {
            Ok(name) => name,
            Err(message) => {
                self.mistake(table.span, message, "write for example `ratio` or `lab.ratio`");
                return None;
            }
        };
        if let (Some(Database::Postgres(_)), Some(part)) = (&database, name.too_long()) {
            let message = format!("the name {part:?} has {} bytes, and PostgreSQL keeps {LONGEST_NAME}", part.len());
            self.mistake(table.span, message, "shorten it");
        }
        let mode = match node.get("mode").and_then(text_of).as_deref() {
            Some("upsert") => TableMode::Upsert,
            _ => TableMode::Replace,
        };
        let target = TableTarget { database: database?, table: name, mode, key: Vec::new() };
        let shown = target.shown();
        Some((OutputPlace::Table(target), shown, constant))
    }

    /// The database of a URL.
    pub(super) fn database(&mut self, url: &str, at: &Node) -> Option<Database> {
        Database::parse(url, &self.env).map_err(|(message, help)| self.mistake(at.span, message, help)).ok()
    }

    /// Finds the key that an `upsert` goes by.
    fn upsert_key(&mut self, output: &mut Output, node: &Node, sources: &[Option<Source>], stages: &[Option<Stage>]) {
        let OutputPlace::Table(target) = &mut output.place else { return };
        if target.mode != TableMode::Upsert {
            return;
        }
        let at = node.get("mode").map_or(node.span, |mode| mode.span);
        match key_of(output.stage, sources, stages, stages.len()) {
            None => {}
            Some(Err(why)) => {
                let help = "give the source a `key`, or write the table with `mode: replace`";
                self.mistake(at, format!("`upsert` needs a key that tells which row is which: {why}"), help);
            }
            Some(Ok(key)) => {
                let left_out = |columns: &Vec<String>| key.iter().find(|k| !columns.contains(k)).cloned();
                if let Some(lacking) = output.columns.as_ref().and_then(left_out) {
                    let message = format!("`upsert` needs the key column `{lacking}`, which `columns` leaves out");
                    self.mistake(at, message, "name it there too");
                }
                target.key = key;
            }
        }
    }

    /// The path as it will probably be: what only a run knows is left as written.
    fn likely_path(&self, path: &Template) -> String {
        let scope = Scope { run: Some(("{run.id}", "{run.name}")), ..self.scope() };
        path.render_text(&scope).unwrap_or_else(|_| path.source().to_string())
    }

    fn format_of(&mut self, path: &str, node: &Node) -> Option<Format> {
        let file = path.rsplit('/').next().unwrap_or("");
        let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
        if let Some((_, format)) = FORMATS.iter().find(|(name, _)| *name == extension.to_lowercase()) {
            return Some(*format);
        }
        let known = FORMATS.map(|(name, _)| name);
        let message = match extension {
            "" => "the path's extension gives the format, and there is none".to_string(),
            _ => format!("no format has the extension `.{extension}`"),
        };
        let help = match nearest(extension, known) {
            Some(near) => format!("did you mean `.{near}`?"),
            None => format!("there are {}; or say `{{path: …, format: …}}`", known.map(|n| format!(".{n}")).join(", ")),
        };
        self.mistake(node.span, message, help);
        None
    }
}

/// The columns that name a stage's rows, or why there are none; `None`: the stage is not whole, which is told elsewhere.
pub(super) fn key_of(
    stage: usize,
    sources: &[Option<Source>],
    stages: &[Option<Stage>],
    depth: usize,
) -> Option<Result<Vec<String>, String>> {
    let stage = stages.get(stage)?.as_ref().filter(|_| depth > 0)?;
    let name = &stage.name;
    let key = match &stage.verb {
        Verb::FlatMap => Err(format!("several rows of `{name}` have the key of one item (`flat_map`)")),
        Verb::Once => Err(format!("`{name}` has one row, made from nothing")),
        Verb::Reduce { group_by, .. } if group_by.is_empty() => {
            Err(format!("`{name}` is a `reduce` without `group_by`"))
        }
        Verb::Reduce { group_by, .. } => Ok(group_by.clone()),
        Verb::Map | Verb::Filter => {
            let mut keys = stage.inputs.iter().map(|input| match *input {
                Input::Stage(stage) => key_of(stage, sources, stages, depth - 1),
                Input::Source(source) => sources.get(source)?.as_ref().map(|source| match source.key.is_empty() {
                    true => Err(format!("the source `{}` has no `key`", source.name)),
                    false => Ok(source.key.clone()),
                }),
            });
            let first = keys.next()??;
            match keys.find(|other| other.as_ref().is_none_or(|other| *other != first)) {
                Some(None) => return None,
                Some(Some(Err(why))) => Err(why),
                Some(Some(Ok(_))) => Err(format!("the inputs of `{name}` have different keys")),
                None => first,
            }
        }
    };
    let kept = |key: Vec<String>| match stage.keep.as_ref().and_then(|keep| key.iter().find(|k| !keep.contains(k))) {
        Some(lost) => Err(format!("`keep` of `{name}` drops the key column `{lost}`")),
        None => Ok(key),
    };
    Some(key.and_then(kept))
}

pub(super) fn is_false(node: &Node) -> bool {
    node.scalar().is_some_and(|scalar| scalar.value == Value::Bool(false))
}

/// A path made of templates that leads out of the workflow's folder.
pub fn leads_outside(at: Span, place: &Path) -> Diagnostic {
    let message = format!("the templates of this path lead out of the workflow's folder, to {}", place.display());
    Diagnostic::new(at, message).help("if that is meant, say so: `{path: …, allow_outside: true}`")
}

/// Where a path leads that is not in `dir`.
pub(super) fn outside(dir: &Path, path: &Path) -> Option<PathBuf> {
    let mut place = PathBuf::new();
    for part in dir.join(path).components() {
        match part {
            Component::ParentDir => _ = place.pop(),
            part => place.push(part),
        }
    }
    (!place.starts_with(dir)).then_some(place)
}

/// A path without `.` components and doubled slashes.
fn plain_path(path: &str) -> String {
    let start = if path.starts_with('/') { "/" } else { "" };
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    format!("{start}{}", parts.join("/"))
}
