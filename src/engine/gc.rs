//! Which results nothing needs any more.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::EngineError;
use super::api::{Flow, RunOptions};
use super::replay::{Replay, Sources};
use super::resolve::{Policy, Resolver};
use super::run::{compile, open_for_writing};
use super::versions::with_results;
use crate::data::Hash;
use crate::plan::Plan;
use crate::store::{Collected, Keep, Kept, Store};

/// What of the store is to go.
#[derive(Debug, Clone, Default)]
pub struct GcOptions {
    /// Earlier versions of each stage that stay as they are.
    pub versions: usize,
    /// Only tells.
    pub dry_run: bool,
    /// Insist on a state on a network file system.
    pub on_network_fs: bool,
}

/// Drops the results of earlier versions, of items that no source has any more and of stages and sources that the
/// workflow no longer has, and gives the room back. Of a stage that never ran at its version as of now, the version
/// that ran last stays.
///
/// # Errors
/// When nothing was run yet, a run is going, or the store cannot be written.
pub fn collect(flow: &Flow, options: &GcOptions) -> Result<Collected, EngineError> {
    Store::read(&flow.state_dir)?.ok_or(EngineError::NoState)?;
    let plan = Arc::new(compile(flow, &RunOptions::default(), "")?);
    let mut store = open_for_writing(flow, &plan, options.on_network_fs, "store gc")?;
    let before = store.file_bytes();
    let collected = {
        let needed = Needed::of(&plan, &store, options.versions)?;
        store.collect(&needed.keep(&plan), options.dry_run)?
    };
    if !options.dry_run {
        store.compact()?;
    }
    Ok(Collected { bytes_before: before, bytes_after: store.file_bytes(), ..collected })
}

/// What results need to stay.
struct Needed {
    /// By stage: what looked up those at its version; `None`: all of them stay.
    current: Vec<(Hash, Option<Resolver>)>,
    /// Earlier versions that stay, by stage.
    earlier: Vec<Vec<Hash>>,
}

impl Needed {
    fn of(plan: &Arc<Plan>, store: &Store, versions: usize) -> Result<Needed, EngineError> {
        let replay = Replay::new(plan.clone(), store.clone(), Sources::Rosters);
        let mut needed = Needed { current: Vec::new(), earlier: Vec::new() };
        for stage in &plan.stages {
            let known = with_results(store, &stage.name)?;
            let ran = known.iter().any(|v| v.version == stage.version);
            let current = if ran { Some(stage.version) } else { known.first().map(|v| v.version) };
            let current = current.unwrap_or(stage.version);
            let earlier = known.iter().map(|v| v.version).filter(|v| *v != current);
            needed.earlier.push(earlier.take(versions).collect());
            let resolver = if ran { given(&replay, stage.index)? } else { None };
            needed.current.push((current, resolver));
        }
        Ok(needed)
    }

    fn keep(&self, plan: &Plan) -> Keep<'_> {
        let mut outcomes = BTreeMap::new();
        for (stage, ((version, resolver), earlier)) in plan.stages.iter().zip(self.current.iter().zip(&self.earlier)) {
            let view = resolver.as_ref().and_then(|resolver| resolver.view.as_ref());
            let kept = view.map_or(Kept::All, Kept::Given);
            outcomes.insert((stage.name.clone(), *version), kept);
            outcomes.extend(earlier.iter().map(|version| ((stage.name.clone(), *version), Kept::All)));
        }
        Keep {
            outcomes,
            sources: plan.workflow.sources.iter().map(|source| source.name.clone()).collect(),
            stages: plan.stages.iter().map(|stage| stage.name.clone()).collect(),
        }
    }
}

/// Looks all items of a stage up, so that its view knows which outcomes they have; `None` if not all are known.
fn given(replay: &Replay, stage: usize) -> Result<Option<Resolver>, EngineError> {
    let resolver = replay.resolver(stage, Policy::default())?;
    let mut all = true;
    let _ = replay.resolved_by(&resolver, &mut |flow| {
        all &= flow.blocked == 0 && flow.possible == 0;
        Ok(if all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(all.then_some(resolver))
}
