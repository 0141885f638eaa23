//! How a file's code stands in a [`super::super::Fingerprint`], and what is told when it has changed.
//!
//! A part's value is a hash of all that counts of the file, and then, for telling only, the definitions that count
//! with short hashes: `6f0a… *:1c2d3e fmeasure:9a8b7c vSCALE:405060`.

use std::collections::BTreeMap;

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
    (Hash::of(&all), detail)
}

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

/// What changed in a file, in words.
pub(in super::super) fn changes(file: &str, old: Option<&str>, new: Option<&str>) -> Vec<String> {
    let (Some(old), Some(new)) = (old, new) else {
        let now = if new.is_some() { "is imported now" } else { "is not imported any more" };
        return vec![format!("{file} {now}")];
    };
    let (old, new) = (definitions(old), definitions(new));
    let mut told = Vec::new();
    if !old.is_empty() && !new.is_empty() {
        let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names {
            let what = called(name, file);
            match (old.get(name), new.get(name)) {
                (Some(old), Some(new)) if old == new => {}
                (Some(_), Some(_)) => told.push(format!("{what} changed")),
                (None, _) if name == "*" => told.push(format!("{what} changed")),
                (_, None) if name == "*" => told.push(format!("{what} changed")),
                (None, _) => told.push(format!("{what} is used now")),
                (_, None) => told.push(format!("{what} is not used any more")),
            }
        }
    }
    if told.is_empty() {
        told.push(format!("{file} changed"));
    }
    told
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
