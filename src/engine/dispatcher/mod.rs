//! The loop that owns a run: it takes messages, changes the state of stages, and hands out work.
//!
//! Its inbox is unbounded: what fills it is bounded by the byte budget (rows), by the number of tasks (outcomes) or
//! by hand (signals). Nothing here waits but the loop itself.

mod ends;
mod files;
mod gates;
mod inflow;
mod outflow;
mod suspected;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};
use hashbrown::HashMap;

use super::EngineError;
use super::api::Signal;
use super::budget::{Budget, Permit};
use super::events::Event;
use super::groups::{GroupRows, Groups};
use super::made::Staged;
use super::prepare::Prepared;
use super::replay::Replay;
use super::selection::Selection;
use super::stage::{Arrival, Gate, Pending, StageRun};
use super::suspects::Suspects;
use super::writer::{Entry, Receipt};
use crate::data::source::SourceError;
use crate::data::{Batch, Hash};
use crate::executor::{EngineNews, Executor, Outcomes, Report, SharedObject, TaskId};
use crate::plan::Plan;
use crate::spec::model::Input;
use crate::store::Write;
use crate::store::model::RosterBatch;

/// What the loop is told.
pub enum Message {
    /// A batch of a source.
    SourceBatch { source: usize, batch: Arc<RosterBatch>, permit: Permit },
    /// A source was read to its end.
    SourceEnd { source: usize },
    /// A source cannot be read any further.
    SourceFailed(SourceError),
    /// The rows that a stage shares can be loaded; the hash of all of them.
    Shared { stage: usize, objects: Vec<SharedObject>, content: Hash },
    /// Rows for a stage that waited for all of them.
    Rows { stage: usize, batch: Batch, permit: Permit },
    /// These were all.
    RowsEnd { stage: usize },
    /// The groups of a reduce, or the item of a stage that runs once.
    Groups { stage: usize, groups: Groups },
    /// The rows of due groups can be read.
    Spilled { stage: usize, rows: Arc<GroupRows> },
    /// A batch was looked up.
    Resolved { stage: usize, number: u64, arrival: Box<Arrival> },
    /// A task was rendered.
    Prepared { task: TaskId, prepared: Prepared },
    /// A task of expressions was evaluated.
    Evaluated { task: TaskId, outcomes: Outcomes },
    /// The files of some items of a task are in their places.
    Settled { task: TaskId, outcomes: Outcomes, made: Vec<PathBuf> },
    /// Durable now.
    Committed(Vec<Receipt>),
    /// bpp-flow cannot go on.
    Broken(EngineError),
}

/// What a run is given.
pub struct Orders {
    pub plan: Arc<Plan>,
    pub replay: Replay,
    /// Stages that take part.
    pub selected: Vec<bool>,
    pub selection: Selection,
    pub limit: Option<u64>,
    /// `retry`: only failed items, and what follows from them.
    pub only_failed: bool,
    pub want_items: bool,
    pub grace: Duration,
    /// When no new item is taken up any more.
    pub stop_at: Option<Instant>,
    /// Items at once outside bpp-flow.
    pub capacity: usize,
    /// The cap of items at once, anywhere.
    pub most_workers: Option<usize>,
    pub budget: Budget,
    /// What was in hand when earlier runs were killed.
    pub suspects: Suspects,
}

/// Whom the loop talks to.
pub struct Lines {
    pub inbox: Receiver<Message>,
    pub to_inbox: Sender<Message>,
    pub reports: Receiver<Report>,
    pub signals: Receiver<Signal>,
    pub writer: Sender<Entry>,
    pub events: Sender<Event>,
}

/// A batch to be looked up.
pub struct Lookup {
    pub batch: Batch,
    /// Its number among the stage's batches.
    pub number: u64,
    /// The row number of its first row in the stage.
    pub first_index: u64,
    /// Its rows may have stood elsewhere before.
    /// They come from items that this run ran.
    pub follows: bool,
    pub permit: Permit,
}

/// Work that the loop asks others to start.
pub trait Helpers {
    /// Starts reading a source.
    fn read_source(&self, source: usize);
    /// Has all sources be left where they are.
    fn stop_reading(&self);
    /// Looks a batch up, in the background.
    fn resolve(&self, stage: &StageRun, lookup: Lookup);
    /// Puts the rows that a stage shares where workers can load them.
    fn share(&self, replay: Replay, stage: &StageRun);
    /// Finds groups, or replays rows, for a stage whose gate opens.
    fn open_gate(&self, replay: Replay, stage: &StageRun);
    /// Makes a stage ready to look up and render.
    fn equip(&self, stage: &mut StageRun, replay: &Replay) -> Result<(), EngineError>;
    /// Makes the rows of due groups readable.
    fn spill(&self, replay: Replay, stage: &StageRun, groups: Batch, due: Vec<u32>);
    /// Gives a reduce its rows: replayed whole, or out of spill files.
    fn give_rows(&self, replay: Replay, stage: &mut StageRun, rows: Option<Arc<GroupRows>>);
}

