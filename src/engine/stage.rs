//! The state of one stage in a run.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::budget::Permit;
use super::events::{Counts, FailureGroup, StageSummary};
use super::pace::Pace;
use super::prepare::Preparer;
use super::resolve::{Resolved, Resolver};
use super::suspects::Marks;
use crate::data::{Batch, Failure, FailureKind, Hash};
use crate::executor::Mark;
use crate::plan::PlannedStage;

/// Due items, with what their results will be stored under.
#[derive(Debug, Clone)]
pub struct Pending {
    pub batch: Batch,
    /// The hash of what the action sees of each.
    pub inputs: Vec<Hash>,
    /// Attempts already made at each.
    pub attempts: Vec<u16>,
    /// The row number of each in the stage.
    pub indices: Vec<u64>,
    /// The bytes held.
    pub permits: Vec<Permit>,
}

impl Pending {
    /// The number of items.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// The items of `indices`, in that order.
    pub fn take(&self, indices: &[u32]) -> Pending {
        Pending {
            batch: self.batch.take(indices),
            inputs: indices.iter().map(|&i| self.inputs[i as usize]).collect(),
            attempts: indices.iter().map(|&i| self.attempts[i as usize]).collect(),
            indices: indices.iter().map(|&i| self.indices[i as usize]).collect(),
            permits: self.permits.clone(),
        }
    }

    /// The mark of item `i`.
    pub fn mark(&self, marks: Marks, i: usize) -> Mark {
        marks.mark(self.batch.items.origins[i], self.inputs[i])
    }

    fn split_at(self, at: usize) -> (Pending, Pending) {
        let part = |from: usize, to: usize| Pending {
            batch: self.batch.slice(from, to - from),
            inputs: self.inputs[from..to].to_vec(),
            attempts: self.attempts[from..to].to_vec(),
            indices: self.indices[from..to].to_vec(),
            permits: self.permits.clone(),
        };
        (part(0, at), part(at, self.len()))
    }

    fn concat(parts: Vec<Pending>) -> Pending {
        let batches: Vec<Batch> = parts.iter().map(|p| p.batch.clone()).collect();
        Pending {
            batch: Batch::concat(&batches),
            inputs: parts.iter().flat_map(|p| p.inputs.iter().copied()).collect(),
            attempts: parts.iter().flat_map(|p| p.attempts.iter().copied()).collect(),
            indices: parts.iter().flat_map(|p| p.indices.iter().copied()).collect(),
            permits: parts.into_iter().flat_map(|p| p.permits).collect(),
        }
    }
}

/// When a stage may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Rows flow in as they come.
    Open,
    /// It waits for all of its input, and for the stages it comes after.
    Waiting,
    /// It never starts: something before it failed or was left.
    Shut,
}

/// A batch that was looked up, waiting for its turn.
pub struct Arrival {
    pub batch: Batch,
    pub resolved: Resolved,
    pub first_index: u64,
    /// Its rows come from items that this run ran.
    pub follows: bool,
    pub permit: Permit,
}

/// A stage in a run.
pub struct StageRun {
    pub planned: Arc<PlannedStage>,
    pub selected: bool,
    pub gate: Gate,
    pub resolver: Option<Arc<Resolver>>,
    pub preparer: Option<Arc<Preparer>>,
    /// The content of the rows that it shares.
    pub shared: Option<Hash>,
    /// Inputs that may still bring rows.
    pub open_inputs: usize,
    /// Batches sent to be looked up, and the number of the next to be taken in.
    pub sent: u64,
    pub taken: u64,
    /// Looked up, but not yet their turn.
    pub arrivals: BTreeMap<u64, Arrival>,
    /// The row number of the next row.
    pub next_index: u64,
    queue: VecDeque<Pending>,
    waiting: usize,
    /// Items that run alone, one at a time, before the others.
    pub suspects: VecDeque<Pending>,
    /// Items to be tried again, and when.
    pub retries: Vec<(Instant, Pending)>,
    pub tasks: usize,
    /// Of these, how many are still being prepared.
    pub preparing: usize,
    /// Items handed to the writer.
    pub uncommitted: u64,
    /// Due items that are not selected.
    pub left: u64,
    /// Failures that hold, of items that are not selected.
    pub out_of_scope: u64,
    pub counts: Counts,
    pub cached: u64,
    /// Of these, results that earlier versions made and that were accepted for this one.
    pub accepted: Vec<(Hash, u64)>,
    /// Rows that a reduce has to do without.
    pub missing: u64,
    pub pace: Pace,
    pub settled: bool,
    pub started: Option<Instant>,
    pub last_commit: Option<Instant>,
    pub failures: Failures,
}

