//! Where modules are found, as Python finds them: the folders of the path one after the other; in each a package goes
//! before a compiled module, that before a `.py`; folders without `__init__` are packages only if nothing else is found.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A module of the project's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its file; none for a package without `__init__`.
    pub file: Option<PathBuf>,
    /// The folders in which its own modules are looked for; empty unless it is a package.
    pub folders: Vec<PathBuf>,
}

/// Looks for modules; folders are listed once.
#[derive(Debug)]
pub(super) struct Finder {
    /// The workflow's folder.
    base: PathBuf,
    roots: Vec<PathBuf>,
    listed: RefCell<HashMap<PathBuf, Rc<HashSet<String>>>>,
    found: RefCell<HashMap<String, Option<Found>>>,
}

impl Finder {
    /// With the folders of Python's path that hold the project's own modules.
    pub fn new(base: PathBuf, roots: Vec<PathBuf>) -> Finder {
        Finder { base, roots, listed: RefCell::default(), found: RefCell::default() }
    }

    /// The module of that full name, if it is one of the project's own.
    pub fn find(&self, module: &str) -> Option<Found> {
        if let Some(known) = self.found.borrow().get(module) {
            return known.clone();
        }
        let found = match module.rsplit_once('.') {
            Some((package, name)) => self.find(package).and_then(|package| self.look(&package.folders, name)),
            None => self.look(&self.roots, module),
        };
        self.found.borrow_mut().insert(module.to_string(), found.clone());
        found
    }

    fn look(&self, folders: &[PathBuf], name: &str) -> Option<Found> {
        let mut portions = Vec::new();
        for folder in folders {
            let names = self.names(folder);
            let inside = folder.join(name);
            if names.contains(name) {
                if let Some(file) = self.file_in(&inside, "__init__") {
                    return Some(Found { file: Some(file), folders: vec![inside] });
                }
                if inside.is_dir() {
                    portions.push(inside);
                }
            }
            if let Some(file) = self.file_in(folder, name) {
                return Some(Found { file: Some(file), folders: Vec::new() });
            }
        }
        (!portions.is_empty()).then_some(Found { file: None, folders: portions })
    }

    /// `name.py` in a folder, or its compiled form.
    fn file_in(&self, folder: &Path, name: &str) -> Option<PathBuf> {
        let names = self.names(folder);
        let compiled =
            |file: &&String| file.strip_prefix(name).is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".so"));
        // Looking through all names costs; there is no compiled module without a `.so`.
        let compiled = names.get(SOME_COMPILED).and_then(|_| names.iter().filter(compiled).min().cloned());
        let candidates = compiled.into_iter().chain([format!("{name}.py"), format!("{name}.pyc")]);
        candidates.filter(|file| names.contains(file)).map(|file| folder.join(file)).find(|path| path.is_file())
    }

    fn names(&self, folder: &Path) -> Rc<HashSet<String>> {
        if let Some(known) = self.listed.borrow().get(folder) {
            return known.clone();
        }
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: HashSet<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        if names.iter().any(|name| name.ends_with(".so")) {
            names.insert(SOME_COMPILED.to_string());
        }
        let names = Rc::new(names);
        self.listed.borrow_mut().insert(folder.to_path_buf(), names.clone());
        names
    }

    /// The modules directly in a package.
    pub fn children(&self, package: &str) -> Vec<String> {
        let folders = self.find(package).map(|found| found.folders).unwrap_or_default();
        let mut children = Vec::new();
        for folder in &folders {
            for name in self.names(folder).iter() {
                let module = name.split('.').next().unwrap_or_default();
                let child = format!("{package}.{module}");
                if !module.is_empty() && module != "__init__" && module != "__pycache__" && self.find(&child).is_some()
                {
                    children.push(child);
                }
            }
        }
        children.sort();
        children.dedup();
        children
    }

    /// A file's path as it is told: relative to the workflow's folder, else to that in which it was looked for.
    pub fn shown(&self, file: &Path) -> String {
        let mut folders = [&self.base].into_iter().chain(&self.roots);
        let relative = folders.find_map(|folder| file.strip_prefix(folder).ok());
        relative.unwrap_or(file).display().to_string()
    }
}

/// Stands among a folder's names where one of them is a compiled module; no file can have this name.
const SOME_COMPILED: &str = "/";
