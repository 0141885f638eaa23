//! The books of a run: its record in the catalogue, what it settled, and its summary.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};

use super::EngineError;
use super::api::{Flow, RunOptions};
use super::dispatcher::End;
use super::events::{Counts, Event, FailureGroup, RunRecord, RunState, RunSummary, StageSummary};
use super::made;
use super::replay::{Replay, StageFlow};
use super::resolve::limit_of;
use super::stage::{Gate, StageRun};
use super::versions::{add_accepted, made_by};
use crate::data::{FailureKind, Hash, Secrets, source};
use crate::executor::EngineNews;
use crate::plan::{Plan, PlannedStage};
use crate::spec::model::{Input, Verb};
use crate::store::Write;

/// How often a run's record is brought up to date.
const RECORD_EVERY: Duration = Duration::from_millis(250);

/// A stage that had nothing left to do: while its state is the same, so are these.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settled {
    /// See [`Replay::states`].
    pub state: String,
    /// The limits at which items failed: milliseconds, bytes.
    #[serde(default)]
    pub limits: [Option<u64>; 2],
    pub counts: Counts,
    pub missing: u64,
    pub failures: Vec<FailureGroup>,
    /// How many results earlier versions made.
    #[serde(default)]
    pub accepted: Vec<(Hash, u64)>,
}

impl Settled {
    /// The name of a stage's note.
    pub fn key(stage: &str) -> String {
        format!("settled/{stage}")
    }

    /// What is known of a stage to be settled in this state, if it is.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn find(replay: &Replay, stage: usize, state: Hash) -> Result<Option<Settled>, EngineError> {
        let planned = &replay.plan.stages[stage];
        let note = replay.store.note(&Settled::key(&planned.name))?;
        let settled: Option<Settled> = note.and_then(|json| serde_json::from_str(&json).ok());
        let limits = limits_of(planned);
        Ok(settled.filter(|s| s.state == state.to_string() && s.limits == limits))
    }

    /// The selected stages, if all of them are known to have nothing to do: their states are those in which they were
    /// settled, the sources hold the same bytes, and what items made stands.
    ///
    /// # Errors
    /// When a source or the store cannot be read.
    pub fn all(replay: &Replay, selected: &[bool]) -> Result<Option<Vec<(usize, Settled)>>, EngineError> {
        if !can_be_settled(&replay.plan, selected) {
            return Ok(None);
        }
        let mut all = Vec::new();
        for (index, state) in replay.states()?.into_iter().enumerate().filter(|(index, _)| selected[*index]) {
            match Settled::find(replay, index, state)? {
                Some(known) => all.push((index, known)),
                None => return Ok(None),
            }
        }
        let holds = sources_unchanged(replay, selected)? && made::all_stand(replay, selected)?;
        Ok(holds.then_some(all))
    }
}

fn limits_of(stage: &PlannedStage) -> [Option<u64>; 2] {
    [FailureKind::Timeout, FailureKind::Memory].map(|kind| limit_of(stage, kind))
}

/// Whether sources and versions alone say that there is nothing to do: not where items have further files of their own.
fn can_be_settled(plan: &Plan, selected: &[bool]) -> bool {
    let stages = plan.stages.iter().filter(|stage| selected[stage.index]);
    stages.flat_map(|stage| &stage.settings.deps).all(|template| !template.names().per_item())
}

