//! What is due, and the rows that results already give: one batch of one stage at a time.
//!
//! [`decide`] is the one place that says whether an item runs. `run`, `plan`, `retry`, `results` and `status` all
//! fold its answers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::made::{self, Flaw, Workshop};
use super::selection::Selection;
use super::versions::add_accepted;
use crate::data::source::{Digests, file_digest};
use crate::data::{Batch, Failure, FailureKind, Hash, Table, Value, row_hashes};
use crate::plan::PlannedStage;
use crate::spec::model::{Input, Verb};
use crate::spec::template::Scope;
use crate::store::{Gathered, Hit, Segment, StoreError, View, Write};

/// What a run is asked to do with results that are there.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// `--fresh`: of these items no earlier result counts.
    pub fresh: Option<Selection>,
    /// `retry`: failures that match are due.
    pub retry: Option<Retry>,
}

/// Which failures `retry` runs again.
#[derive(Debug, Clone, Default)]
pub struct Retry {
    /// Only in this stage.
    pub stage: Option<String>,
    /// Only of these kinds; empty: all.
    pub kinds: Vec<FailureKind>,
    /// Only with this text in the message or traceback.
    pub matching: Option<String>,
}

impl Retry {
    fn covers(&self, stage: &str, failure: &Failure) -> bool {
        self.stage.as_deref().is_none_or(|s| s == stage)
            && (self.kinds.is_empty() || self.kinds.contains(&failure.kind))
            && self.matching.as_deref().is_none_or(|m| failure.message.contains(m) || failure.traceback.contains(m))
    }
}

/// Why an item is due, as far as its own result tells. What changed since another result is for the plan to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// No result for this input at this version.
    NoResult,
    /// It failed and is to be tried again.
    FailedBefore,
    /// Its worker was lost.
    Lost,
    /// It failed at a limit that has changed.
    LimitChanged,
    /// `--fresh`.
    Fresh,
    /// A file that it made is not there.
    FileMissing,
    /// A file that it made is not what it was, or another item's.
    FileChanged,
}

/// The answer for one item whose input is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Done,
    Failed,
    Due(Due),
}

/// Decides for one item: what is stored for its input at the stage's version, against what is asked. `fresh` says that
/// no earlier result of it counts.
pub fn decide(stage: &PlannedStage, stored: Option<Option<&Failure>>, policy: &Policy, fresh: bool) -> Verdict {
    match stored {
        _ if fresh => Verdict::Due(Due::Fresh),
        None => Verdict::Due(Due::NoResult),
        Some(None) => Verdict::Done,
        Some(Some(failure)) => match failure.kind {
            FailureKind::Lost => Verdict::Due(Due::Lost),
            FailureKind::Timeout | FailureKind::Memory if failure.limit != limit_of(stage, failure.kind) => {
                Verdict::Due(Due::LimitChanged)
            }
            _ if policy.retry.as_ref().is_some_and(|r| r.covers(&stage.name, failure)) => {
                Verdict::Due(Due::FailedBefore)
            }
            _ => Verdict::Failed,
        },
    }
}

/// The limit that failures of a kind tell of: milliseconds, bytes.
pub fn limit_of(stage: &PlannedStage, kind: FailureKind) -> Option<u64> {
    match kind {
        FailureKind::Timeout => stage.settings.timeout.map(|t| t.as_millis() as u64),
        FailureKind::Memory => stage.settings.memory,
        _ => None,
    }
}

/// A batch, looked up.
pub struct Resolved {
    /// The hash of what the action sees, of each item.
    pub inputs: Vec<Hash>,
    /// How many are done.
    pub done: u64,
    /// The rows that these give, in order.
    pub out: Batch,
    /// Their results, of a resolver that keeps them.
    pub hits: Vec<(u32, Hit)>,
    /// How many of them an earlier version made, for which they were accepted since.
    pub accepted: Vec<(Hash, u64)>,
    /// Items that were given the result of another one with the same input.
    pub borrowed: Vec<(u32, Hit)>,
    /// Failures that hold: the item's position in the batch, and its result.
    pub failed: Vec<(u32, Hit)>,
    /// Items to run.
    pub due: Vec<(u32, Due)>,
}

