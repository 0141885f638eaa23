//! What a run would do, and why: every stage's items counted, every due item with its reason.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use super::EngineError;
use super::api::{Flow, RunOptions};
use super::books::{Settled, sources_unchanged};
use super::events::StagePlan;
use super::groups::{self, Grouping, Groups};
use super::replay::{Replay, Sources};
use super::resolve::{Due, Resolved, Resolver, with_input_number};
use super::run::{compile, policy, selected_stages};
use super::selection::Selection;
use crate::data::identify::Identifier;
use crate::data::{Batch, Hash, Table, Value, source};
use crate::plan::{Fingerprint, Plan, PlannedStage};
use crate::spec::model::{Input, Verb};
use crate::store::model::RosterBatch;
use crate::store::{Store, View};

/// Keys shown for each reason.
const SAMPLES: usize = 3;
/// Earlier versions looked at for a reason.
const EARLIER_VERSIONS: usize = 5;

/// What a run with these options would do, stage by stage in the order of the graph. Changes nothing.
///
/// # Errors
/// When a source or the store cannot be read.
pub fn plan(flow: &Flow, options: &RunOptions) -> Result<Vec<StagePlan>, EngineError> {
    let plan = Arc::new(compile(flow, options, "plan")?);
    let selected = selected_stages(&plan, options.stage.as_deref())?;
    let store = Store::read(&flow.state_dir)?;
    let mut survey = Survey::new(plan, store, options, selected)?;
    if !survey.is_known(options)? {
        survey.walk(options.limit)?;
    }
    Ok(survey.report())
}

/// A batch on its way through the survey.
struct Passing {
    input: Input,
    batch: Batch,
    blocked: u64,
    possible: u64,
    /// What stood in its place when the source was last read.
    before: Option<Arc<RosterBatch>>,
    moved: bool,
}

struct Survey {
    plan: Arc<Plan>,
    store: Option<Store>,
    selected: Vec<bool>,
    selection: Selection,
    stages: Vec<Tally>,
    waiting: Vec<Vec<Passing>>,
    unchanged: bool,
}

struct Tally {
    planned: Arc<PlannedStage>,
    resolver: Resolver,
    report: StagePlan,
    next_index: u64,
    history: Option<History>,
    grouping: Option<Grouping>,
    missing: (u64, u64),
}

impl Survey {
    fn new(
        plan: Arc<Plan>,
        store: Option<Store>,
        options: &RunOptions,
        selected: Vec<bool>,
    ) -> Result<Survey, EngineError> {
        let policy = Arc::new(policy(options));
        let params = Arc::new(plan.params().to_vec());
        let mut stages = Vec::with_capacity(plan.stages.len());
        for planned in &plan.stages {
            let view = store.as_ref().map(|s| s.view(&planned.name, planned.version)).transpose()?;
            stages.push(Tally {
                resolver: Resolver {
                    stage: planned.clone(),
                    view,
                    dir: plan.workflow.dir.clone(),
                    policy: policy.clone(),
                    params: params.clone(),
                    with_usage: false,
                },
                report: blank(&plan, planned),
                planned: planned.clone(),
                next_index: 0,
                history: None,
                grouping: None,
                missing: (0, 0),
            });
        }
        let waiting = plan.stages.iter().map(|_| Vec::new()).collect();
        let selection = Selection::new(&options.items, &options.rows);
        Ok(Survey { plan, store, selected, selection, stages, waiting, unchanged: false })
    }

    fn replay(&self) -> Option<Replay> {
        Some(Replay::new(self.plan.clone(), self.store.clone()?, Sources::Rosters))
    }

    /// Whether all stages are known to be settled; then their counts are too.
    fn is_known(&mut self, options: &RunOptions) -> Result<bool, EngineError> {
        let Some(replay) = self.replay() else { return Ok(false) };
        if !options.asks_for_everything() {
            return Ok(false);
        }
        let states = replay.states()?;
        let mut known = Vec::new();
        for index in (0..states.len()).filter(|&s| self.selected[s]) {
            match Settled::find(&replay, index, states[index])? {
                Some(settled) => known.push((index, settled)),
                None => return Ok(false),
            }
        }
        self.unchanged = sources_unchanged(&replay, &self.selected)?;
        if self.unchanged {
            for (index, settled) in known {
                let report = &mut self.stages[index].report;
                report.total = settled.counts.total;
                report.done = settled.counts.done;
                report.failed = settled.counts.failed;
                report.blocked = settled.counts.blocked;
            }
        }
        Ok(self.unchanged)
    }

