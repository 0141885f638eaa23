//! A run from start to end: opens the store, sets the loop up, and closes the books after it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::EngineError;
use super::api::{Flow, RunOptions, Signal};
use super::books::Books;
use super::budget::Budget;
use super::dispatcher::{Dispatcher, End, Helpers, Lines, Lookup, Message, Orders};
use super::events::{Event, RunState, RunSummary};
use super::explain::{Wanted, survey};
use super::feed::{self, SourceFeed};
use super::groups::GroupRows;
use super::made::{self, Workshop};
use super::prepare::{Preparer, RowsOf};
use super::replay::{self, Replay, Sources};
use super::resolve::{Policy, Resolver, Turns};
use super::selection::Selection;
use super::shared;
use super::stage::{Arrival, StageRun};
use super::suspects::{Marks, Suspects};
use super::versions::with_results;
use super::writer::{self, Entry};
use crate::data::source::{Digests, KeptDigests};
use crate::data::{Batch, Secrets, Value};
use crate::executor::{EngineNews, Engines, Executor, SourcePrograms, forget_in_hand, try_jobs};
use crate::plan::{Plan, Surroundings, find_program, named_interpreter};
use crate::spec::model::{Backend, Verb, Workflow};
use crate::spec::template::Scope;
use crate::store::{OpenOptions, Store};

/// All batches, frames and results under way share this many bytes.
const BUDGET: usize = 64 << 20;

/// Runs what is due.
///
/// # Errors
/// When bpp-flow itself cannot go on. What was committed stays.
pub fn run(
    flow: &Flow,
    options: &RunOptions,
    events: Sender<Event>,
    signals: Receiver<Signal>,
) -> Result<RunSummary, EngineError> {
    let started = Instant::now();
    let id = super::books::new_run_id();
    let plan = Arc::new(compile(flow, options, &id)?);
    let selected = selected_stages(&plan, options.stage.as_deref())?;
    plan.check_shared(&selected)?;
    let store = open_for_writing(flow, &plan, options.on_network_fs, &options.command)?;
    made::sweep(&flow.state_dir, &flow.workflow.dir).map_err(EngineError::Journal)?;
    let replay = Replay::new(plan.clone(), store.clone(), Sources::Rosters);
    let mut books = Books::new(id, flow, options, &replay, &selected, started);
    if let Some(ticket) = &options.ticket {
        let now = survey(&plan, Some(&store), options, &Wanted::default())?;
        ticket.check(&flow.workflow.name, &now)?;
    }
    let _ = events.send(books.run_started());
    if options.asks_for_everything() && books.is_settled(&replay)? {
        forget_in_hand(&flow.state_dir);
        return books.close_unchanged(&replay, &events);
    }
    let (ended, stages) = dispatch(flow, options, &replay, &selected, &mut books, events.clone(), signals)?;
    books.close(&replay, &stages, ended, &events)
}

/// Compiles the workflow as these options want it.
///
/// # Errors
/// As [`Plan::compile`].
pub fn compile(flow: &Flow, options: &RunOptions, run: &str) -> Result<Plan, EngineError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let secrets = Arc::new(secrets(&flow.workflow));
    let programs = SourcePrograms::new(&flow.workflow.dir, secrets.clone(), interpreter);
    let surroundings = Surroundings {
        env: &environment,
        cores,
        workers: if options.debug { Some(1) } else { options.workers },
        run: (run, &flow.workflow.name),
        secrets: &secrets,
        digests: &Arc::new(kept_digests(flow)),
        programs: Some(Arc::new(programs)),
        backend: options.debug.then_some(Backend::Serial),
    };
    let mut plan = Plan::compile(Arc::new(flow.workflow.clone()), &surroundings)?;
    // The state never matches a pattern, wherever it lies.
    Arc::make_mut(&mut plan.reading.0.excluded).insert(flow.state_dir.clone());
    Ok(plan)
}

/// What is known of files' contents; looked up in the store, if anything is looked for before it is opened.
fn kept_digests(flow: &Flow) -> Digests {
    let dir = flow.state_dir.clone();
    Digests::kept_by(move || {
        let store = Store::read(&dir).ok()??;
        Some(Arc::new(store.digests().ok()?) as Arc<dyn KeptDigests>)
    })
}

