//! The loop that owns a run: it takes messages, changes the state of stages, and hands out work.
//!
//! Its inbox is unbounded: what fills it is bounded by the byte budget (rows), by the number of tasks (outcomes) or
//! by hand (signals). Nothing here waits but the loop itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};
use hashbrown::HashMap;

use super::EngineError;
use super::api::Signal;
use super::budget::{Budget, Permit};
use super::events::{Event, ItemStatus};
use super::groups::{GroupRows, Groups};
use super::prepare::Prepared;
use super::replay::{Replay, Sources};
use super::resolve::{Due, rows_given, with_input_number};
use super::selection::Selection;
use super::stage::{Arrival, Gate, Pending, StageRun};
use super::writer::{Committed, Entry, Receipt};
use crate::data::{Batch, Failure};
use crate::executor::{Executor, Outcomes, Report, Task, TaskId};
use crate::plan::{Plan, Run};
use crate::spec::model::{Input, MaxFailures};
use crate::store::Write;
use crate::store::model::{RosterBatch, Segment};

/// What the loop is told.
pub enum Message {
    /// A batch of a source; `moved`: not where it was in the last roster.
    SourceBatch { source: usize, batch: Arc<RosterBatch>, moved: bool, permit: Permit },
    /// A source was read to its end.
    SourceEnd { source: usize },
    /// Rows for a stage that waited for all of them.
    Rows { stage: usize, batch: Batch, permit: Permit },
    /// These were all.
    RowsEnd { stage: usize },
    /// The groups of a reduce, or the item of a stage that runs once.
    Groups { stage: usize, groups: Groups },
    /// The rows of due groups can be read.
    Spilled { stage: usize, rows: Arc<GroupRows> },
    /// A batch was looked up.
    Resolved { stage: usize, number: u64, arrival: Arrival },
    /// A task was rendered.
    Prepared { task: TaskId, prepared: Prepared },
    /// A task of expressions was evaluated.
    Evaluated { task: TaskId, outcomes: Outcomes },
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
    /// Items at once outside bpp-flow.
    pub capacity: usize,
    pub budget: Budget,
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
    pub moved: bool,
    /// They come from items that this run ran.
    pub follows: bool,
    pub permit: Permit,
}

/// Work that the loop asks others to start.
pub trait Helpers {
    /// Starts reading a source.
    fn read_source(&self, source: usize);
    /// Looks a batch up, in the background.
    fn resolve(&self, stage: &StageRun, lookup: Lookup);
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
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Running,
    /// Nothing new starts; what is in hand finishes, until the deadline.
    Draining { deadline: Option<Instant> },
    /// Workers were stopped.
    Stopping,
}

struct InFlight {
    stage: usize,
    pending: Arc<Pending>,
    /// Positions in the pending items, of the task's.
    ready: Vec<u32>,
    started: bool,
}

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
    inside_tasks: usize,
    mode: Mode,
    end: Option<End>,
    record: &'a mut dyn FnMut(&[StageRun]) -> Option<Write>,
}

/// How often the loop looks around when nothing happens.
const TICK: Duration = Duration::from_millis(100);
/// Messages taken before the loop hands out work again.
const MESSAGES_A_TURN: usize = 64;

impl<'a> Dispatcher<'a> {
    /// A run that has not begun.
    pub fn new(
        orders: Orders,
        lines: Lines,
        helpers: &'a dyn Helpers,
        executor: Box<dyn Executor>,
        record: &'a mut dyn FnMut(&[StageRun]) -> Option<Write>,
    ) -> Dispatcher<'a> {
        let stages =
            orders.plan.stages.iter().map(|s| StageRun::new(s.clone(), orders.selected[s.index])).collect();
        let sources = orders.plan.workflow.sources.len();
        Dispatcher {
            stages,
            sources: vec![SourceState::Unread; sources],
            source_rows: vec![0; sources],
            chosen: vec![Vec::new(); sources],
            orders,
            lines,
            helpers,
            executor,
            tasks: HashMap::new(),
            groups_due: HashMap::new(),
            last_task: 0,
            outside_tasks: 0,
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
            self.note_progress();
        }
        self.orders.budget.close();
        self.executor.stop();
        self.end.take()
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