    fn report(mut self) -> Vec<StagePlan> {
        for report in self.stages.iter_mut().map(|t| &mut t.report) {
            report.samples.values_mut().flatten().for_each(|sample| self.plan.secrets.hide_in(sample));
        }
        let order = self.plan.graph.order().to_vec();
        let mut reports: Vec<Option<StagePlan>> = self.stages.into_iter().map(|t| Some(t.report)).collect();
        order.into_iter().filter(|&s| self.selected[s]).filter_map(|s| reports[s].take()).collect()
    }

    fn walk(&mut self, limit: Option<u64>) -> Result<(), EngineError> {
        let order = self.plan.graph.order().to_vec();
        for source in self.plan.sources_of(&self.selected) {
            self.walk_source(source, limit)?;
        }
        for stage in order {
            if self.selected[stage] && matches!(self.plan.stages[stage].verb, Verb::Reduce { .. } | Verb::Once) {
                self.take_groups(stage)?;
            }
        }
        Ok(())
    }

    fn walk_source(&mut self, number: usize, limit: Option<u64>) -> Result<(), EngineError> {
        let source = self.plan.workflow.sources[number].clone();
        let around = self.plan.reading.0.clone();
        let roster = self.store.as_ref().map(|s| s.roster(&source.name)).transpose()?.flatten();
        let content = source::content_in(&source, &around)?;
        let known = roster.as_ref().filter(|r| r.info().complete && content.is_some() && r.info().content == content);
        let unread = super::feed::cannot_be_read_twice(&source);
        let mut left = limit.unwrap_or(u64::MAX);
        if let (Some(roster), true) = (known.or(roster.as_ref().filter(|_| unread)), left > 0) {
            for n in 0..roster.info().batches {
                if let Some(batch) = roster.batch(n)? {
                    self.enter(number, batch, None, false, &mut left)?;
                }
            }
            return Ok(());
        }
        if unread {
            self.plan.consumers(Input::Source(number)).for_each(|s| self.stages[s.index].report.total_known = false);
            return Ok(());
        }
        let mut identifier = Identifier::new(&source.name, &source.key);
        for (n, batch) in source::open_in(&source, &around, None, None)?.enumerate() {
            let batch = identifier.identify(batch?)?;
            let before = match &roster {
                Some(roster) if roster.digest(n as u64)? != Some(batch.digest) => roster.batch(n as u64)?,
                _ => None,
            };
            let moved = before.is_some() || roster.as_ref().is_some_and(|r| r.info().batches <= n as u64);
            self.enter(number, batch, before.map(Arc::new), moved, &mut left)?;
            if left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Lets a source's batch into the stages that map over it, and its rows into all that follow.
    fn enter(
        &mut self,
        source: usize,
        batch: RosterBatch,
        before: Option<Arc<RosterBatch>>,
        moved: bool,
        left: &mut u64,
    ) -> Result<(), EngineError> {
        let rows = (batch.items.len() as u64).min(*left);
        *left -= rows;
        let whole = Batch { items: batch.items, table: batch.table };
        let input = Input::Source(source);
        let consumers: Vec<usize> = self.consumers(input);
        for stage in consumers {
            let report = &mut self.stages[stage].report;
            report.failed += batch.bad.len() as u64;
            report.total += batch.bad.len() as u64;
            let passing = Passing {
                input,
                batch: whole.slice(0, rows as usize),
                blocked: 0,
                possible: 0,
                before: before.clone(),
                moved,
            };
            self.waiting[stage].push(passing);
        }
        self.pass_on()
    }

    fn consumers(&self, input: Input) -> Vec<usize> {
        self.plan.consumers(input).map(|s| s.index).filter(|&s| self.selected[s]).collect()
    }

    fn pass_on(&mut self) -> Result<(), EngineError> {
        for stage in self.plan.clone().graph.order().iter().copied() {
            for passing in std::mem::take(&mut self.waiting[stage]) {
                if matches!(self.plan.stages[stage].verb, Verb::Reduce { .. }) {
                    self.stages[stage].missing.0 += passing.blocked;
                    self.stages[stage].missing.1 += passing.possible;
                    self.stages[stage].gather(passing);
                } else {
                    self.take(stage, passing)?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, stage: usize, passing: Passing) -> Result<(), EngineError> {
        let Passing { input, batch, blocked, possible, before, moved } = passing;
        if self.is_held_up(stage) {
            let items = batch.len() as u64 + blocked + possible;
            self.stages[stage].report.total += items;
            self.stages[stage].report.blocked += items;
            return Ok(());
        }
        let tally = &mut self.stages[stage];
        let batch = with_input_number(&tally.planned, input, batch);
        let resolved = tally.resolver.resolve(&batch, tally.next_index, moved)?;
        tally.next_index += batch.len() as u64;
        tally.report.total += batch.len() as u64 + blocked + possible;
        tally.report.blocked += blocked;
        tally.report.possible += possible;
        self.account(stage, &batch, &resolved, before.as_deref())?;
        self.send_on(stage, resolved, blocked, possible);
        Ok(())
    }

    /// Whether a stage waits for one that has failures.
    fn is_held_up(&self, stage: usize) -> bool {
        self.plan.stages[stage].after.iter().any(|&before| {
            let report = &self.stages[before].report;
            report.failed > 0 && report.due == 0 && report.possible == 0
        })
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
        tally.report.due += resolved.due.iter().filter(|(i, _)| covered(*i)).count() as u64;
        if resolved.due.is_empty() {
            return Ok(());
        }
        let reasons = tally.reasons(self.store.as_ref(), batch, resolved, before)?;
        for ((i, _), reason) in resolved.due.iter().zip(reasons) {
            if self.selection.covers(&batch.items, *i as usize) {
                tally.note(&reason, || batch.items.key(*i as usize));
            }
        }
        Ok(())
    }

    fn send_on(&mut self, stage: usize, resolved: Resolved, blocked: u64, possible: u64) {
        let blocked = blocked + resolved.failed.len() as u64;
        let possible = possible + resolved.due.len() as u64;
        let unknown = possible > 0 && self.plan.stages[stage].changes_count();
        for consumer in self.consumers(Input::Stage(stage)) {
            if unknown {
                self.stages[consumer].report.total_known = false;
            }
            self.waiting[consumer].push(Passing {
                input: Input::Stage(stage),
                batch: resolved.out.clone(),
                blocked,
                possible,
                before: None,
                moved: true,
            });
        }
    }

    /// Counts the groups of a reduce once all rows above it have passed.
    fn take_groups(&mut self, stage: usize) -> Result<(), EngineError> {
        let (blocked, possible) = self.stages[stage].missing;
        let needs_all = matches!(self.plan.stages[stage].verb, Verb::Reduce { needs_all: true, .. });
        let groups = self.groups_of(stage)?;
        let report = &mut self.stages[stage].report;
        let count = (groups.batch.len() as u64).max(u64::from(possible > 0));
        report.total += count;
        if possible > 0 {
            report.possible += count;
            report.total_known = report.total_known && self.plan.stages[stage].group_by().is_empty();
        } else if needs_all && blocked > 0 {
            report.blocked += count;
        } else {
            let resolved = self.stages[stage].resolver.resolve_known(&groups.batch, groups.inputs, true)?;
            self.account(stage, &groups.batch, &resolved, None)?;
            self.send_on(stage, resolved, 0, 0);
            return self.pass_on();
        }
        for consumer in self.consumers(Input::Stage(stage)) {
            let report = &mut self.stages[consumer].report;
            report.total_known = false;
            let empty = Batch { items: groups::once().batch.items.slice(0, 0), table: Table::empty(0) };
            let (blocked, possible) = if possible > 0 { (0, count) } else { (count, 0) };
            let passing =
                Passing { input: Input::Stage(stage), batch: empty, blocked, possible, before: None, moved: true };
            self.waiting[consumer].push(passing);
        }
        self.pass_on()
    }

    fn groups_of(&mut self, stage: usize) -> Result<Groups, EngineError> {
        if self.plan.stages[stage].verb == Verb::Once {
            return Ok(groups::once());
        }
        let above = self.plan.graph.with_ancestors(stage);
        let several = self.plan.stages.iter().any(|s| above[s.index] && s.inputs.len() > 1);
        match self.replay().filter(|_| several && self.unchanged) {
            Some(replay) => replay.groups(&self.plan.stages[stage]),
            None => {
                let (batch, inputs) = self.stages[stage]
                    .grouping
                    .take()
                    .unwrap_or_else(|| Grouping::new(self.plan.stages[stage].clone()))
                    .finish();
                Ok(Groups { batch, inputs, blocked: 0, possible: 0 })
            }
        }
    }
}

fn blank(plan: &Plan, planned: &PlannedStage) -> StagePlan {
    let name_of = |input: &Input| match *input {
        Input::Source(source) => plan.workflow.sources[source].name.clone(),
        Input::Stage(stage) => plan.stages[stage].name.clone(),
    };
    StagePlan {
        name: planned.name.clone(),
        total_known: true,
        inputs: planned.inputs.iter().map(name_of).collect(),
        verb: match planned.verb {
            Verb::Map => "map",
            Verb::FlatMap => "flat_map",
            Verb::Filter => "filter",
            Verb::Reduce { .. } => "reduce",
            Verb::Once => "once",
        }
        .to_string(),
        action: planned.action.clone(),
        ..StagePlan::default()
    }
}

/// Earlier versions of a stage, the latest first.
struct History(Vec<(Fingerprint, View)>);

impl Tally {
    fn gather(&mut self, passing: Passing) {
        let batch = with_input_number(&self.planned, passing.input, passing.batch);
        if !batch.is_empty() {
            self.grouping.get_or_insert_with(|| Grouping::new(self.planned.clone())).add(&batch.table);
        }
    }

    fn note(&mut self, reason: &Reason, key: impl FnOnce() -> String) {
        *self.report.reasons.entry(reason.name.to_string()).or_default() += 1;
        let samples = self.report.samples.entry(reason.name.to_string()).or_default();
        if samples.len() < SAMPLES {
            samples.push(match &reason.detail {
                Some(detail) => format!("{} ({detail})", key()),
                None => key(),
            });
        }
    }

    fn history(&mut self, store: &Store) -> Result<&History, EngineError> {
        if self.history.is_none() {
            let mut earlier = Vec::new();
            for known in
                store.stage_versions(&self.planned.name)?.into_iter().filter(|v| v.version != self.planned.version)
            {
                if earlier.len() == EARLIER_VERSIONS {
                    break;
                }
                if let Some(fingerprint) = Fingerprint::from_json(&known.components) {
                    let view = store.view(&self.planned.name, known.version)?;
                    if !view.is_empty() {
                        earlier.push((fingerprint, view));
                    }
                }
            }
            self.history = Some(History(earlier));
        }
        Ok(self.history.as_ref().expect("set above"))
    }

    /// Why each due item of a batch is due.
    fn reasons(
        &mut self,
        store: Option<&Store>,
        batch: &Batch,
        resolved: &Resolved,
        before: Option<&RosterBatch>,
    ) -> Result<Vec<Reason>, EngineError> {
        let due: Vec<u32> = resolved.due.iter().map(|(i, _)| *i).collect();
        let mut reasons: Vec<Option<Reason>> = resolved.due.iter().map(|(_, due)| Reason::told_by(*due)).collect();
        if let Some(store) = store {
            let items = batch.items.take(&due);
            let inputs: Vec<Hash> = due.iter().map(|&i| resolved.inputs[i as usize]).collect();
            let keyed = self.planned.keyed;
            let fingerprint = self.planned.fingerprint.clone();
            let mut changes: Vec<String> = Vec::new();
            let mut known_before =
                self.resolver.view.as_ref().map(|v| v.inputs_of(&items.origins)).transpose()?.unwrap_or_default();
            for (earlier, view) in &self.history(store)?.0 {
                let told = fingerprint.changes_since(earlier);
                for (at, hit) in view.lookup(&items, &inputs, keyed, true)?.iter().enumerate() {
                    if let (Some(_), None, Some(first)) = (hit, &reasons[at], told.first()) {
                        reasons[at] = Some(Reason { name: first.reason, detail: None });
                        changes.extend(
                            told.iter().map(|c| c.words.clone()).filter(|w| !changes.contains(w)).collect::<Vec<_>>(),
                        );
                    }
                }
                for (at, old) in view.inputs_of(&items.origins)?.into_iter().enumerate() {
                    if known_before.get(at).is_some_and(Option::is_none) {
                        known_before[at] = old;
                    }
                }
            }
            for change in changes {
                if !self.report.changes.contains(&change) {
                    self.report.changes.push(change);
                }
            }
            let differing = before.map(|before| differences(batch, before, keyed));
            for (at, reason) in reasons.iter_mut().enumerate().filter(|(_, r)| r.is_none()) {
                let changed = differing.as_ref().and_then(|d| d.get(&due[at]));
                let was_there = known_before.get(at).is_some_and(Option::is_some);
                *reason = match (changed, was_there) {
                    (Some(columns), _) => Some(Reason { name: "input_changed", detail: Some(columns.clone()) }),
                    (None, true) => Some(Reason { name: "input_changed", detail: None }),
                    (None, false) => None,
                };
            }
        }
        Ok(reasons.into_iter().map(|r| r.unwrap_or(Reason { name: "new", detail: None })).collect())
    }
}

struct Reason {
    name: &'static str,
    detail: Option<String>,
}

impl Reason {
    fn told_by(due: Due) -> Option<Reason> {
        let name = match due {
            Due::NoResult => return None,
            Due::FailedBefore => "failed_before",
            Due::Lost => "lost",
            Due::LimitChanged => "limit_changed",
            Due::Fresh => "fresh",
        };
        Some(Reason { name, detail: None })
    }
}

/// Of rows that were there before, which columns differ: by key; without keys by position, where most rows of the
/// batch stand as they stood.
fn differences(batch: &Batch, before: &RosterBatch, keyed: bool) -> HashMap<u32, String> {
    let old_row: HashMap<String, usize> = (0..before.items.len()).map(|i| (before.items.key(i), i)).collect();
    let mut found = HashMap::new();
    let mut compared = 0;
    for i in 0..batch.len() {
        let Some(&old) = old_row.get(&batch.items.key(i)) else { continue };
        compared += 1;
        let columns = differing_columns((&batch.table, i), (&before.table, old));
        if !columns.is_empty() {
            found.insert(i as u32, columns.join(", "));
        }
    }
    let in_place = keyed || (batch.len() == before.items.len() && found.len() * 2 <= compared.max(2));
    if in_place { found } else { HashMap::new() }
}

fn differing_columns(new: (&Table, usize), old: (&Table, usize)) -> Vec<String> {
    let cells = |(table, row): (&Table, usize)| -> BTreeMap<String, Value> { table.row(row).into_iter().collect() };
    let (new, old) = (cells(new), cells(old));
    let names: std::collections::BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    names
        .into_iter()
        .filter(|name| new.get(*name) != old.get(*name) && !matches!(new.get(*name), Some(Value::Aside(_))))
        .map(|name| {
            if let (Some(Value::File { path, .. }), Some(Value::File { path: before, .. })) =
                (new.get(name), old.get(name))
                && path == before
            {
                return format!("content of {name}");
            }
            let shown =
                |v: Option<&Value>| v.map_or("nothing".to_string(), |v| v.to_string().chars().take(30).collect());
            format!("{name}: {} → {}", shown(old.get(name)), shown(new.get(name)))
        })
        .collect()
}