/// Looks a batch up.
pub struct Resolver {
    pub stage: Arc<PlannedStage>,
    /// What is stored at the stage's version; `None`: there is no store yet.
    pub view: Option<View>,
    pub policy: Arc<Policy>,
    /// The workflow's folder.
    pub dir: PathBuf,
    /// What item-wise `deps` templates may name.
    pub params: Arc<Vec<(String, Value)>>,
    /// Whether to keep the results of items that are done.
    pub keeps_hits: bool,
    /// What is known of files' contents.
    pub digests: Option<Arc<Digests>>,
    /// Whether the files that results tell of must still be there.
    pub checks_files: bool,
    /// In a run, where files are made.
    pub workshop: Option<Arc<Workshop>>,
    /// The content of the rows that the stage shares, part of what each item sees.
    pub shared: Option<Hash>,
    /// Batches that are looked up in turn.
    pub turns: Turns,
}

/// Work on batches that must be done in their order, whoever gets ready first.
#[derive(Default)]
pub struct Turns(Mutex<(u64, BTreeMap<u64, Turn>)>);

type Turn = Box<dyn FnOnce() + Send>;

impl Turns {
    /// Does `work` when all that has a lower `number` is done; numbers begin with 0 and none is left out.
    fn take(&self, number: u64, work: Turn) {
        let mut turns = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (next, waiting) = &mut *turns;
        waiting.insert(number, work);
        while let Some(work) = waiting.remove(next) {
            *next += 1;
            work();
        }
    }
}

/// What is told of how an item was run: attempts, seconds of the last one, bytes of memory that it held at most, and
/// the number of the version that made its result.
pub const USAGE_COLUMNS: [&str; 4] = ["attempts", "seconds", "peak_memory", "version"];

impl Resolver {
    /// Whether some items may have a result at the stage's version.
    pub fn may_have_results(&self) -> bool {
        self.view.as_ref().is_some_and(|view| !view.is_empty())
    }

    /// Looks up `batch`, whose first row is the stage's row `first_index` (where the stage sees that).
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn resolve(&self, batch: &Batch, first_index: u64) -> Result<Resolved, StoreError> {
        let inputs = self.inputs(batch, first_index);
        self.resolve_known(batch, inputs)
    }

    /// Looks up batch `number` of the stage and hands it on. Where an item may be given the result of another, it
    /// matters which comes first: then batches are looked up one after the other.
    pub fn resolve_in_turn(
        self: &Arc<Self>,
        batch: Batch,
        (number, first_index): (u64, u64),
        hand_on: impl FnOnce(&Resolver, Batch, Result<Resolved, StoreError>) + Send + 'static,
    ) {
        let inputs = self.inputs(&batch, first_index);
        let resolver = self.clone();
        let work = move || {
            let resolved = resolver.resolve_known(&batch, inputs);
            hand_on(&resolver, batch, resolved);
        };
        if self.stage.keyed || !self.may_have_results() { work() } else { self.turns.take(number, Box::new(work)) }
    }

