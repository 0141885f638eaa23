//! Engines: kinds by their own names, and those that `backends` configures.

use std::sync::Arc;
use std::time::Duration;

use super::settings::{Choices, count};
use super::{Builder, names_of, text_of};
use crate::data::Value;
use crate::diagnostic::{Diagnostic, Span};
use crate::spec::grammar::{BACKENDS, ENGINE_OPTIONS};
use crate::spec::model::{Access, Backend, Engine, Remote, RemoteKind, SlurmOptions, SshOptions};
use crate::spec::nearest::nearest;
use crate::spec::units;
use crate::spec::yaml::Node;

/// How long a run waits for its first worker.
const START_TIMEOUT: Duration = Duration::from_secs(300);
/// The batch systems that dask-jobqueue knows.
const CLUSTERS: [&str; 5] = ["slurm", "sge", "pbs", "lsf", "htcondor"];

/// What a name stands for.
enum Named {
    Engine(Engine),
    /// Something that is wrong where it is configured.
    Wrong,
    Nothing,
}

/// The options of a kind, beside `workers`.
fn options_of(kind: RemoteKind) -> &'static [&'static str] {
    match kind {
        RemoteKind::Dask => &["scheduler", "scheduler_file", "security", "cluster", "jobs", "adapt", "mpi", "launch"],
        RemoteKind::Ray => &["resources"],
        RemoteKind::Mpi => &["launch"],
        RemoteKind::Ipyparallel => &["profile", "connection_file", "engines"],
        RemoteKind::Bridge => &["python", "launch"],
        RemoteKind::Slurm => &[
            "jobs",
            "workers_per_job",
            "partition",
            "account",
            "qos",
            "time",
            "cpus",
            "memory",
            "gres",
            "setup",
            "sbatch",
        ],
        RemoteKind::Ssh => &["hosts", "workers_per_host", "setup", "ssh"],
    }
}

/// What all engines beyond this machine take.
const COMMON: [&str; 4] = ["start_timeout", "upload", "address", "interpreter"];

impl<'a> Builder<'a> {
    /// Checks what `backends` configures, whether a stage uses it or not.
    pub(super) fn engines(&mut self) {
        for (name, node) in self.section("backends") {
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
            match (here(kind), remote(kind)) {
                (Some(_), _) => self.local_options(kind, node),
                (None, Some(remote)) => self.remote_options(remote, name, node),
                (None, None) => {}
            }
        }
    }

