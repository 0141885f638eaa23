//! Profiles: overlays of a workflow's parameters, settings, engines and state.
//!
//! An overlay is laid over the tree of the file before that is checked, so that what comes after knows nothing of it;
//! nodes keep their spans, and so tell where a value stands. [`Layers`] holds the file without its profiles, and them.

use super::grammar;
use super::nearest::nearest;
use super::validate::LoadOptions;
use super::yaml::{self, Node};
use crate::diagnostic::{Diagnostic, Diagnostics, Sources, Span};

/// A profile that `--profile` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    /// One of the file's `profiles`.
    Named(String),
    /// A file of its own, by its number among the sources.
    File(usize),
}

/// A workflow file and its profiles.
pub(super) struct Layers {
    /// The file without `profiles`.
    pub base: Node,
    pub overlays: Vec<Overlay>,
    /// Which of them are chosen, in order: later ones win.
    pub chosen: Vec<usize>,
}

/// A profile.
pub(super) struct Overlay {
    /// Its name, or its file's.
    pub name: String,
    /// Whether it has a file of its own.
    pub is_file: bool,
    /// Where it begins.
    pub at: Span,
    pub node: Node,
}

impl Overlay {
    /// As people call it.
    pub fn title(&self) -> String {
        if self.is_file { format!("the profile {}", self.name) } else { format!("profile `{}`", self.name) }
    }

    /// The tree as its shape is checked: a `state` that is taken away has none.
    pub fn without_null_state(&self) -> Node {
        let mut node = self.node.clone();
        mapping(&mut node).into_iter().for_each(|parts| parts.retain(|(k, v)| k.key_text() != "state" || !v.is_null()));
        node
    }
}

impl Layers {
    /// Parses the files and finds the profiles that are chosen. An error is syntax, or a file that is no mapping.
    pub fn read(
        sources: &Sources,
        options: &LoadOptions,
        mistakes: &mut Diagnostics,
    ) -> Result<Layers, Vec<Diagnostic>> {
        let mut base = root(sources)?;
        let mut overlays = Vec::new();
        for (key, mut node) in take_profiles(&mut base, mistakes) {
            mapping(&mut node);
            overlays.push(Overlay { name: key.key_text().to_string(), is_file: false, at: key.span, node });
        }
        let named = overlays.len();
        let mut chosen = Vec::new();
        for profile in options.profiles {
            let found = match profile {
                Profile::Named(name) => overlays[..named].iter().position(|o| o.name == *name).or_else(|| {
                    mistakes.push(unknown(name, &overlays[..named]));
                    None
                }),
                Profile::File(number) => {
                    let node = yaml::parse_file(sources, *number)?;
                    let at = sources.first_line(node.span);
                    let name = sources.place(sources.file(*number).1).0.to_string();
                    overlays.push(Overlay { name, is_file: true, at, node });
                    Some(overlays.len() - 1)
                }
            };
            chosen.extend(found);
        }
        Ok(Layers { base, overlays, chosen })
    }

    /// The file with these profiles laid over it.
    pub fn with(&self, overlays: &[usize]) -> Node {
        let mut root = self.base.clone();
        overlays.iter().for_each(|at| lay(&mut root, &self.overlays[*at].node));
        root
    }

    /// Tells names in profiles that the file does not have.
    pub fn check_names(&self, mistakes: &mut Diagnostics) {
        for (section, what) in [("params", "parameter"), ("stages", "stage")] {
            let known: Vec<&str> = names(&self.base, section).collect();
            for overlay in &self.overlays {
                let entries = overlay.node.get(section).and_then(Node::entries).unwrap_or_default();
                for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.key_text())) {
                    let name = key.key_text();
                    let help = match nearest(name, known.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None if known.is_empty() => format!("declare it in the workflow, under `{section}`"),
                        None => format!("there are {}", known.join(", ")),
                    };
                    let message = format!("the workflow has no {what} `{name}`");
                    mistakes.push(Diagnostic::new(key.span, message).help(help));
                }
            }
        }
    }
}

/// The tree of the workflow file, a mapping.
fn root(sources: &Sources) -> Result<Node, Vec<Diagnostic>> {
    let root = yaml::parse_file(sources, 0)?;
    if root.entries().is_some() {
        return Ok(root);
    }
    let found = if root.is_null() { "the file is empty".into() } else { format!("the file is {}", root.describe()) };
    let help = "a workflow is a mapping with `sources`, `stages` and `outputs`; `bpp-flow init` writes a small one";
    Err(vec![Diagnostic::new(sources.first_line(root.span), found).help(help)])
}

