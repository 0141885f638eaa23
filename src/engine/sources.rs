//! What reading the sources of a workflow does.

use super::EngineError;
use super::api::{Flow, RunOptions};
use super::run::{compile, selected_stages};
use crate::spec::model::{Reader, Source};

/// The sources that are read by running a program, and the programs, in the order of the file.
///
/// # Errors
/// When the workflow cannot be planned.
pub fn programs(flow: &Flow, options: &RunOptions) -> Result<Vec<(String, String)>, EngineError> {
    let sources = &flow.workflow.sources;
    if !sources.iter().any(|source| matches!(source.reader, Reader::Program(_))) {
        return Ok(Vec::new());
    }
    let plan = compile(flow, options, "plan")?;
    let selected = selected_stages(&plan, options.stage.as_deref())?;
    let mut read = vec![false; sources.len()];
    plan.sources_of(&selected).into_iter().for_each(|source| mark(sources, source, &mut read));
    let told = sources.iter().zip(read).filter_map(|(source, read)| match &source.reader {
        Reader::Program(program) if read => {
            Some((source.name.clone(), plan.secrets.hide(&program.to_string()).into_owned()))
        }
        _ => None,
    });
    Ok(told.collect())
}

/// Marks a source, and those whose columns it names.
fn mark(sources: &[Source], source: usize, read: &mut [bool]) {
    if std::mem::replace(&mut read[source], true) {
        return;
    }
    if let Reader::Sweep(sweep) = &sources[source].reader {
        sweep.sources().for_each(|other| mark(sources, other, read));
    }
}