    // ── messages ──────────────────────────────────────────────────────────────────────────────────────────────

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
            Message::SourceBatch { source, batch, moved, permit } => self.source_batch(source, batch, moved, permit),
            Message::SourceEnd { source } => self.source_end(source),
            Message::Rows { stage, batch, permit } => self.push(stage, batch, true, false, permit),
            Message::RowsEnd { stage } => self.stages[stage].open_inputs = 0,
            Message::Groups { stage, groups } => self.groups(stage, groups),
            Message::Spilled { stage, rows } => self.spilled(stage, rows),
            Message::Resolved { stage, number, arrival } => {
                self.stages[stage].arrivals.insert(number, arrival);
                self.take_arrivals(stage);
            }
            Message::Prepared { task, prepared } => self.prepared(task, prepared),
            Message::Evaluated { task, outcomes } => {
                self.started(task);
                self.part(task, outcomes);
                self.task_end(task, &[]);
            }
            Message::Committed(receipts) => {
                for receipt in receipts {
                    match receipt {
                        Receipt::Outcomes(committed) => self.committed(committed),
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
                self.part(task, outcomes);
            }
            Report::End { task, unfinished } => self.task_end(task, &unfinished),
            Report::Broken { stage, message, .. } => self.break_off(EngineError::Broken { stage, message }),
        }
    }

