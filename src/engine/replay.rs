//! Rows of a stage in item order, from the store alone: the roster's batches, each joined stage by stage with the
//! results that hold.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::EngineError;
use super::groups::{self, Groups};
use super::resolve::{Policy, Resolved, Resolver, Turns, with_input_number};
use super::shared;
use crate::data::{Batch, Hash, Items, Table};
use crate::plan::{Plan, PlannedStage};
use crate::spec::model::{Input, Verb};
use crate::store::Store;
use crate::store::model::RosterBatch;

/// Where the rows of sources are taken from.
#[derive(Clone)]
pub enum Sources {
    /// The store's rosters.
    Rosters,
    /// These, by source: what `--limit` leaves of them.
    Chosen(Arc<Vec<Vec<Arc<RosterBatch>>>>),
}

/// A batch on its way, and how many items are missing from it.
pub struct Flow {
    pub batch: Batch,
    /// Items behind a failure.
    pub blocked: u64,
    /// Items behind something that is to be run.
    pub possible: u64,
}

/// Replays stages as they are committed now.
#[derive(Clone)]
pub struct Replay {
    pub plan: Arc<Plan>,
    pub store: Store,
    pub sources: Sources,
    /// Whether the files that results tell of must still be there for them to hold.
    pub checks_files: bool,
    /// A version to look at instead of the plan's, by stage.
    pub versions: Arc<Vec<Hash>>,
}

/// Whether to go on.
pub type Step = Result<ControlFlow<()>, EngineError>;

impl Replay {
    /// Replays at the plan's own versions.
    pub fn new(plan: Arc<Plan>, store: Store, sources: Sources) -> Replay {
        let versions = plan.stages.iter().map(|stage| stage.version).collect();
        Replay { plan, store, sources, checks_files: true, versions: Arc::new(versions) }
    }

    /// Calls `sink` with the rows of `input`, in order, until it breaks.
    ///
    /// # Errors
    /// When the store cannot be read, or `sink` fails.
    pub fn rows_of(&self, input: Input, sink: &mut dyn FnMut(Flow) -> Step) -> Step {
        match input {
            Input::Source(source) => self.source_rows(source, sink),
            Input::Stage(stage) => self.resolved(stage, &mut |flow| {
                let (blocked, possible) = flow.behind();
                sink(Flow { batch: flow.resolved.out, blocked, possible })
            }),
        }
    }

    /// Calls `sink` with each batch of a stage, looked up.
    ///
    /// # Errors
    /// When the store cannot be read, or `sink` fails.
    pub fn resolved(&self, stage: usize, sink: &mut dyn FnMut(StageFlow) -> Step) -> Step {
        self.resolved_by(&self.resolver(stage, Policy::default())?, sink)
    }

    /// The same with a resolver at hand.
    ///
    /// # Errors
    /// As [`Replay::resolved`].
    pub fn resolved_by(&self, resolver: &Resolver, sink: &mut dyn FnMut(StageFlow) -> Step) -> Step {
        let planned = resolver.stage.clone();
        match planned.verb {
            Verb::Reduce { .. } | Verb::Once => {
                let groups = self.groups(&planned)?;
                let resolved = resolver.resolve_known(&groups.batch, groups.inputs)?;
                let flow =
                    StageFlow { batch: groups.batch, resolved, blocked: groups.blocked, possible: groups.possible };
                sink(flow)
            }
            _ => {
                let mut index = 0;
                self.inputs_of(&planned, &mut |flow| {
                    let resolved = resolver.resolve(&flow.batch, index)?;
                    index += flow.batch.len() as u64;
                    let Flow { batch, blocked, possible } = flow;
                    sink(StageFlow { batch, resolved, blocked, possible })
                })
            }
        }
    }

