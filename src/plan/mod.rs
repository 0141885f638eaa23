//! From a workflow to what is to be run: the graph of stages, and for each stage everything that can be decided
//! before a row is read.
//!
//! [`Plan::compile`] resolves constant templates, finds the code that results depend on and computes each stage's
//! version. Nothing after it sees an option that it could have resolved.

mod code;
mod compile;
mod fingerprint;
mod graph;
mod packages;
mod scripts;

mod validity;

use std::path::PathBuf;
use std::sync::Arc;

pub use compile::{find_program, named_interpreter};
pub use fingerprint::{Change, Fingerprint};
pub use graph::Graph;

use crate::data::{Hash, Secrets, Uses, Value, source};
use crate::executor::{Job, SharedObject};
use crate::spec::model::{CommandAction, Input, Program, Reader, Remote, Settings, Shared, Verb, Workflow};
use crate::spec::template::{Expression, TemplateTree};

/// A workflow, ready to run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub workflow: Arc<Workflow>,
    pub graph: Graph,
    /// In step with the workflow's stages.
    pub stages: Vec<Arc<PlannedStage>>,
    /// What sources are read in: outputs never match, digests of files are remembered.
    pub reading: Reading,
    /// What must not be shown or kept.
    pub secrets: Arc<Secrets>,
}

/// What sources are read in.
#[derive(Clone)]
pub struct Reading(pub source::Surroundings);

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reading({})", self.0.dir.display())
    }
}

/// A stage, resolved.
#[derive(Debug, Clone)]
pub struct PlannedStage {
    pub index: usize,
    pub name: String,
    pub verb: Verb,
    pub inputs: Vec<Input>,
    pub after: Vec<usize>,
    /// The columns that results depend on.
    pub uses: Uses,
    /// The columns that are passed on; `None`: all.
    pub keep: Option<Vec<String>>,
    /// Whether the item's key is part of what its action sees.
    pub sees_key: bool,
    /// Whether the item's row number in the stage is; such a stage keeps order.
    pub sees_index: bool,
    /// Whether all sources above name their items by key.
    pub keyed: bool,
    pub fingerprint: Fingerprint,
    /// The fingerprint's hash.
    pub version: Hash,
    pub run: Run,
    pub settings: Settings,
    /// How many items of it run at once.
    pub workers: usize,
    /// The action in a few words, for people.
    pub action: String,
}

/// How a stage's items are run.
#[derive(Debug, Clone)]
pub enum Run {
    /// By a Python worker; these arguments differ from item to item.
    Python { job: Arc<Job>, args: Vec<(String, TemplateTree)> },
    /// By a command worker.
    Command { job: Arc<Job>, action: CommandAction },
    /// In bpp-flow itself.
    Assign(Vec<(String, Expression)>),
    /// In bpp-flow itself.
    Where(Expression),
}

impl PlannedStage {
    /// Whether the stage waits for all of its input: its rows are replayed from the store then.
    pub fn is_gated(&self) -> bool {
        let in_order = matches!(self.inputs[..], [Input::Source(_)]);
        matches!(self.verb, Verb::Reduce { .. } | Verb::Once)
            || !self.after.is_empty()
            || (self.sees_index && !in_order)
    }

    /// Whether bpp-flow itself evaluates it, without a worker.
    pub fn runs_inside(&self) -> bool {
        matches!(self.run, Run::Assign(_) | Run::Where(_))
    }

    /// The engine beyond this machine that runs it.
    pub fn remote(&self) -> Option<&Arc<Remote>> {
        self.settings.backend.remote.as_ref()
    }

    /// Whether its number of rows is not that of its items.
    pub fn changes_count(&self) -> bool {
        !matches!(self.verb, Verb::Map)
    }

    /// The stages whose rows it shares, with the names under which it does.
    pub fn shared_stages(&self) -> impl Iterator<Item = (&str, usize)> {
        self.settings.share.iter().filter_map(|share| match share.from {
            Shared::Stage(stage) => Some((share.name.as_str(), stage)),
            Shared::File { .. } => None,
        })
    }

    /// The same stage with more for its workers to load.
    #[must_use]
    pub fn with_objects(&self, objects: Vec<SharedObject>) -> PlannedStage {
        let mut stage = self.clone();
        if let Run::Python { job, .. } = &mut stage.run {
            let job = Arc::make_mut(job);
            job.pool.python.iter_mut().for_each(|python| python.share.extend(objects.iter().cloned()));
        }
        stage
    }

    /// The columns by which a reduce groups.
    pub fn group_by(&self) -> &[String] {
        match &self.verb {
            Verb::Reduce { group_by, .. } => group_by,
            _ => &[],
        }
    }
}