/// Why a run ends before its work does.
#[derive(Debug)]
pub enum End {
    /// A threshold.
    Threshold(String),
    /// A signal.
    Signal,
    /// Something that is no item's fault.
    Broken(EngineError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SourceState {
    Unread,
    Reading,
    Complete,
    /// No more comes of it, though there would be more.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Running,
    /// Nothing new starts; what is in hand finishes, until the deadline.
    Draining {
        deadline: Option<Instant>,
    },
    /// Workers were stopped.
    Stopping,
}

struct InFlight {
    stage: usize,
    pending: Arc<Pending>,
    /// Positions in the pending items, of the task's.
    ready: Vec<u32>,
    started: bool,
    files: Files,
}

/// The files of a task's items.
#[derive(Default)]
struct Files {
    /// Those of items that have not ended, by their positions in the task.
    staged: HashMap<u32, Staged>,
    /// How many parts are being settled, and what the executor has left of the task, once it has said so.
    settling: usize,
    end: Option<Vec<u32>>,
}

/// Makes of a run, as it goes, what is to be written of it, if it is time.
pub type Record<'a> = dyn FnMut(&[StageRun], &[EngineNews]) -> Option<Write> + 'a;

/// The state of a run.
pub struct Dispatcher<'a> {
    orders: Orders,
    pub lines: Lines,
    helpers: &'a dyn Helpers,
    executor: Box<dyn Executor>,
    pub stages: Vec<StageRun>,
    sources: Vec<SourceState>,
    source_rows: Vec<u64>,
    chosen: Vec<Vec<Arc<RosterBatch>>>,
    tasks: HashMap<TaskId, InFlight>,
    /// Groups that are due, while their rows are spilled.
    groups_due: HashMap<usize, Pending>,
    last_task: TaskId,
    outside_tasks: usize,
    /// Tasks by the engine of others that has them.
    remote_tasks: HashMap<String, usize>,
    /// Engines of others, as far as they were heard of.
    engines: Vec<EngineNews>,
    /// The suspect that runs alone.
    alone: Option<TaskId>,
    /// When what is in hand was last made durable.
    kept: Instant,
    inside_tasks: usize,
    /// What of the selection no item has answered to yet.
    missing: Selection,
    mode: Mode,
    end: Option<End>,
    record: &'a mut Record<'a>,
}

/// How often the loop looks around when nothing happens.
const TICK: Duration = Duration::from_millis(100);
/// How often what is in hand is made durable.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// Messages taken before the loop hands out work again.
const MESSAGES_A_TURN: usize = 64;

impl<'a> Dispatcher<'a> {
    /// A run that has not begun.
    pub fn new(
        orders: Orders,
        lines: Lines,
        helpers: &'a dyn Helpers,
        executor: Box<dyn Executor>,
        record: &'a mut Record<'a>,
    ) -> Dispatcher<'a> {
        let stages = orders.plan.stages.iter().map(|s| StageRun::new(s.clone(), orders.selected[s.index]));
        let mut stages: Vec<StageRun> = stages.collect();
        for (run, expected) in stages.iter_mut().zip(orders.plan.expected(orders.limit)) {
            run.counts.expected = expected;
        }
        let sources = orders.plan.workflow.sources.len();
        Dispatcher {
            stages,
            sources: vec![SourceState::Unread; sources],
            source_rows: vec![0; sources],
            chosen: vec![Vec::new(); sources],
            missing: orders.selection.clone(),
            orders,
            lines,
            helpers,
            executor,
            tasks: HashMap::new(),
            groups_due: HashMap::new(),
            last_task: 0,
            outside_tasks: 0,
            remote_tasks: HashMap::new(),
            engines: Vec::new(),
            alone: None,
            kept: Instant::now(),
            inside_tasks: 0,
            mode: Mode::Running,
            end: None,
            record,
        }
    }

    /// Runs until nothing is left to do, or the run is stopped. What is in hand then is gone; what was committed
    /// stays.
    pub fn run(&mut self) -> Option<End> {
        if let Err(error) = self.start() {
            self.break_off(error);
        }
        loop {
            self.settle();
            self.schedule();
            if self.is_over() {
                break;
            }
            self.take_messages();
            self.check_deadlines();
            self.keep_in_hand();
            self.note_progress();
        }
        self.orders.budget.close();
        self.executor.stop();
        if self.end.is_none() && !self.missing.is_all() {
            let keys =
                self.missing.keys.iter().cloned().chain(self.missing.rows.iter().map(|row| format!("row {row}")));
            self.end = Some(End::Broken(EngineError::NoItem { keys: keys.collect::<Vec<_>>().join(", ") }));
        }
        self.end.take()
    }

    /// What is left when the run is over.
    pub fn into_parts(self) -> (Vec<StageRun>, Suspects) {
        (self.stages, self.orders.suspects)
    }

    fn start(&mut self) -> Result<(), EngineError> {
        for index in 0..self.stages.len() {
            let stage = &mut self.stages[index];
            if stage.selected && stage.gate == Gate::Open {
                self.helpers.equip(stage, &self.orders.replay)?;
            }
        }
        for source in self.orders.plan.sources_of(&self.orders.selected) {
            if !self.open_consumers(Input::Source(source)).is_empty() {
                self.read_source(source);
            }
        }
        Ok(())
    }