    fn local_options(&mut self, kind: &str, node: &Node) {
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

    fn remote_options(&mut self, kind: RemoteKind, name: &Node, node: &Node) {
        let own = options_of(kind);
        for option in ENGINE_OPTIONS.iter().filter(|o| !own.contains(&o.name) && !COMMON.contains(&o.name)) {
            if let Some((key, _)) = node.entry(option.name) {
                let message = format!("`{}` means nothing to `{}`", option.name, kind.name());
                let known: Vec<&str> = ["workers"].iter().chain(own).chain(&COMMON).copied().collect();
                self.mistake(key.span, message, format!("it takes {}", known.join(", ")));
            }
        }
        let needed = match kind {
            RemoteKind::Bridge => Some(("python", "module:function, which gives an executor")),
            RemoteKind::Ssh => Some(("hosts", "a list of hosts")),
            _ => None,
        };
        if let Some((option, what)) = needed.filter(|(option, _)| node.get(option).is_none()) {
            let message = format!("`{}` needs `{option}`", kind.name());
            self.mistake(name.span, message, format!("write `{option}:` and {what}"));
        }
        let ways: &[&str] = match kind {
            RemoteKind::Dask => &["scheduler", "scheduler_file", "cluster", "mpi"],
            RemoteKind::Ipyparallel => &["profile", "connection_file", "engines"],
            _ => &[],
        };
        let given: Vec<&(Node, Node)> = ways.iter().filter_map(|way| node.entry(way)).collect();
        if let [(first, _), (second, _), ..] = given[..] {
            let message = format!("`{}` and `{}` cannot both be given", first.key_text(), second.key_text());
            self.mistake(second.span, message, "each of them says by itself where the workers are: keep one");
        }
        if kind == RemoteKind::Dask {
            self.dask_cluster(node);
        }
        let has_port = |text: &str| text.matches(':').count() == 1 || text.contains('/');
        if let Some(address) = node.get("address").filter(|_| kind != RemoteKind::Ray)
            && text_of(address).is_some_and(|text| has_port(&text))
        {
            let help = "write a name or an address, without a port: bpp-flow takes any that is free";
            self.mistake(address.span, "`address` is how nodes reach this machine", help);
        }
        if let Some(time) = node.get("time").filter(|n| text_of(n).is_some_and(|t| slurm_time(&t).is_none())) {
            let help = "write a duration such as 90m or 12h, or as Slurm does: 1-12:00:00";
            self.mistake(time.span, "`time` is no limit of time", help);
        }
    }

    fn dask_cluster(&mut self, node: &Node) {
        let cluster = node.get("cluster");
        for (option, other, help) in [
            ("mpi", "launch", "say what starts the processes, as in launch: [srun]"),
            ("launch", "mpi", "Dask's workers are started by a launcher with `mpi: true` only"),
        ] {
            if let Some((key, _)) = node.entry(option).filter(|_| node.get(other).is_none()) {
                self.mistake(key.span, format!("`{option}` needs `{other}`"), help);
            }
        }
        if let Some(cluster) = cluster {
            let named = cluster.entries().filter(|e| e.len() == 1).map(|e| e[0].0.key_text());
            if !named.is_some_and(|name| CLUSTERS.contains(&name)) {
                let help =
                    format!("write one of {}, with its options: slurm: {{cores: 4, memory: 8GB}}", CLUSTERS.join(", "));
                self.mistake(cluster.span, "`cluster` must name one batch system", help);
            }
        }
        for option in ["jobs", "adapt"] {
            if let Some((key, _)) = node.entry(option).filter(|_| cluster.is_none()) {
                self.mistake(key.span, format!("`{option}` needs `cluster`"), "say which batch system runs the jobs");
            }
        }
        if let Some((key, value)) = node.entry("adapt") {
            let bounds: Vec<usize> = value.elements().unwrap_or_default().iter().filter_map(whole).collect();
            if !matches!(bounds[..], [least, most] if least <= most && most > 0) {
                self.mistake(key.span, "`adapt` must be the least and the most jobs", "as in adapt: [1, 20]");
            }
            if node.get("jobs").is_some() {
                self.mistake(key.span, "`jobs` and `adapt` cannot both be given", "keep one of them");
            }
        }
    }

    /// The engine of a stage: the command line's, else its own.
    pub(super) fn backend(&mut self, from: &Choices) -> Option<Engine> {
        let (what, name, at) = match (self.backend, from.get("backend")) {
            (Some(name), _) => ("--backend", name, None),
            (None, Some(node)) => ("backend", node.text()?, Some(node.span)),
            (None, None) => return Some(Engine::default()),
        };
        match self.engine(name, at) {
            Named::Engine(engine) => return Some(engine),
            Named::Nothing if !name.contains("{{") => {
                let kinds = BACKENDS.iter().map(|word| word.name);
                let known: Vec<&str> =
                    kinds.chain(self.section("backends").iter().map(|(k, _)| k.key_text())).collect();
                let help = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}; `backends` may configure more", known.join(", ")),
                };
                let message = format!("`{what}` cannot be `{name}`");
                self.mistakes.push(Diagnostic { span: at, ..Diagnostic::outside(message).help(help) });
            }
            Named::Nothing | Named::Wrong => {}
        }
        None
    }

    /// A configured engine has the name before a kind.
    fn engine(&mut self, name: &str, at: Option<Span>) -> Named {
        let configured = self.section("backends").iter().find(|(key, _)| key.key_text() == name);
        let kind = match configured {
            Some((_, node)) => node.get("kind").and_then(Node::text).unwrap_or_default(),
            None => name,
        };
        let node = configured.map(|(_, node)| node);
        let workers = node.and_then(|node| node.get("workers")).and_then(count);
        match (here(kind), remote(kind)) {
            (Some(kind), _) => Named::Engine(Engine { kind, workers, remote: None }),
            (None, Some(RemoteKind::Bridge | RemoteKind::Ssh)) if node.is_none() => {
                let message = format!("`{kind}` needs to be configured");
                let mistake = Diagnostic { span: at, ..Diagnostic::outside(message) };
                self.mistakes.push(
                    mistake.help(format!("under `backends`, write `NAME: {{kind: {kind}, …}}`, and `backend: NAME`")),
                );
                Named::Wrong
            }
            (None, Some(kind)) => {
                let remote = Some(Arc::new(remote_of(name, kind, node)));
                Named::Engine(Engine { kind: Backend::Remote, workers, remote })
            }
            (None, None) if configured.is_some() => Named::Wrong,
            (None, None) => Named::Nothing,
        }
    }
}

