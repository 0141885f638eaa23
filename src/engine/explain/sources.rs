//! The rows of sources on their way into a survey.

use std::sync::Arc;

use super::{BATCHES_AT_ONCE, Passing, Survey};
use crate::data::{Batch, source};
use crate::engine::EngineError;
use crate::engine::books::Settled;
use crate::engine::feed::{self, cannot_be_read_twice};
use crate::engine::made;
use crate::plan::PlannedStage;
use crate::spec::model::{Input, Verb};
use crate::store::model::RosterBatch;
use crate::store::{Roster, StoreError};

impl Survey<'_> {
    /// Lets a source's rows through all stages. False: what was skipped would have been needed.
    pub(super) fn walk_source(&mut self, number: usize, may_skip: bool) -> Result<bool, EngineError> {
        let source = self.plan.workflow.sources[number].clone();
        let around = self.plan.reading.0.clone();
        let roster = self.store.as_ref().map(|s| s.roster(&source.name)).transpose()?.flatten();
        let content = source::content_in(&source, &around)?;
        let known = roster.as_ref().filter(|r| r.info().complete && content.is_some() && r.info().content == content);
        let unread = cannot_be_read_twice(&source);
        let mut left = self.options.limit.unwrap_or(u64::MAX);
        if let (Some(roster), true) = (known.or(roster.as_ref().filter(|_| unread)), left > 0) {
            for n in 0..roster.info().batches {
                if let Some(batch) = roster.batch(n)?
                    && !self.enter(number, batch, None, &mut left)?
                {
                    return Ok(false);
                }
            }
            return self.pass_on();
        }
        if unread {
            self.plan.consumers(Input::Source(number)).for_each(|s| self.stages[s.index].report.total_known = false);
            return Ok(true);
        }
        let settled = if may_skip { self.settled_behind(number, roster.as_ref())? } else { None };
        self.skipping = settled.is_some();
        let around = feed::as_before(&around, roster.as_ref())?;
        let expected = roster.as_ref().map_or(0, |r| r.info().rows);
        for (n, batch) in (0..).zip(feed::identified(&source, &around, None, expected)?) {
            let (batch, same) = (batch?, roster.as_ref().map(|r| r.digest(n)).transpose()?.flatten());
            if let (Some(stages), true) = (&settled, same == Some(batch.digest)) {
                self.skip(stages, batch.items.len() as u64);
                continue;
            }
            let before = match &roster {
                Some(roster) if same != Some(batch.digest) => before(roster, n)?,
                _ => None,
            };
            if !self.enter(number, batch, before, &mut left)? {
                return Ok(false);
            }
            if left == 0 {
                break;
            }
        }
        let whole = self.pass_on()?;
        self.skipping = false;
        Ok(whole)
    }

    /// The stages that the rows of a source come to, if all of them have done all that the source held when it was
    /// last read, each item by itself: what is as it was then need not be looked at.
    fn settled_behind(&self, source: usize, roster: Option<&Roster>) -> Result<Option<Vec<usize>>, EngineError> {
        let (Some(replay), Some(_)) = (self.replay(), roster.filter(|r| r.info().complete)) else { return Ok(None) };
        if !self.options.asks_for_everything() || self.following.is_on() {
            return Ok(None);
        }
        let states = replay.states()?;
        let mut behind = self.consumers(Input::Source(source));
        let mut at = 0;
        while at < behind.len() {
            let stage = behind[at];
            let settled = Settled::find(&replay, stage, states[stage])?;
            let all_done = settled.is_some_and(|s| s.counts.done == s.counts.total && s.missing == 0);
            if !all_done || self.stages[stage].content.is_some() || !depends_on_rows_alone(&self.plan.stages[stage]) {
                return Ok(None);
            }
            behind.extend(self.consumers(Input::Stage(stage)));
            at += 1;
        }
        Ok(Some(behind))
    }

    fn skip(&mut self, stages: &[usize], items: u64) {
        for &stage in stages {
            self.stages[stage].report.total += items;
            self.stages[stage].report.done += items;
        }
    }

    /// Lets a source's batch into the stages that map over it, and, with some others, into all that follow.
    fn enter(
        &mut self,
        source: usize,
        batch: RosterBatch,
        before: Option<Arc<RosterBatch>>,
        left: &mut u64,
    ) -> Result<bool, EngineError> {
        let rows = (batch.items.len() as u64).min(*left);
        *left -= rows;
        let bad = batch.bad.len() as u64;
        let whole = Batch { items: batch.items, table: batch.table };
        for stage in self.consumers(Input::Source(source)) {
            self.following.enter_source(stage, &batch.bad);
            if matches!(self.plan.stages[stage].verb, Verb::Reduce { .. }) {
                self.stages[stage].behind(bad, 0);
            } else {
                let report = &mut self.stages[stage].report;
                report.failed += bad;
                report.total += bad;
                self.block_behind(stage, bad);
            }
            self.waiting[stage].push(Passing {
                input: Input::Source(source),
                batch: whole.slice(0, rows as usize),
                blocked: 0,
                possible: 0,
                before: before.clone(),
            });
        }
        self.waiting_batches += 1;
        if self.waiting_batches < BATCHES_AT_ONCE { Ok(true) } else { self.pass_on() }
    }

    /// Counts what waits behind rows that cannot be read.
    fn block_behind(&mut self, stage: usize, bad: u64) {
        if bad == 0 {
            return;
        }
        for consumer in self.consumers(Input::Stage(stage)) {
            self.stages[consumer].behind(bad, 0);
            if !matches!(self.plan.stages[consumer].verb, Verb::Reduce { .. }) {
                self.stages[consumer].report.total += bad;
                self.stages[consumer].report.blocked += bad;
                self.block_behind(consumer, bad);
            }
        }
    }
}

/// Whether an item of the stage is as it was if its row is.
fn depends_on_rows_alone(stage: &PlannedStage) -> bool {
    stage.verb == Verb::Map
        && stage.inputs.len() == 1
        && !stage.is_gated()
        && !stage.sees_index
        && !made::makes_files(stage)
        && !stage.settings.deps.iter().any(|template| template.names().per_item())
}

/// The batch that stood there when the source was last read.
fn before(roster: &Roster, n: u64) -> Result<Option<Arc<RosterBatch>>, StoreError> {
    Ok(roster.batch(n)?.map(Arc::new))
}
