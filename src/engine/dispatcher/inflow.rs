//! Rows on their way in: from sources, from stages above, looked up in order.

use std::sync::Arc;
use std::time::Instant;

use super::{Dispatcher, End, Lookup, SourceState};
use crate::data::Batch;
use crate::data::source::SourceError;
use crate::engine::budget::Permit;
use crate::engine::events::Event;
use crate::engine::resolve::{Due, with_input_number};
use crate::engine::selection::Selection;
use crate::engine::stage::{Arrival, Gate, Pending};
use crate::engine::versions::add_accepted;
use crate::spec::model::{Input, Verb};
use crate::store::model::RosterBatch;

impl Dispatcher<'_> {
    pub(super) fn source_batch(&mut self, source: usize, batch: Arc<RosterBatch>, permit: Permit) {
        if self.sources[source] == SourceState::Failed {
            return;
        }
        self.source_rows[source] += (batch.items.len() + batch.bad.len()) as u64;
        if self.orders.limit.is_some() {
            self.chosen[source].push(batch.clone());
        }
        let rows = Batch { items: batch.items.clone(), table: batch.table.clone() };
        for stage in self.open_consumers(Input::Source(source)) {
            for (_, key, failure) in &batch.bad {
                self.stages[stage].failures.add(|| key.clone(), failure);
            }
            let bad = batch.bad.len() as u64;
            self.stages[stage].counts.total += bad;
            self.stages[stage].counts.failed += bad;
            self.block_behind(stage, bad);
            let rows = with_input_number(&self.stages[stage].planned, Input::Source(source), rows.clone());
            self.push(stage, rows, false, permit.clone());
        }
        let _ = self.lines.events.send(Event::SourceRead {
            source: self.orders.plan.workflow.sources[source].name.clone(),
            rows: self.source_rows[source],
            complete: false,
        });
    }

    pub(super) fn source_end(&mut self, source: usize) {
        self.sources[source] = SourceState::Complete;
        let _ = self.lines.events.send(Event::SourceRead {
            source: self.orders.plan.workflow.sources[source].name.clone(),
            rows: self.source_rows[source],
            complete: true,
        });
        for stage in self.open_consumers(Input::Source(source)) {
            self.stages[stage].open_inputs -= 1;
        }
    }

    /// What was read until then is run and kept, and nothing more is read of any source; then the run ends.
    pub(super) fn source_failed(&mut self, error: SourceError) {
        if self.end.is_none() {
            self.end = Some(End::Broken(error.into()));
            self.helpers.stop_reading();
            let unfinished = self.sources.iter_mut().filter(|source| **source != SourceState::Complete);
            unfinished.for_each(|source| *source = SourceState::Failed);
        }
    }

    /// Selected stages that take the rows of `input` as they come.
    pub(super) fn open_consumers(&self, input: Input) -> Vec<usize> {
        let consumers = self.orders.plan.consumers(input).map(|stage| stage.index);
        consumers
            .filter(|&s| {
                self.stages[s].selected && self.stages[s].gate == Gate::Open && !self.stages[s].planned.is_gated()
            })
            .collect()
    }

    pub(super) fn push(&mut self, stage: usize, batch: Batch, follows: bool, permit: Permit) {
        if batch.is_empty() {
            return;
        }
        let run = &mut self.stages[stage];
        run.started.get_or_insert_with(Instant::now);
        run.counts.total += batch.len() as u64;
        let (number, first_index) = (run.sent, run.next_index);
        run.sent += 1;
        run.next_index += batch.len() as u64;
        self.helpers.resolve(&self.stages[stage], Lookup { batch, number, first_index, follows, permit });
    }

    /// Takes in looked-up batches in the order in which they were sent.
    pub(super) fn take_arrivals(&mut self, stage: usize) {
        while let Some(arrival) = {
            let run = &mut self.stages[stage];
            run.arrivals.remove(&run.taken)
        } {
            self.stages[stage].taken += 1;
            self.arrive(stage, arrival);
        }
    }

    pub(super) fn arrive(&mut self, stage: usize, arrival: Arrival) {
        let Arrival { batch, resolved, first_index, follows, permit } = arrival;
        let run = &mut self.stages[stage];
        run.counts.done += resolved.done;
        run.cached += resolved.done;
        resolved.accepted.iter().for_each(|&(version, n)| add_accepted(&mut run.accepted, version, n));
        run.counts.failed += resolved.failed.len() as u64;
        Selection::strike_out(&mut self.missing, &batch.items);
        let selection = &self.orders.selection;
        let in_scope = |i: u32| selection.covers(&batch.items, i as usize);
        run.out_of_scope += resolved.failed.iter().filter(|(i, _)| !in_scope(*i)).count() as u64;
        for (i, hit) in resolved.failed.iter().filter(|(i, _)| in_scope(*i)) {
            if let Some(failure) = hit.failure() {
                run.failures.add(|| batch.items.key(*i as usize), failure);
            }
        }
        run.counts.due += resolved.due.len() as u64;
        let asked = |due: Due| {
            follows || !self.orders.only_failed || !matches!(due, Due::NoResult | Due::FileMissing | Due::FileChanged)
        };
        let wanted = resolved.due.iter().filter(|(i, due)| asked(*due) && selection.covers(&batch.items, *i as usize));
        let selected: Vec<u32> = wanted.map(|(i, _)| *i).collect();
        run.left += (resolved.due.len() - selected.len()) as u64;
        let failed = resolved.failed.len() as u64;
        if !selected.is_empty() {
            let whole = Pending {
                attempts: vec![0; batch.len()],
                indices: (first_index..first_index + batch.len() as u64).collect(),
                inputs: resolved.inputs,
                batch,
                permits: vec![permit.clone()],
            };
            let due = whole.take(&selected);
            if run.planned.is_gated() && matches!(run.planned.verb, Verb::Reduce { .. }) {
                self.groups_are_due(stage, whole.batch, due, selected);
            } else {
                self.admit(stage, due);
            }
        }
        self.block_behind(stage, failed);
        self.forward(stage, resolved.out, false);
    }

    /// Sends rows on to the stages that take them as they come.
    pub(super) fn forward(&mut self, stage: usize, rows: Batch, follows: bool) {
        if rows.is_empty() {
            return;
        }
        for consumer in self.open_consumers(Input::Stage(stage)) {
            let batch = with_input_number(&self.stages[consumer].planned, Input::Stage(stage), rows.clone());
            let permit = self.orders.budget.overdraw(batch.bytes());
            self.push(consumer, batch, follows, permit);
        }
    }

    /// Counts what waits behind failed items.
    pub(super) fn block_behind(&mut self, stage: usize, failed: u64) {
        if failed == 0 {
            return;
        }
        for consumer in self.open_consumers(Input::Stage(stage)) {
            self.stages[consumer].counts.total += failed;
            self.stages[consumer].counts.blocked += failed;
            self.block_behind(consumer, failed);
        }
    }
}
