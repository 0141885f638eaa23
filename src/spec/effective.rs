//! The effective workflow: what holds once profiles, defaults and the command line have been applied, and where each
//! value comes from.

use super::grammar::{self, DEFAULTS};
use super::profile::Layers;
use super::shape::{Params, Shapes};
use super::validate::{LoadOptions, settled_params};
use super::yaml::{self, Node, Scalar};
use crate::data::{Secrets, Value};
use crate::diagnostic::{Diagnostic, Diagnostics, Sources};

/// A part of a workflow.
#[derive(Debug, Clone)]
pub enum Part {
    Value(Box<Setting>),
    /// In the order of the language or of the file.
    Map(Vec<(String, Part)>),
}

/// A value and where it comes from.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Templates that are settled when the file is read are rendered.
    pub node: Node,
    /// As it is written; differs where a template was rendered.
    written: Node,
    /// `pipeline.yaml:12`, `profile hpc, pipeline.yaml:40`, `--param`, `default`, …
    pub origin: String,
}

/// Settings that bpp-flow itself has a value for that can be written.
const BUILT_IN: [(&str, &str); 6] = [
    ("backend", "processes"),
    ("cpus", "1"),
    ("chunk_size", "auto"),
    ("batch_size", "auto"),
    ("retries", "0"),
    ("on_error", "continue"),
];
/// Those that mean something to stages that bpp-flow evaluates itself.
const INSIDE: [&str; 2] = ["batch_size", "on_error"];
/// Settings under `defaults` that hold for `python` stages only.
const PYTHON_ONLY: [&str; 3] = ["init", "interpreter", "share"];

/// The effective workflow of a file that [`super::load`] takes.
///
/// # Errors
/// What cannot be parsed.
pub fn effective(sources: &Sources, options: &LoadOptions) -> Result<Part, Vec<Diagnostic>> {
    let mut mistakes = Diagnostics::default();
    let layers = Layers::read(sources, options, &mut mistakes)?;
    let written = layers.with(&layers.chosen);
    let mut root = written.clone();
    let params = settled_params(&mut root, sources, options, false, &mut mistakes);
    let source = sources.text();
    let at = root.span;
    Shapes { source, params: &params, env: options.env, elsewhere: false, mistakes: &mut mistakes }.shape(
        &grammar::WORKFLOW,
        "a workflow",
        at,
        &mut root,
    );
    Ok(Part::Map(View { sources, options, layers: &layers }.workflow(&root, &written, &params)))
}

struct View<'a> {
    sources: &'a Sources,
    options: &'a LoadOptions<'a>,
    layers: &'a Layers,
}

type Parts = Vec<(String, Part)>;

impl View<'_> {
    fn workflow(&self, root: &Node, written: &Node, params: &Params) -> Parts {
        let mut parts = Vec::new();
        if root.get("name").is_none() {
            parts.push(("name".to_string(), built_in(self.options.stem.trim_start_matches('.'))));
        }
        for (key, node) in root.entries().unwrap_or_default() {
            let name = key.key_text();
            let Some(as_written) = written.get(name).filter(|_| grammar::WORKFLOW.key(name).is_some()) else {
                continue;
            };
            let part = match name {
                "defaults" => continue,
                "params" => Part::Map(self.params(node, as_written, params)),
                "stages" => Part::Map(self.stages(root, written)),
                _ => self.part(key, node, as_written),
            };
            parts.push((name.to_string(), part));
        }
        parts
    }

    /// A value that is as it stands in a file.
    fn part(&self, key: &Node, node: &Node, written: &Node) -> Part {
        match node.entries().zip(written.entries()) {
            Some((entries, as_written)) if !entries.is_empty() => {
                let both = entries.iter().zip(as_written);
                Part::Map(both.map(|((k, v), (_, w))| (k.key_text().to_string(), self.part(k, v, w))).collect())
            }
            _ => Part::Value(Box::new(Setting {
                node: node.clone(),
                written: written.clone(),
                origin: self.origin(key),
            })),
        }
    }

    fn params(&self, node: &Node, written: &Node, params: &Params) -> Parts {
        let both = node.entries().unwrap_or_default().iter().zip(written.entries().unwrap_or_default());
        both.zip(&params.values)
            .map(|(((key, node), (_, written)), (name, value))| {
                let given = self.options.params.iter().any(|(given, _)| given == name);
                let part = match given {
                    false => self.part(key, node, written),
                    true => Part::Value(Box::new(Setting {
                        node: Node::of_value(value, node.span),
                        written: Node::of_value(&Value::Null, node.span),
                        origin: "--param".to_string(),
                    })),
                };
                (name.clone(), part)
            })
            .collect()
    }

    fn stages(&self, root: &Node, written: &Node) -> Parts {
        let stages = |root: &Node| root.get("stages").and_then(Node::entries).unwrap_or_default().to_vec();
        let both = stages(root).into_iter().zip(stages(written));
        let defaults = (root.get("defaults"), written.get("defaults"));
        both.map(|((key, stage), (_, written))| {
            (key.key_text().to_string(), Part::Map(self.stage(&stage, &written, defaults)))
        })
        .collect()
    }

    /// A stage: its own keys, the settings that `defaults` has for it, and those of bpp-flow.
    fn stage(&self, stage: &Node, written: &Node, defaults: (Option<&Node>, Option<&Node>)) -> Parts {
        let is = |key: &str| stage.get(key).is_some();
        let mut parts = match self.part(stage, stage, written) {
            Part::Map(parts) => parts,
            Part::Value(_) => Vec::new(),
        };
        let entries = |node: Option<&Node>| node.and_then(Node::entries).unwrap_or_default().to_vec();
        for ((key, node), (_, written)) in entries(defaults.0).into_iter().zip(entries(defaults.1)) {
            let name = key.key_text();
            let default = || self.part(&key, &node, &written);
            match parts.iter_mut().find(|(own, _)| own == name) {
                Some((_, Part::Map(own))) if name == "env" => {
                    if let Part::Map(mut all) = default() {
                        all.retain(|(name, _)| !own.iter().any(|(n, _)| n == name));
                        own.splice(0..0, all);
                    }
                }
                Some(_) => {}
                None if PYTHON_ONLY.contains(&name) && !is("python") => {}
                None => parts.push((name.to_string(), default())),
            }
        }
        let inside = is("assign") || is("where");
        for (name, value) in BUILT_IN {
            if !parts.iter().any(|(own, _)| own == name) && (!inside || INSIDE.contains(&name)) {
                parts.push((name.to_string(), built_in(value)));
            }
        }
        let place = |name: &str| DEFAULTS.all().position(|key| key.name == name);
        parts.sort_by_key(|(name, _)| place(name).map_or(0, |at| at + 1));
        parts
    }

    /// Where a key stands.
    fn origin(&self, key: &Node) -> String {
        let (file, at) = self.sources.place(key.span.start);
        let mut chosen = self.layers.chosen.iter().map(|at| &self.layers.overlays[*at]);
        let profile = chosen.rfind(|overlay| overlay.node.span.contains(key.span));
        match profile {
            Some(overlay) if overlay.is_file => format!("profile {file}:{}", at.line),
            Some(overlay) => format!("profile {}, {file}:{}", overlay.name, at.line),
            None => format!("{file}:{}", at.line),
        }
    }
}

