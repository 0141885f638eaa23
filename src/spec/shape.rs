//! Checks a tree against the [`grammar`]: unknown keys, wrong types.
//!
//! Templates in places that are settled before anything runs (a source's paths, a stage's `workers`) are rendered
//! here, with `params` and `env`: the tree comes out with their values in it.

use std::ops::BitAnd;

use super::grammar::{self, Key, Kind, OTHER_WORDS, Shape, Word};
use super::nearest::nearest;
use super::template::{Environment, Reference, Root, Scope, Template};
use super::yaml::{self, Node, Scalar};
use super::{template_mistake, units};
use crate::data::Value;
use crate::diagnostic::{Diagnostic, Diagnostics, Span};

/// Bytes of a value that is settled early: one may double another, and so on.
const MAX_SETTLED: usize = 16 << 20;

/// The workflow's parameters.
#[derive(Debug, Default)]
pub struct Params {
    /// In file order.
    pub values: Vec<(String, Value)>,
    /// Those whose value cannot be told here.
    pub unknown: Vec<String>,
}

/// What the check needs to know, and what it found.
pub struct Shapes<'a> {
    pub source: &'a str,
    pub params: &'a Params,
    pub env: &'a Environment<'a>,
    /// The tree is for another machine: variables that are not set here are no mistake.
    pub elsewhere: bool,
    pub mistakes: &'a mut Diagnostics,
}