/// Asks the engines of the workflow's stages that have jobs whether they would take them: each name with their words.
///
/// # Errors
/// The first that would not, as [`EngineError::Unavailable`].
pub fn try_engines(flow: &Flow) -> Result<Vec<(String, String)>, EngineError> {
    let mut answers: Vec<(String, String)> = Vec::new();
    for remote in flow.workflow.stages.iter().filter_map(|stage| stage.settings.backend.remote.as_ref()) {
        if answers.iter().any(|(name, _)| *name == remote.name) {
            continue;
        }
        match try_jobs(remote, &flow.state_dir, &flow.workflow.dir, &flow.workflow.name) {
            None => {}
            Some(Ok(words)) => answers.push((remote.name.clone(), words)),
            Some(Err(message)) => return Err(EngineError::Unavailable { engine: remote.name.clone(), message }),
        }
    }
    Ok(answers)
}

/// Opens the state to write it, in the place of what was opened to look digests up.
///
/// # Errors
/// When it cannot be opened.
pub fn open_for_writing(flow: &Flow, plan: &Plan, on_network_fs: bool, command: &str) -> Result<Store, EngineError> {
    plan.reading.0.digests.iter().for_each(|digests| digests.attach(None));
    let options = OpenOptions { on_network_fs, command: &plan.secrets.hide(command) };
    let store = Store::open(&flow.state_dir, &options)?;
    remember(plan, &store)?;
    Ok(store)
}