fn built_in(text: &str) -> Part {
    Part::of(&yaml::parse_scalar(text), "default")
}

impl Part {
    /// A value that stands in no file.
    pub fn of(value: &Value, origin: &str) -> Part {
        let node = Node::of_value(value, Default::default());
        Part::Value(Box::new(Setting { written: node.clone(), node, origin: origin.to_string() }))
    }

    /// Puts a value at the top of a workflow in the place of another one.
    pub fn put(&mut self, name: &str, part: Part) {
        if let Part::Map(parts) = self {
            parts.retain(|(other, _)| other != name);
            parts.push((name.to_string(), part));
        }
    }

    /// Brings the top of a workflow into the order of the language.
    pub fn sort(&mut self) {
        if let Part::Map(parts) = self {
            parts.sort_by_key(|(name, _)| grammar::WORKFLOW.all().position(|key| key.name == name));
        }
    }

    /// Takes the secrets out: what a template gave stands as the template.
    pub fn hide(&mut self, secrets: &Secrets) {
        match self {
            Part::Map(parts) => parts.iter_mut().for_each(|(_, part)| part.hide(secrets)),
            Part::Value(setting) if hide_in(&mut setting.node.clone(), secrets) => {
                setting.node = match setting.is_rendered() && !setting.written.is_null() {
                    true => setting.written.clone(),
                    false => setting.node.clone(),
                };
                hide_in(&mut setting.node, secrets);
                setting.written = setting.node.clone();
            }
            Part::Value(_) => {}
        }
    }
}

impl Setting {
    /// The value so that reading it again gives the same: rendered text with braces in it is no template.
    pub fn to_write(&self) -> Node {
        let mut node = self.node.clone();
        if self.is_rendered() {
            texts(&mut node, &mut |scalar| {
                if scalar.text.contains("{{") {
                    scalar.text = format!("{{{{ {} }}}}", crate::data::json::text(&scalar.value));
                    scalar.value = Value::Text(scalar.text.clone());
                }
            });
        }
        node
    }

    fn is_rendered(&self) -> bool {
        self.node.as_value() != self.written.as_value()
    }
}

/// Whether anything was hidden.
fn hide_in(node: &mut Node, secrets: &Secrets) -> bool {
    let mut hidden = false;
    texts(node, &mut |scalar| {
        if let std::borrow::Cow::Owned(text) = secrets.hide(&scalar.text) {
            hidden = true;
            *scalar = Scalar { value: Value::Text(text.clone()), text, quoted: true };
        }
    });
    hidden
}

/// Does something with every text in a node.
fn texts(node: &mut Node, each: &mut impl FnMut(&mut Scalar)) {
    match &mut node.kind {
        yaml::Kind::Scalar(scalar) if matches!(scalar.value, Value::Text(_)) => each(scalar),
        yaml::Kind::Scalar(_) => {}
        yaml::Kind::List(elements) => elements.iter_mut().for_each(|n| texts(n, each)),
        yaml::Kind::Map(entries) => entries.iter_mut().for_each(|(_, n)| texts(n, each)),
    }
}
