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
use std::path::PathBuf;
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
#[derive(Debug, Default)]
pub struct Projects {
    library: Rc<Library>,
    seen: RefCell<Vec<(Vec<PathBuf>, Rc<Project>)>>,
}

impl Projects {
    /// The project whose modules are looked for in these folders: the workflow's first, then those of `PYTHONPATH`.
    pub fn seen_from(&self, folders: Vec<PathBuf>) -> Rc<Project> {
        if let Some((_, project)) = self.seen.borrow().iter().find(|(seen, _)| *seen == folders) {
            return project.clone();
        }
        let project = Rc::new(Project { finder: Finder::new(folders.clone()), library: self.library.clone() });
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
        let first = first.map(|file| self.finder.shown(&file));
        parts.extend(values(&reach.finish()?, first.as_deref()).map(|(file, value)| (format!("code:{file}"), value)));
        Ok(parts)
    }
}

/// The values of files; those that stand first tell in detail as long as there is room.
fn values(all: &All, first: Option<&str>) -> impl Iterator<Item = (String, String)> {
    let mut files: Vec<_> = all.files.iter().collect();
    files.sort_by_key(|(file, _)| first != Some(file.as_str()));
    let mut room = told::MOST_DETAIL;
    files.into_iter().map(move |(file, reached)| {
        let (hash, detail) = told::value_of(reached, all.doubts);
        let fits = detail.len() <= room;
        room = room.saturating_sub(detail.len());
        (file.clone(), if fits { format!("{hash}{detail}") } else { hash.to_string() })
    })
}
