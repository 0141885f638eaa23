//! Settings of a stage: its own, else those of `defaults`, else bpp-flow's.

use std::time::Duration;

use super::outputs::is_false;
use super::references::{Place, Rows};
use super::{Builder, text_of};
use crate::data::{FailureKind, Value, bytes_in_words};
use crate::spec::model::{Init, MaxFailures, Retries, Settings, Share};
use crate::spec::template::Template;
use crate::spec::units;
use crate::spec::yaml::Node;

/// Limits of memory below this are slips: a bare Python takes more.
const LEAST_MEMORY: u64 = 1 << 20;

/// Where a stage's settings are looked up.
pub(super) struct Choices<'n> {
    defaults: Option<&'n Node>,
    stage: &'n Node,
}

impl<'n> Choices<'n> {
    pub(super) fn new(defaults: Option<&'n Node>, stage: &'n Node) -> Choices<'n> {
        Choices { defaults, stage }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.stage.get(key).or_else(|| self.defaults?.get(key))
    }
}

impl Builder<'_> {
    pub(super) fn settings(
        &mut self,
        from: &Choices,
        action: &str,
        share: Option<Vec<Share>>,
        place: Place,
    ) -> Option<Settings> {
        let python = action == "python";
        let init = from.get("init").filter(|_| python).map(|node| self.init(node, place.what));
        let env = self.env(from, place);
        let cwd = self.cwd(from, action, place);
        let deps = self.deps(from, place);
        let backend = self.backend(from);
        Some(Settings {
            backend: backend?,
            workers: from.get("workers").and_then(count),
            cpus: from.get("cpus").and_then(count).unwrap_or(1),
            chunk_size: from.get("chunk_size").and_then(count),
            batch_size: from.get("batch_size").and_then(count),
            retries: self.retries(from.get("retries"))?,
            timeout: self.timeout(from)?,
            memory: self.memory(from)?,
            max_tasks_per_worker: from.get("max_tasks_per_worker").and_then(count),
            stop_on_error: from.get("on_error").and_then(Node::text) == Some("stop"),
            max_failures: from.get("max_failures").and_then(max_failures),
            init: match init {
                Some(init) => Some(init?),
                None => None,
            },
            env: env?,
            cwd: cwd?,
            version: from.get("version").and_then(text_of),
            deps: deps?,
            packages: from.get("packages").filter(|_| python).map(super::names_of).unwrap_or_default(),
            interpreter: from.get("interpreter").filter(|_| python).and_then(text_of),
            files: Vec::new(),
            verify_files: from.get("verify_files").is_some_and(|node| !is_false(node)),
            share: share?,
        })
    }

    fn init(&mut self, node: &Node, what: &str) -> Option<Init> {
        let why = "`init` runs once in every worker, before any item; only `params` and `env` are known";
        let place = Place { what, rows: Rows::None(why), run: false, files: None };
        let args = self.arguments(node.get("args"), place);
        let (module, function) = units::function(node.get("python")?.text()?).ok()?;
        Some(Init { module, function, args: args? })
    }

    /// The defaults' variables, then the stage's, which win.
    fn env(&mut self, from: &Choices, place: Place) -> Option<Vec<(String, Template)>> {
        let mut env: Option<Vec<(String, Template)>> = Some(Vec::new());
        let own = from.stage.get("env");
        let inherited = from.defaults.and_then(|d| d.get("env"));
        for (key, value) in inherited.into_iter().chain(own).filter_map(Node::entries).flatten() {
            let name = key.key_text();
            if name.is_empty() || name.contains(['=', '\0']) {
                self.mistake(
                    key.span,
                    format!("{name:?} cannot be the name of an environment variable"),
                    "use letters, digits and underscores",
                );
                env = None;
            }
            let template = self.template(value, false, Place { run: true, ..place });
            env = env.zip(template).map(|(mut all, template)| {
                all.retain(|(n, _)| n != name);
                all.push((name.to_string(), template));
                all
            });
        }
        env
    }

    fn cwd(&mut self, from: &Choices, action: &str, place: Place) -> Option<Option<Template>> {
        let Some(node) = from.get("cwd") else {
            return Some(None);
        };
        let template = self.template(node, false, Place { run: true, files: None, ..place })?;
        if action == "python" && template.names().per_item() {
            let help = "a Python process serves many items: pass the folder in `args`";
            self.mistake(node.span, "the `cwd` of a python stage cannot differ from item to item", help);
            return None;
        }
        Some(Some(template))
    }

    fn deps(&mut self, from: &Choices, place: Place) -> Option<Vec<Template>> {
        let node = from.get("deps");
        let elements = node.map(|n| n.elements().unwrap_or(std::slice::from_ref(n))).unwrap_or_default();
        let place = Place { files: None, ..place };
        let deps: Vec<_> = elements.iter().map(|n| self.template(n, false, place)).collect();
        deps.into_iter().collect()
    }

    fn timeout(&mut self, from: &Choices) -> Option<Option<Duration>> {
        let Some(node) = from.get("timeout") else {
            return Some(None);
        };
        let timeout = units::duration(node)?;
        if timeout.is_zero() {
            self.mistake(node.span, "a `timeout` of 0 leaves no time for any item", "drop it for no limit");
        }
        Some(Some(timeout))
    }

    fn memory(&mut self, from: &Choices) -> Option<Option<u64>> {
        let Some(node) = from.get("memory") else {
            return Some(None);
        };
        let limit = units::size(node)?;
        if limit < LEAST_MEMORY {
            let message = format!("no worker fits into {}", bytes_in_words(limit));
            self.mistake(node.span, message, "write a size with its unit, such as 512MiB or 2GiB");
        }
        Some(Some(limit))
    }

    fn retries(&mut self, node: Option<&Node>) -> Option<Retries> {
        let mut retries = Retries {
            max: 0,
            backoff: Duration::from_secs(1),
            factor: 2.0,
            max_backoff: Duration::from_secs(60),
            kinds: vec![
                FailureKind::Exception,
                FailureKind::Exit,
                FailureKind::Output,
                FailureKind::Timeout,
                FailureKind::Memory,
                FailureKind::Crash,
            ],
        };
        let Some(node) = node else {
            return Some(retries);
        };
        if node.entries().is_none() {
            retries.max = self.attempts(node)?;
            return Some(retries);
        }
        retries.max = self.attempts(node.get("max")?)?;
        if let Some(node) = node.get("backoff") {
            retries.backoff = units::duration(node)?;
        }
        if let Some(node) = node.get("max_backoff") {
            retries.max_backoff = units::duration(node)?;
        }
        if let Some(node) = node.get("factor") {
            retries.factor = match node.scalar()?.value {
                Value::Int(v) => v as f64,
                Value::Float(v) => v,
                _ => return None,
            };
            if retries.factor < 1.0 {
                self.mistake(
                    node.span,
                    "`factor` must be at least 1: the time between attempts never shrinks",
                    "write 1 for equal times",
                );
            }
        }
        if let Some(node) = node.get("kinds").or_else(|| node.get("on")) {
            let named = |name: &str| FailureKind::ALL.into_iter().find(|k| k.name() == name);
            retries.kinds = super::names_of(node).iter().map(|n| named(n)).collect::<Option<_>>()?;
        }
        Some(retries)
    }

    fn attempts(&mut self, node: &Node) -> Option<u32> {
        match node.scalar()?.value {
            Value::Int(v @ 0..=10_000) => Some(v as u32),
            Value::Int(v) if v > 0 => {
                self.mistake(node.span, "more than 10000 retries", "give a smaller number");
                None
            }
            _ => None,
        }
    }
}

/// A whole number; `auto` and what is wrong give none.
pub(super) fn count(node: &Node) -> Option<usize> {
    match node.scalar()?.value {
        Value::Int(v) => usize::try_from(v).ok().filter(|v| *v > 0),
        _ => None,
    }
}

fn max_failures(node: &Node) -> Option<MaxFailures> {
    match node.scalar()?.value {
        Value::Int(v) => u64::try_from(v).ok().map(MaxFailures::Count),
        _ => units::percent(node).map(MaxFailures::Percent),
    }
}
