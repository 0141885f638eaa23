//! Declares stored results valid for the workflow as it is now.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::EngineError;
use super::api::{Flow, RunOptions};
use super::books::{Books, new_run_id};
use super::replay::{Replay, Sources, StageFlow};
use super::resolve::{Due, Policy, Resolver};
use super::run::{compile, open_for_writing};
use super::selection::Selection;
use super::versions::{Numbers, add_accepted, with_results};
use crate::data::Hash;
use crate::plan::PlannedStage;
use crate::spec::model::Verb;
use crate::store::{Hit, Store, View};

/// What was accepted of a stage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Accepted {
    pub name: String,
    /// Results that hold now and did not before.
    pub accepted: u64,
    /// How many of them which version made, by its number.
    pub versions: Vec<(u32, u64)>,
    /// Results that held already.
    pub done: u64,
    /// Items that stay due: no version has a result of theirs.
    pub due: u64,
    /// Items whose rows are not known as long as those before them are due.
    pub possible: u64,
}

/// For each due item of a stage (of all, where none is named; of the items selected) that succeeded at an earlier
/// version with the same input, the latest such result holds from now on.
///
/// # Errors
/// When nothing was run yet, there is no such stage or item, or the store cannot be written.
pub fn accept(flow: &Flow, options: &RunOptions, stage: Option<&str>) -> Result<Vec<Accepted>, EngineError> {
    let id = new_run_id();
    let plan = Arc::new(compile(flow, options, &id)?);
    let chosen = stage.map(|name| super::run::stage_named(&plan, name)).transpose()?;
    Store::read(&flow.state_dir)?.ok_or(EngineError::NoState)?;
    let store = open_for_writing(flow, &plan, options.on_network_fs, &options.command)?;
    let replay = Replay::new(plan.clone(), store.clone(), Sources::Rosters);
    let all = vec![true; plan.stages.len()];
    let mut books = Books::new(id, flow, options, &replay, &all, Instant::now());
    store.commit(&books.opening_writes())?;
    let selection = Selection::new(&options.items, &[]);
    let mut missing = selection.clone();
    let mut stages = Vec::new();
    for &index in plan.graph.order().iter().filter(|&&s| chosen.is_none_or(|chosen| chosen == s)) {
        stages.push(Accepting::new(&replay, index, &selection)?.run(&replay, &mut missing)?);
    }
    if !missing.is_all() {
        return Err(EngineError::NoItem { keys: missing.keys.join(", ") });
    }
    let (events, _) = crossbeam_channel::unbounded();
    books.close_recounted(&replay, &events)?;
    Ok(stages)
}

/// One stage, while its earlier results are gone through.
struct Accepting<'a> {
    stage: Arc<PlannedStage>,
    selection: &'a Selection,
    /// What earlier versions have, the latest first.
    earlier: Vec<View>,
    report: Accepted,
    versions: Vec<(Hash, u64)>,
}

impl<'a> Accepting<'a> {
    fn new(replay: &Replay, stage: usize, selection: &'a Selection) -> Result<Accepting<'a>, EngineError> {
        let stage = replay.plan.stages[stage].clone();
        let mut known = with_results(&replay.store, &stage.name)?;
        known.retain(|v| v.version != stage.version);
        let earlier = known.iter().map(|v| replay.store.view(&stage.name, v.version)).collect::<Result<_, _>>()?;
        let report = Accepted { name: stage.name.clone(), ..Accepted::default() };
        Ok(Accepting { stage, selection, earlier, report, versions: Vec::new() })
    }

    fn run(mut self, replay: &Replay, missing: &mut Selection) -> Result<Accepted, EngineError> {
        let resolver = replay.resolver(self.stage.index, Policy::default())?;
        let _ = replay.resolved_by(&resolver, &mut |flow| {
            Selection::strike_out(missing, &flow.batch.items);
            self.report.done += flow.resolved.done;
            // What a reduce has to do without is no item of it.
            let grouped = matches!(self.stage.verb, Verb::Reduce { .. });
            self.report.possible += if grouped { 0 } else { flow.possible };
            self.take(&replay.store, &resolver, &flow)?;
            Ok(ControlFlow::Continue(()))
        })?;
        let numbers = Numbers::of(&replay.store, &self.stage.name)?;
        let number = |&(version, n): &(Hash, u64)| Some((numbers.get(version)?, n));
        self.report.versions = self.versions.iter().filter_map(number).collect();
        self.report.versions.sort_unstable();
        Ok(self.report)
    }

    /// Writes what is found for the due items of a batch.
    fn take(&mut self, store: &Store, resolver: &Resolver, flow: &StageFlow) -> Result<(), EngineError> {
        let due = flow
            .resolved
            .due
            .iter()
            .filter(|(i, due)| *due == Due::NoResult && self.selection.covers(&flow.batch.items, *i as usize));
        let mut open: Vec<u32> = due.map(|(i, _)| *i).collect();
        let (mut writes, mut accepted) = (Vec::new(), 0);
        for view in &self.earlier {
            let inputs: Vec<Hash> = open.iter().map(|&i| flow.resolved.inputs[i as usize]).collect();
            let hits = view.lookup(&flow.batch.items.take(&open), &inputs, self.stage.keyed)?;
            let succeeded = |hit: &Hit| hit.failure().is_none();
            let (found, left): (Vec<_>, Vec<_>) =
                open.into_iter().zip(hits).partition(|(_, hit)| hit.as_ref().is_some_and(succeeded));
            open = left.into_iter().map(|(i, _)| i).collect();
            let found: Vec<(u32, Hit)> = found.into_iter().filter_map(|(i, hit)| Some((i, hit?))).collect();
            found.iter().for_each(|(_, hit)| add_accepted(&mut self.versions, hit.made().unwrap_or(view.version()), 1));
            accepted += found.len() as u64;
            writes.extend(resolver.adopt(&flow.batch, &found, Some(view.version())));
        }
        self.report.accepted += accepted;
        self.report.due += flow.resolved.due.len() as u64 - accepted;
        Ok(store.commit(&writes)?)
    }
}
