//! What a Python function's results depend on: the code that it can reach, found without running any.
//!
//! A [`Project`] looks for modules where the worker does, in the workflow's folder first; modules that are installed
//! are none of its own and do not count. [`Project::parts`] gives one part per file for a
//! [`Fingerprint`](super::Fingerprint).
//!
//! - [`outline`]: a file taken apart into units (definitions, values, imports, statements), each with a hash of its
//!   code as [`canon`] writes it: without comments, layout and docstrings.
//! - [`refers`], [`scope`], [`quiet`]: what a unit refers to, by which names; whether running it does anything else
//!   than binding its name.
//! - [`finder`], [`library`], [`reach`]: where modules lie, their outlines, and what of them a function reaches.
//! - [`told`]: how that is kept, and what is told when it has changed.
//!
//! A wrong "counts" is a nuisance, a wrong "does not count" a stale result: whatever is not sure counts.

mod canon;
mod finder;
mod library;
mod outline;
mod quiet;
mod reach;
mod refers;
mod scope;
mod signature;
mod syntax;
mod told;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use finder::Finder;
use library::Library;
pub use library::Unreadable;
use reach::{All, Reach};
pub(super) use signature::{Signature, signature};
pub(super) use told::{changes, same};

/// The modules that a worker finds.
#[derive(Debug)]
pub struct Project {
    finder: Finder,
    library: Rc<Library>,
}

/// Projects that look in different folders, with files in common.
#[derive(Debug)]
pub struct Projects {
    /// The workflow's folder.
    base: PathBuf,
    library: Rc<Library>,
    seen: RefCell<Vec<(Vec<PathBuf>, Rc<Project>)>>,
}

impl Projects {
    /// Of a workflow in this folder.
    pub fn new(base: PathBuf) -> Projects {
        Projects { base, library: Rc::default(), seen: RefCell::default() }
    }

    /// The project whose modules are looked for in these folders: the workflow's first, then those of `PYTHONPATH`.
    pub fn seen_from(&self, folders: Vec<PathBuf>) -> Rc<Project> {
        if let Some((_, project)) = self.seen.borrow().iter().find(|(seen, _)| *seen == folders) {
            return project.clone();
        }
        let project =
            Rc::new(Project { finder: Finder::new(self.base.clone(), folders.clone()), library: self.library.clone() });
        self.seen.borrow_mut().push((folders, project.clone()));
        project
    }
}

impl Project {
    /// The file of a module, if it is one of the project's own.
    pub fn file_of(&self, module: &str) -> Option<PathBuf> {
        self.finder.find(module)?.file
    }

    /// What these functions (module and name) depend on together: `code:features.py` and so on, with values in which
    /// different code differs. A function of an installed module gives the part `installed`.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn parts(&self, functions: &[(&str, &str)]) -> Result<Vec<(String, String)>, Unreadable> {
        self.library.fetch(&self.finder, functions.iter().map(|(module, _)| module.to_string()));
        let mut reach = Reach::new(&self.finder, &self.library);
        let mut parts = Vec::new();
        for (module, function) in functions {
            if !reach.function(module, function) {
                parts.push((format!("code:{module}"), "installed".to_string()));
            }
        }
        let first = functions.first().and_then(|(module, _)| self.file_of(module));
        parts.extend(self.told(reach, first, "code")?);
        Ok(parts)
    }

    /// What running a Python file depends on: `script:tools/convert.py`, and `code:` of what it imports.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn script_parts(&self, file: &Path) -> Result<Vec<(String, String)>, Unreadable> {
        let mut reach = Reach::new(&self.finder, &self.library);
        reach.script(file);
        self.told(reach, Some(file.to_path_buf()), "script")
    }

    /// What `python -m module` depends on.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn run_parts(&self, module: &str) -> Result<Vec<(String, String)>, Unreadable> {
        let main = format!("{module}.__main__");
        let module = if self.finder.find(&main).is_some() { &main } else { module };
        self.library.fetch(&self.finder, [module.to_string()]);
        let mut reach = Reach::new(&self.finder, &self.library);
        reach.run_module(module);
        self.told(reach, self.file_of(module), "code")
    }

    /// The parts of all that was reached, `first` the file of the given kind, all others `code`. Files that come first
    /// tell in detail as long as there is room.
    fn told(&self, reach: Reach<'_>, first: Option<PathBuf>, kind: &str) -> Result<Vec<(String, String)>, Unreadable> {
        let first = first.map(|file| self.finder.shown(&file));
        let All { files, doubts } = reach.finish()?;
        let mut files: Vec<_> = files.into_iter().collect();
        files.sort_by_key(|(file, _)| first.as_ref() != Some(file));
        let mut room = told::MOST_DETAIL;
        let parts = files.into_iter().map(|(file, reached)| {
            let (hash, detail) = told::value_of(&reached, doubts);
            let fits = detail.len() <= room;
            room = room.saturating_sub(detail.len());
            let kind = if first.as_ref() == Some(&file) { kind } else { "code" };
            (format!("{kind}:{file}"), if fits { format!("{hash}{detail}") } else { hash.to_string() })
        });
        Ok(parts.collect())
    }
}
