//! Items that make files: between the executor's word and the writer, their files are moved to their places.

use std::path::PathBuf;

use super::{Dispatcher, Message};
use crate::engine::made::{Staged, makes_files, settle};
use crate::executor::{Outcomes, TaskId};

impl Dispatcher<'_> {
    /// Takes what an executor tells of some items; first their files are settled, in the background.
    pub(super) fn part_ended(&mut self, task: TaskId, outcomes: Outcomes) {
        let Some(inflight) = self.tasks.get_mut(&task) else { return };
        if !makes_files(&self.stages[inflight.stage].planned) {
            return self.part(task, outcomes, Vec::new());
        }
        let files = &mut inflight.files;
        let gone = outcomes.failed.iter().filter_map(|(item, _)| files.staged.remove(item)).collect();
        let staged: Vec<Staged> = outcomes.done.iter().filter_map(|item| files.staged.remove(item)).collect();
        files.settling += 1;
        let (inbox, digests) = (self.lines.to_inbox.clone(), self.orders.plan.reading.0.digests.clone());
        rayon::spawn(move || {
            drop::<Vec<Staged>>(gone);
            let (outcomes, made) = settle(outcomes, staged, &digests.unwrap_or_default());
            let _ = inbox.send(Message::Settled { task, outcomes, made });
        });
    }

    /// Takes outcomes whose files are in their places.
    pub(super) fn settled_files(&mut self, task: TaskId, outcomes: Outcomes, made: Vec<PathBuf>) {
        self.part(task, outcomes, made);
        let Some(inflight) = self.tasks.get_mut(&task) else { return };
        inflight.files.settling -= 1;
        if inflight.files.settling == 0
            && let Some(unfinished) = inflight.files.end.take()
        {
            self.task_end(task, &unfinished);
        }
    }

    /// Takes the end of a task; not before what it has given is settled.
    pub(super) fn executor_ended(&mut self, task: TaskId, unfinished: Vec<u32>) {
        match self.tasks.get_mut(&task) {
            Some(inflight) if inflight.files.settling > 0 => inflight.files.end = Some(unfinished),
            _ => self.task_end(task, &unfinished),
        }
    }
}

/// Removes the temporary folders of items, in the background.
pub(super) fn discard(staged: Vec<Staged>) {
    if !staged.is_empty() {
        rayon::spawn(move || drop(staged));
    }
}