    /// A replay that failed has said so before its reduce could see the end of its rows: an outcome that was made of
    /// too few rows must not be taken.
    fn hear_of_broken_rows(&mut self, task: TaskId) {
        let reduces = self.tasks.get(&task).is_some_and(|t| !self.stages[t.stage].planned.inputs.is_empty() && self.stages[t.stage].planned.is_gated());
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
            _ => {}
        }
    }

    // ── rows in ───────────────────────────────────────────────────────────────────────────────────────────────

    fn source_batch(&mut self, source: usize, batch: Arc<RosterBatch>, moved: bool, permit: Permit) {
        self.source_rows[source] += (batch.items.len() + batch.bad.len()) as u64;
        if self.orders.limit.is_some() {
            self.chosen[source].push(batch.clone());
        }
        let rows = Batch { items: batch.items.clone(), table: batch.table.clone() };
        for stage in self.open_consumers(Input::Source(source)) {
            for (_, key, failure) in &batch.bad {
                self.stages[stage].failures.add(|| key.clone(), failure);
            }
            let bad = batch.bad.len() as u64;
            self.stages[stage].counts.total += bad;
            self.stages[stage].counts.failed += bad;
            self.block_behind(stage, bad);
            let rows = with_input_number(&self.stages[stage].planned, Input::Source(source), rows.clone());
            self.push(stage, rows, moved, false, permit.clone());
        }
        let _ = self.lines.events.send(Event::SourceRead {
            source: self.orders.plan.workflow.sources[source].name.clone(),
            rows: self.source_rows[source],
            complete: false,
        });
    }

    fn source_end(&mut self, source: usize) {
        self.sources[source] = SourceState::Complete;
        let _ = self.lines.events.send(Event::SourceRead {
            source: self.orders.plan.workflow.sources[source].name.clone(),
            rows: self.source_rows[source],
            complete: true,
        });
        for stage in self.open_consumers(Input::Source(source)) {
            self.stages[stage].open_inputs -= 1;
        }
    }

    /// Selected stages that take the rows of `input` as they come.
    fn open_consumers(&self, input: Input) -> Vec<usize> {
        let consumers = self.orders.plan.consumers(input).map(|stage| stage.index);
        consumers.filter(|&s| self.stages[s].selected && self.stages[s].gate == Gate::Open && !self.stages[s].planned.is_gated()).collect()
    }

    fn push(&mut self, stage: usize, batch: Batch, moved: bool, follows: bool, permit: Permit) {
        if batch.is_empty() {
            return;
        }
        let run = &mut self.stages[stage];
        run.started.get_or_insert_with(Instant::now);
        run.counts.total += batch.len() as u64;
        let (number, first_index) = (run.sent, run.next_index);
        run.sent += 1;
        run.next_index += batch.len() as u64;
        self.helpers.resolve(&self.stages[stage], Lookup { batch, number, first_index, moved, follows, permit });
    }

    /// Takes in looked-up batches in the order in which they were sent.
    fn take_arrivals(&mut self, stage: usize) {
        while let Some(arrival) = {
            let run = &mut self.stages[stage];
            run.arrivals.remove(&run.taken)
        } {
            self.stages[stage].taken += 1;
            self.arrive(stage, arrival);
        }
    }

    fn arrive(&mut self, stage: usize, arrival: Arrival) {
        let Arrival { batch, resolved, first_index, follows, permit } = arrival;
        let run = &mut self.stages[stage];
        run.counts.done += resolved.done;
        run.cached += resolved.done;
        run.counts.failed += resolved.failed.len() as u64;
        for (i, hit) in &resolved.failed {
            if let Some(failure) = hit.failure() {
                run.failures.add(|| batch.items.key(*i as usize), failure);
            }
        }
        run.counts.due += resolved.due.len() as u64;
        let asked = |due: Due| follows || !self.orders.only_failed || due != Due::NoResult;
        let selection = &self.orders.selection;
        let wanted = resolved.due.iter().filter(|(i, due)| asked(*due) && selection.covers(&batch.items, *i as usize));
        let selected: Vec<u32> = wanted.map(|(i, _)| *i).collect();
        run.left += (resolved.due.len() - selected.len()) as u64;
        let failed = resolved.failed.len() as u64;
        if !selected.is_empty() {
            let whole = Pending {
                attempts: vec![0; batch.len()],
                indices: (first_index..first_index + batch.len() as u64).collect(),
                inputs: resolved.inputs,
                batch,
                permits: vec![permit.clone()],
            };
            let due = whole.take(&selected);
            if run.planned.is_gated() && matches!(run.planned.verb, crate::spec::model::Verb::Reduce { .. }) {
                self.groups_are_due(stage, whole.batch, due, selected);
            } else {
                run.enqueue(due);
            }
        }
        self.block_behind(stage, failed);
        self.forward(stage, resolved.out, false);
    }

    /// Sends rows on to the stages that take them as they come.
    fn forward(&mut self, stage: usize, rows: Batch, follows: bool) {
        if rows.is_empty() {
            return;
        }
        for consumer in self.open_consumers(Input::Stage(stage)) {
            let batch = with_input_number(&self.stages[consumer].planned, Input::Stage(stage), rows.clone());
            let permit = self.orders.budget.overdraw(batch.bytes());
            self.push(consumer, batch, true, follows, permit);
        }
    }

    /// Counts what waits behind failed items.
    fn block_behind(&mut self, stage: usize, failed: u64) {
        if failed == 0 {
            return;
        }
        for consumer in self.open_consumers(Input::Stage(stage)) {
            self.stages[consumer].counts.total += failed;
            self.stages[consumer].counts.blocked += failed;
            self.block_behind(consumer, failed);
        }
    }

    // ── gates and groups ──────────────────────────────────────────────────────────────────────────────────────

    fn groups(&mut self, stage: usize, groups: Groups) {
        let run = &mut self.stages[stage];
        run.missing = groups.blocked;
        let needs_all = matches!(run.planned.verb, crate::spec::model::Verb::Reduce { needs_all: true, .. });
        if needs_all && groups.blocked > 0 {
            run.counts.total = groups.batch.len() as u64;
            run.counts.blocked = run.counts.total;
        } else {
            run.counts.total += groups.batch.len() as u64;
            run.started.get_or_insert_with(Instant::now);
            let permit = self.orders.budget.overdraw(groups.batch.bytes());
            match run.resolver.as_ref().map(|r| r.resolve_known(&groups.batch, groups.inputs, true)) {
                Some(Ok(resolved)) => {
                    self.arrive(stage, Arrival { batch: groups.batch, resolved, first_index: 0, follows: true, permit });
                }
                Some(Err(error)) => self.break_off(error.into()),
                None => {}
            }
        }
        self.stages[stage].open_inputs = 0;
    }

    fn groups_are_due(&mut self, stage: usize, groups: Batch, due: Pending, numbers: Vec<u32>) {
        let replay = self.replay();
        let run = &mut self.stages[stage];
        if run.planned.group_by().is_empty() {
            self.helpers.give_rows(replay, run, None);
            run.enqueue(due);
        } else {
            run.sent += 1;
            self.helpers.spill(replay, run, groups, numbers);
            self.groups_due.insert(stage, due);
        }
    }

    fn spilled(&mut self, stage: usize, rows: Arc<GroupRows>) {
        let replay = self.replay();
        let run = &mut self.stages[stage];
        run.taken += 1;
        self.helpers.give_rows(replay, run, Some(rows));
        if let Some(due) = self.groups_due.remove(&stage) {
            run.enqueue(due);
        }
    }

    /// A replay of the rows that this run has chosen.
    fn replay(&self) -> Replay {
        let mut replay = self.orders.replay.clone();
        if self.orders.limit.is_some() {
            replay.sources = Sources::Chosen(Arc::new(self.chosen.clone()));
        }
        replay
    }

    /// Marks stages that have no more to do, and opens the gates behind them.
    fn settle(&mut self) {
        if self.mode != Mode::Running {
            return;
        }
        let plan = self.orders.plan.clone();
        for &index in plan.graph.order() {
            let run = &self.stages[index];
            if !run.selected || run.settled {
                continue;
            }
            match run.gate {
                Gate::Waiting => self.try_gate(index),
                Gate::Open | Gate::Shut if run.open_inputs == 0 && run.is_idle() => self.settled(index),
                Gate::Open | Gate::Shut => {}
            }
        }
    }

    fn settled(&mut self, index: usize) {
        let run = &mut self.stages[index];
        run.settled = true;
        run.counts.total_known = true;
        let (stage, summary, counts) = (run.planned.name.clone(), run.summary(), run.counts);
        let _ = self.lines.events.send(Event::Progress { stage: stage.clone(), counts });
        let _ = self.lines.events.send(Event::StageFinished { stage, summary });
        for consumer in self.open_consumers(Input::Stage(index)) {
            self.stages[consumer].open_inputs -= 1;
        }
        self.check_thresholds(index, true);
    }

    fn try_gate(&mut self, index: usize) {
        let planned = self.stages[index].planned.clone();
        let before: Vec<usize> = planned.after.clone();
        if !before.iter().all(|&s| self.stages[s].settled) {
            return;
        }
        if before.iter().any(|&s| !self.is_clean(s)) {
            return self.shut(index);
        }
        let mut ready = true;
        for input in &planned.inputs {
            match *input {
                Input::Source(source) => {
                    self.read_source(source);
                    ready &= self.sources[source] == SourceState::Complete;
                }
                Input::Stage(stage) => ready &= self.stages[stage].settled,
            }
        }
        if !ready {
            return;
        }
        let left = planned.inputs.iter().any(|input| matches!(input, Input::Stage(s) if self.stages[*s].left > 0 || self.stages[*s].gate == Gate::Shut));
        if left {
            return self.shut(index);
        }
        let replay = self.replay();
        let run = &mut self.stages[index];
        run.gate = Gate::Open;
        run.open_inputs = 1;
        match self.helpers.equip(run, &replay) {
            Ok(()) => self.helpers.open_gate(replay, run),
            Err(error) => self.break_off(error),
        }
    }

    /// Whether a stage ended without failures and without anything left.
    fn is_clean(&self, stage: usize) -> bool {
        let run = &self.stages[stage];
        run.counts.failed == 0 && run.counts.blocked == 0 && run.left == 0 && run.gate != Gate::Shut
    }

    fn shut(&mut self, index: usize) {
        let run = &mut self.stages[index];
        run.gate = Gate::Shut;
        run.open_inputs = 0;
        run.counts.blocked = run.counts.blocked.max(1);
        run.counts.total = run.counts.total.max(1);
    }

    // ── work out ──────────────────────────────────────────────────────────────────────────────────────────────

    fn schedule(&mut self) {
        if self.mode != Mode::Running {
            return;
        }
        self.wake_retries();
        let order: Vec<usize> = self.orders.plan.graph.order().iter().rev().copied().collect();
        while order.iter().any(|&stage| self.fill(stage, false)) {}
        let stuck = self.tasks.is_empty()
            && self.orders.budget.is_contended()
            && self.stages.iter().all(|s| s.sent == s.taken && s.uncommitted == 0);
        if stuck && self.lines.inbox.is_empty() {
            order.iter().any(|&stage| self.fill(stage, true));
        }
    }

    /// Hands out chunks of one stage while there is room; whether any went out.
    fn fill(&mut self, stage: usize, insist: bool) -> bool {
        let mut any = false;
        while self.has_room(stage) {
            let run = &mut self.stages[stage];
            let queue = super::pace::Queue {
                waiting: run.waiting(),
                more_coming: run.open_inputs > 0 || run.sent > run.taken,
                workers: run.planned.workers,
            };
            let size = run.pace.next(queue, insist);
            if size == 0 {
                break;
            }
            let pending = run.dequeue(size);
            self.hand_out(stage, pending);
            any = true;
        }
        any
    }

    fn has_room(&self, stage: usize) -> bool {
        let run = &self.stages[stage];
        let inside = matches!(run.planned.run, Run::Assign(_) | Run::Where(_));
        let (tasks, capacity) = match inside {
            true => (self.inside_tasks, rayon::current_num_threads()),
            false => (self.outside_tasks, self.orders.capacity),
        };
        run.waiting() > 0 && run.tasks < run.planned.workers * 2 && tasks < capacity * 2
    }

    fn hand_out(&mut self, stage: usize, pending: Pending) {
        self.last_task += 1;
        let task = self.last_task;
        let run = &mut self.stages[stage];
        run.tasks += 1;
        let pending = Arc::new(pending);
        let inside = matches!(run.planned.run, Run::Assign(_) | Run::Where(_));
        let ready = if inside { (0..pending.len() as u32).collect() } else { Vec::new() };
        self.tasks.insert(task, InFlight { stage, pending: pending.clone(), ready, started: false });
        *(if inside { &mut self.inside_tasks } else { &mut self.outside_tasks }) += 1;
        let Some(preparer) = run.preparer.clone() else { return };
        let inbox = self.lines.to_inbox.clone();
        rayon::spawn(move || {
            let message = match inside {
                true => Message::Evaluated { task, outcomes: preparer.evaluate(&pending) },
                false => Message::Prepared { task, prepared: preparer.prepare(&pending) },
            };
            let _ = inbox.send(message);
        });
    }

    fn prepared(&mut self, task: TaskId, prepared: Prepared) {
        let Some(inflight) = self.tasks.get_mut(&task) else { return };
        let stage = inflight.stage;
        if self.mode != Mode::Running {
            inflight.ready = (0..inflight.pending.len() as u32).collect();
            let unfinished = inflight.ready.clone();
            return self.task_end(task, &unfinished);
        }
        if !prepared.failed.is_empty() {
            inflight.ready = (0..inflight.pending.len() as u32).collect();
            self.started(task);
            let (positions, failures): (Vec<u32>, Vec<Failure>) = prepared.failed.into_iter().unzip();
            let failed: Vec<_> = positions.into_iter().zip(failures).collect();
            let micros = vec![0; failed.len()];
            let none = crate::data::Table::empty(0);
            self.part(task, Outcomes { done: Vec::new(), counts: None, added: none, failed, micros });
        }
        let Some(inflight) = self.tasks.get_mut(&task) else { return };
        inflight.ready = prepared.ready;
        let Some(input) = prepared.input else { return self.task_end(task, &[]) };
        let run = &self.stages[stage];
        if let Some(message) = missing_program(&run.planned, &input) {
            let stage = run.planned.name.clone();
            return self.break_off(EngineError::Broken { stage, message });
        }
        if let Run::Python { job, .. } | Run::Command { job, .. } = &run.planned.run {
            self.executor.submit(Task { id: task, job: job.clone(), input });
        }
    }

    fn started(&mut self, task: TaskId) {
        let Some(inflight) = self.tasks.get_mut(&task) else { return };
        if inflight.started {
            return;
        }
        inflight.started = true;
        let items = inflight.pending.len() as u64;
        let counts = &mut self.stages[inflight.stage].counts;
        counts.running += items;
        counts.due -= items;
    }

    fn part(&mut self, task: TaskId, outcomes: Outcomes) {
        let Some(inflight) = self.tasks.get(&task) else { return };
        let (stage, pending) = (inflight.stage, inflight.pending.clone());
        let place = |i: u32| inflight.ready[i as usize];
        let run = &mut self.stages[stage];
        let micros: u64 = outcomes.micros.iter().map(|&m| u64::from(m)).sum();
        run.pace.learn(outcomes.done.len() + outcomes.failed.len(), micros);
        let done: Vec<u32> = outcomes.done.iter().map(|&i| place(i)).collect();
        let mut failed = Vec::new();
        let mut done_micros = outcomes.micros;
        let failed_micros = done_micros.split_off(done.len());
        for ((i, failure), micros) in outcomes.failed.into_iter().zip(failed_micros) {
            let at = place(i);
            let attempts = pending.attempts[at as usize] + 1;
            match retry_at(run, &failure, attempts) {
                Some(when) => {
                    let mut again = pending.take(&[at]);
                    again.attempts[0] = attempts;
                    run.counts.running -= 1;
                    run.counts.due += 1;
                    run.retries.push((when, again));
                }
                None => failed.push((at, failure, micros)),
            }
        }
        if done.is_empty() && failed.is_empty() {
            return;
        }
        run.uncommitted += (done.len() + failed.len()) as u64;
        let forwards = !self.open_consumers(Input::Stage(stage)).is_empty();
        let ended = Ended { pending, done, counts: outcomes.counts, added: outcomes.added, failed, micros: done_micros };
        self.commit(stage, ended, forwards);
    }

    /// Encodes outcomes in the background and hands them to the writer.
    fn commit(&self, stage: usize, ended: Ended, forwards: bool) {
        let planned = self.stages[stage].planned.clone();
        let writer = self.lines.writer.clone();
        let want_items = self.orders.want_items;
        let again = self.stages[stage].resolver.as_ref().is_some_and(|r| r.may_have_results());
        let budget = self.orders.budget.clone();
        rayon::spawn(move || {
            let forward = (forwards && !ended.done.is_empty()).then(|| {
                rows_given(&planned, &ended.pending.batch.take(&ended.done), ended.counts.as_deref(), &ended.added)
            });
            let segment = ended.segment();
            let receipt = Receipt::Outcomes(Committed {
                stage,
                done: ended.done.len() as u64,
                items: if want_items { ended.items(&segment) } else { Vec::new() },
                failed: segment.failures.clone(),
                forward,
            });
            let encoded = segment.encode();
            let permit = Some(budget.overdraw(encoded.bytes()));
            let write = Write::Segment { stage: planned.name.clone(), version: planned.version, segment: encoded, again };
            let _ = writer.send(Entry { write, receipt: Some(receipt), permit });
        });
    }

    fn task_end(&mut self, task: TaskId, unfinished: &[u32]) {
        let Some(inflight) = self.tasks.remove(&task) else { return };
        let run = &mut self.stages[inflight.stage];
        let inside = matches!(run.planned.run, Run::Assign(_) | Run::Where(_));
        *(if inside { &mut self.inside_tasks } else { &mut self.outside_tasks }) -= 1;
        run.tasks -= 1;
        if !unfinished.is_empty() {
            let places: Vec<u32> = unfinished.iter().map(|&i| inflight.ready[i as usize]).collect();
            if inflight.started {
                run.counts.running -= places.len() as u64;
                run.counts.due += places.len() as u64;
            }
            run.requeue(inflight.pending.take(&places));
        }
    }

    fn committed(&mut self, committed: Committed) {
        let Committed { stage, done, failed, items, forward } = committed;
        let run = &mut self.stages[stage];
        let ended = done + failed.len() as u64;
        run.uncommitted -= ended;
        run.counts.running -= ended;
        run.counts.done += done;
        run.counts.failed += failed.len() as u64;
        run.counts.ran += ended;
        run.last_commit = Some(Instant::now());
        let name = run.planned.name.clone();
        for (number, (key, attempt, micros)) in items.into_iter().enumerate() {
            let failure = (number as u64).checked_sub(done).map(|n| &failed[n as usize].1);
            let _ = self.lines.events.send(Event::Item {
                stage: name.clone(),
                key,
                status: if failure.is_some() { ItemStatus::Failed } else { ItemStatus::Done },
                attempt: u32::from(attempt),
                seconds: f64::from(micros) / 1e6,
                kind: failure.map(|f| f.kind.to_string()),
            });
        }
        let count = failed.len() as u64;
        for (key, failure) in failed {
            run.failures.add(|| key.clone(), &failure);
            let _ = self.lines.events.send(Event::ItemFailed { stage: name.clone(), key, failure });
        }
        let counts = run.counts;
        let _ = self.lines.events.send(Event::Progress { stage: name, counts });
        self.block_behind(stage, count);
        if let Some(rows) = forward {
            self.forward(stage, rows, true);
        }
        if count > 0 {
            self.check_thresholds(stage, false);
        }
    }

    // ── ends ──────────────────────────────────────────────────────────────────────────────────────────────────

    fn check_thresholds(&mut self, stage: usize, settled: bool) {
        if self.mode != Mode::Running {
            return;
        }
        let run = &self.stages[stage];
        let fresh_failures = run.counts.ran.min(run.counts.failed);
        let passed = match run.planned.settings.max_failures {
            Some(MaxFailures::Count(most)) => fresh_failures > most,
            Some(MaxFailures::Percent(most)) => {
                let ended = run.counts.done + run.counts.failed;
                let enough = settled || ended as f64 >= 100.0 / most.max(1.0);
                enough && fresh_failures > 0 && 100.0 * run.counts.failed as f64 / ended.max(1) as f64 > most
            }
            None => false,
        };
        let name = &run.planned.name;
        if passed {
            let reason = format!("stage {name}: {} failures, more than max_failures allows", run.counts.failed);
            self.drain(End::Threshold(reason), None, "max_failures");
        } else if run.planned.settings.stop_on_error && fresh_failures > 0 {
            let reason = format!("stage {name}: an item failed and on_error is stop");
            self.drain(End::Threshold(reason), None, "on_error");
        }
    }

    fn drain(&mut self, end: End, grace: Option<Duration>, signal: &str) {
        self.end.get_or_insert(end);
        self.mode = Mode::Draining { deadline: grace.map(|grace| Instant::now() + grace) };
        let in_hand = self.tasks.values().filter(|t| t.started).count() as u64;
        let _ = self.lines.events.send(Event::Draining { signal: signal.to_string(), in_hand });
        self.executor.drain();
    }

    fn stop(&mut self) {
        self.mode = Mode::Stopping;
        self.executor.stop();
        self.tasks.clear();
    }

    fn break_off(&mut self, error: EngineError) {
        self.end = Some(End::Broken(error));
        self.stop();
    }

    fn check_deadlines(&mut self) {
        if let Mode::Draining { deadline: Some(deadline) } = self.mode {
            if Instant::now() >= deadline {
                self.stop();
            }
        }
    }

    fn next_retry(&self) -> Option<Instant> {
        self.stages.iter().flat_map(|s| s.retries.iter().map(|(at, _)| *at)).min()
    }

    fn wake_retries(&mut self) {
        let now = Instant::now();
        for run in self.stages.iter_mut().filter(|s| !s.retries.is_empty()) {
            let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut run.retries).into_iter().partition(|(at, _)| *at <= now);
            run.retries = later;
            due.into_iter().for_each(|(_, pending)| run.enqueue(pending));
        }
    }

    fn is_over(&self) -> bool {
        match self.mode {
            Mode::Running => self.stages.iter().all(|s| s.settled || !s.selected),
            Mode::Draining { .. } => self.tasks.is_empty() && self.stages.iter().all(|s| s.uncommitted == 0),
            Mode::Stopping => true,
        }
    }

    fn note_progress(&mut self) {
        if let Some(write) = (self.record)(&self.stages) {
            let _ = self.lines.writer.send(Entry { write, receipt: None, permit: None });
        }
    }
}

