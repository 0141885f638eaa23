//! What a run would do, and why: every stage's items counted, every due item with its reason.
//!
//! A [`Survey`] reads what a run would read, looks up what a run would look up, and runs nothing. An item is *due* if
//! a run is certain to run it; *possible* if that hangs on what comes of others: rows of theirs that are not there
//! yet, a stage that it comes after, its place among the rows.

mod follow;
mod reasons;
mod sources;
mod tally;

use std::sync::Arc;

use rayon::prelude::*;

use super::EngineError;
use super::api::{Flow, RunOptions};
use super::books::Settled;
use super::events::{DueItems, PlanReport, StagePlan};
use super::groups::{self, Grouping, Groups};
use super::replay::{Replay, Sources};
use super::resolve::{Resolved, with_input_number};
use super::run::{compile, remember, selected_stages};
use super::selection::Selection;
use super::shared;
use crate::data::{Batch, Table};
use crate::plan::Plan;
use crate::spec::model::{Input, Verb};
use crate::store::Store;
use crate::store::model::RosterBatch;

use follow::Following;
use tally::Tally;

/// What of a plan is asked for besides its counts.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// This item is followed through all stages.
    pub follow: Option<String>,
    /// Which items are due.
    pub due: bool,
}

/// What a run with these options would do. Changes nothing.
///
/// # Errors
/// When a source or the store cannot be read, or there is no item to follow.
pub fn plan(flow: &Flow, options: &RunOptions, wanted: &Wanted) -> Result<PlanReport, EngineError> {
    let plan = Arc::new(compile(flow, options, "plan")?);
    let store = Store::read(&flow.state_dir)?;
    store.iter().try_for_each(|store| remember(&plan, store))?;
    survey(&plan, store.as_ref(), options, wanted)
}

/// The same of a compiled workflow and an open store.
///
/// # Errors
/// As [`plan`].
pub fn survey(
    plan: &Arc<Plan>,
    store: Option<&Store>,
    options: &RunOptions,
    wanted: &Wanted,
) -> Result<PlanReport, EngineError> {
    plan.check_shared(&selected_stages(plan, options.stage.as_deref())?)?;
    let mut survey = Survey::new(plan, store, options, wanted)?;
    if survey.is_known()? {
        return survey.report();
    }
    if !survey.walk(true)? {
        survey = Survey::new(plan, store, options, wanted)?;
        survey.walk(false)?;
    }
    survey.report()
}

/// A batch on its way through the survey.
struct Passing {
    input: Input,
    batch: Batch,
    blocked: u64,
    possible: u64,
    /// What stood in its place when the source was last read.
    before: Option<Arc<RosterBatch>>,
}

struct Survey<'a> {
    plan: Arc<Plan>,
    store: Option<Store>,
    options: &'a RunOptions,
    selected: Vec<bool>,
    selection: Selection,
    stages: Vec<Tally>,
    waiting: Vec<Vec<Passing>>,
    /// Batches that wait.
    waiting_batches: usize,
    following: Following,
    /// Whether it matters in which order a stage's rows come.
    ordered: Vec<bool>,
    unchanged: bool,
    /// Batches that are known to be done are passed over, as long as no other item needs what they own.
    skipping: bool,
}

/// Batches of a source that are looked up side by side.
const BATCHES_AT_ONCE: usize = 8;