    /// Calls `sink` with the rows that a stage maps over, input after input.
    ///
    /// # Errors
    /// When the store cannot be read, or `sink` fails.
    pub fn inputs_of(&self, stage: &PlannedStage, sink: &mut dyn FnMut(Flow) -> Step) -> Step {
        for &input in &stage.inputs {
            let step = self.rows_of(input, &mut |flow| {
                sink(Flow { batch: with_input_number(stage, input, flow.batch), ..flow })
            })?;
            if step.is_break() {
                return Ok(step);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The groups of a reduce (or the one item of a stage that runs once).
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn groups(&self, stage: &PlannedStage) -> Result<Groups, EngineError> {
        match stage.verb {
            Verb::Once => Ok(groups::once()),
            _ => groups::of_stage(self, stage),
        }
    }

    /// Looks results of `stage` up as they are committed now.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn resolver(&self, stage: usize, policy: Policy) -> Result<Resolver, EngineError> {
        let planned = self.plan.stages[stage].clone();
        let view = self.store.view(&planned.name, self.versions[stage])?;
        let params = Arc::new(self.plan.params().to_vec());
        Ok(Resolver {
            stage: planned,
            view: Some(view),
            dir: self.plan.workflow.dir.clone(),
            policy: Arc::new(policy),
            params,
            keeps_hits: false,
            digests: self.plan.reading.0.digests.clone(),
            checks_files: self.checks_files,
            workshop: None,
            shared: shared::united(&shared::contents(self, &self.plan.stages[stage])?),
            turns: Turns::default(),
        })
    }

    fn source_rows(&self, source: usize, sink: &mut dyn FnMut(Flow) -> Step) -> Step {
        let roster = self.store.roster(&self.plan.workflow.sources[source].name)?;
        let mut number = 0;
        loop {
            let batch = match (&self.sources, &roster) {
                (Sources::Rosters, Some(roster)) => roster.batch(number)?.map(Arc::new),
                (Sources::Rosters, None) => None,
                (Sources::Chosen(chosen), _) => chosen[source].get(number as usize).cloned(),
            };
            let Some(batch) = batch else { return Ok(ControlFlow::Continue(())) };
            number += 1;
            let rows = Batch { items: batch.items.clone(), table: batch.table.clone() };
            if sink(Flow { batch: rows, blocked: batch.bad.len() as u64, possible: 0 })?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }

    fn state_of_source(&self, source: usize) -> Result<Hash, EngineError> {
        match &self.sources {
            Sources::Rosters => {
                let roster = self.store.roster(&self.plan.workflow.sources[source].name)?;
                Ok(roster.map_or(Hash::default(), |r| r.info().digest))
            }
            Sources::Chosen(chosen) => Ok(Hash::of_parts(chosen[source].iter().map(|b| b.digest.0.as_slice()))),
        }
    }

    /// Of each stage, a hash of all that its rows can depend on.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn states(&self) -> Result<Vec<Hash>, EngineError> {
        let mut states = vec![Hash::default(); self.plan.stages.len()];
        for &index in self.plan.graph.order() {
            let planned = &self.plan.stages[index];
            let mut parts = vec![self.versions[index].0.to_vec()];
            parts.push(format!("{:?} {:?} {:?}", planned.verb, planned.uses, planned.keep).into_bytes());
            parts.push(self.store.last_sequence(&planned.name)?.to_le_bytes().to_vec());
            parts.extend(planned.shared_stages().map(|(_, shared)| states[shared].0.to_vec()));
            for input in &planned.inputs {
                parts.push(match input {
                    Input::Stage(upstream) => states[*upstream].0.to_vec(),
                    Input::Source(source) => self.state_of_source(*source)?.0.to_vec(),
                });
            }
            states[index] = Hash::of_parts(parts.iter().map(Vec::as_slice));
        }
        Ok(states)
    }
}

/// A batch of a stage, looked up, and how many items never reached it.
pub struct StageFlow {
    pub batch: Batch,
    pub resolved: Resolved,
    pub blocked: u64,
    pub possible: u64,
}

impl StageFlow {
    /// How many items are missing downstream: behind a failure, behind something to run.
    pub fn behind(&self) -> (u64, u64) {
        let blocked = self.blocked + self.resolved.failed.len() as u64;
        (blocked, self.possible + self.resolved.due.len() as u64)
    }
}

/// The rows that a stage maps over as an iterator that a worker can pull: a thread replays, a few batches ahead. A
/// replay that fails is told to `failed`; the iterator ends there.
pub fn stream(
    replay: Replay,
    stage: Arc<PlannedStage>,
    failed: impl Fn(EngineError) + Send + 'static,
) -> Box<dyn Iterator<Item = Table> + Send> {
    let (sender, receiver) = crossbeam_channel::bounded(2);
    std::thread::spawn(move || {
        let step = replay.inputs_of(&stage, &mut |flow| {
            let gone = !flow.batch.is_empty() && sender.send(flow.batch.table).is_err();
            Ok(if gone { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        if let Err(error) = step {
            failed(error);
        }
    });
    Box::new(receiver.into_iter())
}

/// One item without a source: row 0.
pub fn single_item() -> Items {
    Items { rows: vec![0], origins: vec![0], keys: None }
}