fn retry_at(run: &StageRun, failure: &Failure, attempts: u16) -> Option<Instant> {
    let retries = &run.planned.settings.retries;
    if u32::from(attempts) > retries.max || !retries.kinds.contains(&failure.kind) {
        return None;
    }
    let factor = retries.factor.powi(i32::from(attempts) - 1);
    let wait = retries.backoff.mul_f64(factor.clamp(0.0, 1e6)).min(retries.max_backoff);
    Some(Instant::now() + wait)
}

/// A constant program that is not there is no item's fault.
fn missing_program(stage: &crate::plan::PlannedStage, input: &crate::executor::TaskInput) -> Option<String> {
    use crate::executor::TaskInput;
    use crate::spec::model::CommandLine;
    let Run::Command { job, action } = &stage.run else { return None };
    let constant = match &action.line {
        CommandLine::Argv(argv) => argv.first().is_some_and(|first| !first.names().per_item()),
        CommandLine::Shell(_) => true,
    };
    let program = match input {
        TaskInput::Commands(items) => items.first().and_then(|item| item.argv.first()),
        TaskInput::Group { command, .. } => command.as_ref().and_then(|item| item.argv.first()),
        TaskInput::Rows { .. } => None,
    };
    let path = job.pool.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
    let path = path.or_else(|| std::env::var("PATH").ok());
    let program = program.filter(|_| constant)?;
    let found = crate::plan::find_program(program, &job.pool.cwd, path.as_deref());
    found.is_none().then(|| format!("program {program:?} not found"))
}

