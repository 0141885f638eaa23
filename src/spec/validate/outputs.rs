//! Outputs: which stage's rows go to which file.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::references::{Place, Rows};
use super::{Builder, text_of};
use crate::data::Value;
use crate::diagnostic::{Diagnostic, Span};
use crate::spec::model::{Format, Output};
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
    pub(super) fn outputs(&mut self, entries: &'a [(Node, Node)]) -> Option<Vec<Output>> {
        let mut outputs = Some(Vec::new());
        let mut paths = HashMap::new();
        for (key, value) in entries {
            let stage = self.output_stage(key);
            for node in value.elements().unwrap_or(std::slice::from_ref(value)) {
                let output = self.output(stage.unwrap_or(0), node, &mut paths);
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

    fn output(&mut self, stage: usize, node: &Node, paths: &mut HashMap<String, Span>) -> Option<Output> {
        let path_node = if node.entries().is_some() { node.get("path")? } else { node };
        let why = "an output is written once, not per item; `params`, `env` and `run` are known";
        let path = self.template(
            path_node,
            false,
            Place { what: "an output path", rows: Rows::None(why), run: true, files: None },
        )?;
        let rendered = self.likely_path(&path);
        if rendered.is_empty() || rendered.ends_with('/') {
            self.mistake(path_node.span, "an output needs the path of a file", "write for example out/rows.parquet");
            return None;
        }
        let allow_outside = path.is_constant() || node.get("allow_outside").is_some_and(|n| !is_false(n));
        if let Some(place) = (!allow_outside).then(|| outside(self.dir, Path::new(&rendered))).flatten() {
            self.mistakes.push(leads_outside(path_node.span, &place));
        }
        if let Some(first) = paths.insert(plain_path(&rendered), path_node.span) {
            let message = format!("two outputs go to {rendered}");
            let help = "give each its own file";
            self.mistakes.push(Diagnostic::new(path_node.span, message).related(first, "the first").help(help));
        }
        let format = match node.get("format").and_then(text_of) {
            Some(name) => FORMATS.iter().find(|(n, _)| *n == name).map(|(_, f)| *f),
            None => self.format_of(&rendered, path_node),
        };
        let columns = match node.get("columns") {
            Some(columns) => Some(self.distinct(columns, "`columns`")?),
            None => None,
        };
        let with_failed = node.get("failed").is_some();
        Some(Output { stage, path, format: format?, columns, with_failed, allow_outside, span: path_node.span })
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
