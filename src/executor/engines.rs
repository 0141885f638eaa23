//! The executor of a run: this machine's workers, and the engines of others that its stages use.

use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::local::LocalExecutor;
use super::remote::{RemoteExecutor, Surroundings};
use super::{Executor, Report, Task};
use crate::spec::model::Remote;

/// Gives each task to the engine of its pool.
pub struct Engines {
    local: LocalExecutor,
    remote: Vec<(Arc<Remote>, RemoteExecutor)>,
    reports: Sender<Report>,
    around: Surroundings,
}

impl Engines {
    /// Workers of this machine, at most `limit` items at once, and engines as tasks come for them; what happens is told
    /// in `reports`. With `debug_terminal`, Python workers share the terminal.
    ///
    /// The process must call [`super::keeper::main_if_keeper`] first of all: it is executed again as a keeper.
    pub fn new(
        limit: usize,
        reports: Sender<Report>,
        (state_dir, dir, workflow): (&Path, &Path, &str),
        debug_terminal: bool,
    ) -> Engines {
        Engines {
            local: LocalExecutor::new(limit, reports.clone(), state_dir, debug_terminal),
            remote: Vec::new(),
            reports,
            around: Surroundings {
                program: "/proc/self/exe".into(),
                state_dir: state_dir.to_path_buf(),
                dir: dir.to_path_buf(),
                workflow: workflow.to_string(),
            },
        }
    }

    /// The engine, reached out to if it was not before.
    fn remote(&mut self, remote: &Arc<Remote>) -> std::io::Result<&RemoteExecutor> {
        let known = self.remote.iter().position(|(known, _)| Arc::ptr_eq(known, remote) || known == remote);
        let at = match known {
            Some(at) => at,
            None => {
                let executor = RemoteExecutor::new(remote, &self.around, &self.reports)?;
                self.remote.push((remote.clone(), executor));
                self.remote.len() - 1
            }
        };
        Ok(&self.remote[at].1)
    }
}

impl Executor for Engines {
    fn submit(&mut self, task: Task) {
        let Some(remote) = task.job.pool.remote.clone() else { return self.local.submit(task) };
        let (id, items) = (task.id, task.input.len() as u32);
        match self.remote(&remote) {
            Ok(executor) => executor.submit(task),
            Err(e) => {
                let message = format!("cannot start a thread: {e}");
                // Nobody hears it any more when it cannot be sent.
                let _ = self.reports.send(Report::Unavailable { engine: remote.name.clone(), message });
                let _ = self.reports.send(Report::End { task: id, unfinished: (0..items).collect() });
            }
        }
    }

    fn keep_in_hand(&mut self) {
        self.local.keep_in_hand();
    }

    fn drain(&mut self) {
        self.remote.iter().for_each(|(_, executor)| executor.drain());
        self.local.drain();
    }

    fn stop(&mut self) {
        // All at once: an engine may take seconds to end.
        self.remote.iter().for_each(|(_, executor)| executor.ask_to_stop());
        self.local.stop();
        self.remote.iter_mut().for_each(|(_, executor)| executor.stop());
    }
}
