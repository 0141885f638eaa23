//! How a run ends: thresholds, signals, deadlines, and when it is over.

use std::time::{Duration, Instant};

use super::{Dispatcher, End, Mode, SourceState};
use crate::engine::EngineError;
use crate::engine::events::Event;
use crate::engine::stage::Gate;
use crate::engine::writer::Entry;
use crate::spec::model::{Input, MaxFailures};

impl Dispatcher<'_> {
    pub(super) fn check_thresholds(&mut self, stage: usize, settled: bool) {
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

    pub(super) fn drain(&mut self, end: End, grace: Option<Duration>, signal: &str) {
        self.end.get_or_insert(end);
        self.mode = Mode::Draining { deadline: grace.map(|grace| Instant::now() + grace) };
        let in_hand = self.tasks.values().filter(|t| t.started).count() as u64;
        let _ = self.lines.events.send(Event::Draining {
            signal: signal.to_string(),
            in_hand,
            grace: grace.map(|grace| grace.as_secs_f64()),
        });
        self.executor.drain();
    }

    pub(super) fn stop(&mut self) {
        self.mode = Mode::Stopping;
        self.executor.stop();
        self.tasks.clear();
    }

    pub(super) fn break_off(&mut self, error: EngineError) {
        self.end = Some(End::Broken(error));
        self.stop();
    }

    /// Nothing more can run on an engine: what is in hand elsewhere finishes.
    pub(super) fn lose_engine(&mut self, error: &EngineError) {
        if self.mode == Mode::Running {
            let reason = self.orders.plan.secrets.hide(&error.to_string()).into_owned();
            self.drain(End::Threshold(reason), None, "no workers");
        }
    }

    pub(super) fn check_deadlines(&mut self) {
        if self.mode == Mode::Running && self.orders.stop_at.is_some_and(|at| Instant::now() >= at) {
            let reason = "the time of --stop-after is over; run again to go on".to_string();
            self.drain(End::Threshold(reason), None, "--stop-after");
        }
        if let Mode::Draining { deadline: Some(deadline) } = self.mode
            && Instant::now() >= deadline
        {
            self.stop();
        }
    }

    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.stages.iter().flat_map(|s| s.retries.iter().map(|(at, _)| *at)).min()
    }

    pub(super) fn wake_retries(&mut self) {
        let now = Instant::now();
        for run in self.stages.iter_mut().filter(|s| !s.retries.is_empty()) {
            let (due, later): (Vec<_>, Vec<_>) =
                std::mem::take(&mut run.retries).into_iter().partition(|(at, _)| *at <= now);
            run.retries = later;
            due.into_iter().for_each(|(_, pending)| run.enqueue(pending));
        }
    }

    pub(super) fn is_over(&self) -> bool {
        match self.mode {
            Mode::Running if self.end.is_some() => self.is_starved(),
            Mode::Running => self.stages.iter().all(|s| s.settled || !s.selected),
            Mode::Draining { .. } => self.tasks.is_empty() && self.stages.iter().all(|s| s.uncommitted == 0),
            Mode::Stopping => true,
        }
    }

    /// Whether every stage either has no more to do or waits, idle, for rows that will not come: behind a source that
    /// failed.
    fn is_starved(&self) -> bool {
        let mut starved = vec![false; self.stages.len()];
        for &index in self.orders.plan.graph.order() {
            let run = &self.stages[index];
            let planned = &run.planned;
            let (mut waits, mut fed) = (false, false);
            for input in &planned.inputs {
                match *input {
                    Input::Source(source) => waits |= self.sources[source] == SourceState::Failed,
                    Input::Stage(stage) if starved[stage] => waits = true,
                    Input::Stage(stage) => fed |= !self.stages[stage].settled,
                }
            }
            waits |= planned.after.iter().any(|&before| starved[before]);
            let open = planned.is_gated() && run.gate != Gate::Waiting;
            starved[index] = waits && !fed && !open && !run.settled && run.is_idle();
        }
        self.stages.iter().zip(&starved).all(|(run, starved)| run.settled || *starved || !run.selected)
    }

    pub(super) fn note_progress(&mut self) {
        if let Some(write) = (self.record)(&self.stages, &self.engines) {
            let _ = self.lines.writer.send(Entry { write, receipt: None, permit: None, made: Vec::new() });
        }
    }
}
