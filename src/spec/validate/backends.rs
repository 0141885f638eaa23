//! Engines: kinds by their own names, and those that `backends` configures.

use super::Builder;
use super::settings::{Choices, count};
use crate::diagnostic::Diagnostic;
use crate::spec::grammar::{BACKENDS, ENGINE_OPTIONS};
use crate::spec::model::{Backend, Engine};
use crate::spec::nearest::nearest;
use crate::spec::yaml::Node;

/// What a name stands for.
enum Named {
    Engine(Engine),
    /// A kind that this version does not have.
    Later(&'static str),
    /// Something that is wrong where it is configured.
    Wrong,
    Nothing,
}

impl<'a> Builder<'a> {
    /// Checks what `backends` configures, whether a stage uses it or not.
    pub(super) fn engines(&mut self) {
        for (_, node) in self.section("backends") {
            let Some(kind_node) = node.get("kind") else { continue };
            let kind = kind_node.text().unwrap_or_default();
            if !BACKENDS.iter().any(|word| word.name == kind) && !kind.contains("{{") {
                let names: Vec<&str> = BACKENDS.iter().map(|word| word.name).collect();
                let help = match nearest(kind, names.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}", names.join(", ")),
                };
                self.mistake(kind_node.span, format!("`kind` cannot be `{kind}`"), help);
            }
            if here(kind).is_some() {
                self.engine_options(kind, node);
            }
        }
    }

    fn engine_options(&mut self, kind: &str, node: &Node) {
        for option in ENGINE_OPTIONS {
            if let Some((key, _)) = node.entry(option.name) {
                let message = format!("`{}` means nothing to `{kind}`", option.name);
                self.mistake(key.span, message, "an engine on this machine takes `workers`");
            }
        }
        if let Some((key, _)) = node.entry("workers").filter(|(_, n)| kind == "serial" && count(n) != Some(1)) {
            self.mistake(key.span, "`serial` runs one item at a time", "drop `workers`, or take `processes`");
        }
    }

    /// The engine of a stage: the command line's, else its own.
    pub(super) fn backend(&mut self, from: &Choices) -> Option<Engine> {
        let (what, name, at) = match (self.backend, from.get("backend")) {
            (Some(name), _) => ("--backend", name, None),
            (None, Some(node)) => ("backend", node.text()?, Some(node.span)),
            (None, None) => return Some(Engine::default()),
        };
        let mistake = |message: String, help: &str| Diagnostic { span: at, ..Diagnostic::outside(message).help(help) };
        match self.engine(name) {
            Named::Engine(engine) => return Some(engine),
            Named::Later(_) if self.elsewhere => {}
            Named::Later(kind) if kind == name => self.mistakes.push(mistake(
                format!("`{name}` as `{what}` is not yet supported"),
                "it is part of the language, but this version of bpp-flow cannot do it",
            )),
            Named::Later(kind) => self.mistakes.push(mistake(
                format!("`{what}: {name}` is of the kind `{kind}`, which is not yet supported"),
                "it is part of the language, but this version of bpp-flow cannot do it",
            )),
            Named::Nothing if !name.contains("{{") => {
                let kinds = BACKENDS.iter().filter(|word| !word.later).map(|word| word.name);
                let known: Vec<&str> =
                    kinds.chain(self.section("backends").iter().map(|(k, _)| k.key_text())).collect();
                let help = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}; `backends` may configure more", known.join(", ")),
                };
                self.mistakes.push(mistake(format!("`{what}` cannot be `{name}`"), &help));
            }
            Named::Nothing | Named::Wrong => {}
        }
        None
    }

    /// A configured engine has the name before a kind.
    fn engine(&self, name: &str) -> Named {
        let configured = self.section("backends").iter().find(|(key, _)| key.key_text() == name);
        let kind = match configured {
            Some((_, node)) => node.get("kind").and_then(Node::text).unwrap_or_default(),
            None => name,
        };
        let word = BACKENDS.iter().find(|word| word.name == kind);
        match (here(kind), word, configured) {
            (Some(kind), _, configured) => {
                let workers = configured.and_then(|(_, node)| node.get("workers")).and_then(count);
                Named::Engine(Engine { kind, workers })
            }
            (None, Some(word), _) => Named::Later(word.name),
            (None, None, Some(_)) => Named::Wrong,
            (None, None, None) => Named::Nothing,
        }
    }
}

/// A kind that this version has.
fn here(kind: &str) -> Option<Backend> {
    match kind {
        "serial" => Some(Backend::Serial),
        "threads" => Some(Backend::Threads),
        "processes" => Some(Backend::Processes),
        _ => None,
    }
}