impl Shapes<'_> {
    /// Checks a mapping of the language. `what` is its name for people.
    pub fn shape(&mut self, shape: &'static Shape, what: &str, at: Span, node: &mut Node) {
        let yaml::Kind::Map(entries) = &mut node.kind else {
            let found = node.describe();
            let help = format!("{what} has keys such as {}", examples(shape));
            self.mistakes.push(Diagnostic::new(at, format!("{what} must be a mapping, not {found}")).help(help));
            return;
        };
        for (key, value) in entries.iter_mut() {
            let name = key.key_text().to_string();
            match shape.key(&name) {
                Some(known) => self.value(known, key.span, value),
                None if std::ptr::eq(shape, &grammar::WORKFLOW) && name.starts_with("x-") => {}
                None => self.mistakes.push(unknown_key(shape, what, &name, key.span)),
            }
        }
        for required in shape.required {
            if !entries.iter().any(|(k, _)| k.key_text() == *required) {
                let doc = shape.key(required).map_or("", |k| k.doc);
                let message = format!("{what} needs the key `{required}`");
                self.mistakes.push(Diagnostic::new(at, message).help(format!("`{required}`: {doc}")));
            }
        }
    }

    /// Checks settings of a profile; null takes one away, and means nothing more.
    fn overlay(&mut self, shape: &'static Shape, what: &str, entries: &mut [(Node, Node)]) {
        for (key, value) in entries.iter_mut().filter(|(_, value)| !value.is_null()) {
            let name = key.key_text().to_string();
            match shape.key(&name) {
                Some(known) => {
                    if let ("env", yaml::Kind::Map(variables)) = (known.name, &mut value.kind) {
                        variables.retain(|(_, value)| !value.is_null());
                    }
                    self.value(known, key.span, value);
                }
                None if grammar::STAGE.key(&name).is_some() => self.mistakes.push(
                    Diagnostic::new(key.span, format!("a profile changes settings only, and `{name}` is none"))
                        .help("settings are backend, workers, timeout and their like; `params` may change what runs"),
                ),
                None => self.mistakes.push(unknown_key(shape, what, &name, key.span)),
            }
        }
    }

    fn value(&mut self, key: &'static Key, at: Span, node: &mut Node) {
        if node.is_null() && matches!(key.kind, Kind::Map(_)) {
            node.kind = yaml::Kind::Map(Vec::new());
        }
        let at = if node.is_null() { at } else { node.span };
        self.kind(&key.kind, &format!("`{}`", key.name), at, node);
    }

    fn kind(&mut self, kind: &'static Kind, what: &str, at: Span, node: &mut Node) {
        if settled_early(kind) && !self.settle(node) {
            return;
        }
        match kind {
            Kind::Shape(shape) => return self.shape(shape, what, at, node),
            Kind::Overlay(shape) => {
                if let yaml::Kind::Map(entries) = &mut node.kind {
                    return self.overlay(shape, what, entries);
                }
            }
            Kind::Data => {
                self.settle_parts(node);
                return;
            }
            Kind::List(element) => {
                if let yaml::Kind::List(elements) = &mut node.kind {
                    return self.elements(element, what, elements);
                }
            }
            Kind::OneOrMore(element) if node.elements().is_none() && alternative(element, node) => {
                return self.kind(element, what, at, node);
            }
            Kind::OneOrMore(element) => {
                if let yaml::Kind::List(elements) = &mut node.kind {
                    return self.elements(element, what, elements);
                }
            }
            Kind::Map(inner) => {
                if let yaml::Kind::Map(entries) = &mut node.kind {
                    for (key, value) in entries {
                        let what = match inner {
                            Kind::Shape(shape) => {
                                format!("{} `{}`", shape.what.trim_start_matches("a "), key.key_text())
                            }
                            Kind::Overlay(_) => format!("stage `{}`", key.key_text()),
                            _ => format!("`{}` in {what}", key.key_text()),
                        };
                        let at = if value.is_null() { key.span } else { value.span };
                        let at = if matches!(inner, Kind::Shape(_)) { key.span } else { at };
                        self.kind(inner, &what, at, value);
                    }
                    return;
                }
            }
            Kind::Either(kinds) => {
                if let Some(kind) = kinds.iter().find(|k| alternative(k, node)) {
                    return self.kind(kind, what, at, node);
                }
            }
            Kind::Word(words) => {
                if let Some(text) = node.text() {
                    return self.word(words, what, text, at);
                }
            }
            Kind::Function => {
                if let Some(text) = node.text() {
                    if let Err(help) = units::function(text) {
                        self.mistakes.push(Diagnostic::new(at, format!("{what} must be module:function")).help(help));
                    }
                    return;
                }
            }
            scalar if scalar_fits(scalar, node) => return,
            _ => {}
        }
        self.mistakes.push(wrong_type(kind, what, at, node));
    }

    fn elements(&mut self, kind: &'static Kind, what: &str, elements: &mut [Node]) {
        for element in elements {
            self.kind(kind, &format!("an element of {what}"), element.span, element);
        }
    }

    fn word(&mut self, words: &'static [Word], what: &str, text: &str, at: Span) {
        match words.iter().find(|w| w.name == text) {
            Some(_) => {}
            None => {
                let there: Vec<&str> = words.iter().map(|w| w.name).collect();
                let help = match nearest(text, there.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None if there.len() == 1 => format!("the only word here is `{}`", there[0]),
                    None => format!("there are {}", there.join(", ")),
                };
                self.mistakes.push(Diagnostic::new(at, format!("{what} cannot be `{text}`")).help(help));
            }
        }
    }

    /// [`Shapes::settle`] for all that is in a value; whether all of it was possible.
    pub fn settle_parts(&mut self, node: &mut Node) -> bool {
        match &mut node.kind {
            yaml::Kind::Scalar(_) => self.settle(node),
            yaml::Kind::List(elements) => elements.iter_mut().map(|n| self.settle_parts(n)).fold(true, BitAnd::bitand),
            yaml::Kind::Map(entries) => {
                entries.iter_mut().map(|(_, n)| self.settle_parts(n)).fold(true, BitAnd::bitand)
            }
        }
    }

    /// Renders the template of a value that is settled before anything runs; whether that was possible.
    fn settle(&mut self, node: &mut Node) -> bool {
        let Some(text) = node.text().filter(|t| t.contains("{{")) else {
            return true;
        };
        let mistake = match Template::parse(text, false) {
            Err(error) => template_mistake(node, self.source, error),
            Ok(template) if self.elsewhere && self.unset(&template) => return false,
            Ok(template) => match self.rendered(node, &template) {
                Ok(value) => {
                    *node = Node::of_value(&value, node.span);
                    return true;
                }
                Err(mistake) => *mistake,
            },
        };
        self.mistakes.push(mistake);
        false
    }

    /// Whether a template names a variable that is not set, or a parameter whose value depends on one.
    fn unset(&self, template: &Template) -> bool {
        let names = template.names();
        let unknown = |name: &String| self.params.unknown.contains(name);
        names.env.iter().any(|name| (self.env)(name).is_none())
            || names.params.iter().any(unknown)
            || (names.whole_params && !self.params.unknown.is_empty())
    }

    fn rendered(&self, node: &Node, template: &Template) -> Result<Value, Box<Diagnostic>> {
        let place = |reference: &Reference| node.span_of(self.source, reference.at.clone());
        let late = |reference: &&Reference| !matches!(reference.root, Root::Params | Root::Env);
        if let Some(reference) = template.references().iter().find(late) {
            let message =
                format!("`{}` is not known here: this is settled before anything runs", reference.root.name());
            return Err(Diagnostic::new(place(reference), message)
                .help("only `params` and `env` can be used here")
                .into());
        }
        let scope = Scope { params: &self.params.values, env: Some(self.env), ..Scope::default() };
        let value = template.render(&scope).map_err(|error| {
            let at = template.references().first().map_or(node.span, place);
            let help = match error.0.contains("environment") {
                true => "set it, or give a default: {{ env.NAME | default('…') }}",
                false => "declare it under `params`; a parameter sees those above it",
            };
            Box::new(Diagnostic::new(at, error.0).help(help))
        })?;
        match value.encoded().len() {
            0..=MAX_SETTLED => Ok(value),
            _ => Err(Diagnostic::new(node.span, format!("a value of more than {} MiB", MAX_SETTLED >> 20))
                .help("read it from a file with a source")
                .into()),
        }
    }
}

/// Whether templates in such a value are rendered before anything runs.
fn settled_early(kind: &Kind) -> bool {
    match kind {
        Kind::Any | Kind::Data | Kind::Template | Kind::Expression => false,
        Kind::OneOrMore(element) => settled_early(element),
        Kind::Either(kinds) => kinds.iter().all(settled_early),
        _ => true,
    }
}