/// Lets the digests of files be looked up in the store.
///
/// # Errors
/// When the store cannot be read.
pub fn remember(plan: &Plan, store: &Store) -> Result<(), EngineError> {
    if let Some(digests) = &plan.reading.0.digests {
        digests.attach(Some(Arc::new(store.digests()?)));
    }
    Ok(())
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The Python of a source.
fn interpreter(wanted: Option<&str>, dir: &Path) -> Result<PathBuf, String> {
    let name = named_interpreter(wanted, &environment);
    find_program(&name, dir, environment("PATH").as_deref())
        .ok_or_else(|| format!("no Python interpreter {name:?} found"))
}

/// What must not be shown or kept of the environment, by its names.
pub fn environments_secrets() -> Secrets {
    let text = |s: std::ffi::OsString| s.to_string_lossy().into_owned();
    Secrets::of_environment(std::env::vars_os().map(|(name, value)| (text(name), text(value))))
}

/// What must not be shown or kept: of the environment what its names say, and what the workflow sets.
pub fn secrets(workflow: &Workflow) -> Secrets {
    let mut secrets = environments_secrets();
    let scope = Scope { params: &workflow.params, env: Some(&environment), ..Scope::default() };
    for (name, template) in workflow.stages.iter().flat_map(|stage| &stage.settings.env) {
        // What differs from item to item is hidden with the item; run and workflow have public names.
        if let Ok(value) = template.render_text(&scope) {
            secrets.add_variable(name, &value);
        }
    }
    for database in workflow.databases() {
        database.password().iter().for_each(|password| secrets.add_variable("PASSWORD", password));
    }
    secrets
}

/// The stages up to `stage`; all where none is named.
///
/// # Errors
/// When there is no stage of that name.
pub fn selected_stages(plan: &Plan, stage: Option<&str>) -> Result<Vec<bool>, EngineError> {
    match stage {
        None => Ok(vec![true; plan.stages.len()]),
        Some(name) => Ok(plan.graph.with_ancestors(stage_named(plan, name)?)),
    }
}

/// The stage of that name.
///
/// # Errors
/// When there is none.
pub fn stage_named(plan: &Plan, name: &str) -> Result<usize, EngineError> {
    plan.stages.iter().position(|s| s.name == name).ok_or_else(|| EngineError::NoStage {
        name: name.to_string(),
        stages: plan.stages.iter().map(|s| s.name.clone()).collect(),
    })
}

fn dispatch(
    flow: &Flow,
    options: &RunOptions,
    replay: &Replay,
    selected: &[bool],
    books: &mut Books,
    events: Sender<Event>,
    signals: Receiver<Signal>,
) -> Result<(Option<End>, Vec<StageRun>), EngineError> {
    let suspects = Suspects::take_over(&replay.store, &flow.state_dir)?;
    let workshop = Workshop::open(&replay.plan, selected, &flow.state_dir, books.id()).map_err(EngineError::Journal)?;
    let (to_inbox, inbox) = unbounded();
    let (to_reports, reports) = unbounded();
    let (to_writer, entries) = unbounded();
    let budget = Budget::new(BUDGET);
    let capacity = capacity(replay, selected, options);
    let places = (flow.state_dir.as_path(), flow.workflow.dir.as_path(), flow.workflow.name.as_str());
    let executor: Box<dyn Executor> = Box::new(Engines::new(capacity, to_reports, places, options.debug));
    let crew = Crew {
        plan: replay.plan.clone(),
        store: replay.store.clone(),
        dir: flow.workflow.dir.clone(),
        state_dir: flow.state_dir.clone(),
        policy: Arc::new(policy(options)),
        params: Arc::new(flow.workflow.params.clone()),
        run: (books.id().to_string(), flow.workflow.name.clone()),
        limit: options.limit,
        budget: budget.clone(),
        inbox: to_inbox.clone(),
        writer: to_writer.clone(),
        workshop: workshop.clone(),
        stopped: Arc::default(),
    };
    let (end_writing, end) = bounded(0);
    let writing = std::thread::spawn({
        let (store, told) = (replay.store.clone(), to_inbox.clone());
        let digests = replay.plan.reading.0.digests.clone();
        move || writer::run(&store, digests.as_deref(), &entries, &end, &told)
    });
    for write in books.opening_writes() {
        let _ = to_writer.send(Entry { write, receipt: None, permit: None, made: Vec::new() });
    }
    let orders = Orders {
        plan: replay.plan.clone(),
        replay: replay.clone(),
        selected: selected.to_vec(),
        selection: Selection::new(&options.items, &options.rows),
        limit: options.limit,
        only_failed: options.retry.is_some(),
        want_items: options.want_items,
        grace: options.grace,
        stop_at: options.stop_after.map(|after| books.started() + after),
        capacity,
        most_workers: options.workers,
        budget,
        suspects,
    };
    let lines = Lines { inbox, to_inbox, reports, signals, writer: to_writer, events };
    let mut record = |stages: &[StageRun], engines: &[EngineNews]| books.progress(stages, engines);
    let mut dispatcher = Dispatcher::new(orders, lines, &crew, executor, &mut record);
    let end = dispatcher.run();
    crew.stop_reading();
    replay.plan.reading.0.programs.iter().for_each(|programs| programs.wait());
    let (stages, mut suspects) = dispatcher.into_parts();
    drop(end_writing);
    let _ = writing.join();
    workshop.iter().for_each(|workshop| workshop.close());
    if !matches!(end, Some(End::Broken(_))) {
        if end.is_none() && options.asks_for_everything() && options.stage.is_none() {
            suspects.clear_all();
        }
        suspects.save(&replay.store)?;
    }
    Ok((end, stages))
}

/// The most items at once outside bpp-flow: the largest `workers` of the stages that run there.
fn capacity(replay: &Replay, selected: &[bool], options: &RunOptions) -> usize {
    let outside = replay.plan.stages.iter().filter(|s| selected[s.index]);
    let outside = outside.filter(|s| !s.runs_inside() && s.remote().is_none());
    let most = outside.map(|s| s.workers).max().unwrap_or(1);
    options.workers.map_or(most, |cap| most.min(cap)).max(1)
}

/// What to do with results that are there.
pub fn policy(options: &RunOptions) -> Policy {
    let fresh = options.fresh.then(|| Selection::new(&options.items, &options.rows));
    Policy { fresh, retry: options.retry.clone() }
}

struct Crew {
    plan: Arc<Plan>,
    store: Store,
    dir: PathBuf,
    state_dir: PathBuf,
    policy: Arc<Policy>,
    params: Arc<Vec<(String, Value)>>,
    run: (String, String),
    limit: Option<u64>,
    budget: Budget,
    inbox: Sender<Message>,
    writer: Sender<Entry>,
    workshop: Option<Arc<Workshop>>,
    /// Whether sources are to be left where they are.
    stopped: Arc<AtomicBool>,
}

impl Crew {
    fn preparer(&self, stage: &StageRun, rows: Option<RowsOf>) -> Arc<Preparer> {
        Arc::new(Preparer {
            stage: stage.planned.clone(),
            marks: Marks::of(&stage.planned),
            params: self.params.clone(),
            env: environment,
            run: self.run.clone(),
            dir: self.dir.clone(),
            secrets: self.plan.secrets.clone(),
            rows,
            workshop: self.workshop.clone(),
        })
    }

    fn tell_broken(&self) -> impl Fn(EngineError) + Send + Sync + Clone + 'static {
        let inbox = self.inbox.clone();
        move |error| {
            let _ = inbox.send(Message::Broken(error));
        }
    }
}

impl Helpers for Crew {
    fn read_source(&self, source: usize) {
        let feed = SourceFeed {
            number: source,
            source: self.plan.workflow.sources[source].clone(),
            around: self.plan.reading.0.clone(),
            store: self.store.clone(),
            budget: self.budget.clone(),
            inbox: self.inbox.clone(),
            writer: self.writer.clone(),
            limit: self.limit,
            secrets: self.plan.secrets.clone(),
            stopped: self.stopped.clone(),
        };
        std::thread::spawn(move || feed.run());
    }

    fn stop_reading(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.plan.reading.0.programs.iter().for_each(|programs| programs.stop());
    }