impl StageRun {
    /// A stage that has not begun.
    pub fn new(planned: Arc<PlannedStage>, selected: bool) -> StageRun {
        let gate = if planned.is_gated() { Gate::Waiting } else { Gate::Open };
        // A group is a task of its own: its rows are a stream.
        let grouped = matches!(planned.verb, crate::spec::model::Verb::Reduce { .. });
        let chunk_size = if grouped { Some(1) } else { planned.settings.chunk_size };
        let settings = &planned.settings;
        let most = settings.batch_size.into_iter().chain(settings.max_tasks_per_worker).min();
        let overhead = planned.remote().map(|remote| remote.kind.overhead()).unwrap_or_default();
        let pace = Pace::new(chunk_size, most, overhead);
        StageRun {
            open_inputs: planned.inputs.len(),
            planned,
            selected,
            gate,
            resolver: None,
            preparer: None,
            shared: None,
            sent: 0,
            taken: 0,
            arrivals: BTreeMap::new(),
            next_index: 0,
            queue: VecDeque::new(),
            waiting: 0,
            suspects: VecDeque::new(),
            retries: Vec::new(),
            tasks: 0,
            preparing: 0,
            uncommitted: 0,
            left: 0,
            out_of_scope: 0,
            counts: Counts::default(),
            cached: 0,
            accepted: Vec::new(),
            missing: 0,
            pace,
            settled: false,
            started: None,
            last_commit: None,
            failures: Failures::default(),
        }
    }

    /// Queues due items.
    pub fn enqueue(&mut self, pending: Pending) {
        if !pending.is_empty() {
            self.waiting += pending.len();
            self.queue.push_back(pending);
        }
    }

    /// Queues items again, ahead of the others.
    pub fn requeue(&mut self, pending: Pending) {
        if !pending.is_empty() {
            self.waiting += pending.len();
            self.queue.push_front(pending);
        }
    }

    /// Items waiting for a worker.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Takes the first `n` waiting items.
    pub fn dequeue(&mut self, n: usize) -> Pending {
        let mut parts = Vec::new();
        let mut wanted = n;
        while wanted > 0 {
            let Some(first) = self.queue.pop_front() else { break };
            if first.len() <= wanted {
                wanted -= first.len();
                parts.push(first);
            } else {
                let (head, tail) = first.split_at(wanted);
                wanted = 0;
                parts.push(head);
                self.queue.push_front(tail);
            }
        }
        self.waiting -= n - wanted;
        if parts.len() == 1 { parts.remove(0) } else { Pending::concat(parts) }
    }

    /// Whether nothing of it is under way.
    pub fn is_idle(&self) -> bool {
        self.sent == self.taken
            && self.waiting == 0
            && self.suspects.is_empty()
            && self.retries.is_empty()
            && self.tasks == 0
            && self.uncommitted == 0
    }

    /// What became of it.
    pub fn summary(&self) -> StageSummary {
        let seconds = match (self.started, self.last_commit) {
            (Some(start), Some(end)) => end.duration_since(start).as_secs_f64(),
            _ => 0.0,
        };
        StageSummary {
            name: self.planned.name.clone(),
            ran: self.counts.ran,
            cached: self.cached,
            failed: self.counts.failed - self.out_of_scope,
            blocked: self.counts.blocked,
            seconds,
            total: self.counts.total,
            missing: self.missing,
        }
    }
}

/// Failures that hold, grouped by signature.
#[derive(Debug, Default)]
pub struct Failures(BTreeMap<(FailureKind, String), (u64, Vec<String>)>);

/// Keys shown of a group of failures.
const SAMPLE_KEYS: usize = 5;

impl Failures {
    /// Counts a failure.
    pub fn add(&mut self, key: impl FnOnce() -> String, failure: &Failure) {
        let (count, keys) = self.0.entry((failure.kind, failure.signature())).or_default();
        *count += 1;
        if keys.len() < SAMPLE_KEYS {
            keys.push(key());
        }
    }

    /// Whether there is one of this kind.
    pub fn has(&self, kind: FailureKind) -> bool {
        self.0.keys().any(|(known, _)| *known == kind)
    }

    /// The groups of `stage`, largest first.
    pub fn groups(&self, stage: &str) -> Vec<FailureGroup> {
        let mut groups: Vec<FailureGroup> = self
            .0
            .iter()
            .map(|((kind, signature), (count, keys))| FailureGroup {
                stage: stage.to_string(),
                kind: kind.to_string(),
                signature: signature.clone(),
                count: *count,
                keys: keys.clone(),
            })
            .collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        groups
    }
}