    fn read_source(&mut self, source: usize) {
        if self.sources[source] == SourceState::Unread {
            self.sources[source] = SourceState::Reading;
            self.helpers.read_source(source);
        }
    }

    fn take_messages(&mut self) {
        let timeout = self.next_retry().map_or(TICK, |at| at.saturating_duration_since(Instant::now()).min(TICK));
        let lines = &self.lines;
        select! {
            recv(lines.inbox) -> message => if let Ok(message) = message { self.handle(message) },
            recv(lines.reports) -> report => if let Ok(report) = report { self.handle_report(report) },
            recv(lines.signals) -> signal => if let Ok(signal) = signal { self.handle_signal(signal) },
            default(timeout) => {}
        }
        for _ in 0..MESSAGES_A_TURN {
            if let Ok(report) = self.lines.reports.try_recv() {
                self.handle_report(report);
            } else if let Ok(message) = self.lines.inbox.try_recv() {
                self.handle(message);
            } else {
                break;
            }
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::SourceBatch { source, batch, permit } => self.source_batch(source, batch, permit),
            Message::SourceEnd { source } => self.source_end(source),
            Message::SourceFailed(error) => self.source_failed(error),
            Message::Shared { stage, objects, content } => self.shared(stage, objects, content),
            Message::Rows { stage, batch, permit } => {
                let follows = self.follows_runs(stage);
                self.push(stage, batch, follows, permit);
            }
            Message::RowsEnd { stage } => self.stages[stage].open_inputs = 0,
            Message::Groups { stage, groups } => self.groups(stage, groups),
            Message::Spilled { stage, rows } => self.spilled(stage, rows),
            Message::Resolved { stage, number, arrival } => {
                self.stages[stage].arrivals.insert(number, *arrival);
                self.take_arrivals(stage);
            }
            Message::Prepared { task, prepared } => self.prepared(task, prepared),
            Message::Settled { task, outcomes, made } => self.settled_files(task, outcomes, made),
            Message::Evaluated { task, outcomes } => {
                self.started(task);
                self.part(task, outcomes, Vec::new());
                self.task_end(task, &[]);
            }
            Message::Committed(receipts) => {
                for receipt in receipts {
                    match receipt {
                        Receipt::Outcomes(committed) => self.committed(*committed),
                        Receipt::Source(source) => self.source_end(source),
                    }
                }
            }
            Message::Broken(error) => self.break_off(error),
        }
    }

    fn handle_report(&mut self, report: Report) {
        match report {
            Report::Started { task } => self.started(task),
            Report::Part { task, outcomes } => {
                self.hear_of_broken_rows(task);
                self.part_ended(task, outcomes);
            }
            Report::End { task, unfinished } => self.executor_ended(task, unfinished),
            Report::Broken { stage, message, .. } => self.break_off(EngineError::Broken { stage, message }),
            Report::Engine(news) => self.hear_of_engine(news),
            Report::Unavailable { engine, message } => self.lose_engine(&EngineError::Unavailable { engine, message }),
        }
    }

    fn hear_of_engine(&mut self, news: EngineNews) {
        let hidden = |text: Option<String>| text.map(|text| self.orders.plan.secrets.hide(&text).into_owned());
        let news = EngineNews { note: hidden(news.note), dashboard: hidden(news.dashboard), ..news };
        let _ = self.lines.events.send(Event::Engine { engine: news.clone() });
        match self.engines.iter_mut().find(|known| known.name == news.name) {
            Some(known) => *known = news,
            None => self.engines.push(news),
        }
    }

    /// A replay that failed has said so before its reduce could see the end of its rows: an outcome that was made of
    /// too few rows must not be taken.
    fn hear_of_broken_rows(&mut self, task: TaskId) {
        let reduces = self.tasks.get(&task).is_some_and(|t| {
            !self.stages[t.stage].planned.inputs.is_empty() && self.stages[t.stage].planned.is_gated()
        });
        while let Some(message) = reduces.then(|| self.lines.inbox.try_recv().ok()).flatten() {
            self.handle(message);
        }
    }

    fn handle_signal(&mut self, signal: Signal) {
        match (signal, self.mode) {
            (Signal::Interrupt, Mode::Running) => self.drain(End::Signal, None, "SIGINT"),
            (Signal::Terminate, Mode::Running) => self.drain(End::Signal, Some(self.orders.grace), "SIGTERM"),
            (Signal::Hangup, Mode::Running) => self.drain(End::Signal, Some(self.orders.grace), "SIGHUP"),
            (Signal::Interrupt, Mode::Draining { .. }) => self.stop(),
            (Signal::Terminate | Signal::Hangup, Mode::Draining { deadline }) => {
                let latest = Instant::now() + self.orders.grace;
                self.mode = Mode::Draining { deadline: Some(deadline.map_or(latest, |d| d.min(latest))) };
            }
            _ => {}
        }
    }
}
