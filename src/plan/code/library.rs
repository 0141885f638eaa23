//! The outlines of files, each made once; many at a time where it is known beforehand which will be needed.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::finder::Finder;
use super::outline::Outline;
use super::refers::Imported;
use crate::data::{Hash, source};

/// Outlines by file.
#[derive(Debug, Default)]
pub(super) struct Library(RefCell<HashMap<PathBuf, Read>>);

type Read = Result<Arc<Outline>, Arc<io::Error>>;

/// A file that code depends on cannot be read.
#[derive(Debug, Clone)]
pub struct Unreadable {
    pub path: PathBuf,
    pub error: Arc<io::Error>,
}

impl Library {
    /// The outline of a file.
    pub fn outline(&self, file: &Path) -> Result<Arc<Outline>, Unreadable> {
        let known = self.0.borrow().get(file).cloned();
        let outline = known.unwrap_or_else(|| {
            let made = read(file);
            self.0.borrow_mut().insert(file.to_path_buf(), made.clone());
            made
        });
        outline.map_err(|error| Unreadable { path: file.to_path_buf(), error })
    }

    /// Makes the outlines of these modules and of all that they import, on all cores.
    pub fn fetch(&self, finder: &Finder, modules: impl IntoIterator<Item = String>) {
        let mut seen: HashSet<String> = HashSet::new();
        let mut wave: Vec<String> = modules.into_iter().collect();
        while !wave.is_empty() {
            let mut files = Vec::new();
            for module in std::mem::take(&mut wave) {
                let packages = module.match_indices('.').map(|(end, _)| &module[..end]);
                for name in packages.chain([&*module]) {
                    if !seen.contains(name) {
                        seen.insert(name.to_string());
                        let found = finder.find(name);
                        let is_package = found.as_ref().is_some_and(|found| !found.folders.is_empty());
                        files.extend(
                            found.and_then(|found| found.file).map(|file| (name.to_string(), is_package, file)),
                        );
                    }
                }
            }
            let new = files.iter().map(|(_, _, file)| file.clone()).filter(|file| !self.0.borrow().contains_key(file));
            let new: Vec<PathBuf> = new.collect();
            let made: Vec<_> = new.par_iter().map(|file| read(file)).collect();
            self.0.borrow_mut().extend(new.into_iter().zip(made));
            for (name, is_package, file) in &files {
                if let Ok(outline) = self.outline(file) {
                    wave.extend(imported(&outline, name, *is_package));
                }
            }
        }
    }
}

/// The names of all modules that a module may import.
fn imported(outline: &Outline, name: &str, is_package: bool) -> Vec<String> {
    let mut names = Vec::new();
    for import in outline.units.iter().flat_map(|unit| &unit.imports) {
        let Some(base) = resolve(name, is_package, import.level, &import.module) else { continue };
        if let Imported::Name { name, .. } = &import.what {
            names.push(format!("{base}.{name}"));
        }
        names.push(base);
    }
    names
}

/// The full name of a module as an import statement in another one names it.
pub(super) fn resolve(module: &str, is_package: bool, level: u32, name: &str) -> Option<String> {
    if level == 0 {
        return Some(name.to_string());
    }
    let mut package = module;
    for _ in 0..if is_package { level - 1 } else { level } {
        package = package.rsplit_once('.')?.0;
    }
    Some(if name.is_empty() { package.to_string() } else { format!("{package}.{name}") })
}

fn read(file: &Path) -> Read {
    let outline = if file.extension().is_some_and(|extension| extension == "so" || extension == "pyc") {
        source::file_digest(file, None).map(|(_, digest)| Outline::of_binary(Hash::of(&digest)))
    } else {
        std::fs::read(file).map(|bytes| Outline::of(&bytes))
    };
    outline.map(Arc::new).map_err(Arc::new)
}