/// Items of a task that ended.
struct Ended {
    pending: Arc<Pending>,
    done: Vec<u32>,
    counts: Option<Vec<u32>>,
    added: crate::data::Table,
    failed: Vec<(u32, Failure, u32)>,
    micros: Vec<u32>,
}

impl Ended {
    fn segment(&self) -> Segment {
        let all: Vec<u32> = self.done.iter().copied().chain(self.failed.iter().map(|f| f.0)).collect();
        let items = &self.pending.batch.items;
        let of = |i: &u32| *i as usize;
        Segment {
            rows: all.iter().map(|i| items.rows[of(i)]).collect(),
            origins: all.iter().map(|i| items.origins[of(i)]).collect(),
            inputs: all.iter().map(|i| self.pending.inputs[of(i)]).collect(),
            micros: self.micros.iter().copied().chain(self.failed.iter().map(|f| f.2)).collect(),
            attempts: all.iter().map(|i| self.pending.attempts[of(i)] + 1).collect(),
            done: self.done.len(),
            counts: self.counts.clone(),
            added: self.added.clone(),
            failures: self.failed.iter().map(|(i, failure, _)| (items.key(of(i)), failure.clone())).collect(),
        }
    }

    fn items(&self, segment: &Segment) -> Vec<(String, u16, u32)> {
        let all = self.done.iter().copied().chain(self.failed.iter().map(|f| f.0));
        all.enumerate()
            .map(|(n, i)| (self.pending.batch.items.key(i as usize), segment.attempts[n], segment.micros[n]))
            .collect()
    }
}
