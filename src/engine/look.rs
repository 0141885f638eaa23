//! Looking at what is stored: results, errors, status, the catalogue of runs. Works from the store alone.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::EngineError;
use super::api::{FailedItem, Flow, RunOptions, SinkError};
use super::events::{FailureGroup, RunRecord, RunState};
use super::replay::{Replay, Sources, StageFlow};
use super::resolve::{Policy, Resolver, usage_of};
use super::run::{compile, remember, stage_named};
use super::stage::Failures;
use super::versions::{Numbers, with_results};
use crate::data::{Column, Table, Usage, Value};
use crate::plan::PlannedStage;
use crate::spec::model::{Input, Verb};
use crate::store::{Hit, Inspection, OpenOptions, Repaired, Store, Write};

/// A replay of what is stored. A stage whose version as of now has no results is shown at the version it last ran
/// with.
///
/// # Errors
/// When nothing was run yet, or the store cannot be read.
fn open(flow: &Flow) -> Result<Replay, EngineError> {
    let store = Store::read(&flow.state_dir)?.ok_or(EngineError::NoState)?;
    let plan = Arc::new(compile(flow, &RunOptions::default(), "")?);
    remember(&plan, &store)?;
    let mut replay = Replay::new(plan.clone(), store, Sources::Rosters);
    let mut versions = Vec::with_capacity(plan.stages.len());
    for stage in &plan.stages {
        let empty = replay.store.view(&stage.name, stage.version)?.is_empty();
        let ran = if empty { with_results(&replay.store, &stage.name)? } else { Vec::new() };
        versions.push(ran.first().map_or(stage.version, |last| last.version));
    }
    replay.versions = Arc::new(versions);
    // What was made is shown, whatever became of it since.
    replay.checks_files = false;
    Ok(replay)
}

/// Which rows of a stage are asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rows {
    /// The failed items instead of the rows.
    pub failed: bool,
    /// With what their items used.
    pub usage: bool,
    pub limit: Option<u64>,
}

