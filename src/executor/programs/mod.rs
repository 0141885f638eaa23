//! Programs that give a source's rows: Python generators and commands, each under a keeper of its own.
//!
//! They run as fast as their rows are taken: what they have ahead is what a socket or pipe holds. When no more is
//! wanted (the reader is dropped, or everything is stopped) they are asked to end by SIGTERM, and killed after a
//! second, with all that they started.

mod command;
mod generator;
mod process;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::seat::Wake;
use crate::data::Secrets;
use crate::data::source::{Draft, Programs, SourceError, SourceReader};
use crate::spec::model::Program;
use command::Lines;
use generator::Generator;

/// Runs programs that give rows.
pub struct SourcePrograms {
    crew: Arc<Crew>,
    secrets: Arc<Secrets>,
    /// Finds the Python that is named (or the usual one), or says which is not there.
    interpreter: fn(Option<&str>, &Path) -> Result<PathBuf, String>,
}

impl SourcePrograms {
    /// Programs that run in the folder `dir`. What they say is told without `secrets`.
    ///
    /// The process must call [`super::keeper::main_if_keeper`] first of all: it is executed again as a keeper.
    pub fn new(
        dir: &Path,
        secrets: Arc<Secrets>,
        interpreter: fn(Option<&str>, &Path) -> Result<PathBuf, String>,
    ) -> SourcePrograms {
        let crew = Crew { dir: dir.to_path_buf(), running: Mutex::default(), ended: Condvar::new() };
        SourcePrograms { crew: Arc::new(crew), secrets, interpreter }
    }
}

impl Programs for SourcePrograms {
    fn read(&self, source_name: &str, program: &Program, draft: Draft) -> Result<SourceReader, SourceError> {
        let secrets = self.secrets.clone();
        let source_name = source_name.to_string();
        let failed = move |what: String| {
            let what = secrets.hide(&what).into_owned();
            SourceError::Program { source_name: source_name.clone(), what }
        };
        match program {
            Program::Python { interpreter, .. } => {
                let python = (self.interpreter)(interpreter.as_deref(), &self.crew.dir).map_err(&failed)?;
                let rows = Generator::start(&self.crew, &python, program, draft).map_err(&failed)?;
                Ok(SourceReader::new(rows.map(move |batch| batch.map_err(&failed))))
            }
            Program::Command { argv } => {
                let rows = Lines::start(&self.crew, argv, draft).map_err(&failed)?;
                Ok(SourceReader::new(rows.map(move |batch| batch.map_err(&failed))))
            }
        }
    }

    fn stop(&self) {
        let mut running = self.crew.running();
        running.stopping = true;
        running.wakes.iter().for_each(|wake| wake.wake());
    }

    fn wait(&self) {
        let mut running = self.crew.running();
        while !running.wakes.is_empty() {
            running = self.crew.ended.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What all programs share.
struct Crew {
    dir: PathBuf,
    running: Mutex<Running>,
    /// One has ended.
    ended: Condvar,
}

#[derive(Default)]
struct Running {
    stopping: bool,
    /// Wakes the readers of those that run, one each.
    wakes: Vec<Arc<Wake>>,
}

impl Crew {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.running().stopping
    }
}

/// A program's place among those that run; it is free again when this is dropped.
struct Place {
    crew: Arc<Crew>,
    wake: Arc<Wake>,
}

impl Place {
    fn take(crew: &Arc<Crew>) -> Result<Place, String> {
        let wake = Arc::new(Wake::new().map_err(|e| format!("cannot be watched: {e}"))?);
        let mut running = crew.running();
        if running.stopping {
            return Err(STOPPED.to_string());
        }
        running.wakes.push(wake.clone());
        Ok(Place { crew: crew.clone(), wake })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crew.running().wakes.retain(|wake| !Arc::ptr_eq(wake, &self.wake));
        self.crew.ended.notify_all();
    }
}

/// What is told of a program whose run is over.
const STOPPED: &str = "it was stopped";
