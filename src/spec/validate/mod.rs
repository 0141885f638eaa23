//! From a tree to a [`Workflow`]: what a file means, with all its mistakes found in one pass.
//!
//! [`load`] is the way in. A part that is wrong is told once, by the check of shapes or here, and then left out:
//! what depends on it says nothing more.

mod graph;
mod outputs;
mod references;
mod settings;
mod sources;
mod stages;
mod sweeps;

pub use outputs::leads_outside;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::grammar;
use super::model::Workflow;
use super::nearest::nearest;
use super::shape::Shapes;
use super::template::{Environment, Scope};
use super::yaml::{self, Node};
use crate::data::Value;
use crate::diagnostic::{Diagnostic, Diagnostics, Span};

/// What a workflow depends on besides its text.
pub struct LoadOptions<'a> {
    /// The file's name without its extension: the workflow's name where it gives none.
    pub stem: &'a str,
    /// The file's folder, absolute.
    pub dir: PathBuf,
    /// Parameters of the command line: names and YAML scalars.
    pub params: &'a [(String, String)],
    /// The process's environment.
    pub env: &'a Environment<'a>,
}

/// Reads a workflow; an error is every mistake in it, in the order of the file.
pub fn load(text: &str, options: &LoadOptions) -> Result<Workflow, Vec<Diagnostic>> {
    let mut root = yaml::parse(text)?;
    let mut mistakes = Diagnostics::default();
    if root.entries().is_none() {
        let found =
            if root.is_null() { "the file is empty".into() } else { format!("the file is {}", root.describe()) };
        let help = "a workflow is a mapping with `sources`, `stages` and `outputs`; `bpp-flow init` writes a small one";
        return Err(vec![Diagnostic::new(first_line(text, root.span), found).help(help)]);
    }
    let params = params(text, &mut root, options, &mut mistakes);
    let mut shapes = Shapes { source: text, params: &params, env: options.env, mistakes: &mut mistakes };
    shapes.shape(&grammar::WORKFLOW, "a workflow", first_line(text, root.span), &mut root);
    let mut builder = Builder {
        text,
        root: &root,
        params: &params,
        env: options.env,
        dir: &options.dir,
        mistakes: &mut mistakes,
        sources: HashMap::new(),
        stages: HashMap::new(),
        edges: Vec::new(),
    };
    let workflow = builder.workflow(options);
    match workflow {
        Some(workflow) if mistakes.is_empty() => Ok(workflow),
        _ if mistakes.is_empty() => Err(vec![Diagnostic::outside("this workflow cannot be understood")]),
        _ => Err(mistakes.into_sorted()),
    }
}

fn first_line(text: &str, span: Span) -> Span {
    let rest = text.get(span.start..).unwrap_or("");
    Span::new(span.start, span.start + rest.lines().next().map_or(0, str::len))
}

/// The parameters: defaults of the file, each rendered once and in order, overridden by the command line.
fn params(text: &str, root: &mut Node, options: &LoadOptions, mistakes: &mut Diagnostics) -> Vec<(String, Value)> {
    let mut params: Vec<(String, Value)> = Vec::new();
    let entries = match &mut root.kind {
        yaml::Kind::Map(entries) => entries.iter_mut().find(|(k, _)| k.key_text() == "params"),
        _ => None,
    };
    if let Some((_, Node { kind: yaml::Kind::Map(entries), .. })) = entries {
        for (key, value) in entries {
            let given = options.params.iter().rev().find(|(name, _)| name == key.key_text());
            let value = match given {
                Some((_, given)) => yaml::parse_scalar(given),
                None => {
                    Shapes { source: text, params: &params, env: options.env, mistakes }.settle_parts(value);
                    plain_value(value)
                }
            };
            params.push((key.key_text().to_string(), value));
        }
    }
    for (name, _) in options.params {
        if !params.iter().any(|(n, _)| n == name) {
            let names: Vec<&str> = params.iter().map(|(n, _)| n.as_str()).collect();
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

/// A node as a value, as it stands.
fn plain_value(node: &Node) -> Value {
    match &node.kind {
        yaml::Kind::Scalar(scalar) => scalar.value.clone(),
        yaml::Kind::List(elements) => Value::List(elements.iter().map(plain_value).collect()),
        yaml::Kind::Map(entries) => {
            Value::Map(entries.iter().map(|(k, v)| (k.key_text().to_string(), plain_value(v))).collect())
        }
    }
}

/// Builds the workflow part by part.
struct Builder<'a> {
    text: &'a str,
    root: &'a Node,
    params: &'a [(String, Value)],
    env: &'a Environment<'a>,
    dir: &'a Path,
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
        let built_sources: Vec<_> = sources.iter().map(|(key, node)| self.source(key, node)).collect();
        self.sweeps(sources, &built_sources);
        let built_stages: Vec<_> = stages.iter().map(|(key, node)| self.stage(key, node, &built_sources)).collect();
        self.cycles(stages);
        let outputs = self.outputs(self.section("outputs"));
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
