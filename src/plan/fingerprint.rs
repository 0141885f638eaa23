//! What a stage's results depend on apart from its rows, part by part, so that a plan can say what changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::code;
use crate::data::Hash;
use crate::data::secrets::{HIDDEN, Secrets, hashed};

/// The parts of a stage's version: a name such as `code:features.py` or `args.min_size`, and a value or a hash of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    parts: BTreeMap<String, String>,
    /// Names of what parts stand for, for people: no part of the version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    names: BTreeMap<String, String>,
}

/// One part that differs between two versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// `code_changed`, `args_changed`, `version_changed`, `deps_changed`, `init_changed`, `packages_changed`,
    /// `share_changed`.
    pub reason: &'static str,
    /// In words: `args.min_size: 3 → 5`.
    pub words: String,
}

impl Fingerprint {
    /// Adds a part.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.parts.insert(name.into(), value.into());
    }

    /// Adds a part that people know by another name, which does not count.
    pub fn add_named(&mut self, name: impl Into<String>, value: impl Into<String>, known_as: &str) {
        let name = name.into();
        self.names.insert(name.clone(), known_as.to_string());
        self.add(name, value);
    }

    /// The value of a part.
    pub fn get(&self, name: &str) -> Option<&String> {
        self.parts.get(name)
    }

    /// The hash of all parts.
    pub fn version(&self) -> Hash {
        let parts = self.parts.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
        Hash::of_parts(parts)
    }

    /// What may be shown and stored of it: hashes stand for parts that hold a secret. The version is made before.
    #[must_use]
    pub fn without(&self, secrets: &Secrets) -> Fingerprint {
        let parts = self.parts.iter();
        let hidden = parts.map(|(name, value)| (secrets.hide(name).into_owned(), secrets.stand_in(value).into_owned()));
        let names = self.names.iter();
        let names = names.map(|(part, name)| (part.clone(), secrets.hide(name).into_owned())).collect();
        Fingerprint { parts: hidden.collect(), names }
    }

    /// As stored.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("text maps serialise")
    }

    /// As stored, read back; `None` when it is of a form not known here.
    pub fn from_json(json: &str) -> Option<Fingerprint> {
        serde_json::from_str(json).ok()
    }

    /// What changed from `old` to this one.
    pub fn changes_since(&self, old: &Fingerprint) -> Vec<Change> {
        let names: std::collections::BTreeSet<&String> = self.parts.keys().chain(old.parts.keys()).collect();
        names
            .into_iter()
            .filter(|name| !same(name, self.parts.get(*name), old.parts.get(*name)))
            .flat_map(|name| match name.starts_with("share.") {
                true => vec![share_change(name, old.names.get(name), self.names.get(name))],
                false => changes(name, old.parts.get(name), self.parts.get(name)),
            })
            .collect()
    }
}

/// Whether two parts are equal; one of them may have become a secret since.
fn same(name: &str, one: Option<&String>, other: Option<&String>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) if one.starts_with(HIDDEN) => one == other || *one == hashed(other),
        (Some(one), Some(other)) if other.starts_with(HIDDEN) => *other == hashed(one),
        (Some(one), Some(other)) if is_code(name) => code::same(one, other),
        (one, other) => one == other,
    }
}

/// Whether a part is of code, told in detail.
fn is_code(name: &str) -> bool {
    name.starts_with("code:") || name.starts_with("script:")
}

fn changes(name: &str, old: Option<&String>, new: Option<&String>) -> Vec<Change> {
    match name.split_once(':').filter(|_| is_code(name)) {
        Some((kind, file)) => code::changes(kind, file, old.map(String::as_str), new.map(String::as_str))
            .into_iter()
            .map(|words| Change { reason: "code_changed", words })
            .collect(),
        None => vec![change(name, old, new)],
    }
}

fn change(name: &str, old: Option<&String>, new: Option<&String>) -> Change {
    let shown = |value: Option<&String>| value.map_or("none".to_string(), |v| shorten(v));
    let (group, rest) = name.split_once([':', '.']).unwrap_or((name, ""));
    let hidden = |value: Option<&String>| value.is_some_and(|v| v.starts_with(HIDDEN));
    let told = |name: &str| match hidden(old) || hidden(new) {
        true => format!("{name} changed"),
        false => format!("{name}: {} → {}", shown(old), shown(new)),
    };
    let (reason, words) = match group {
        "args" => ("args_changed", told(rest)),
        "params" => ("args_changed", told(name)),
        "env" => ("args_changed", format!("{name} changed")),
        "deps" => ("deps_changed", format!("{rest} changed")),
        "package" => ("packages_changed", told(rest)),
        "version" => ("version_changed", told("version")),
        "init" => ("init_changed", told("init")),
        _ => ("code_changed", told(name)),
    };
    Change { reason, words }
}

/// What was shared and what is; rows of stages have no name here.
fn share_change(part: &str, old: Option<&String>, new: Option<&String>) -> Change {
    let words = match (old, new) {
        (Some(old), Some(new)) if old == new => format!("{part}: {new} changed"),
        (old, new) => {
            let shown = |name: Option<&String>| name.map_or("none", String::as_str).to_string();
            format!("{part}: {} → {}", shown(old), shown(new))
        }
    };
    Change { reason: "share_changed", words }
}

fn shorten(value: &str) -> String {
    let line = value.replace('\n', " ");
    match line.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(parts: &[(&str, &str)]) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        parts.iter().for_each(|(name, value)| fingerprint.add(*name, *value));
        fingerprint
    }

    #[test]
    fn equal_parts_give_equal_versions_and_no_changes() {
        let a = fingerprint(&[("args.n", "1"), ("code:f.py", "ab")]);
        let b = fingerprint(&[("code:f.py", "ab"), ("args.n", "1")]);
        assert_eq!(a.version(), b.version());
        assert_eq!(a.changes_since(&b), []);
    }

    #[test]
    fn every_difference_is_named_with_its_reason() {
        let old = fingerprint(&[("args.n", "1"), ("code:f.py", "ab"), ("version", "1")]);
        let new = fingerprint(&[("args.n", "2"), ("code:f.py", "cd"), ("params.k", "7")]);
        let changes = new.changes_since(&old);
        let told: Vec<_> = changes.iter().map(|c| (c.reason, c.words.as_str())).collect();
        assert_eq!(
            told,
            [
                ("args_changed", "n: 1 → 2"),
                ("code_changed", "f.py changed"),
                ("args_changed", "params.k: none → 7"),
                ("version_changed", "version: 1 → none"),
            ]
        );
        assert_ne!(old.version(), new.version());
    }

    #[test]
    fn where_a_part_ends_counts() {
        assert_ne!(fingerprint(&[("a", "bc")]).version(), fingerprint(&[("ab", "c")]).version());
    }

    #[test]
    fn stored_form_reads_back() {
        let a = fingerprint(&[("args.n", "1")]);
        assert_eq!(Fingerprint::from_json(&a.to_json()), Some(a));
    }
}
