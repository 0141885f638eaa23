//! `files`: what an item makes, and whether it can.

use std::collections::HashMap;
use std::path::Path;

use super::outputs::{is_false, leads_outside, outside};
use super::references::Place;
use super::settings::Choices;
use super::{Builder, names_of};
use crate::diagnostic::Diagnostic;
use crate::spec::model::{Input, MadeFile, Stage, Verb};
use crate::spec::units;
use crate::spec::yaml::Node;

/// Actions whose items can make files.
const ACTIONS: [&str; 3] = ["python", "command", "shell"];

impl<'n> Choices<'n> {
    /// The files that items of such a stage make. Those of `defaults` are not for stages that cannot make any.
    pub(super) fn files(&self, action: &str, verb: &Verb) -> Option<&'n Node> {
        self.get("files").filter(|_| ACTIONS.contains(&action) && *verb != Verb::Filter)
    }
}

impl Builder<'_> {
    /// Refuses `files` where nothing can come of them.
    pub(super) fn files_fit(&mut self, node: &Node, action: &str, verb: &Verb, what: &str) {
        let Some((key, _)) = node.entry("files") else { return };
        if !ACTIONS.contains(&action) {
            let message = format!("`files` belongs to `{}`, and {what} has `{action}`", ACTIONS.join("`, `"));
            self.mistake(key.span, message, "drop it");
        } else if *verb == Verb::Filter {
            let help = "make the files in a `map`, and filter its rows";
            self.mistake(key.span, format!("{what} is a filter, which adds no columns, and a file is one"), help);
        }
    }

    /// The files that an item of a stage makes.
    pub(super) fn files(
        &mut self,
        files: Option<&Node>,
        stage: &Node,
        columns: Option<&[String]>,
        place: Place,
    ) -> Option<Vec<MadeFile>> {
        let before = self.mistakes.len();
        let entries = files.and_then(Node::entries).unwrap_or_default();
        if let (Some(files), Some("chunk")) = (files, stage.get("call").and_then(Node::text)) {
            let help = "a chunk has many items, and a file belongs to one: use `call: row`, `kwargs` or `value`";
            self.mistake(files.span, format!("{} is called with chunks, which make no `files`", place.what), help);
        }
        let taken = taken_names(stage);
        let mut made = Vec::new();
        for (key, node) in entries {
            let name = key.key_text();
            if !units::is_identifier(name) {
                let message = format!("`{name}` cannot be the name of a file");
                self.mistake(key.span, message, "use letters, digits and underscores");
            }
            if let Some((_, whose)) = taken.iter().find(|(n, _)| n == name) {
                let message = format!("the file `{name}` has the name of {whose}");
                self.mistake(key.span, message, "rename one of them");
            } else if columns.is_some_and(|columns| columns.iter().any(|c| c == name)) {
                let message = format!("the file `{name}` has the name of a column of the input");
                self.mistake(key.span, message, "a file becomes a column of its own: rename it");
            }
            made.extend(self.made_file(name, node, place));
        }
        (self.mistakes.len() == before && made.len() == entries.len()).then_some(made)
    }

    /// Two stages that make the same files of the same rows.
    pub(super) fn same_files(&mut self, stages: &[Option<Stage>]) {
        let mut makers: HashMap<(&str, &[Input]), &Stage> = HashMap::new();
        for stage in stages.iter().flatten() {
            for file in &stage.settings.files {
                let inputs: &[Input] = if file.path.is_constant() { &[] } else { &stage.inputs };
                let first = makers.entry((file.path.source(), inputs)).or_insert(stage);
                if first.name != stage.name {
                    let message =
                        format!("`{}` and `{}` make the same files: {}", first.name, stage.name, file.path.source());
                    let help = "give each its own folder or ending";
                    self.mistakes
                        .push(Diagnostic::new(stage.span, message).related(first.span, "the first").help(help));
                }
            }
        }
    }

    fn made_file(&mut self, name: &str, node: &Node, place: Place) -> Option<MadeFile> {
        let path_node = if node.entries().is_some() { node.get("path")? } else { node };
        let path = self.template(path_node, false, Place { files: None, ..place })?;
        let allow_outside = path.is_constant() || node.get("allow_outside").is_some_and(|n| !is_false(n));
        if path.source().trim().is_empty() || path.source().ends_with('/') {
            let help = "write for example out/{{ key }}.png";
            self.mistake(path_node.span, format!("the file `{name}` needs the path of a file"), help);
            return None;
        }
        // What differs from item to item is looked at when it is known.
        let rendered = (!path.names().per_item()).then(|| path.render_text(&self.scope()).ok()).flatten();
        if let Some(place) = rendered.filter(|_| !allow_outside).and_then(|path| outside(self.dir, Path::new(&path))) {
            self.mistakes.push(leads_outside(path_node.span, &place));
        }
        Some(MadeFile { name: name.to_string(), path, allow_outside })
    }
}

/// Names that the stage gives to something else, and what that is.
fn taken_names(stage: &Node) -> Vec<(String, &'static str)> {
    let args = stage.get("args").and_then(Node::entries).unwrap_or_default();
    let mut taken: Vec<_> = args.iter().map(|(key, _)| (key.key_text().to_string(), "an argument")).collect();
    let columns = |option: &str| stage.get(option).map(names_of).unwrap_or_default();
    taken.extend(columns("returns").into_iter().map(|name| (name, "a column that is returned")));
    taken.extend(columns("use").into_iter().map(|name| (name, "a column that the action sees")));
    taken.extend(columns("group_by").into_iter().map(|name| (name, "a column of `group_by`")));
    let prints = stage.get("stdout").is_none_or(|n| n.text() == Some("text"));
    if prints && (stage.get("command").is_some() || stage.get("shell").is_some()) {
        taken.push(("stdout".to_string(), "the column of what the command prints"));
    }
    taken
}