/// Streams the rows of a stage in item order; of its failed items (`failed`) their input columns, `status`, `error`
/// and `traceback`. With `usage`, [`super::api::USAGE_COLUMNS`] stand first, but for those whose names the rows have themselves.
///
/// # Errors
/// When there is no such stage, nothing was run yet, or the sink fails.
pub fn results(
    flow: &Flow,
    stage: &str,
    Rows { failed, usage, limit }: Rows,
    sink: &mut dyn FnMut(Table) -> Result<(), SinkError>,
) -> Result<(), EngineError> {
    let replay = open(flow)?;
    let index = stage_named(&replay.plan, stage)?;
    let mut left = limit.unwrap_or(u64::MAX);
    let resolver = Resolver { keeps_hits: usage, ..replay.resolver(index, Policy::default())? };
    let numbers = if usage { Numbers::of(&replay.store, stage)? } else { Numbers::default() };
    let made = |hit: &Hit| numbers.get(hit.made().unwrap_or(replay.versions[index]));
    let _ = replay.resolved_by(&resolver, &mut |flow| {
        let table = match (failed, usage) {
            (true, false) => failed_rows(&flow, true),
            (true, true) => usage_of(&flow.resolved.failed, made).join(&failed_rows(&flow, true)),
            (false, false) => flow.resolved.out.table,
            (false, true) => usage_of(&flow.resolved.hits, made).join(&flow.resolved.out.table),
        };
        let rows = (table.rows() as u64).min(left);
        left -= rows;
        if rows > 0 {
            sink(table.slice(0, rows as usize)).map_err(EngineError::Sink)?;
        }
        Ok(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    if failed {
        bad_rows(&replay, index, left, sink)?;
    }
    Ok(())
}

/// The rows of a source that could not be read, as failed items of the stage that maps over it.
fn bad_rows(
    replay: &Replay,
    stage: usize,
    mut left: u64,
    sink: &mut dyn FnMut(Table) -> Result<(), SinkError>,
) -> Result<(), EngineError> {
    each_bad_row(replay, &replay.plan.stages[stage], &mut |key, failure| {
        if left > 0 {
            left -= 1;
            let row = [
                ("key", key.to_string()),
                ("status", "failed".into()),
                ("error", told(failure)),
                ("traceback", String::new()),
            ];
            let row = row.into_iter().map(|(name, text)| (name.to_string(), Value::Text(text))).collect();
            sink(Table::from_rows([row])).map_err(EngineError::Sink)?;
        }
        Ok(())
    })
}

fn each_bad_row(
    replay: &Replay,
    stage: &PlannedStage,
    see: &mut dyn FnMut(&str, &crate::data::Failure) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    for input in &stage.inputs {
        let Input::Source(source) = input else { continue };
        let Some(roster) = replay.store.roster(&replay.plan.workflow.sources[*source].name)? else { continue };
        for n in 0..roster.info().batches {
            for (_, key, failure) in roster.batch(n)?.iter().flat_map(|batch| &batch.bad) {
                see(key, failure)?;
            }
        }
    }
    Ok(())
}

fn told(failure: &crate::data::Failure) -> String {
    format!("{}: {}", failure.kind, failure.message)
}

/// The failed items of a batch: their input columns, `status`, `error` and perhaps `traceback`.
pub fn failed_rows(flow: &StageFlow, traceback: bool) -> Table {
    let places: Vec<u32> = flow.resolved.failed.iter().map(|(i, _)| *i).collect();
    let rows = flow.resolved.failed.iter().map(|(_, hit)| {
        let failure = hit.failure();
        let mut row = vec![
            ("status".to_string(), Value::Text("failed".into())),
            ("error".to_string(), failure.map_or(Value::Null, |f| Value::Text(told(f)))),
        ];
        if traceback {
            row.push(("traceback".to_string(), failure.map_or(Value::Null, |f| Value::Text(f.traceback.clone()))));
        }
        row
    });
    if places.is_empty() {
        return Table::empty(0);
    }
    flow.batch.table.take(&places).join(&Table::from_rows(rows))
}

/// The rows of a batch, failed ones among them, with `status` and `error`. In item order where each item is a row.
pub fn rows_with_failed(stage: &PlannedStage, flow: StageFlow) -> Table {
    let failed = failed_rows(&flow, false);
    let done = flow.resolved.out.table.rows();
    let status = Table::new(
        Arc::from([Arc::from("status"), Arc::from("error")]),
        vec![Column::repeat(&Value::Text("done".into()), done), Column::repeat(&Value::Null, done)],
        done,
    );
    let both = Table::concat(&[flow.resolved.out.table.join(&status), failed]);
    if stage.verb != Verb::Map {
        return both;
    }
    let due: Vec<u32> = flow.resolved.due.iter().map(|(i, _)| *i).collect();
    let mut failed_at = flow.resolved.failed.iter().map(|(i, _)| *i).peekable();
    let (mut next_done, mut next_failed) = (0, done as u32);
    let mut order = Vec::with_capacity(both.rows());
    for i in (0..flow.batch.len() as u32).filter(|i| due.binary_search(i).is_err()) {
        let next = if failed_at.next_if_eq(&i).is_some() { &mut next_failed } else { &mut next_done };
        order.push(*next);
        *next += 1;
    }
    both.take(&order)
}

/// Failures that hold, grouped; none where nothing was run yet.
///
/// # Errors
/// When the store cannot be read.
pub fn errors(flow: &Flow, stage: Option<&str>) -> Result<Vec<FailureGroup>, EngineError> {
    let replay = match open(flow) {
        Err(EngineError::NoState) => return Ok(Vec::new()),
        opened => opened?,
    };
    let mut groups = Vec::new();
    for index in stages_asked(&replay, stage)? {
        let planned = replay.plan.stages[index].clone();
        let mut failures = Failures::default();
        each_bad_row(&replay, &planned, &mut |key, failure| {
            failures.add(|| key.to_string(), failure);
            Ok(())
        })?;
        let _ = replay.resolved(index, &mut |flow| {
            for (i, hit) in &flow.resolved.failed {
                if let Some(failure) = hit.failure() {
                    failures.add(|| flow.batch.items.key(*i as usize), failure);
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        groups.extend(failures.groups(&planned.name));
    }
    Ok(groups)
}

fn stages_asked(replay: &Replay, stage: Option<&str>) -> Result<Vec<usize>, EngineError> {
    match stage {
        Some(name) => Ok(vec![stage_named(&replay.plan, name)?]),
        None => Ok(replay.plan.graph.order().to_vec()),
    }
}

/// The failures of the item with this key.
///
/// # Errors
/// When nothing was run yet, or the store cannot be read.
pub fn failure_of(flow: &Flow, stage: Option<&str>, key: &str) -> Result<Vec<FailedItem>, EngineError> {
    let replay = open(flow)?;
    let mut found = Vec::new();
    for index in stages_asked(&replay, stage)? {
        let planned = replay.plan.stages[index].clone();
        each_bad_row(&replay, &planned, &mut |bad, failure| {
            if bad == key {
                found.push((planned.name.clone(), key.to_string(), failure.clone(), 1, Usage::default()));
            }
            Ok(())
        })?;
        let _ = replay.resolved(index, &mut |flow| {
            for (i, hit) in &flow.resolved.failed {
                if let Some(failure) = hit.failure().filter(|_| flow.batch.items.key(*i as usize) == key) {
                    let at = hit.at as usize;
                    let (attempts, usage) = (hit.segment.attempts[at], hit.segment.usage[at]);
                    found.push((planned.name.clone(), key.to_string(), failure.clone(), attempts, usage));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(found)
}

/// The latest run. Its state is [`RunState::Running`] only while its owner lives.
///
/// # Errors
/// When the store cannot be read.
pub fn status(flow: &Flow) -> Result<Option<RunRecord>, EngineError> {
    Ok(runs(flow)?.pop())
}

/// All runs, the latest last.
///
/// # Errors
/// When the store cannot be read.
pub fn runs(flow: &Flow) -> Result<Vec<RunRecord>, EngineError> {
    let Some(store) = Store::read(&flow.state_dir)? else { return Ok(Vec::new()) };
    let owner = Store::owner(&flow.state_dir);
    let notes = store.notes("run/")?;
    let mut records: Vec<RunRecord> = notes.iter().filter_map(|(_, json)| serde_json::from_str(json).ok()).collect();
    for record in &mut records {
        let lives = owner.as_ref().is_some_and(|o| o.pid == record.pid && o.host == record.host);
        if record.state == RunState::Running && !lives {
            record.state = RunState::Interrupted;
            record.reason = Some("it was killed".to_string());
            for (_, counts) in &mut record.stages {
                let known = counts.done + counts.failed + counts.blocked + counts.possible;
                counts.due = counts.total.saturating_sub(known);
                counts.running = 0;
            }
        }
    }
    Ok(records)
}

/// What the store holds; with `verify`, everything is read.
///
/// # Errors
/// When nothing was run yet, or the store's file cannot be read.
pub fn inspect(flow: &Flow, verify: bool) -> Result<Inspection, EngineError> {
    if verify {
        let options = OpenOptions { command: "store verify", ..OpenOptions::default() };
        return Store::verify(&flow.state_dir, &options)?.ok_or(EngineError::NoState);
    }
    Ok(Store::read(&flow.state_dir)?.ok_or(EngineError::NoState)?.stats()?)
}

/// Keeps what is whole of a damaged store.
///
/// # Errors
/// When nothing was run yet, a run is going, or the new file cannot be written.
pub fn repair(flow: &Flow) -> Result<Repaired, EngineError> {
    let options = OpenOptions { command: "store verify --repair", ..OpenOptions::default() };
    Store::repair(&flow.state_dir, &options)?.ok_or(EngineError::NoState)
}

/// Removes a run from the catalogue (its results stay); false when there is none of this id.
///
/// # Errors
/// When the store cannot be written.
pub fn remove_run(flow: &Flow, id: &str) -> Result<bool, EngineError> {
    let known = runs(flow)?.iter().any(|run| run.id == id);
    if known {
        let options = OpenOptions { on_network_fs: true, command: "runs rm" };
        Store::open(&flow.state_dir, &options)?.commit(&[Write::RemoveNote { key: format!("run/{id}") }])?;
    }
    Ok(known)
}
