//! Outputs: the rows of complete stages as files and tables, written whole or not at all, and only where they are not
//! current.

use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};

use super::EngineError;
use super::events::Event;
use super::look::rows_with_failed;
use super::replay::Replay;
use crate::data::export::{ExportFormat, Schema, TableTarget, TableWriter, WholeFile, Writer};
use crate::data::{Hash, Table};
use crate::diagnostic::Diagnostic;
use crate::spec::leads_outside;
use crate::spec::model::{Format, Output, OutputPlace, Workflow};
use crate::spec::template::{RenderError, Scope};
use crate::store::Write;

/// What is known of a file that was written.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Written {
    /// The stage's state (see [`Replay::states`]) and the form of the output.
    from: String,
    size: u64,
    /// Of the last change, in nanoseconds.
    modified: i128,
}

/// What is known of a table that was written.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Filled {
    /// As [`Written::from`].
    from: String,
    /// See [`TableTarget::identity`].
    identity: Option<String>,
}

/// Writes the outputs of the stages that are `complete`, in the run of that id; the places of those written.
///
/// # Errors
/// When one cannot be written, or the rows cannot be brought under one schema.
pub fn write(
    replay: &Replay,
    run: &str,
    complete: &[bool],
    events: &Sender<Event>,
) -> Result<Vec<String>, EngineError> {
    let workflow = &replay.plan.workflow;
    let due: Vec<&Output> = workflow.outputs.iter().filter(|o| complete[o.stage]).collect();
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let states = replay.states()?;
    let mut places = Vec::new();
    for output in due {
        let state = states[output.stage];
        let written = match &output.place {
            OutputPlace::File { format, .. } => write_file(replay, run, output, *format, state)?,
            OutputPlace::Table(target) => write_table(replay, run, output, target, state)?,
        };
        let Some((shown, rows)) = written else { continue };
        let shown = replay.plan.secrets.hide(&shown).into_owned();
        let stage = replay.plan.stages[output.stage].name.clone();
        let _ = events.send(Event::OutputWritten { stage, path: shown.clone(), rows });
        places.push(shown);
    }
    Ok(places)
}

/// Writes a file unless it is current; its path and rows.
fn write_file(
    replay: &Replay,
    run: &str,
    output: &Output,
    format: Format,
    state: Hash,
) -> Result<Option<(String, u64)>, EngineError> {
    let shown = path_of(replay, run, output)?.unwrap_or_default();
    let path = replay.plan.workflow.dir.join(&shown);
    let from = format!("{state} {format:?} {:?} {}", output.columns, output.with_failed);
    let key = note_key(replay, &shown);
    let known = replay.store.note(&key)?.and_then(|json| serde_json::from_str::<Written>(&json).ok());
    if known.is_some() && known == written(&path, &from) {
        return Ok(None);
    }
    let rows = write_one(replay, output, format, &path)?;
    if let Some(written) = written(&path, &from) {
        let json = serde_json::to_string(&written).expect("numbers serialise");
        replay.store.commit(&[Write::Note { key, json }])?;
    }
    Ok(Some((shown, rows)))
}

/// Fills a table unless it is current; its name and rows.
fn write_table(
    replay: &Replay,
    run: &str,
    output: &Output,
    target: &TableTarget,
    state: Hash,
) -> Result<Option<(String, u64)>, EngineError> {
    path_of(replay, run, output)?;
    let dir = &replay.plan.workflow.dir;
    let shown = target.shown();
    let from = format!("{state} {:?} {:?} {:?} {}", target.mode, target.key, output.columns, output.with_failed);
    let key = note_key(replay, &shown);
    let known = replay.store.note(&key)?.and_then(|json| serde_json::from_str::<Filled>(&json).ok());
    if let Some(known) = known.filter(|known| known.from == from)
        && known.identity == target.identity(dir)?
    {
        return Ok(None);
    }
    let schema = schema_of(replay, output)?.finish_for_table()?;
    let token = format!("{:016x}", Hash::of(format!("{run} {shown} {from}").as_bytes()).short());
    let mut writer = TableWriter::begin(target, dir, &schema, &token)?;
    let mut rows = 0;
    each_table(replay, output, &mut |table| {
        rows += table.rows() as u64;
        Ok(writer.write(table)?)
    })?;
    writer.commit()?;
    let filled = Filled { from, identity: target.identity(dir)? };
    let json = serde_json::to_string(&filled).expect("text serialises");
    replay.store.commit(&[Write::Note { key, json }])?;
    Ok(Some((shown, rows)))
}

