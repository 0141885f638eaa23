//! Rows of finished stages that other stages share: their content, which counts as part of what each item sees, and
//! the files from which workers load them.
//!
//! The content is known only once the shared stage has finished, so it is no part of a version: it is mixed into the
//! hash of every item's input. Equal rows give equal content, however the stage came by them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

use super::EngineError;
use super::replay::Replay;
use crate::data::export::{ExportError, ExportFormat, Schema, WholeFile, Writer};
use crate::data::source::FileStamp;
use crate::data::{Hash, Table, Uses, row_hashes};
use crate::executor::wire::rows_frame;
use crate::executor::{SharedForm, SharedObject};
use crate::plan::PlannedStage;
use crate::store::{Store, Write};

/// The content of a stage's rows, in their order, batch by batch.
#[derive(Default)]
pub struct Content(blake3::Hasher);

impl Content {
    /// Adds rows.
    pub fn add(&mut self, table: &Table) {
        row_hashes(table, &Uses::All).iter().for_each(|hash| _ = self.0.update(&hash.0));
    }

    /// The hash of all of them.
    pub fn finish(&self) -> Hash {
        Hash::from(&self.0.finalize())
    }
}

/// What the stages that `stage` shares hold now: for each its name as a keyword, the stage, and the content of its rows.
///
/// # Errors
/// When the store cannot be read.
pub fn contents(replay: &Replay, stage: &PlannedStage) -> Result<Vec<(String, usize, Hash)>, EngineError> {
    let mut contents = Vec::new();
    for (name, shared) in stage.shared_stages() {
        let mut content = Content::default();
        each_table(replay, shared, &mut |table| {
            content.add(table);
            Ok(())
        })?;
        contents.push((name.to_string(), shared, content.finish()));
    }
    Ok(contents)
}

/// All contents as one hash; none where nothing is shared.
pub fn united(contents: &[(String, usize, Hash)]) -> Option<Hash> {
    let parts = contents.iter().flat_map(|(name, _, content)| [name.as_bytes(), &content.0]);
    (!contents.is_empty()).then(|| Hash::of_parts(parts))
}

/// Makes the rows that a stage shares ready: what workers load, the content of all, and a note of it for later plans.
///
/// # Errors
/// When the rows cannot be brought under one schema, or not be written.
pub fn share(
    replay: &Replay,
    stage: &PlannedStage,
    state_dir: &Path,
) -> Result<(Vec<SharedObject>, Hash, Write), EngineError> {
    let contents = contents(replay, stage)?;
    let objects = objects(replay, &contents, state_dir).map_err(|error| match error {
        EngineError::Export(problem) => {
            let names: Vec<&str> = contents.iter().map(|(name, ..)| name.as_str()).collect();
            let message = format!("share.{}: {problem}", names.join(", "));
            EngineError::Broken { stage: stage.name.clone(), message }
        }
        error => error,
    })?;
    Ok((objects, united(&contents).unwrap_or_default(), note(&stage.name, &contents)))
}

/// Writes the rows of shared stages below the state folder, unless they are there.
fn objects(
    replay: &Replay,
    contents: &[(String, usize, Hash)],
    state_dir: &Path,
) -> Result<Vec<SharedObject>, EngineError> {
    let mut objects = Vec::new();
    for (name, stage, content) in contents {
        let of = &replay.plan.stages[*stage].name;
        let folder = state_dir.join("share").join(of);
        let path = folder.join(format!("{content}.arrow"));
        let beside = folder.join(format!("{content}.arrow.rows"));
        if !path.is_file() || !beside.is_file() {
            write_table(replay, *stage, &path)?;
            write_rows(replay, *stage, &beside)?;
            keep_only(&content.to_string(), &folder);
        }
        let failed = |source| EngineError::Output { path: path.display().to_string(), source };
        let stamp = FileStamp::of(&path.metadata().map_err(failed)?);
        let shown = format!("the rows of {of}");
        objects.push(SharedObject {
            name: name.clone(),
            shown,
            form: SharedForm::Rows,
            path,
            stamp,
            content: *content,
        });
    }
    Ok(objects)
}

/// What a stage begins to run with.
fn note(stage: &str, contents: &[(String, usize, Hash)]) -> Write {
    let contents: BTreeMap<&str, String> = contents.iter().map(|(name, _, hash)| (&**name, hash.to_string())).collect();
    Write::Note { key: key(stage), json: serde_json::to_string(&contents).expect("text serialises") }
}

/// Which shared rows are others than when the stage last ran.
///
/// # Errors
/// When the store cannot be read.
pub fn changed(store: &Store, stage: &str, contents: &[(String, usize, Hash)]) -> Result<Vec<usize>, EngineError> {
    let note = store.note(&key(stage))?;
    let known: BTreeMap<String, String> = note.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
    let other = |name: &String, hash: &Hash| known.get(name).is_some_and(|known| *known != hash.to_string());
    Ok((0..contents.len()).filter(|&i| other(&contents[i].0, &contents[i].2)).collect())
}

fn key(stage: &str) -> String {
    format!("share/{stage}")
}

/// Removes the rows that the stage had before.
fn keep_only(content: &str, folder: &Path) {
    for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if !file.file_name().to_string_lossy().starts_with(content) {
            let _ = std::fs::remove_file(file.path());
        }
    }
}

fn each_table(
    replay: &Replay,
    stage: usize,
    see: &mut dyn FnMut(&Table) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let _ = replay.resolved(stage, &mut |flow| {
        see(&flow.resolved.out.table)?;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(())
}

fn write_table(replay: &Replay, stage: usize, path: &Path) -> Result<(), EngineError> {
    let mut schema = Schema::default();
    each_table(replay, stage, &mut |table| {
        schema.observe(table);
        Ok(())
    })?;
    let schema = schema.finish(ExportFormat::MappedArrow)?;
    whole(path, |sink| {
        let mut writer = Writer::new(ExportFormat::MappedArrow, &schema, sink)?;
        each_table(replay, stage, &mut |table| Ok(writer.write(table)?))?;
        Ok(writer.finish()?)
    })
}

fn write_rows(replay: &Replay, stage: usize, path: &Path) -> Result<(), EngineError> {
    whole(path, |mut sink| {
        each_table(replay, stage, &mut |table| Ok(sink.write_all(&rows_frame(table)).map_err(ExportError::from)?))
    })
}

fn whole(
    path: &Path,
    write: impl FnOnce(crate::data::export::Sink) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let failed = |source| EngineError::Output { path: path.display().to_string(), source };
    let file = WholeFile::create(path).map_err(failed)?;
    write(file.sink().map_err(failed)?)?;
    file.commit().map_err(failed)
}