/// A kind of this machine.
fn here(kind: &str) -> Option<Backend> {
    match kind {
        "serial" => Some(Backend::Serial),
        "threads" => Some(Backend::Threads),
        "processes" => Some(Backend::Processes),
        _ => None,
    }
}

fn remote(kind: &str) -> Option<RemoteKind> {
    RemoteKind::ALL.into_iter().find(|k| k.name() == kind)
}

/// An engine as configured; what is wrong with it was told.
fn remote_of(name: &str, kind: RemoteKind, node: Option<&Node>) -> Remote {
    let get = |option: &str| node.and_then(|node| node.get(option));
    let text = |option: &str| get(option).and_then(text_of);
    let list = |option: &str| get(option).map(names_of).unwrap_or_default();
    // A command as one text is one that has no words with spaces.
    let words = |option: &str| match get(option).and_then(Node::text) {
        Some(line) => line.split_whitespace().map(String::from).collect(),
        None => list(option),
    };
    let number = |option: &str| get(option).and_then(count);
    let access = match kind {
        RemoteKind::Slurm => Access::Slurm(SlurmOptions {
            jobs: number("jobs").unwrap_or(1),
            workers_per_job: number("workers_per_job").unwrap_or(1),
            partition: text("partition"),
            account: text("account"),
            qos: text("qos"),
            time: text("time").and_then(|time| slurm_time(&time)),
            cpus: number("cpus"),
            memory: get("memory").and_then(units::size),
            gres: text("gres"),
            setup: list("setup"),
            sbatch: words("sbatch"),
        }),
        RemoteKind::Ssh => Access::Ssh(SshOptions {
            hosts: list("hosts"),
            workers_per_host: number("workers_per_host").unwrap_or(1),
            setup: list("setup"),
            ssh: Some(words("ssh"))
                .filter(|command| !command.is_empty())
                .unwrap_or_else(|| ["ssh", "-o", "BatchMode=yes"].map(String::from).to_vec()),
        }),
        _ => {
            let own = ["workers", "address"].iter().chain(options_of(kind)).filter(|option| **option != "launch");
            let given = own.filter_map(|&option| Some((option.to_string(), get(option)?.as_value())));
            Access::Bridge { options: given.collect(), launch: words("launch") }
        }
    };
    Remote {
        name: name.to_string(),
        kind,
        start_timeout: get("start_timeout").and_then(units::duration).unwrap_or(START_TIMEOUT),
        upload: list("upload"),
        address: text("address").filter(|_| kind != RemoteKind::Ray),
        interpreter: text("interpreter"),
        access,
    }
}

fn whole(node: &Node) -> Option<usize> {
    match node.scalar()?.value {
        Value::Int(n) => usize::try_from(n).ok(),
        _ => None,
    }
}

/// A limit of time: a duration, or as Slurm writes it: `MIN`, `MIN:SEC`, `H:MIN:SEC`, `D-H[:MIN[:SEC]]`.
fn slurm_time(text: &str) -> Option<Duration> {
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (Some(days.parse::<u64>().ok()?), rest),
        None => (None, text),
    };
    let parts: Option<Vec<u64>> = rest.split(':').map(|part| part.parse().ok()).collect();
    let seconds = match (days, parts.as_deref()) {
        (None, None) => return units::duration_of(text).filter(|limit| !limit.is_zero()),
        (None, Some([minutes])) => minutes * 60,
        (None, Some([minutes, seconds])) => minutes * 60 + seconds,
        (None, Some([hours, minutes, seconds])) => hours * 3600 + minutes * 60 + seconds,
        (Some(days), Some([hours, rest @ ..])) if rest.len() <= 2 => {
            let rest = rest.first().unwrap_or(&0) * 60 + rest.get(1).unwrap_or(&0);
            days * 86400 + hours * 3600 + rest
        }
        _ => return None,
    };
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_time_are_read_as_slurm_writes_them() {
        let seconds = |text: &str| slurm_time(text).map(|time| time.as_secs());
        assert_eq!(seconds("30"), Some(1800));
        assert_eq!(seconds("30:05"), Some(1805));
        assert_eq!(seconds("2:00:01"), Some(7201));
        assert_eq!(seconds("1-12"), Some(129_600));
        assert_eq!(seconds("1-12:30"), Some(131_400));
        assert_eq!(seconds("1-12:30:05"), Some(131_405));
        assert_eq!(seconds("90m"), Some(5400));
        assert_eq!(["", "0", "soon", "1:2:3:4", "1-", "a-1"].map(seconds), [None; 6]);
    }
}