    fn resolve(&self, stage: &StageRun, lookup: Lookup) {
        let Some(resolver) = stage.resolver.clone() else { return };
        let (inbox, writer, budget) = (self.inbox.clone(), self.writer.clone(), self.budget.clone());
        let stage = stage.planned.index;
        rayon::spawn(move || {
            let Lookup { batch, number, first_index, follows, permit } = lookup;
            resolver.resolve_in_turn(batch, (number, first_index), move |resolver, batch, resolved| {
                let message = match resolved {
                    Ok(resolved) => {
                        // Before the run can hear of these items, and end.
                        for write in resolver.adopt(&batch, &resolved.borrowed, None) {
                            let permit = Some(budget.overdraw(batch.bytes()));
                            let _ = writer.send(Entry { write, receipt: None, permit, made: Vec::new() });
                        }
                        let arrival = Arrival { batch, resolved, first_index, follows, permit };
                        Message::Resolved { stage, number, arrival: Box::new(arrival) }
                    }
                    Err(error) => Message::Broken(error.into()),
                };
                let _ = inbox.send(message);
            });
        });
    }

    fn share(&self, replay: Replay, stage: &StageRun) {
        let (inbox, writer, planned) = (self.inbox.clone(), self.writer.clone(), stage.planned.clone());
        let state_dir = self.state_dir.clone();
        std::thread::spawn(move || {
            let message = match shared::share(&replay, &planned, &state_dir) {
                Ok((objects, content, write)) => {
                    let _ = writer.send(Entry { write, receipt: None, permit: None, made: Vec::new() });
                    Message::Shared { stage: planned.index, objects, content }
                }
                Err(error) => Message::Broken(error),
            };
            let _ = inbox.send(message);
        });
    }

    fn open_gate(&self, replay: Replay, stage: &StageRun) {
        let (inbox, budget, planned) = (self.inbox.clone(), self.budget.clone(), stage.planned.clone());
        std::thread::spawn(move || match planned.verb {
            Verb::Reduce { .. } | Verb::Once => feed::groups(&replay, &planned, &inbox),
            _ => feed::replay(&replay, &planned, &budget, &inbox),
        });
    }

    fn equip(&self, stage: &mut StageRun, replay: &Replay) -> Result<(), EngineError> {
        let view = replay.store.view(&stage.planned.name, stage.planned.version)?;
        if stage.planned.remote().is_some() {
            // Workers that are ended at a given time do not begin what takes longer.
            let mut earlier = with_results(&replay.store, &stage.planned.name)?.into_iter();
            let earlier =
                earlier.next().map(|last| replay.store.view(&stage.planned.name, last.version)).transpose()?;
            let known = [Some(&view), earlier.as_ref()].into_iter().flatten().find_map(|v| v.mean_micros().transpose());
            known.transpose()?.into_iter().for_each(|micros| stage.pace.expect(micros));
        }
        stage.resolver = Some(Arc::new(Resolver {
            stage: stage.planned.clone(),
            view: Some(view),
            dir: self.dir.clone(),
            policy: self.policy.clone(),
            params: self.params.clone(),
            keeps_hits: false,
            digests: self.plan.reading.0.digests.clone(),
            checks_files: true,
            workshop: self.workshop.clone(),
            shared: stage.shared,
            turns: Turns::default(),
        }));
        stage.preparer = Some(self.preparer(stage, None));
        Ok(())
    }

    fn spill(&self, replay: Replay, stage: &StageRun, groups: Batch, due: Vec<u32>) {
        let (inbox, planned, dir) = (self.inbox.clone(), stage.planned.clone(), self.state_dir.clone());
        std::thread::spawn(move || feed::spill(&replay, &planned, &groups, &due, &dir, &inbox));
    }

    fn give_rows(&self, replay: Replay, stage: &mut StageRun, rows: Option<Arc<GroupRows>>) {
        let planned = stage.planned.clone();
        let broken = self.tell_broken();
        let rows_of: RowsOf = match rows {
            Some(rows) => Arc::new(move |group| rows.rows(group as u32, broken.clone())),
            None => Arc::new(move |_| replay::stream(replay.clone(), planned.clone(), broken.clone())),
        };
        stage.preparer = Some(self.preparer(stage, Some(rows_of)));
    }
}

/// How the run ended, as the exit code tells it.
pub fn state_of(end: &Option<End>, failures: bool) -> RunState {
    match end {
        Some(End::Broken(_)) => RunState::Broken,
        Some(End::Signal) => RunState::Interrupted,
        Some(End::Threshold(_)) => RunState::Stopped,
        None if failures => RunState::Failures,
        None => RunState::Finished,
    }
}
