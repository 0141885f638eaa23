//! Work on its way out, and what comes back of it: chunks to executors, outcomes to the writer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::files::discard;
use super::{Dispatcher, Files, InFlight, Message, Mode};
use crate::data::{Failure, Table, Usage};
use crate::engine::EngineError;
use crate::engine::events::{Event, ItemStatus};
use crate::engine::prepare::{Prepared, Preparer};
use crate::engine::resolve::rows_given;
use crate::engine::stage::{Pending, StageRun};
use crate::engine::writer::{Committed, Entry, Receipt};
use crate::executor::{Outcomes, Task, TaskId, TaskInput};
use crate::plan::{PlannedStage, Run, find_program};
use crate::spec::model::{Backend, CommandLine, Input};
use crate::store::Write;
use crate::store::model::Segment;

impl Dispatcher<'_> {
    pub(super) fn schedule(&mut self) {
        if self.mode != Mode::Running {
            return;
        }
        self.wake_retries();
        self.run_suspects();
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
    pub(super) fn fill(&mut self, stage: usize, insist: bool) -> bool {
        let mut any = false;
        while self.has_room(stage) {
            let slots = self.slots(stage);
            let run = &mut self.stages[stage];
            let queue = crate::engine::pace::Queue {
                waiting: run.waiting(),
                more_coming: run.open_inputs > 0 || run.sent > run.taken,
                workers: run.planned.workers.min(slots),
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

    pub(super) fn has_room(&self, stage: usize) -> bool {
        let run = &self.stages[stage];
        let inside = run.planned.runs_inside();
        let tasks = match (inside, run.planned.remote()) {
            (true, _) => self.inside_tasks,
            (false, None) => self.outside_tasks,
            (false, Some(remote)) => self.remote_tasks.get(&remote.name).copied().unwrap_or_default(),
        };
        let capacity = self.slots(stage);
        // Side by side, two tasks may be ready in another order.
        let in_turn = run.planned.settings.backend.kind == Backend::Serial && run.preparing > 0;
        // Suspects last: they are looked for in all stages.
        run.waiting() > 0
            && run.tasks < run.planned.workers.min(capacity) * 2
            && tasks < capacity * 2
            && !in_turn
            && (inside || !self.has_suspects())
    }

    /// How many tasks like those of a stage run at once, all stages together.
    fn slots(&self, stage: usize) -> usize {
        let planned = &self.stages[stage].planned;
        match planned.remote() {
            _ if planned.runs_inside() => rayon::current_num_threads(),
            None => self.orders.capacity,
            Some(remote) => {
                let known = self.engines.iter().find(|known| known.name == remote.name).map(|known| known.slots);
                let slots = known.or(remote.workers_at_most()).unwrap_or(1);
                self.orders.most_workers.map_or(slots, |most| slots.min(most)).max(1)
            }
        }
    }

    /// The number of tasks that are with whom the stage's are.
    fn tasks_beside(&mut self, stage: usize) -> &mut usize {
        let planned = &self.stages[stage].planned;
        match planned.remote() {
            _ if planned.runs_inside() => &mut self.inside_tasks,
            None => &mut self.outside_tasks,
            Some(remote) => self.remote_tasks.entry(remote.name.clone()).or_default(),
        }
    }

    pub(super) fn hand_out(&mut self, stage: usize, pending: Pending) {
        self.last_task += 1;
        let task = self.last_task;
        let run = &mut self.stages[stage];
        run.tasks += 1;
        let pending = Arc::new(pending);
        let inside = run.planned.runs_inside();
        let ready = if inside { (0..pending.len() as u32).collect() } else { Vec::new() };
        self.tasks
            .insert(task, InFlight { stage, pending: pending.clone(), ready, started: false, files: Files::default() });
        *self.tasks_beside(stage) += 1;
        let run = &mut self.stages[stage];
        let Some(preparer) = run.preparer.clone() else { return };
        run.preparing += usize::from(!inside);
        let inbox = self.lines.to_inbox.clone();
        rayon::spawn(move || {
            let message = match inside {
                true => Message::Evaluated { task, outcomes: preparer.evaluate(&pending) },
                false => Message::Prepared { task, prepared: preparer.prepare(&pending) },
            };
            let _ = inbox.send(message);
        });
    }

    pub(super) fn prepared(&mut self, task: TaskId, prepared: Prepared) {
        let Some(inflight) = self.tasks.get_mut(&task) else { return };
        let stage = inflight.stage;
        self.stages[stage].preparing -= 1;
        if self.mode != Mode::Running {
            inflight.ready = (0..inflight.pending.len() as u32).collect();
            let unfinished = inflight.ready.clone();
            return self.task_end(task, &unfinished);
        }
        if !prepared.failed.is_empty() {
            inflight.ready = (0..inflight.pending.len() as u32).collect();
            self.started(task);
            let usage = vec![Usage::default(); prepared.failed.len()];
            let (none, failed) = (Table::empty(0), prepared.failed);
            self.part(task, Outcomes { done: Vec::new(), counts: None, added: none, failed, usage }, Vec::new());
        }
        let Some(inflight) = self.tasks.get_mut(&task) else { return };
        inflight.ready = prepared.ready;
        inflight.files.staged = (0..).zip(prepared.staged).collect();
        let Some(input) = prepared.input else { return self.task_end(task, &[]) };
        let run = &self.stages[stage];
        if let Some(message) = missing_program(&run.planned, &input) {
            let stage = run.planned.name.clone();
            return self.break_off(EngineError::Broken { stage, message });
        }
        if let Run::Python { job, .. } | Run::Command { job, .. } = &run.planned.run {
            let expected = run.pace.item();
            self.executor.submit(Task { id: task, job: job.clone(), input, marks: prepared.marks, expected });
        }
    }

    pub(super) fn started(&mut self, task: TaskId) {
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

    /// Takes outcomes; `made` are files that are to be durable with them.
    pub(super) fn part(&mut self, task: TaskId, outcomes: Outcomes, made: Vec<PathBuf>) {
        self.clear_suspicion(task);
        let Some(inflight) = self.tasks.get(&task) else { return };
        let (stage, pending) = (inflight.stage, inflight.pending.clone());
        let place = |i: u32| inflight.ready[i as usize];
        let run = &mut self.stages[stage];
        let micros: u64 = outcomes.usage.iter().map(|used| u64::from(used.micros)).sum();
        run.pace.learn(outcomes.done.len() + outcomes.failed.len(), micros);
        let done: Vec<u32> = outcomes.done.iter().map(|&i| place(i)).collect();
        let mut failed = Vec::new();
        let mut usage = outcomes.usage;
        let failed_usage = usage.split_off(done.len());
        for ((i, failure), used) in outcomes.failed.into_iter().zip(failed_usage) {
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
                None => failed.push((at, failure, used)),
            }
        }
        if done.is_empty() && failed.is_empty() {
            return;
        }
        run.uncommitted += (done.len() + failed.len()) as u64;
        let forwards = !self.open_consumers(Input::Stage(stage)).is_empty();
        let ended = Ended { pending, done, counts: outcomes.counts, added: outcomes.added, failed, usage, made };
        self.commit(stage, ended, forwards);
    }

    /// Encodes outcomes in the background and hands them to the writer.
    pub(super) fn commit(&self, stage: usize, mut ended: Ended, forwards: bool) {
        let preparer = self.stages[stage].preparer.clone().expect("tasks are of stages that are equipped");
        let planned = self.stages[stage].planned.clone();
        let writer = self.lines.writer.clone();
        let want_items = self.orders.want_items;
        let again = self.stages[stage].resolver.as_ref().is_some_and(|r| r.may_have_results());
        let budget = self.orders.budget.clone();
        rayon::spawn(move || {
            ended.hide_secrets(&preparer);
            let forward = (forwards && !ended.done.is_empty()).then(|| {
                rows_given(&planned, &ended.pending.batch.take(&ended.done), ended.counts.as_deref(), &ended.added)
            });
            let segment = ended.segment();
            let receipt = Receipt::Outcomes(Box::new(Committed {
                stage,
                done: ended.done.len() as u64,
                items: if want_items { ended.items(&segment) } else { Vec::new() },
                failed: segment.failures.clone(),
                forward,
            }));
            let encoded = segment.encode();
            let permit = Some(budget.overdraw(encoded.bytes()));
            let write =
                Write::Segment { stage: planned.name.clone(), version: planned.version, segment: encoded, again };
            let made = std::mem::take(&mut ended.made);
            let _ = writer.send(Entry { write, receipt: Some(receipt), permit, made });
        });
    }

    pub(super) fn task_end(&mut self, task: TaskId, unfinished: &[u32]) {
        let Some(mut inflight) = self.tasks.remove(&task) else { return };
        discard(inflight.files.staged.drain().map(|(_, staged)| staged).collect());
        *self.tasks_beside(inflight.stage) -= 1;
        let run = &mut self.stages[inflight.stage];
        run.tasks -= 1;
        let was_alone = self.alone.take_if(|alone| *alone == task).is_some();
        if !unfinished.is_empty() {
            let places: Vec<u32> = unfinished.iter().map(|&i| inflight.ready[i as usize]).collect();
            if inflight.started {
                run.counts.running -= places.len() as u64;
                run.counts.due += places.len() as u64;
            }
            let again = inflight.pending.take(&places);
            match was_alone {
                true => run.suspects.push_front(again),
                false => run.requeue(again),
            }
        }
    }

    pub(super) fn committed(&mut self, committed: Committed) {
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
        for (number, (key, attempt, used)) in items.into_iter().enumerate() {
            let failure = (number as u64).checked_sub(done).map(|n| &failed[n as usize].1);
            let _ = self.lines.events.send(Event::Item {
                stage: name.clone(),
                key,
                status: if failure.is_some() { ItemStatus::Failed } else { ItemStatus::Done },
                attempt: u32::from(attempt),
                seconds: used.seconds(),
                peak_memory: used.peak_bytes(),
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
fn missing_program(stage: &PlannedStage, input: &TaskInput) -> Option<String> {
    // What nodes have is theirs to say.
    let Run::Command { job, action } = &stage.run else { return None };
    if stage.remote().is_some() {
        return None;
    }
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
    let found = find_program(program, &job.pool.cwd, path.as_deref());
    found.is_none().then(|| format!("program {program:?} not found"))
}

/// Items of a task that ended.
pub(super) struct Ended {
    pub(super) pending: Arc<Pending>,
    pub(super) done: Vec<u32>,
    pub(super) counts: Option<Vec<u32>>,
    pub(super) added: Table,
    pub(super) failed: Vec<(u32, Failure, Usage)>,
    pub(super) usage: Vec<Usage>,
    pub(super) made: Vec<PathBuf>,
}

impl Ended {
    fn hide_secrets(&mut self, preparer: &Preparer) {
        self.failed.iter_mut().for_each(|(at, failure, _)| preparer.hide_secrets(&self.pending, *at, failure));
    }

    fn segment(&self) -> Segment {
        let all: Vec<u32> = self.done.iter().copied().chain(self.failed.iter().map(|f| f.0)).collect();
        let items = &self.pending.batch.items;
        let of = |i: &u32| *i as usize;
        Segment {
            rows: all.iter().map(|i| items.rows[of(i)]).collect(),
            origins: all.iter().map(|i| items.origins[of(i)]).collect(),
            inputs: all.iter().map(|i| self.pending.inputs[of(i)]).collect(),
            usage: self.usage.iter().copied().chain(self.failed.iter().map(|f| f.2)).collect(),
            attempts: all.iter().map(|i| self.pending.attempts[of(i)] + 1).collect(),
            done: self.done.len(),
            counts: self.counts.clone(),
            added: self.rows_added(),
            failures: self.failed.iter().map(|(i, failure, _)| (items.key(of(i)), failure.clone())).collect(),
            made: None,
        }
    }

    /// The added columns; where there are none, still as many rows as were given.
    fn rows_added(&self) -> Table {
        match (&self.counts, self.added.names().is_empty()) {
            (Some(counts), true) => Table::empty(counts.iter().map(|&n| n as usize).sum()),
            (None, true) => Table::empty(self.done.len()),
            (_, false) => self.added.clone(),
        }
    }

    fn items(&self, segment: &Segment) -> Vec<(String, u16, Usage)> {
        let all = self.done.iter().copied().chain(self.failed.iter().map(|f| f.0));
        all.enumerate()
            .map(|(n, i)| (self.pending.batch.items.key(i as usize), segment.attempts[n], segment.usage[n]))
            .collect()
    }
}
