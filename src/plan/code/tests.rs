//! What counts and what does not, over small projects. Each case is one edit and whether it must be seen.

mod cases;
mod differential;

use std::collections::{BTreeMap, BTreeSet};

use super::{Projects, changes, same};
use crate::data::source::testing::Folder;

/// A project in a folder; `a.py` holds the function `f`.
struct Tree(Folder);

impl Tree {
    fn with(files: &[(&str, &str)]) -> Tree {
        let tree = Tree(Folder::with(&[]));
        files.iter().for_each(|(name, text)| tree.0.write(name, text.as_bytes()));
        tree
    }

    fn parts(&self) -> BTreeMap<String, String> {
        let project = Projects::new(self.0.path().into()).seen_from(vec![self.0.path().into()]);
        project.parts(&[("a", "f")]).expect("readable").into_iter().collect()
    }

    /// The files that count.
    fn files(&self) -> Vec<String> {
        self.parts().into_keys().map(|name| name.replace("code:", "")).collect()
    }
}

/// What changed from one project to another, in words.
fn told(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut told = Vec::new();
    for name in names {
        let (old, new) = (old.get(name), new.get(name));
        if !old.zip(new).is_some_and(|(old, new)| same(old, new)) {
            told.extend(changes(
                "code",
                name.trim_start_matches("code:"),
                old.map(String::as_str),
                new.map(String::as_str),
            ));
        }
    }
    told
}

/// What is told when one file becomes another.
fn edit(files: &[(&str, &str)], name: &str, text: &str) -> Vec<String> {
    let tree = Tree::with(files);
    let before = tree.parts();
    tree.0.write(name, text.as_bytes());
    told(&before, &tree.parts())
}

#[track_caller]
fn counts(before: &str, after: &str) {
    assert_ne!(edit(&[("a.py", before)], "a.py", after), [""; 0], "{before}\n---\n{after}");
}

#[track_caller]
fn does_not_count(before: &str, after: &str) {
    assert_eq!(edit(&[("a.py", before)], "a.py", after), [""; 0], "{before}\n---\n{after}");
}