/// What a plan takes from outside the workflow file.
pub struct Surroundings<'a> {
    /// The environment.
    pub env: &'a (dyn Fn(&str) -> Option<String> + Sync),
    /// Cores of the machine.
    pub cores: usize,
    /// `-j`: the most items at once.
    pub workers: Option<usize>,
    /// Id of the run and name of the workflow, for templates that name `run`.
    pub run: (&'a str, &'a str),
    /// A backend for all stages (`--debug`).
    pub backend: Option<crate::spec::model::Backend>,
    /// What must not be shown or kept.
    pub secrets: &'a Arc<Secrets>,
    /// What is known of files' contents.
    pub digests: &'a Arc<source::Digests>,
    /// Runs the programs of sources.
    pub programs: Option<Arc<dyn source::Programs>>,
}

/// The workflow cannot be planned here.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A constant template cannot be rendered.
    #[error("stage {stage}: {what}: {problem}")]
    Template { stage: String, what: String, problem: String },
    /// A file that results depend on cannot be read.
    #[error("stage {stage}: cannot read {}", path.display())]
    Unreadable {
        stage: String,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// No Python interpreter.
    #[error("stage {stage}: no Python interpreter {interpreter:?} found")]
    NoInterpreter { stage: String, interpreter: String },
    /// The interpreter does not say where it looks for packages.
    #[error("stage {stage}: {} does not say where its packages are", interpreter.display())]
    NoSearchPath {
        stage: String,
        interpreter: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A package that results depend on is not installed.
    #[error("stage {stage}: packages: `{package}` is not installed for {}{}", interpreter.display(), meant(nearest))]
    NoPackage { stage: String, package: String, interpreter: PathBuf, nearest: Option<String> },
}

fn meant(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

impl Plan {
    /// Compiles a workflow.
    ///
    /// # Errors
    /// When a constant template has no value, a `deps` file cannot be read or no interpreter is found.
    pub fn compile(workflow: Arc<Workflow>, surroundings: &Surroundings<'_>) -> Result<Plan, PlanError> {
        compile::compile(workflow, surroundings)
    }

    /// Tells a shared file of a stage of `selected` that cannot be read.
    ///
    /// # Errors
    /// The first of them.
    pub fn check_shared(&self, selected: &[bool]) -> Result<(), PlanError> {
        for stage in self.stages.iter().filter(|stage| selected[stage.index]) {
            let Run::Python { job, .. } = &stage.run else { continue };
            for object in job.pool.python.iter().flat_map(|python| &python.share) {
                std::fs::File::open(&object.path).map_err(|source| PlanError::Unreadable {
                    stage: stage.name.clone(),
                    path: object.path.clone(),
                    source,
                })?;
            }
        }
        Ok(())
    }

    /// The sources that the stages of `selected` read, directly.
    pub fn sources_of(&self, selected: &[bool]) -> Vec<usize> {
        (0..self.workflow.sources.len())
            .filter(|&s| {
                self.stages.iter().any(|stage| selected[stage.index] && stage.inputs.contains(&Input::Source(s)))
            })
            .collect()
    }

    /// How many items each stage will have, as far as sources say how long they are; of each, `limit` at most.
    pub fn expected(&self, limit: Option<u64>) -> Vec<Option<u64>> {
        let mut expected = vec![None; self.stages.len()];
        for &index in self.graph.order() {
            let rows = |input: &Input| match *input {
                Input::Source(source) => match self.workflow.sources[source].reader {
                    Reader::Program(Program::Python { length: Some(length), .. }) => {
                        Some(limit.map_or(length, |limit| limit.min(length)))
                    }
                    _ => None,
                },
                Input::Stage(stage) if self.stages[stage].changes_count() => None,
                Input::Stage(stage) => expected[stage],
            };
            let stage = &self.stages[index];
            let counted = !stage.inputs.is_empty() && !matches!(stage.verb, Verb::Reduce { .. });
            expected[index] = counted.then(|| stage.inputs.iter().map(rows).sum::<Option<u64>>()).flatten();
        }
        expected
    }

    /// Of each stage, whether others share its rows.
    pub fn shared(&self) -> Vec<bool> {
        let mut shared = vec![false; self.stages.len()];
        self.stages.iter().flat_map(|stage| stage.shared_stages()).for_each(|(_, stage)| shared[stage] = true);
        shared
    }

    /// The stages that read from `input`.
    pub fn consumers(&self, input: Input) -> impl Iterator<Item = &Arc<PlannedStage>> {
        self.stages.iter().filter(move |stage| stage.inputs.contains(&input))
    }

    /// The values of the parameters.
    pub fn params(&self) -> &[(String, Value)] {
        &self.workflow.params
    }
}