/// Whether a value looks like this alternative, right or wrong in its details.
fn alternative(kind: &Kind, node: &Node) -> bool {
    match kind {
        Kind::Shape(_) | Kind::Overlay(_) | Kind::Map(_) => node.entries().is_some(),
        Kind::List(_) => node.elements().is_some(),
        Kind::OneOrMore(element) => node.elements().is_some() || alternative(element, node),
        Kind::Either(kinds) => kinds.iter().any(|k| alternative(k, node)),
        Kind::Word(words) => node.text().is_some_and(|t| words.len() > 1 || words.iter().any(|w| w.name == t)),
        Kind::Function | Kind::Named(_) => node.text().is_some(),
        scalar => scalar_fits(scalar, node),
    }
}

fn scalar_fits(kind: &Kind, node: &Node) -> bool {
    let Some(Scalar { text, value, .. }) = node.scalar() else {
        return matches!(kind, Kind::Any | Kind::Data);
    };
    match kind {
        Kind::Any | Kind::Data => true,
        Kind::Named(_) => matches!(value, Value::Text(_)) && !text.is_empty(),
        Kind::Text => !matches!(value, Value::Null) && !text.is_empty(),
        Kind::Template => !matches!(value, Value::Null),
        Kind::Expression => !matches!(value, Value::Null) && !text.trim().is_empty(),
        Kind::Integer(min) => matches!(value, Value::Int(v) if v >= min),
        Kind::Number => matches!(value, Value::Int(_)) || matches!(value, Value::Float(v) if v.is_finite()),
        Kind::Bool => matches!(value, Value::Bool(_)),
        Kind::Duration => units::duration(node).is_some(),
        Kind::Size => units::size(node).is_some(),
        Kind::Percent => units::percent(node).is_some(),
        _ => false,
    }
}

fn wrong_type(kind: &Kind, what: &str, at: Span, node: &Node) -> Diagnostic {
    let diagnostic = Diagnostic::new(at, format!("{what} must be {}, not {}", kind.describe(), node.describe()));
    let text = node.text().unwrap_or("");
    match kind {
        Kind::Integer(_) | Kind::Number | Kind::Either(_) if text.parse::<f64>().is_ok() => {
            diagnostic.help(format!("numbers stand without quotes: {text}"))
        }
        _ if takes_bool(kind) && ["yes", "on", "True"].contains(&text) => diagnostic.help("write true"),
        _ if takes_bool(kind) && ["no", "off", "False"].contains(&text) => diagnostic.help("write false"),
        Kind::Map(Kind::Shape(_)) if node.elements().is_some() => {
            diagnostic.help(format!("write names instead of dashes: under {what}, `NAME: {{…}}` for each"))
        }
        Kind::Integer(_) => match node.scalar().map(|s| &s.value) {
            Some(Value::Float(v)) if v.fract() == 0.0 => diagnostic.help(format!("write {v}")),
            _ => diagnostic,
        },
        Kind::Text | Kind::Template if node.is_null() => diagnostic.help("write \"\" where empty text is meant"),
        Kind::List(Kind::Template) if node.text().is_some() => diagnostic.help(format!(
            "write a list: [{}]; or use `shell` for a script",
            text.split_whitespace().collect::<Vec<_>>().join(", ")
        )),
        Kind::Map(Kind::Expression) if node.text().is_some() => diagnostic.help("write `name: expression` under it"),
        _ => diagnostic,
    }
}

fn takes_bool(kind: &Kind) -> bool {
    match kind {
        Kind::Bool => true,
        Kind::Either(kinds) => kinds.iter().any(takes_bool),
        _ => false,
    }
}

fn examples(shape: &Shape) -> String {
    shape.all().map(|k| k.name).take(4).collect::<Vec<_>>().join(", ")
}

fn unknown_key(shape: &'static Shape, what: &str, name: &str, at: Span) -> Diagnostic {
    let diagnostic = Diagnostic::new(at, format!("{what} has no key `{name}`"));
    if let Some(meant) = meant_key(shape, name) {
        return diagnostic.help(format!("did you mean `{meant}`?"));
    }
    let home = grammar::SHAPES.iter().find(|s| !std::ptr::eq(**s, shape) && s.key(name).is_some());
    let names: Vec<&str> = shape.all().map(|k| k.name).collect();
    match home {
        Some(home) => diagnostic.help(format!("`{name}` is a key of {}", home.what)),
        None => diagnostic.help(format!("its keys are {}", names.join(", "))),
    }
}

/// The key of `shape` that an unknown one was most probably meant to be.
pub fn meant_key(shape: &'static Shape, name: &str) -> Option<&'static str> {
    let keys = || shape.all().map(|k| k.name);
    let other = OTHER_WORDS.iter().filter(|(theirs, _)| *theirs == name.to_lowercase()).map(|(_, ours)| *ours);
    other.into_iter().find(|ours| keys().any(|k| k == *ours)).or_else(|| nearest(name, keys()))
}