fn take_profiles(base: &mut Node, mistakes: &mut Diagnostics) -> Vec<(Node, Node)> {
    let yaml::Kind::Map(entries) = &mut base.kind else { return Vec::new() };
    let Some(at) = entries.iter().position(|(key, _)| key.key_text() == "profiles") else { return Vec::new() };
    let (_, profiles) = entries.remove(at);
    match profiles.kind {
        yaml::Kind::Map(profiles) => profiles,
        _ if profiles.is_null() => Vec::new(),
        _ => {
            let message = format!("`profiles` must be a mapping of names to values, not {}", profiles.describe());
            mistakes.push(
                Diagnostic::new(profiles.span, message).help("write for example `hpc: {defaults: {workers: 64}}`"),
            );
            Vec::new()
        }
    }
}

fn unknown(name: &str, overlays: &[Overlay]) -> Diagnostic {
    let known = || overlays.iter().map(|o| o.name.as_str());
    let help = match nearest(name, known()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if overlays.is_empty() => {
            "the workflow has no `profiles`; a file of its own is given with its path, such as ./hpc.yaml".into()
        }
        None => format!("there are {}", known().collect::<Vec<_>>().join(", ")),
    };
    Diagnostic::outside(format!("the workflow has no profile `{name}`")).help(help)
}

fn names<'n>(root: &'n Node, section: &str) -> impl Iterator<Item = &'n str> {
    root.get(section).and_then(Node::entries).unwrap_or_default().iter().map(|(key, _)| key.key_text())
}

type Entries = Vec<(Node, Node)>;

/// Lays a profile over a workflow. What has the wrong shape, or no place there, is left out: it is told elsewhere.
fn lay(root: &mut Node, overlay: &Node) {
    let Some(root) = mapping(root) else { return };
    for (key, value) in overlay.entries().unwrap_or_default() {
        let parts = value.entries().unwrap_or_default();
        match key.key_text() {
            "state" => put_or_drop(root, key, value),
            "defaults" => made(root, key).into_iter().for_each(|settings| lay_settings(settings, parts)),
            "backends" => {
                let Some(engines) = made(root, key) else { continue };
                parts.iter().for_each(|(name, engine)| put(engines, name, engine));
            }
            "params" => {
                for (name, value) in parts {
                    if let Some(param) = find(root, key).and_then(mapping).and_then(|all| found(all, name)) {
                        *param = (name.clone(), value.clone());
                    }
                }
            }
            "stages" => {
                for (name, settings) in parts {
                    let stage = find(root, key).and_then(mapping).and_then(|all| find(all, name)).and_then(mapping);
                    stage.into_iter().for_each(|stage| lay_settings(stage, settings.entries().unwrap_or_default()));
                }
            }
            _ => {}
        }
    }
}

/// Settings over settings; null takes one away, `env` is joined name by name.
fn lay_settings(settings: &mut Entries, overlay: &[(Node, Node)]) {
    for (key, value) in overlay.iter().filter(|(key, _)| grammar::DEFAULTS.key(key.key_text()).is_some()) {
        match value.entries().filter(|_| key.key_text() == "env") {
            None => put_or_drop(settings, key, value),
            Some(variables) => {
                let Some(own) = made(settings, key) else { continue };
                variables.iter().for_each(|(name, value)| put_or_drop(own, name, value));
            }
        }
    }
}

fn put_or_drop(entries: &mut Entries, key: &Node, value: &Node) {
    match value.is_null() {
        true => entries.retain(|(k, _)| k.key_text() != key.key_text()),
        false => put(entries, key, value),
    }
}

fn put(entries: &mut Entries, key: &Node, value: &Node) {
    let new = (key.clone(), value.clone());
    match found(entries, key) {
        Some(entry) => *entry = new,
        None => entries.push(new),
    }
}

fn found<'n>(entries: &'n mut Entries, key: &Node) -> Option<&'n mut (Node, Node)> {
    entries.iter_mut().find(|(k, _)| k.key_text() == key.key_text())
}

fn find<'n>(entries: &'n mut Entries, key: &Node) -> Option<&'n mut Node> {
    found(entries, key).map(|(_, value)| value)
}

/// The mapping under `key`, made where there is none.
fn made<'n>(entries: &'n mut Entries, key: &Node) -> Option<&'n mut Entries> {
    if found(entries, key).is_none() {
        entries.push((key.clone(), Node { span: key.span, kind: yaml::Kind::Map(Vec::new()) }));
    }
    find(entries, key).and_then(mapping)
}

/// A mapping's entries; null is one without any.
fn mapping(node: &mut Node) -> Option<&mut Entries> {
    if node.is_null() {
        node.kind = yaml::Kind::Map(Vec::new());
    }
    match &mut node.kind {
        yaml::Kind::Map(entries) => Some(entries),
        _ => None,
    }
}
