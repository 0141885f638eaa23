//! Suspects: items that were in hand when an earlier run was killed.

use std::sync::Arc;
use std::time::Instant;

use super::{Dispatcher, KEEP_EVERY, Mode};
use crate::data::{Table, Usage};
use crate::engine::dispatcher::outflow::Ended;
use crate::engine::events::Event;
use crate::engine::stage::Pending;
use crate::engine::suspects::{Marks, Suspicion, condemned};
use crate::executor::TaskId;

impl Dispatcher<'_> {
    /// Queues due items; suspects apart from the others.
    pub(super) fn admit(&mut self, stage: usize, due: Pending) {
        let run = &mut self.stages[stage];
        if self.orders.suspects.is_empty() {
            return run.enqueue(due);
        }
        let marks = Marks::of(&run.planned);
        let (mut free, mut condemned) = (Vec::new(), Vec::new());
        for i in 0..due.len() as u32 {
            match self.orders.suspects.suspicion(due.mark(marks, i as usize)) {
                Suspicion::None => free.push(i),
                Suspicion::RunAlone => run.suspects.push_back(due.take(&[i])),
                Suspicion::Condemned => condemned.push(i),
            }
        }
        run.enqueue(due.take(&free));
        let alone = due.len() - free.len() - condemned.len();
        if alone > 0 {
            let stage = run.planned.name.clone();
            let _ = self.lines.events.send(Event::Suspects { stage, items: alone as u64 });
        }
        if !condemned.is_empty() {
            self.condemn(stage, due.take(&condemned));
        }
    }

    /// These items fail without being run.
    fn condemn(&mut self, stage: usize, items: Pending) {
        let run = &mut self.stages[stage];
        let marks = Marks::of(&run.planned);
        (0..items.len()).for_each(|i| self.orders.suspects.clear(items.mark(marks, i)));
        let count = items.len() as u64;
        run.counts.due -= count;
        run.counts.running += count;
        run.uncommitted += count;
        let failed = (0..items.len() as u32).map(|i| (i, condemned(), Usage::default())).collect();
        let pending = Arc::new(items);
        let ended = Ended {
            pending,
            done: Vec::new(),
            counts: None,
            added: Table::empty(0),
            failed,
            usage: Vec::new(),
            made: Vec::new(),
        };
        self.commit(stage, ended, false);
    }

    /// Whether suspects wait or run: nothing else is handed to a worker then.
    pub(super) fn has_suspects(&self) -> bool {
        self.alone.is_some() || self.stages.iter().any(|run| !run.suspects.is_empty())
    }

    /// Hands out the next suspect once nothing is in hand, and all that ended before is durable.
    pub(super) fn run_suspects(&mut self) {
        if self.outside_tasks > 0 || self.stages.iter().any(|run| run.uncommitted > 0) {
            return;
        }
        let next = self.stages.iter_mut().enumerate().find_map(|(stage, run)| Some((stage, run.suspects.pop_front()?)));
        if let Some((stage, suspect)) = next {
            self.hand_out(stage, suspect);
            self.alone = Some(self.last_task);
        }
    }

    /// The items of the task ended without harm to bpp-flow.
    pub(super) fn clear_suspicion(&mut self, task: TaskId) {
        if self.alone != Some(task) {
            return;
        }
        let Some(inflight) = self.tasks.get(&task) else { return };
        let marks = Marks::of(&self.stages[inflight.stage].planned);
        (0..inflight.pending.len()).for_each(|i| self.orders.suspects.clear(inflight.pending.mark(marks, i)));
    }

    /// Has the executor make durable what is in hand, now and then.
    pub(super) fn keep_in_hand(&mut self) {
        if self.mode != Mode::Stopping && self.kept.elapsed() >= KEEP_EVERY {
            self.kept = Instant::now();
            self.executor.keep_in_hand();
        }
    }
}
