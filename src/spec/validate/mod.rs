//! From a tree to a [`Workflow`]: what a file means, with all its mistakes found in one pass.
//!
//! [`load`] is the way in. A part that is wrong is told once, by the check of shapes or here, and then left out:
//! what depends on it says nothing more.

mod backends;
mod files;
mod graph;
mod outputs;
mod references;
mod settings;
mod share;
mod sources;
mod stages;
mod sweeps;

pub use outputs::leads_outside;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::grammar;
use super::model::Workflow;
use super::nearest::nearest;
use super::profile::{Layers, Profile};
use super::shape::{Params, Shapes};
use super::template::{Environment, Scope};
use super::yaml::{self, Node};
use crate::data::Value;
use crate::diagnostic::{Diagnostic, Diagnostics, Sources, Span};

/// What a workflow depends on besides its text.
pub struct LoadOptions<'a> {
    /// The file's name without its extension: the workflow's name where it gives none.
    pub stem: &'a str,
    /// The file's folder, absolute.
    pub dir: PathBuf,
    /// Parameters of the command line: names and YAML scalars.
    pub params: &'a [(String, String)],
    /// The profiles that are chosen; later ones win.
    pub profiles: &'a [Profile],
    /// The backend of the command line, for all stages.
    pub backend: Option<&'a str>,
    /// The process's environment.
    pub env: &'a Environment<'a>,
}

/// Reads a workflow; an error is every mistake in it, in the order of the file.
///
/// The first of the sources is the workflow file. Profiles that are not chosen are checked as the chosen ones are: laid
/// over the file, each alone.
pub fn load(sources: &Sources, options: &LoadOptions) -> Result<Workflow, Vec<Diagnostic>> {
    let mut mistakes = Diagnostics::default();
    let layers = Layers::read(sources, options, &mut mistakes)?;
    layers.check_names(&mut mistakes);
    let workflow = build(layers.with(&layers.chosen), sources, options, false, &mut mistakes);
    if !layers.chosen.is_empty() {
        build(layers.base.clone(), sources, options, true, &mut mistakes);
    }
    for at in 0..layers.overlays.len() {
        check_profile(&layers, at, sources, options, &mut mistakes);
    }
    match workflow {
        Some(workflow) if mistakes.is_empty() => Ok(workflow),
        _ if mistakes.is_empty() => Err(vec![Diagnostic::outside("this workflow cannot be understood")]),
        _ => Err(mistakes.into_sorted()),
    }
}

/// From a tree to a workflow; none where there are mistakes. `elsewhere`: it is not what will run here.
fn build(
    mut root: Node,
    sources: &Sources,
    options: &LoadOptions,
    elsewhere: bool,
    mistakes: &mut Diagnostics,
) -> Option<Workflow> {
    let params = settled_params(&mut root, sources, options, elsewhere, mistakes);
    let at = sources.first_line(root.span);
    let mut shapes = Shapes { source: sources.text(), params: &params, env: options.env, elsewhere, mistakes };
    shapes.shape(&grammar::WORKFLOW, "a workflow", at, &mut root);
    let mut builder = Builder {
        text: sources.text(),
        root: &root,
        params: &params.values,
        env: options.env,
        dir: &options.dir,
        // It says where this workflow runs, not what others are.
        backend: options.backend.filter(|_| !elsewhere),
        mistakes,
        sources: HashMap::new(),
        stages: HashMap::new(),
        edges: Vec::new(),
    };
    builder.workflow(options)
}

/// Checks a profile that need not be chosen: its own shape, and what the workflow would be with it.
fn check_profile(layers: &Layers, at: usize, sources: &Sources, options: &LoadOptions, mistakes: &mut Diagnostics) {
    let overlay = &layers.overlays[at];
    let mut own = Diagnostics::default();
    let params = settled_params(&mut layers.with(&[at]), sources, options, true, &mut own);
    let source = sources.text();
    let mut shapes = Shapes { source, params: &params, env: options.env, elsewhere: true, mistakes: &mut own };
    shapes.shape(&grammar::PROFILE, &overlay.title(), overlay.at, &mut overlay.without_null_state());
    build(layers.with(&[at]), sources, options, true, &mut own);
    for mistake in own.into_sorted().into_iter().filter(|m| !mistakes.contains(m)).collect::<Vec<_>>() {
        let within = mistake.span.is_some_and(|span| span == overlay.at || overlay.node.span.contains(span));
        mistakes.push(if within { mistake } else { mistake.related(overlay.at, "with this profile") });
    }
}

/// The parameters: those of the file, each rendered once and in order, overridden by the command line.
pub(super) fn settled_params(
    root: &mut Node,
    sources: &Sources,
    options: &LoadOptions,
    elsewhere: bool,
    mistakes: &mut Diagnostics,
) -> Params {
    let mut params = Params::default();
    let entries = match &mut root.kind {
        yaml::Kind::Map(entries) => entries.iter_mut().find(|(k, _)| k.key_text() == "params"),
        _ => None,
    };
    if let Some((_, Node { kind: yaml::Kind::Map(entries), .. })) = entries {
        for (key, value) in entries {
            let name = key.key_text().to_string();
            if let Some((_, given)) = options.params.iter().rev().find(|(given, _)| *given == name) {
                params.values.push((name, yaml::parse_scalar(given)));
                continue;
            }
            let source = sources.text();
            let mut shapes = Shapes { source, params: &params, env: options.env, elsewhere, mistakes };
            if !shapes.settle_parts(value) {
                params.unknown.push(name.clone());
            }
            params.values.push((name, value.as_value()));
        }
    }
    for (name, _) in options.params {
        if !params.values.iter().any(|(n, _)| n == name) {
            let names: Vec<&str> = params.values.iter().map(|(n, _)| n.as_str()).collect();
            let help = match nearest(name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if names.is_empty() => "the workflow has no parameters: declare it under `params`".to_string(),
                None => format!("there are {}", names.join(", ")),
            };
            mistakes.push(Diagnostic::outside(format!("the workflow has no parameter `{name}`")).help(help));
        }
    }
    params
}