    /// As [`Resolver::resolve`], with the input hashes known already.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn resolve_known(&self, batch: &Batch, mut inputs: Vec<Hash>) -> Result<Resolved, StoreError> {
        if let Some(shared) = self.shared {
            inputs.iter_mut().for_each(|input| *input = Hash::of_parts([&input.0[..], &shared.0]));
        }
        let hits = match &self.view {
            Some(view) if !view.is_empty() && !self.policy.fresh.as_ref().is_some_and(Selection::is_all) => {
                view.lookup(&batch.items, &inputs, self.stage.keyed)?
            }
            _ => vec![None; batch.len()],
        };
        let mut resolved = Resolved::nothing(inputs, empty(batch));
        let mut done = Vec::new();
        for (i, hit) in hits.into_iter().enumerate() {
            let i = i as u32;
            let fresh = self.policy.fresh.as_ref().is_some_and(|fresh| fresh.covers(&batch.items, i as usize));
            match (decide(&self.stage, hit.as_ref().map(Hit::failure), &self.policy, fresh), hit) {
                (Verdict::Done, Some(hit)) => done.push((i, hit)),
                (Verdict::Failed, Some(hit)) => resolved.failed.push((i, hit)),
                // Who looks at what was made sees what was lost; who runs, runs it again.
                (Verdict::Due(Due::Lost), Some(hit)) if !self.checks_files => resolved.failed.push((i, hit)),
                (Verdict::Due(due), _) => resolved.due.push((i, due)),
                (Verdict::Done | Verdict::Failed, None) => unreachable!("decided by a result"),
            }
        }
        if self.checks_files && made::makes_files(&self.stage) {
            self.check_files(batch, &mut done, &mut resolved.due);
        }
        resolved.done = done.len() as u64;
        resolved.out = self.rows_of(batch, &done);
        let is_borrowed = |(i, hit): &&(u32, Hit)| hit.origin() != batch.items.origins[*i as usize];
        resolved.borrowed = done.iter().chain(&resolved.failed).filter(is_borrowed).cloned().collect();
        resolved.accepted = accepted_of(&done);
        resolved.hits = if self.keeps_hits { done } else { Vec::new() };
        Ok(resolved)
    }

    /// Results of others, or of another version, that items were given, to be kept as their own at this one: whoever
    /// looks later finds each item's, in whatever order, and nobody is left with none. `maker` made those that do not
    /// say who did, if it was another version.
    pub fn adopt(&self, batch: &Batch, given: &[(u32, Hit)], maker: Option<Hash>) -> Vec<Write> {
        let made = |hit: &Hit| hit.made().or(maker);
        let mut makers: Vec<Option<Hash>> = Vec::new();
        for (_, hit) in given {
            if !makers.contains(&made(hit)) {
                makers.push(made(hit));
            }
        }
        let write = |maker: Option<Hash>| {
            let of_maker = given.iter().filter(|(_, hit)| made(hit) == maker);
            let (done, failed): (Vec<_>, Vec<_>) = of_maker.partition(|(_, hit)| hit.failure().is_none());
            let segment = kept_for(batch, &done, &failed, maker).encode();
            Write::Segment { stage: self.stage.name.clone(), version: self.stage.version, segment, again: false }
        };
        makers.into_iter().map(write).collect()
    }

    /// Makes those due whose files do not stand.
    fn check_files(&self, batch: &Batch, done: &mut Vec<(u32, Hit)>, due: &mut Vec<(u32, Due)>) {
        let (digests, workshop) = (self.digests.as_deref(), self.workshop.as_deref());
        let flaws = made::flaws(&self.stage, &batch.items, done, &self.dir, digests, workshop);
        if !flaws.is_empty() {
            done.retain(|(item, _)| flaws.binary_search_by_key(item, |(at, _)| *at).is_err());
            due.extend(flaws.into_iter().map(|(item, flaw)| match flaw {
                Flaw::Missing => (item, Due::FileMissing),
                Flaw::Changed | Flaw::Taken => (item, Due::FileChanged),
            }));
            due.sort_by_key(|(item, _)| *item);
        }
    }

    /// The hash of what the action sees of each row.
    fn inputs(&self, batch: &Batch, first_index: u64) -> Vec<Hash> {
        let mut hashes = row_hashes(&batch.table, &self.stage.uses);
        let deps: Vec<_> = self.stage.settings.deps.iter().filter(|t| t.names().per_item()).collect();
        if self.stage.sees_key || self.stage.sees_index || !deps.is_empty() {
            for (i, hash) in hashes.iter_mut().enumerate() {
                let key = batch.items.key(i);
                let index = first_index + i as u64;
                let mut parts = vec![hash.0.to_vec()];
                parts.push(if self.stage.sees_key { key.clone().into_bytes() } else { Vec::new() });
                parts.push(if self.stage.sees_index { index.to_le_bytes().to_vec() } else { Vec::new() });
                let scope = Scope {
                    params: &self.params,
                    item: Some((&batch.table, i)),
                    key: Some(&key),
                    index: Some(index),
                    ..Scope::default()
                };
                parts.extend(deps.iter().map(|template| self.content(template, &scope)));
                *hash = Hash::of_parts(parts.iter().map(Vec::as_slice));
            }
        }
        hashes
    }

    /// The content hash of an item's own further file; of a missing one, none.
    fn content(&self, template: &crate::spec::template::Template, scope: &Scope<'_>) -> Vec<u8> {
        let path = template.render_text(scope).unwrap_or_default();
        file_digest(&self.dir.join(path), self.digests.as_deref())
            .map_or_else(|_| Vec::new(), |(_, digest)| digest.to_vec())
    }

    fn rows_of(&self, batch: &Batch, done: &[(u32, Hit)]) -> Batch {
        if done.is_empty() {
            return empty(batch);
        }
        let given = Gathered::from_hits(done.iter().map(|(_, hit)| hit));
        let parents: Vec<u32> = done.iter().map(|(i, _)| *i).collect();
        rows_given(&self.stage, &batch.take(&parents), given.counts.as_deref(), &given.added)
    }
}