/// Whether the sources that stages read are, byte for byte, what the last complete reading saw.
///
/// # Errors
/// When a source or the store cannot be read.
fn sources_unchanged(replay: &Replay, selected: &[bool]) -> Result<bool, EngineError> {
    let workflow = &replay.plan.workflow;
    for number in replay.plan.sources_of(selected) {
        let source = &workflow.sources[number];
        let Some(roster) = replay.store.roster(&source.name)? else { return Ok(false) };
        let Some(known) = roster.info().content.filter(|_| roster.info().complete) else { return Ok(false) };
        if source::content_in(source, &replay.plan.reading.0)? != Some(known) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// An id that sorts by time: the second, and its 65,536th parts.
pub fn new_run_id() -> String {
    let now = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC);
    let part = u64::from(now.subsec_nanosecond().unsigned_abs()) * 0x1_0000 / 1_000_000_000;
    format!("{}-{part:04x}", now.strftime("%Y%m%d-%H%M%S"))
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The record of a run, kept while it goes and closed at its end.
pub struct Books {
    record: RunRecord,
    workflow: String,
    secrets: Arc<Secrets>,
    versions: Vec<Write>,
    selected: Vec<bool>,
    /// Outputs are written, and settled stages noted, only by runs that take everything.
    whole: bool,
    started: Instant,
    noted: Instant,
    counted: Vec<u64>,
    settled: Vec<(usize, Settled)>,
}

impl Books {
    /// Opens the books of run `id`.
    pub fn new(
        id: String,
        flow: &Flow,
        options: &RunOptions,
        replay: &Replay,
        selected: &[bool],
        started: Instant,
    ) -> Books {
        let stages: Vec<_> = replay.plan.stages.iter().filter(|s| selected[s.index]).collect();
        let versions = stages.iter().map(|stage| Write::Version {
            stage: stage.name.clone(),
            version: stage.version,
            components: stage.fingerprint.to_json(),
        });
        Books {
            record: RunRecord {
                id,
                command: replay.plan.secrets.hide(&options.command).into_owned(),
                started: now(),
                ended: None,
                host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
                pid: std::process::id(),
                state: RunState::Running,
                reason: None,
                stages: stages.iter().map(|s| (s.name.clone(), Counts::default())).collect(),
                seconds: 0.0,
                rates: vec![0.0; stages.len()],
                versions: stages.iter().map(|s| (s.name.clone(), s.version.to_string())).collect(),
                made: Vec::new(),
                engines: Vec::new(),
            },
            workflow: flow.workflow.name.clone(),
            secrets: replay.plan.secrets.clone(),
            versions: versions.collect(),
            selected: selected.to_vec(),
            whole: options.limit.is_none() && !options.selects_items(),
            started,
            noted: started,
            counted: vec![0; stages.len()],
            settled: Vec::new(),
        }
    }

    /// When the run began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The run's id.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// The event that opens the run.
    pub fn run_started(&self) -> Event {
        Event::RunStarted {
            run: self.record.id.clone(),
            workflow: self.workflow.clone(),
            stages: self.record.stages.iter().map(|(name, _)| name.clone()).collect(),
        }
    }

    /// What is written before the first outcome.
    pub fn opening_writes(&mut self) -> Vec<Write> {
        let mut writes = std::mem::take(&mut self.versions);
        writes.push(self.note());
        writes
    }

    fn note(&self) -> Write {
        let json = serde_json::to_string(&self.record).expect("records serialise");
        Write::Note { key: format!("run/{}", self.record.id), json }
    }

    /// The record as it is now, when it is time to write it down.
    pub fn progress(&mut self, stages: &[StageRun], engines: &[EngineNews]) -> Option<Write> {
        let since = self.noted.elapsed();
        let first = self.record.stages.iter().all(|(_, counts)| counts.total == 0)
            && stages.iter().any(|stage| stage.counts.total > 0);
        if since < RECORD_EVERY && !first {
            return None;
        }
        self.record.engines = engines.to_vec();
        self.noted = Instant::now();
        self.count(stages, since.as_secs_f64());
        Some(self.note())
    }

    fn count(&mut self, stages: &[StageRun], seconds: f64) {
        let chosen = stages.iter().filter(|s| self.selected[s.planned.index]);
        for (at, stage) in chosen.enumerate() {
            let ran = stage.counts.ran;
            let rate = (ran - self.counted[at]) as f64 / seconds.max(1e-3);
            let old = self.record.rates[at];
            self.record.rates[at] = if old == 0.0 { rate } else { 0.7 * old + 0.3 * rate };
            self.counted[at] = ran;
            self.record.stages[at].1 = stage.counts;
        }
        self.record.seconds = self.started.elapsed().as_secs_f64();
    }

    /// Whether every selected stage is known to have nothing to do.
    ///
    /// # Errors
    /// When a source or the store cannot be read.
    pub fn is_settled(&mut self, replay: &Replay) -> Result<bool, EngineError> {
        let known = Settled::all(replay, &self.selected)?;
        let is_settled = known.is_some();
        self.settled = known.unwrap_or_default();
        Ok(is_settled)
    }

    /// Closes the books of a run that found nothing to do.
    ///
    /// # Errors
    /// When the store or an output cannot be written.
    pub fn close_unchanged(mut self, replay: &Replay, events: &Sender<Event>) -> Result<RunSummary, EngineError> {
        let settled = std::mem::take(&mut self.settled);
        let mut summary = self.summary(None, Vec::new(), Vec::new());
        for (at, (index, known)) in settled.iter().enumerate() {
            let counts = Counts { ran: 0, ..known.counts };
            self.record.stages[at].1 = counts;
            self.note_made(replay, *index, counts.done, &known.accepted)?;
            summary.failures.extend(known.failures.clone());
            summary.stages.push(StageSummary {
                name: replay.plan.stages[*index].name.clone(),
                ran: 0,
                cached: counts.done,
                failed: counts.failed,
                blocked: counts.blocked,
                seconds: 0.0,
                total: counts.total,
                missing: known.missing,
            });
        }
        let complete: Vec<bool> = self.selected.clone();
        let mut end = None;
        match super::outputs::write(replay, self.id(), &complete, events) {
            Ok(written) => summary.outputs = written,
            Err(error) => end = Some(self.broken(&mut summary, error)),
        }
        self.finish(replay, summary, end, events)
    }

    /// Closes the books: merges what is small, writes outputs, notes what is settled.
    ///
    /// # Errors
    /// What broke the run, or what breaks while its books are closed.
    pub fn close(
        mut self,
        replay: &Replay,
        stages: &[StageRun],
        mut end: Option<End>,
        events: &Sender<Event>,
    ) -> Result<RunSummary, EngineError> {
        let since = self.noted.elapsed().as_secs_f64();
        self.count(stages, since);
        for (_, counts) in &mut self.record.stages {
            // What was in hand is to be run again.
            counts.due += std::mem::take(&mut counts.running);
        }
        let chosen: Vec<&StageRun> = stages.iter().filter(|s| self.selected[s.planned.index]).collect();
        let summaries = chosen.iter().map(|s| s.summary()).collect();
        let failures: Vec<FailureGroup> = chosen.iter().flat_map(|s| s.failures.groups(&s.planned.name)).collect();
        let mut summary = self.summary(end.as_ref(), summaries, failures);
        if !matches!(end, Some(End::Broken(_))) {
            replay.store.tidy()?;
            let complete = self.complete(replay, stages);
            self.note_settled(replay, stages, &complete)?;
            match super::outputs::write(replay, self.id(), &complete, events) {
                Ok(written) => summary.outputs = written,
                Err(error) => end = Some(self.broken(&mut summary, error)),
            }
            if self.whole {
                for stage in chosen {
                    self.note_made(replay, stage.planned.index, stage.counts.done, &stage.accepted)?;
                }
            } else {
                self.recount(replay)?;
            }
        }
        self.finish(replay, summary, end, events)
    }

    /// Closes the books of something that ran nothing: counts what there is.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn close_recounted(mut self, replay: &Replay, events: &Sender<Event>) -> Result<RunSummary, EngineError> {
        self.recount(replay)?;
        let summary = self.summary(None, Vec::new(), Vec::new());
        self.finish(replay, summary, None, events)
    }

    /// The run ends so: its account is kept all the same.
    fn broken(&self, summary: &mut RunSummary, error: EngineError) -> End {
        summary.reason = Some(self.secrets.hide(&error.to_string()).into_owned());
        End::Broken(error)
    }

    fn note_made(
        &mut self,
        replay: &Replay,
        stage: usize,
        done: u64,
        accepted: &[(Hash, u64)],
    ) -> Result<(), EngineError> {
        let planned = &replay.plan.stages[stage];
        let made = made_by(&replay.store, &planned.name, planned.version, done, accepted)?;
        if !made.is_empty() {
            self.record.made.push((planned.name.clone(), made));
        }
        Ok(())
    }

    /// After a run that took only some items: counts of all that is known, so that `status` forgets nothing.
    fn recount(&mut self, replay: &Replay) -> Result<(), EngineError> {
        let chosen: Vec<usize> = (0..self.selected.len()).filter(|&s| self.selected[s]).collect();
        for (at, stage) in chosen.into_iter().enumerate() {
            let mut counts = Counts { ran: self.record.stages[at].1.ran, total_known: true, ..Counts::default() };
            let mut accepted = Vec::new();
            let grouped = matches!(replay.plan.stages[stage].verb, Verb::Reduce { .. });
            let _ = replay.resolved(stage, &mut |flow| {
                // What a reduce had to do without is no item of it.
                let flow = if grouped { StageFlow { blocked: 0, possible: 0, ..flow } } else { flow };
                counts.total += flow.batch.len() as u64 + flow.blocked + flow.possible;
                counts.done += flow.resolved.done;
                flow.resolved.accepted.iter().for_each(|&(version, n)| add_accepted(&mut accepted, version, n));
                counts.failed += flow.resolved.failed.len() as u64;
                counts.due += flow.resolved.due.len() as u64;
                counts.blocked += flow.blocked;
                counts.possible += flow.possible;
                Ok(ControlFlow::Continue(()))
            })?;
            self.record.stages[at].1 = counts;
            self.note_made(replay, stage, counts.done, &accepted)?;
        }
        Ok(())
    }

    /// The stages that have left nothing to do, and nothing before them has (a `retry` leaves what was never run).
    fn complete(&self, replay: &Replay, stages: &[StageRun]) -> Vec<bool> {
        let mut complete = vec![false; stages.len()];
        for &index in replay.plan.graph.order() {
            let run = &stages[index];
            let fed = run.planned.inputs.iter().all(|input| match *input {
                Input::Source(_) => true,
                Input::Stage(stage) => complete[stage],
            });
            complete[index] = fed && self.whole && run.settled && run.left == 0 && run.gate != Gate::Shut;
        }
        complete
    }

    fn note_settled(&self, replay: &Replay, stages: &[StageRun], complete: &[bool]) -> Result<(), EngineError> {
        let states = replay.states()?;
        let settled = stages.iter().filter(|s| complete[s.planned.index]).map(|stage| {
            if stage.failures.has(FailureKind::Lost) {
                // They are due again, whatever else holds.
                return Write::Note { key: Settled::key(&stage.planned.name), json: "null".into() };
            }
            let known = Settled {
                state: states[stage.planned.index].to_string(),
                limits: limits_of(&stage.planned),
                counts: stage.counts,
                missing: stage.missing,
                failures: stage.failures.groups(&stage.planned.name),
                accepted: stage.accepted.clone(),
            };
            let json = serde_json::to_string(&known).expect("counts serialise");
            Write::Note { key: Settled::key(&stage.planned.name), json }
        });
        Ok(replay.store.commit(&settled.collect::<Vec<_>>())?)
    }

    fn summary(&self, end: Option<&End>, stages: Vec<StageSummary>, failures: Vec<FailureGroup>) -> RunSummary {
        let mut reason = match end {
            Some(End::Threshold(reason)) => Some(reason.clone()),
            Some(End::Signal) => Some("interrupted".to_string()),
            Some(End::Broken(error)) => Some(error.to_string()),
            None => None,
        };
        reason.iter_mut().for_each(|reason| self.secrets.hide_in(reason));
        RunSummary {
            run: self.record.id.clone(),
            state: RunState::Running,
            stages,
            seconds: 0.0,
            reason,
            failures,
            outputs: Vec::new(),
        }
    }

    fn finish(
        mut self,
        replay: &Replay,
        mut summary: RunSummary,
        end: Option<End>,
        events: &Sender<Event>,
    ) -> Result<RunSummary, EngineError> {
        summary.state = super::run::state_of(&end, summary.stages.iter().any(|s| s.failed > 0));
        summary.seconds = self.started.elapsed().as_secs_f64();
        self.record.state = summary.state;
        self.record.reason = summary.reason.clone();
        self.record.seconds = summary.seconds;
        self.record.ended = Some(now());
        let mut writes = std::mem::take(&mut self.versions);
        writes.push(self.note());
        writes.extend(super::writer::learnt(replay.plan.reading.0.digests.as_deref()));
        let written = replay.store.commit(&writes);
        let _ = events.send(Event::RunFinished { summary: summary.clone() });
        match end {
            Some(End::Broken(error)) => Err(error),
            _ => {
                written?;
                Ok(summary)
            }
        }
    }
}
