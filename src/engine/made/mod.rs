//! The files that items make (`files:`).
//!
//! An item writes into a temporary folder beside the target ([`Staged`]); when it has succeeded, its files are moved to
//! their targets, and the paths become columns ([`settle`]). Which folders there are at any time stands in a journal, so
//! that the next run removes what a killed one left. A path belongs to the first item of a run that names it
//! ([`Claims`]). What a result says of its files holds while they are there, as they were made ([`check`]).

mod check;
mod claims;
mod journal;
mod settle;
mod staging;
mod sync;

use std::collections::HashMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use check::{Flaw, all_stand, flaws};
pub use claims::Claims;
pub use journal::sweep;
pub use settle::settle;
pub use staging::Staged;
pub use sync::sync;

use self::journal::Journal;
use super::outputs::real;
use crate::data::source::Inputs;
use crate::plan::{Plan, PlannedStage};

/// What names of our temporary folders begin with.
const PREFIX: &str = ".bpp-flow-";

/// Folders whose places are remembered.
const MOST_PLACES: usize = 10_000;

/// Where the files of a run are made.
pub struct Workshop {
    dir: PathBuf,
    /// The workflow's folder and the state's, with their links followed.
    real_dir: PathBuf,
    real_state: PathBuf,
    /// The folders of targets, with their links followed.
    places: Mutex<HashMap<PathBuf, PathBuf>>,
    claims: Claims,
    inputs: Inputs,
    journal: Journal,
}

impl Workshop {
    /// A workshop, if any stage of `selected` makes files. What a killed run has left is swept.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn open(plan: &Plan, selected: &[bool], state_dir: &Path, run: &str) -> io::Result<Option<Arc<Workshop>>> {
        let dir = plan.workflow.dir.clone();
        if !plan.stages.iter().any(|stage| selected[stage.index] && makes_files(stage)) {
            return Ok(None);
        }
        let workshop = Workshop {
            real_dir: real(&dir),
            real_state: real(state_dir),
            places: Mutex::default(),
            claims: Claims::default(),
            inputs: Inputs::of(&plan.workflow.sources),
            journal: Journal::create(state_dir, &dir, &format!("{PREFIX}{run}-{}", std::process::id()))?,
            dir,
        };
        for output in plan.reading.0.excluded.iter() {
            workshop.claims.reserve(&real(output), "an output of the workflow");
        }
        for (path, source) in workshop.inputs.plain() {
            workshop.claims.reserve(&real(&workshop.dir.join(path)), &format!("what the source `{source}` reads"));
        }
        Ok(Some(Arc::new(workshop)))
    }

    /// Removes what is left at the end of a run.
    pub fn close(&self) {
        self.journal.close();
    }

    /// The target of a path that a template gave: where it lies, and how it is shown.
    fn target(&self, path: &str) -> (PathBuf, String) {
        let place = plain(&self.dir.join(path));
        let shown = place.strip_prefix(&self.dir).unwrap_or(&place).to_string_lossy().into_owned();
        (place, shown)
    }

    /// A path with the links in its folder followed; what has no name stays as it is.
    fn real_place(&self, place: &Path) -> PathBuf {
        let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else { return place.to_path_buf() };
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = places.get(parent) {
            return known.join(name);
        }
        if places.len() >= MOST_PLACES {
            places.clear();
        }
        let found = real(parent);
        places.insert(parent.to_path_buf(), found.clone());
        found.join(name)
    }

    /// The path of an item's file, as a result holds it, is the item's own in this run; the error says whose it is.
    ///
    /// # Errors
    /// When another item has it.
    pub fn claim(&self, shown: &str, stage: &PlannedStage, origin: u64, key: &str) -> Result<(), String> {
        let place = self.real_place(&plain(&self.dir.join(shown)));
        self.claims.claim(&place, stage.index, origin, key)
    }
}

/// Whether a stage's items make files.
pub fn makes_files(stage: &PlannedStage) -> bool {
    !stage.settings.files.is_empty()
}

/// A path without `.` and `..`; links are not followed.
fn plain(path: &Path) -> PathBuf {
    let mut place = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = place.pop(),
            Component::CurDir => {}
            part => place.push(part),
        }
    }
    place
}