impl Resolved {
    fn nothing(inputs: Vec<Hash>, out: Batch) -> Resolved {
        Resolved {
            inputs,
            done: 0,
            out,
            hits: Vec::new(),
            accepted: Vec::new(),
            borrowed: Vec::new(),
            failed: Vec::new(),
            due: Vec::new(),
        }
    }
}

/// By version, how many results were made by another one than that under which they are kept.
fn accepted_of(done: &[(u32, Hit)]) -> Vec<(Hash, u64)> {
    let mut accepted = Vec::new();
    done.iter().filter_map(|(_, hit)| hit.made()).for_each(|version| add_accepted(&mut accepted, version, 1));
    accepted
}

/// Results as they are kept for the items of a batch, whoever's they were.
fn kept_for(batch: &Batch, done: &[&(u32, Hit)], failed: &[&(u32, Hit)], made: Option<Hash>) -> Segment {
    let given = Gathered::from_hits(done.iter().map(|(_, hit)| hit));
    let all = || done.iter().chain(failed);
    let story = |(i, hit): &&(u32, Hit)| Some((batch.items.key(*i as usize), hit.failure()?.clone()));
    Segment {
        rows: all().map(|(i, _)| batch.items.rows[*i as usize]).collect(),
        origins: all().map(|(i, _)| batch.items.origins[*i as usize]).collect(),
        inputs: all().map(|(_, hit)| hit.input()).collect(),
        usage: all().map(|(_, hit)| hit.usage()).collect(),
        attempts: all().map(|(_, hit)| hit.attempt()).collect(),
        done: done.len(),
        counts: given.counts,
        added: given.added,
        failures: failed.iter().filter_map(story).collect(),
        made,
    }
}

/// What items used, once for each row that they gave; failed ones gave none and stand once. `number` is that of the
/// version that made a result.
pub fn usage_of(hits: &[(u32, Hit)], number: impl Fn(&Hit) -> Option<u32>) -> Table {
    Table::from_rows(hits.iter().flat_map(|(_, hit)| {
        let usage = hit.usage();
        let row = [
            Value::Int(hit.attempt().into()),
            Value::Float(usage.seconds()),
            usage.peak_bytes().map_or(Value::Null, |bytes| Value::Int(bytes as i64)),
            number(hit).map_or(Value::Null, |number| Value::Int(number.into())),
        ];
        let row: Vec<(String, Value)> = USAGE_COLUMNS.map(str::to_string).into_iter().zip(row).collect();
        let rows = if hit.failure().is_some() { 1 } else { hit.segment.count(hit.at as usize) };
        std::iter::repeat_n(row, rows as usize)
    }))
}

fn empty(batch: &Batch) -> Batch {
    batch.slice(0, 0)
}

/// The rows that succeeded items give: their own columns and those that the stage added, narrowed to what it keeps.
pub fn rows_given(stage: &PlannedStage, parents: &Batch, counts: Option<&[u32]>, added: &Table) -> Batch {
    let ones;
    let batch = match (&stage.verb, counts) {
        (Verb::Map, _) | (_, None) => Batch { items: parents.items.clone(), table: parents.table.join(added) },
        (Verb::Filter, Some(counts)) => {
            let kept: Vec<u32> = (0..counts.len() as u32).filter(|&i| counts[i as usize] > 0).collect();
            parents.take(&kept)
        }
        (verb, Some(counts)) => {
            ones = counts.iter().all(|&n| n == 1) && *verb != Verb::FlatMap;
            let repeated: Vec<u32> =
                counts.iter().enumerate().flat_map(|(i, &n)| std::iter::repeat_n(i as u32, n as usize)).collect();
            let items = if ones { parents.items.clone() } else { parents.items.children(counts) };
            Batch { items, table: parents.table.take(&repeated).join(added) }
        }
    };
    match &stage.keep {
        Some(keep) => Batch { table: batch.table.select(|name| keep.iter().any(|k| k == name)), items: batch.items },
        None => batch,
    }
}

/// Whether items of `stage` from its input number `input` need another origin, so that two inputs' do not meet.
pub fn with_input_number(stage: &PlannedStage, input: Input, mut batch: Batch) -> Batch {
    if stage.inputs.len() > 1 {
        let number = stage.inputs.iter().position(|i| *i == input).unwrap_or(0) as u64;
        batch.items.origins.iter_mut().for_each(|origin| *origin = crate::data::mix(*origin, number << 32));
    }
    batch
}
