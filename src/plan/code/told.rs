//! How a file's code stands in a [`super::super::Fingerprint`], and what is told when it has changed.
//!
//! A part's value is a hash of all that counts of the file, and then, for telling only, the definitions that count
//! with short hashes: `6f0a… *:1c2d3e fmeasure:9a8b7c vSCALE:405060`; a `-` if there are none.

use std::collections::{BTreeMap, BTreeSet};

use super::outline::Kind;
use super::reach::Reached;
use super::refers::Doubts;
use crate::data::Hash;

/// The longest that all parts of a version together tell in detail; beyond it, files are told of as a whole.
pub(super) const MOST_DETAIL: usize = 16 << 10;

/// The hash of what counts of a file, and the detail behind it.
pub(super) fn value_of(reached: &Reached, doubts: Doubts) -> (Hash, String) {
    let outline = &reached.outline;
    if doubts.source || outline.opaque {
        return (outline.content, String::new());
    }
    let units =
        outline.units.iter().zip(&reached.units).filter(|(unit, counts)| **counts && (doubts.docs || !unit.is_docs));
    let mut all = Vec::new();
    let mut detail = String::new();
    let mut statements = Vec::new();
    for (unit, _) in units {
        let hash = if doubts.docs { unit.documented } else { unit.hash };
        let letter = match unit.kind {
            Kind::Function => 'f',
            Kind::Class => 'c',
            Kind::Value => 'v',
            Kind::Import | Kind::Statement => '*',
        };
        all.extend((unit.name.len() as u64).to_le_bytes());
        all.extend(unit.name.bytes());
        all.push(letter as u8);
        all.extend(hash.0);
        match letter {
            '*' => statements.extend(hash.0),
            _ => {
                end_statements(&mut detail, &mut statements);
                detail += &format!(" {letter}{}:{}", unit.name.replace(", ", ","), short(hash));
            }
        }
    }
    end_statements(&mut detail, &mut statements);
    if detail.is_empty() {
        detail += " -";
    }
    (Hash::of(&all), detail)
}

/// Stands for all statements between two definitions.
const STATEMENTS: &str = "*";

fn end_statements(detail: &mut String, statements: &mut Vec<u8>) {
    if !statements.is_empty() {
        *detail += &format!(" *:{}", short(Hash::of(statements)));
        statements.clear();
    }
}

fn short(hash: Hash) -> String {
    hash.to_string()[..6].to_string()
}

/// Whether two values are of the same code, whatever they tell in detail.
pub(in super::super) fn same(one: &str, other: &str) -> bool {
    let hash = |value: &str| value.split(' ').next().map(str::to_string);
    hash(one) == hash(other)
}

/// What changed in a file, in words; `kind` is `code` or `script`.
pub(in super::super) fn changes(kind: &str, file: &str, old: Option<&str>, new: Option<&str>) -> Vec<String> {
    let is_script = kind == "script";
    let whole = if is_script { format!("script {file}") } else { file.to_string() };
    let (Some(old), Some(new)) = (old, new) else {
        let verb = if is_script { "used" } else { "imported" };
        let now = if new.is_some() { "now" } else { "no longer" };
        return vec![if new.is_some() {
            format!("{whole} is {verb} {now}")
        } else {
            format!("{whole} is {now} {verb}")
        }];
    };
    let in_detail = old.contains(' ') && new.contains(' ');
    let (old, new) = (definitions(old), definitions(new));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let told = names.into_iter().filter_map(|name| {
        let how = match (old.get(name), new.get(name)) {
            (old, new) if old == new => return None,
            (None, _) if name != STATEMENTS => "is used now",
            (_, None) if name != STATEMENTS => "is no longer used",
            _ => "changed",
        };
        Some(format!("{} {how}", called(name, file)))
    });
    let told: Vec<String> = told.filter(|_| in_detail).collect();
    if told.is_empty() { vec![format!("{whole} changed")] } else { told }
}

/// The definitions told of in a value, with their hashes.
fn definitions(value: &str) -> BTreeMap<String, String> {
    let mut definitions: BTreeMap<String, String> = BTreeMap::new();
    for (name, hash) in value.split(' ').skip(1).filter_map(|word| word.rsplit_once(':')) {
        *definitions.entry(name.to_string()).or_default() += hash;
    }
    definitions
}

fn called(name: &str, file: &str) -> String {
    let (kind, name) = name.split_at(name.chars().next().map_or(0, char::len_utf8));
    let kind = match kind {
        "f" => "function",
        "c" => "class",
        "v" if name.chars().any(char::is_lowercase) => "value",
        "v" => "constant",
        _ => return format!("the top level of {file}"),
    };
    format!("{kind} {} in {file}", name.replace(',', ", "))
}