/// Builds the workflow part by part.
struct Builder<'a> {
    text: &'a str,
    root: &'a Node,
    params: &'a [(String, Value)],
    env: &'a Environment<'a>,
    dir: &'a Path,
    /// The backend of the command line.
    backend: Option<&'a str>,
    mistakes: &'a mut Diagnostics,
    /// Place in the file's order, and where the name stands.
    sources: HashMap<&'a str, (usize, Span)>,
    stages: HashMap<&'a str, (usize, Span)>,
    /// Which stage must come before which, and where it is said.
    edges: Vec<(usize, usize, Span)>,
}

impl<'a> Builder<'a> {
    fn workflow(&mut self, options: &LoadOptions) -> Option<Workflow> {
        let root = self.root;
        let (sources, stages) = (self.section("sources"), self.section("stages"));
        self.names(sources, stages);
        let none = |(_, node): &&(Node, Node)| node.entries().is_some_and(<[_]>::is_empty);
        if let Some((key, _)) = root.entry("stages").filter(none) {
            let help = "add one: `NAME: {map: SOURCE, python: module:function}`";
            self.mistake(key.span, "there are no stages", help);
        }
        let name = self.workflow_name(options);
        self.engines();
        let built_sources: Vec<_> = sources.iter().map(|(key, node)| self.source(key, node)).collect();
        self.sweeps(sources, &built_sources);
        let built_stages: Vec<_> = stages.iter().map(|(key, node)| self.stage(key, node, &built_sources)).collect();
        self.cycles(stages);
        self.same_files(&built_stages);
        let outputs = self.outputs(self.section("outputs"), &built_sources, &built_stages);
        Some(Workflow {
            name: name?,
            description: root.get("description").and_then(text_of),
            dir: options.dir.clone(),
            params: self.params.to_vec(),
            sources: built_sources.into_iter().collect::<Option<_>>()?,
            stages: built_stages.into_iter().collect::<Option<_>>()?,
            outputs: outputs?,
            state: root.get("state").and_then(text_of),
        })
    }

    fn section(&self, name: &str) -> &'a [(Node, Node)] {
        self.root.get(name).and_then(Node::entries).unwrap_or_default()
    }

    /// Finds where everything is, and names that stand for two things.
    fn names(&mut self, sources: &'a [(Node, Node)], stages: &'a [(Node, Node)]) {
        for (at, (key, _)) in sources.iter().enumerate() {
            self.name(key.key_text(), "a source's name", key.span);
            self.sources.insert(key.key_text(), (at, key.span));
        }
        for (at, (key, _)) in stages.iter().enumerate() {
            self.name(key.key_text(), "a stage's name", key.span);
            if let Some((_, first)) = self.sources.get(key.key_text()) {
                let message = format!("`{}` is both a source and a stage", key.key_text());
                self.mistakes
                    .push(Diagnostic::new(key.span, message).related(*first, "the source").help("rename one of them"));
            }
            self.stages.insert(key.key_text(), (at, key.span));
        }
    }

    /// Names become names of folders and files.
    fn name(&mut self, name: &str, what: &str, at: Span) -> bool {
        let wrong = match name {
            "" => Some("cannot be empty".to_string()),
            _ if name.contains('/') => Some("cannot contain `/`".into()),
            _ if name.contains('\0') => Some("cannot contain a NUL character".into()),
            _ if name.starts_with('.') => Some("cannot begin with a dot".into()),
            _ if name.len() > 200 => Some("cannot be longer than 200 bytes".into()),
            _ => None,
        };
        if let Some(wrong) = &wrong {
            self.mistakes
                .push(Diagnostic::new(at, format!("{what} {wrong}")).help("it names files of the state folder"));
        }
        wrong.is_none()
    }

    fn workflow_name(&mut self, options: &LoadOptions) -> Option<String> {
        match self.root.entry("name") {
            Some((_, node)) => {
                let name = text_of(node)?;
                self.name(&name, "a workflow's name", node.span).then_some(name)
            }
            None => {
                let name = options.stem.trim_start_matches('.');
                Some(if name.is_empty() { "workflow".into() } else { name.to_string() })
            }
        }
    }

    /// What is the same for all items.
    fn scope(&self) -> Scope<'a> {
        Scope { params: self.params, env: Some(self.env), ..Scope::default() }
    }

    fn mistake(&mut self, at: Span, message: impl Into<String>, help: impl Into<String>) {
        self.mistakes.push(Diagnostic::new(at, message).help(help));
    }
}

/// The text of a scalar that is not null.
fn text_of(node: &Node) -> Option<String> {
    node.scalar().filter(|s| !matches!(s.value, Value::Null)).map(|s| s.text.clone())
}

/// One or several scalars, with their nodes.
fn texts_of(node: &Node) -> Vec<(&Node, &str)> {
    let one = |n| Node::scalar(n).filter(|s| !matches!(s.value, Value::Null)).map(|s| (n, s.text.as_str()));
    match node.elements() {
        Some(elements) => elements.iter().filter_map(one).collect(),
        None => one(node).into_iter().collect(),
    }
}

/// As [`texts_of`], without nodes.
fn names_of(node: &Node) -> Vec<String> {
    texts_of(node).into_iter().map(|(_, text)| text.to_string()).collect()
}

#[cfg(test)]
mod tests;
