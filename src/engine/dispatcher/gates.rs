//! Stages that wait for all of their rows, and when a stage has no more to do.

use std::sync::Arc;
use std::time::Instant;

use super::{Dispatcher, Mode, SourceState};
use crate::data::{Batch, Hash};
use crate::engine::events::Event;
use crate::engine::groups::{GroupRows, Groups};
use crate::engine::replay::{Replay, Sources};
use crate::engine::stage::{Arrival, Gate, Pending};
use crate::executor::SharedObject;
use crate::spec::model::{Input, Verb};

impl Dispatcher<'_> {
    pub(super) fn groups(&mut self, stage: usize, groups: Groups) {
        let run = &mut self.stages[stage];
        run.missing = groups.blocked;
        let needs_all = matches!(run.planned.verb, Verb::Reduce { needs_all: true, .. });
        if needs_all && groups.blocked > 0 {
            run.counts.total = groups.batch.len() as u64;
            run.counts.blocked = run.counts.total;
        } else {
            run.counts.total += groups.batch.len() as u64;
            run.started.get_or_insert_with(Instant::now);
            let permit = self.orders.budget.overdraw(groups.batch.bytes());
            match run.resolver.as_ref().map(|r| r.resolve_known(&groups.batch, groups.inputs)) {
                Some(Ok(resolved)) => {
                    self.arrive(
                        stage,
                        Arrival { batch: groups.batch, resolved, first_index: 0, follows: true, permit },
                    );
                }
                Some(Err(error)) => self.break_off(error.into()),
                None => {}
            }
        }
        self.stages[stage].open_inputs = 0;
    }

    pub(super) fn groups_are_due(&mut self, stage: usize, groups: Batch, due: Pending, numbers: Vec<u32>) {
        let replay = self.replay();
        let run = &mut self.stages[stage];
        if run.planned.group_by().is_empty() {
            self.helpers.give_rows(replay, run, None);
            self.admit(stage, due);
        } else {
            run.sent += 1;
            self.helpers.spill(replay, run, groups, numbers);
            self.groups_due.insert(stage, due);
        }
    }

    pub(super) fn spilled(&mut self, stage: usize, rows: Arc<GroupRows>) {
        let replay = self.replay();
        let run = &mut self.stages[stage];
        run.taken += 1;
        self.helpers.give_rows(replay, run, Some(rows));
        if let Some(due) = self.groups_due.remove(&stage) {
            self.admit(stage, due);
        }
    }

    /// A replay of the rows that this run has chosen.
    pub(super) fn replay(&self) -> Replay {
        let mut replay = self.orders.replay.clone();
        if self.orders.limit.is_some() {
            replay.sources = Sources::Chosen(Arc::new(self.chosen.clone()));
        }
        replay
    }

    /// Marks stages that have no more to do, and opens the gates behind them.
    pub(super) fn settle(&mut self) {
        if self.mode != Mode::Running {
            return;
        }
        let plan = self.orders.plan.clone();
        for &index in plan.graph.order() {
            let run = &self.stages[index];
            if !run.selected || run.settled {
                continue;
            }
            match run.gate {
                Gate::Waiting => self.try_gate(index),
                Gate::Open | Gate::Shut if run.open_inputs == 0 && run.is_idle() => self.settled(index),
                Gate::Open | Gate::Shut => {
                    let run = &mut self.stages[index];
                    run.counts.total_known = run.open_inputs == 0 && run.sent == run.taken;
                }
            }
        }
    }

    pub(super) fn settled(&mut self, index: usize) {
        let run = &mut self.stages[index];
        run.settled = true;
        run.counts.total_known = true;
        run.counts.expected = None;
        let (stage, summary, counts) = (run.planned.name.clone(), run.summary(), run.counts);
        let _ = self.lines.events.send(Event::Progress { stage: stage.clone(), counts });
        let _ = self.lines.events.send(Event::StageFinished { stage, summary });
        for consumer in self.open_consumers(Input::Stage(index)) {
            self.stages[consumer].open_inputs -= 1;
        }
        self.check_thresholds(index, true);
    }

    pub(super) fn try_gate(&mut self, index: usize) {
        let planned = self.stages[index].planned.clone();
        let before: Vec<usize> = planned.after.clone();
        if !before.iter().all(|&s| self.stages[s].settled) {
            return;
        }
        let mut ready = true;
        for input in &planned.inputs {
            match *input {
                Input::Source(source) => {
                    self.read_source(source);
                    ready &= self.sources[source] == SourceState::Complete;
                }
                Input::Stage(stage) => ready &= self.stages[stage].settled,
            }
        }
        if !ready {
            return;
        }
        if before.iter().any(|&s| !self.is_clean(s)) {
            return self.shut(index);
        }
        let left = planned.inputs.iter().any(
            |input| matches!(input, Input::Stage(s) if self.stages[*s].left > 0 || self.stages[*s].gate == Gate::Shut),
        );
        if left {
            return self.shut(index);
        }
        let run = &mut self.stages[index];
        run.gate = Gate::Open;
        run.open_inputs = 1;
        let shares = run.planned.shared_stages().next().is_some();
        match shares {
            true => self.helpers.share(self.replay(), &self.stages[index]),
            false => self.open_gate(index),
        }
    }

    /// The rows that a stage shares are there.
    pub(super) fn shared(&mut self, index: usize, objects: Vec<SharedObject>, content: Hash) {
        let run = &mut self.stages[index];
        run.planned = Arc::new(run.planned.with_objects(objects));
        run.shared = Some(content);
        self.open_gate(index);
    }

    fn open_gate(&mut self, index: usize) {
        let replay = self.replay();
        let run = &mut self.stages[index];
        match self.helpers.equip(run, &replay) {
            Ok(()) => self.helpers.open_gate(replay, run),
            Err(error) => self.break_off(error),
        }
    }

    /// Whether a stage ended without failures and without anything left.
    pub(super) fn is_clean(&self, stage: usize) -> bool {
        let run = &self.stages[stage];
        run.counts.failed == 0 && run.counts.blocked == 0 && run.left == 0 && run.gate != Gate::Shut
    }

    /// Whether something that a waiting stage waited for has run.
    pub(super) fn follows_runs(&self, stage: usize) -> bool {
        let planned = &self.stages[stage].planned;
        let inputs = planned.inputs.iter().filter_map(|input| match input {
            Input::Stage(stage) => Some(stage),
            Input::Source(_) => None,
        });
        inputs.chain(&planned.after).any(|&before| self.stages[before].counts.ran > 0)
    }

    pub(super) fn shut(&mut self, index: usize) {
        let planned = self.stages[index].planned.clone();
        let rows = match planned.verb {
            Verb::Reduce { .. } | Verb::Once => 1,
            _ => planned
                .inputs
                .iter()
                .map(|input| match *input {
                    Input::Source(source) => self.source_rows[source],
                    Input::Stage(stage) => self.stages[stage].counts.total,
                })
                .sum(),
        };
        let run = &mut self.stages[index];
        run.gate = Gate::Shut;
        run.open_inputs = 0;
        run.counts.blocked = rows.max(1);
        run.counts.total = rows.max(1);
    }
}
