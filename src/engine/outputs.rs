//! Output files: the rows of complete stages, written whole or not at all, and only where they are not current.

use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};

use super::EngineError;
use super::events::Event;
use super::look::rows_with_failed;
use super::replay::Replay;
use crate::data::Table;
use crate::data::export::{ExportFormat, Schema, WholeFile, Writer};
use crate::diagnostic::Diagnostic;
use crate::spec::leads_outside;
use crate::spec::model::{Output, Workflow};
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

/// Writes the outputs of the stages that are `complete`, in the run of that id; the paths of those written.
///
/// # Errors
/// When a file cannot be written, or the rows cannot be brought under one schema.
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
    let mut paths = Vec::new();
    for output in due {
        let shown = path_of(replay, run, output)?;
        let path = workflow.dir.join(&shown);
        let from = format!("{} {:?} {:?} {}", states[output.stage], output.format, output.columns, output.with_failed);
        let key = format!("output/{}", replay.plan.secrets.stand_in(&shown));
        let known = replay.store.note(&key)?.and_then(|json| serde_json::from_str::<Written>(&json).ok());
        if known.is_some() && known == written(&path, &from) {
            continue;
        }
        let rows = write_one(replay, output, &path)?;
        if let Some(written) = written(&path, &from) {
            let json = serde_json::to_string(&written).expect("numbers serialise");
            replay.store.commit(&[Write::Note { key, json }])?;
        }
        let shown = replay.plan.secrets.hide(&shown).into_owned();
        let stage = replay.plan.stages[output.stage].name.clone();
        let _ = events.send(Event::OutputWritten { stage, path: shown.clone(), rows });
        paths.push(shown);
    }
    Ok(paths)
}

fn path_of(replay: &Replay, run: &str, output: &Output) -> Result<String, EngineError> {
    let workflow = &replay.plan.workflow;
    let stage = replay.plan.stages[output.stage].name.clone();
    let path = match render(workflow, run, output) {
        Ok(path) => path,
        Err(problem) => return Err(EngineError::OutputPath { stage, problem: problem.to_string() }),
    };
    match outside(workflow, output, &path) {
        None => Ok(path),
        Some(place) => Err(EngineError::OutputPath {
            stage,
            problem: format!("{} is out of the workflow's folder, and `allow_outside` is not true", place.display()),
        }),
    }
}

fn render(workflow: &Workflow, run: &str, output: &Output) -> Result<String, RenderError> {
    let environment = |name: &str| std::env::var(name).ok();
    let scope = Scope {
        params: &workflow.params,
        env: Some(&environment),
        run: Some((run, &workflow.name)),
        ..Scope::default()
    };
    output.path.render_text(&scope)
}

/// Outputs whose templates lead out of the workflow's folder over a link, as far as that can be told before a run.
pub fn check(workflow: &Workflow) -> Vec<Diagnostic> {
    let place = |output: &Output| outside(workflow, output, &render(workflow, "", output).ok()?);
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

fn write_one(replay: &Replay, output: &Output, path: &Path) -> Result<u64, EngineError> {
    let mut schema = Schema::default();
    each_table(replay, output, &mut |table| {
        schema.observe(table);
        Ok(())
    })?;
    let format = ExportFormat::from(output.format);
    let schema = schema.finish(format)?;
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