fn note_key(replay: &Replay, shown: &str) -> String {
    format!("output/{}", replay.plan.secrets.stand_in(shown))
}

/// The path of the file that an output is or lies in, if it is allowed there.
fn path_of(replay: &Replay, run: &str, output: &Output) -> Result<Option<String>, EngineError> {
    let workflow = &replay.plan.workflow;
    let stage = replay.plan.stages[output.stage].name.clone();
    let path = match render(workflow, run, output) {
        Ok(path) => path,
        Err(problem) => return Err(EngineError::OutputPath { stage, problem: problem.to_string() }),
    };
    match path.as_ref().and_then(|path| outside(workflow, output, path)) {
        None => Ok(path),
        Some(place) => Err(EngineError::OutputPath {
            stage,
            problem: format!("{} is out of the workflow's folder, and `allow_outside` is not true", place.display()),
        }),
    }
}

fn render(workflow: &Workflow, run: &str, output: &Output) -> Result<Option<String>, RenderError> {
    let environment = |name: &str| std::env::var(name).ok();
    let scope = Scope {
        params: &workflow.params,
        env: Some(&environment),
        run: Some((run, &workflow.name)),
        ..Scope::default()
    };
    output.path(&scope)
}

/// Outputs whose templates lead out of the workflow's folder over a link, as far as that can be told before a run.
pub fn check(workflow: &Workflow) -> Vec<Diagnostic> {
    let place = |output: &Output| outside(workflow, output, &render(workflow, "", output).ok()??);
    workflow.outputs.iter().filter_map(|o| Some(leads_outside(o.span, &place(o)?))).collect()
}

/// Where an output's path leads that may not leave the workflow's folder, and does.
fn outside(workflow: &Workflow, output: &Output, path: &str) -> Option<PathBuf> {
    let place = real(&workflow.dir.join(path));
    (!output.allow_outside && !place.starts_with(real(&workflow.dir))).then_some(place)
}

/// The path with its links followed, as far as it is there.
pub fn real(path: &Path) -> PathBuf {
    let mut place = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = place.pop(),
            part => place.push(part),
        }
        place = place.canonicalize().unwrap_or(place);
    }
    place
}

fn written(path: &Path, from: &str) -> Option<Written> {
    let meta = std::fs::metadata(path).ok()?;
    let modified = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    Some(Written { from: from.to_string(), size: meta.len(), modified })
}

/// What the rows of an output hold.
fn schema_of(replay: &Replay, output: &Output) -> Result<Schema, EngineError> {
    let mut schema = output.columns.as_ref().map_or_else(Schema::default, |columns| Schema::of_columns(columns));
    each_table(replay, output, &mut |table| {
        schema.observe(table);
        Ok(())
    })?;
    Ok(schema)
}

fn write_one(replay: &Replay, output: &Output, format: Format, path: &Path) -> Result<u64, EngineError> {
    let format = ExportFormat::from(format);
    let schema = schema_of(replay, output)?.finish(format)?;
    let failed = |source| EngineError::Output { path: path.display().to_string(), source };
    let file = WholeFile::create(path).map_err(failed)?;
    let sink = file.sink().map_err(failed)?;
    let mut writer = Writer::new(format, &schema, sink)?;
    let mut rows = 0;
    each_table(replay, output, &mut |table| {
        rows += table.rows() as u64;
        Ok(writer.write(table)?)
    })?;
    writer.finish()?;
    file.commit().map_err(failed)?;
    Ok(rows)
}

/// The rows of an output, in item order, with the columns asked for.
fn each_table(
    replay: &Replay,
    output: &Output,
    see: &mut dyn FnMut(&Table) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let stage = &replay.plan.stages[output.stage];
    let _ = replay.resolved(output.stage, &mut |flow| {
        let table = if output.with_failed { rows_with_failed(stage, flow) } else { flow.resolved.out.table };
        let table = match &output.columns {
            Some(columns) => table.project(columns),
            None => table,
        };
        see(&table)?;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(())
}