impl<'a> Survey<'a> {
    fn new(
        plan: &Arc<Plan>,
        store: Option<&Store>,
        options: &'a RunOptions,
        wanted: &Wanted,
    ) -> Result<Survey<'a>, EngineError> {
        let selected = selected_stages(plan, options.stage.as_deref())?;
        let following = Following::new(wanted.follow.as_deref(), plan.stages.len());
        let tally = |(stage, shared)| Tally::new(plan, stage, shared, store, options, wanted);
        Ok(Survey {
            stages: plan.stages.iter().zip(plan.shared()).map(tally).collect::<Result<_, _>>()?,
            plan: plan.clone(),
            store: store.cloned(),
            options,
            selected,
            selection: Selection::new(&options.items, &options.rows),
            waiting: plan.stages.iter().map(|_| Vec::new()).collect(),
            waiting_batches: 0,
            following,
            ordered: order_matters(plan),
            unchanged: false,
            skipping: false,
        })
    }

    fn replay(&self) -> Option<Replay> {
        Some(Replay::new(self.plan.clone(), self.store.clone()?, Sources::Rosters))
    }

    /// Whether all stages are known to be settled; then their counts are too.
    fn is_known(&mut self) -> Result<bool, EngineError> {
        let Some(replay) = self.replay() else { return Ok(false) };
        if !self.options.asks_for_everything() || self.following.is_on() {
            return Ok(false);
        }
        let Some(known) = Settled::all(&replay, &self.selected)? else { return Ok(false) };
        for (index, settled) in known {
            let report = &mut self.stages[index].report;
            report.total = settled.counts.total;
            report.done = settled.counts.done;
            report.failed = settled.counts.failed;
            report.blocked = settled.counts.blocked;
        }
        self.unchanged = true;
        Ok(true)
    }

    /// Counts everything. False: what was skipped would have been needed, and all counts are void.
    fn walk(&mut self, may_skip: bool) -> Result<bool, EngineError> {
        for source in self.plan.sources_of(&self.selected) {
            if !self.walk_source(source, may_skip)? {
                return Ok(false);
            }
        }
        let order = self.plan.graph.order().to_vec();
        for stage in order {
            if !self.selected[stage] {
                continue;
            }
            self.take_shared(stage)?;
            self.take_later_inputs(stage)?;
            if matches!(self.plan.stages[stage].verb, Verb::Reduce { .. } | Verb::Once) {
                self.take_groups(stage)?;
            }
        }
        Ok(true)
    }

    fn consumers(&self, input: Input) -> Vec<usize> {
        self.plan.consumers(input).map(|s| s.index).filter(|&s| self.selected[s]).collect()
    }

    /// Moves what waits through the stages. False: what was skipped would have been needed.
    fn pass_on(&mut self) -> Result<bool, EngineError> {
        self.waiting_batches = 0;
        for stage in self.plan.clone().graph.order().iter().copied() {
            let waiting = std::mem::take(&mut self.waiting[stage]);
            if !waiting.is_empty() && !self.take(stage, waiting)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take(&mut self, stage: usize, waiting: Vec<Passing>) -> Result<bool, EngineError> {
        let planned = self.plan.stages[stage].clone();
        if self.stages[stage].held {
            self.stages[stage].later.extend(waiting);
            return Ok(true);
        }
        if planned.inputs.len() > 1 && self.ordered[stage] {
            let (now, later) = waiting.into_iter().partition(|passing| passing.input == planned.inputs[0]);
            let later: Vec<Passing> = later;
            self.stages[stage].later.extend(later);
            return self.take_in_order(stage, now);
        }
        self.take_in_order(stage, waiting)
    }

    /// Of a stage that shares the rows of others: what they are, now that all of them have passed, or that they are
    /// still to be made.
    fn take_shared(&mut self, stage: usize) -> Result<(), EngineError> {
        let planned = self.plan.stages[stage].clone();
        if !std::mem::take(&mut self.stages[stage].held) {
            return Ok(());
        }
        let has_work = |(_, shared): (&str, usize)| {
            let report = &self.stages[shared].report;
            report.due + report.possible > 0
        };
        let waits = planned.shared_stages().any(has_work);
        let contents: Vec<_> = planned
            .shared_stages()
            .filter_map(|(name, shared)| {
                Some((name.to_string(), shared, self.stages[shared].content.as_ref()?.finish()))
            })
            .collect();
        let others = match &self.store {
            Some(store) => shared::changed(store, &planned.name, &contents)?,
            None => Vec::new(),
        };
        let told = |&at: &usize| {
            let (name, of, _) = &contents[at];
            format!("share.{name}: the rows of {} changed", self.plan.stages[*of].name)
        };
        let others = others.iter().map(told).collect();
        let tally = &mut self.stages[stage];
        (tally.waits, tally.others) = (waits, others);
        tally.resolver.shared = shared::united(&contents);
        Ok(())
    }

    /// Rows that had to wait: those of a stage's second and later inputs, where their order matters, come after those of
    /// the first.
    fn take_later_inputs(&mut self, stage: usize) -> Result<(), EngineError> {
        let inputs = self.plan.stages[stage].inputs.clone();
        let mut later = std::mem::take(&mut self.stages[stage].later);
        later.sort_by_key(|passing| inputs.iter().position(|input| *input == passing.input));
        self.take_in_order(stage, later)?;
        self.pass_on().map(drop)
    }

    fn take_in_order(&mut self, stage: usize, waiting: Vec<Passing>) -> Result<bool, EngineError> {
        let planned = self.plan.stages[stage].clone();
        if matches!(planned.verb, Verb::Reduce { .. }) {
            for passing in waiting {
                self.following.enter_groups(&planned, &passing.batch);
                self.stages[stage].gather(passing);
            }
            return Ok(true);
        }
        if self.stages[stage].waits {
            for passing in waiting {
                let items = passing.batch.len() as u64;
                let report = &mut self.stages[stage].report;
                report.total += items + passing.blocked + passing.possible;
                report.blocked += passing.blocked;
                report.possible += items + passing.possible;
                self.send_nothing(stage, passing.blocked, items + passing.possible);
            }
            return Ok(true);
        }
        let tally = &mut self.stages[stage];
        let entered: Vec<(Batch, u64)> = waiting
            .iter()
            .map(|passing| {
                let first = tally.next_index;
                tally.next_index += passing.batch.len() as u64;
                (with_input_number(&planned, passing.input, passing.batch.clone()), first)
            })
            .collect();
        let resolver = &tally.resolver;
        let resolve = |(batch, first): &(Batch, u64)| resolver.resolve(batch, *first);
        // Where an item may be given the result of another, it matters which comes first.
        let resolved: Vec<Resolved> = match planned.keyed || !resolver.may_have_results() {
            true => entered.par_iter().map(resolve).collect::<Result<_, _>>()?,
            false => entered.iter().map(resolve).collect::<Result<_, _>>()?,
        };
        for ((passing, (batch, _)), resolved) in waiting.into_iter().zip(entered).zip(resolved) {
            if self.skipping && !resolved.borrowed.is_empty() {
                return Ok(false);
            }
            let report = &mut self.stages[stage].report;
            report.total += batch.len() as u64 + passing.blocked + passing.possible;
            report.blocked += passing.blocked;
            report.possible += passing.possible;
            self.account(stage, &batch, &resolved, passing.before.as_deref())?;
            self.send_on(stage, resolved, passing.blocked, passing.possible);
        }
        Ok(true)
    }

    fn account(
        &mut self,
        stage: usize,
        batch: &Batch,
        resolved: &Resolved,
        before: Option<&RosterBatch>,
    ) -> Result<(), EngineError> {
        let tally = &mut self.stages[stage];
        tally.report.done += resolved.done;
        tally.report.failed += resolved.failed.len() as u64;
        let covered = |i: u32| self.selection.covers(&batch.items, i as usize);
        let due: Vec<u32> = resolved.due.iter().map(|(i, _)| *i).filter(|&i| covered(i)).collect();
        tally.report.due += due.len() as u64;
        let reasons = tally.reasons(self.store.as_ref(), batch, resolved, &due, before)?;
        for (&i, reason) in due.iter().zip(&reasons) {
            tally.note(reason, &batch.items, i as usize, resolved.inputs[i as usize]);
        }
        self.following.account(&self.plan, stage, tally, batch, resolved, due.iter().zip(&reasons));
        Ok(())
    }

    fn send_on(&mut self, stage: usize, resolved: Resolved, blocked: u64, possible: u64) {
        let blocked = blocked + resolved.failed.len() as u64;
        let possible = possible + resolved.due.len() as u64;
        if let Some(content) = &mut self.stages[stage].content {
            content.add(&resolved.out.table);
        }
        let counted = self.stages[stage].report.total_known && !self.plan.stages[stage].changes_count();
        let unknown = possible > 0 && !counted;
        for consumer in self.consumers(Input::Stage(stage)) {
            if unknown {
                self.stages[consumer].report.total_known = false;
            }
            self.stages[consumer].behind(blocked, possible);
            self.waiting[consumer].push(Passing {
                input: Input::Stage(stage),
                batch: resolved.out.clone(),
                blocked,
                possible,
                before: None,
            });
        }
    }

    /// Counts the groups of a reduce once all rows above it have passed.
    fn take_groups(&mut self, stage: usize) -> Result<(), EngineError> {
        let (blocked, possible) = self.stages[stage].missing;
        let possible = possible.max(u64::from(self.stages[stage].waits));
        let needs_all = matches!(self.plan.stages[stage].verb, Verb::Reduce { needs_all: true, .. });
        let groups = self.groups_of(stage)?;
        let report = &mut self.stages[stage].report;
        let count = (groups.batch.len() as u64).max(u64::from(possible > 0));
        report.total += count;
        let (blocked, possible) = if needs_all && blocked > 0 {
            report.blocked += count;
            (count, 0)
        } else if possible > 0 {
            report.possible += count;
            report.total_known = report.total_known && self.plan.stages[stage].group_by().is_empty();
            (0, count)
        } else {
            let resolved = self.stages[stage].resolver.resolve_known(&groups.batch, groups.inputs)?;
            self.account(stage, &groups.batch, &resolved, None)?;
            self.send_on(stage, resolved, 0, 0);
            return self.pass_on().map(drop);
        };
        self.send_nothing(stage, blocked, possible);
        self.pass_on().map(drop)
    }

    /// Tells the stages that follow of items without rows as yet.
    fn send_nothing(&mut self, stage: usize, blocked: u64, possible: u64) {
        let unknown = self.plan.stages[stage].changes_count() || !self.stages[stage].report.total_known;
        for consumer in self.consumers(Input::Stage(stage)) {
            self.stages[consumer].report.total_known &= !unknown;
            self.stages[consumer].behind(blocked, possible);
            let batch = Batch { items: groups::once().batch.items.slice(0, 0), table: Table::empty(0) };
            let input = Input::Stage(stage);
            self.waiting[consumer].push(Passing { input, batch, blocked, possible, before: None });
        }
    }

    fn groups_of(&mut self, stage: usize) -> Result<Groups, EngineError> {
        if self.plan.stages[stage].verb == Verb::Once {
            return Ok(groups::once());
        }
        let grouping = self.stages[stage].grouping.take();
        let (batch, inputs) = grouping.unwrap_or_else(|| Grouping::new(self.plan.stages[stage].clone())).finish();
        Ok(Groups { batch, inputs, blocked: 0, possible: 0 })
    }

    /// What hangs on stages as a whole: a stage after one that failed is blocked, and after one that will run it is
    /// possible, and so is all that follows from it.
    fn settle(&mut self) {
        let mut shut = vec![false; self.stages.len()];
        let mut waits = vec![false; self.stages.len()];
        for &stage in self.plan.graph.order().iter().filter(|&&s| self.selected[s]) {
            let planned = &self.plan.stages[stage];
            let above: Vec<usize> = planned.inputs.iter().filter_map(Input::stage).collect();
            let report = |&s: &usize| &self.stages[s].report;
            let is_clean = |s: &usize| report(s).failed == 0 && report(s).blocked == 0 && !shut[*s];
            let has_work = |s: &usize| report(s).due + report(s).possible > 0;
            shut[stage] = !planned.after.iter().all(is_clean) || above.iter().any(|&s| shut[s]);
            waits[stage] = planned.after.iter().any(has_work)
                || above.iter().any(|&s| waits[s])
                || (planned.sees_index && self.stages[stage].missing.1 > 0);
            let report = &mut self.stages[stage].report;
            if shut[stage] {
                *report = StagePlan { blocked: report.total.max(1), total: report.total.max(1), ..report.undecided() };
            } else if waits[stage] {
                *report = StagePlan { possible: report.possible + report.due, ..report.undecided_due() };
            }
        }
    }

    fn report(mut self) -> Result<PlanReport, EngineError> {
        if !self.unchanged {
            self.settle();
        }
        let order: Vec<usize> = self.plan.graph.order().iter().copied().filter(|&s| self.selected[s]).collect();
        let mut report = PlanReport::default();
        for &stage in &order {
            let tally = &mut self.stages[stage];
            tally.estimate()?;
            tally.report.samples.values_mut().flatten().for_each(|sample| self.plan.secrets.hide_in(sample));
            tally.report.changes.iter_mut().for_each(|change| self.plan.secrets.hide_in(change));
            report.due.push(tally.due_items());
            report.stages.push(std::mem::take(&mut tally.report));
        }
        report.followed = self.following.finish(&self.plan, &order, &report.stages)?;
        Ok(report)
    }
}

/// Of each stage, whether what it gives depends on the order of its rows, or what some stage below it gives.
fn order_matters(plan: &Plan) -> Vec<bool> {
    let mut matters = plan.shared();
    for &stage in plan.graph.order().iter().rev() {
        let planned = &plan.stages[stage];
        matters[stage] |= planned.sees_index || matches!(planned.verb, Verb::Reduce { ordered: true, .. });
        for above in planned.inputs.iter().filter_map(Input::stage) {
            matters[above] |= matters[stage];
        }
    }
    matters
}

impl StagePlan {
    /// Without what its items are, but for their number.
    fn undecided(&self) -> StagePlan {
        StagePlan { done: 0, failed: 0, possible: 0, ..self.undecided_due() }
    }

    /// Without what is certain to run.
    fn undecided_due(&self) -> StagePlan {
        StagePlan { due: 0, reasons: Default::default(), samples: Default::default(), ..self.clone() }
    }
}

impl DueItems {
    /// Keys that are listed of a stage.
    pub const LISTED: usize = 100_000;
}
