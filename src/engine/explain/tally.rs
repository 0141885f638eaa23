//! What is counted of one stage.

use std::sync::Arc;

use super::reasons::{History, Reason};
use super::{Passing, Wanted};
use crate::data::{Hash, Items};
use crate::engine::EngineError;
use crate::engine::api::RunOptions;
use crate::engine::events::{DueItems, Jobs, StagePlan};
use crate::engine::groups::Grouping;
use crate::engine::resolve::{Resolver, Turns, with_input_number};
use crate::engine::run::policy;
use crate::engine::shared::Content;
use crate::engine::versions::Numbers;
use crate::plan::{Plan, PlannedStage};
use crate::spec::model::{Input, Verb};
use crate::store::Store;

/// Keys shown for each reason.
const SAMPLES: usize = 3;

pub(super) struct Tally {
    pub planned: Arc<PlannedStage>,
    /// Of its versions, where an item is followed.
    pub numbers: Numbers,
    pub resolver: Resolver,
    pub report: StagePlan,
    pub next_index: u64,
    pub history: Option<History>,
    pub grouping: Option<Grouping>,
    /// Rows that are missing: behind a failure, behind something to run.
    pub missing: (u64, u64),
    /// Rows of later inputs that must wait for their turn.
    pub later: Vec<Passing>,
    /// Whether all rows must wait, until what the stage shares is known.
    pub held: bool,
    /// Whether what it shares is still to be made.
    pub waits: bool,
    /// Shared rows that are others than when it last ran, in words.
    pub others: Vec<String>,
    /// Of its rows, where other stages share them.
    pub content: Option<Content>,
    due: blake3::Hasher,
    keys: Option<Vec<String>>,
}

impl Tally {
    pub fn new(
        plan: &Plan,
        planned: &Arc<PlannedStage>,
        shared: bool,
        store: Option<&Store>,
        options: &RunOptions,
        wanted: &Wanted,
    ) -> Result<Tally, EngineError> {
        let resolver = Resolver {
            stage: planned.clone(),
            view: store.map(|s| s.view(&planned.name, planned.version)).transpose()?,
            dir: plan.workflow.dir.clone(),
            policy: Arc::new(policy(options)),
            params: Arc::new(plan.params().to_vec()),
            keeps_hits: wanted.follow.is_some(),
            digests: plan.reading.0.digests.clone(),
            checks_files: true,
            workshop: None,
            shared: None,
            turns: Turns::default(),
        };
        Ok(Tally {
            numbers: match store.filter(|_| wanted.follow.is_some()) {
                Some(store) => Numbers::of(store, &planned.name)?,
                None => Numbers::default(),
            },
            resolver,
            report: blank(plan, planned),
            planned: planned.clone(),
            next_index: 0,
            history: None,
            grouping: None,
            missing: (0, 0),
            later: Vec::new(),
            held: planned.shared_stages().next().is_some(),
            waits: false,
            others: Vec::new(),
            content: shared.then(Content::default),
            due: blake3::Hasher::new(),
            keys: wanted.due.then(Vec::new),
        })
    }

    pub fn gather(&mut self, passing: Passing) {
        let batch = with_input_number(&self.planned, passing.input, passing.batch);
        if !batch.is_empty() {
            self.grouping.get_or_insert_with(|| Grouping::new(self.planned.clone())).add(&batch.table);
        }
    }

    /// Counts rows that do not come: behind a failure, behind something to run.
    pub fn behind(&mut self, blocked: u64, possible: u64) {
        self.missing.0 += blocked;
        self.missing.1 += possible;
    }

    /// Counts a due item.
    pub fn note(&mut self, reason: &Reason, items: &Items, i: usize, input: Hash) {
        self.due.update(&items.origins[i].to_le_bytes());
        self.due.update(&input.0);
        if let Some(keys) = self.keys.as_mut().filter(|keys| keys.len() < DueItems::LISTED) {
            keys.push(items.key(i));
        }
        *self.report.reasons.entry(reason.name.to_string()).or_default() += 1;
        let samples = self.report.samples.entry(reason.name.to_string()).or_default();
        if samples.len() < SAMPLES {
            samples.push(match &reason.detail {
                Some(detail) => format!("{} ({detail})", items.key(i)),
                None => items.key(i),
            });
        }
    }

    /// Which items are due.
    pub fn due_items(&mut self) -> DueItems {
        let report = &self.report;
        // What was only possible in the end is not listed.
        let certain = report.due > 0;
        let counts = [report.due, report.possible].map(u64::to_le_bytes).concat();
        let digest = self.due.finalize();
        let digest = Hash::of_parts([if certain { &digest.as_bytes()[..] } else { &[] }, &counts]);
        DueItems {
            name: report.name.clone(),
            version: self.planned.version.to_string(),
            digest: digest.to_string(),
            due: self.keys.take().filter(|_| certain).unwrap_or_default(),
            count: report.due,
            possible: report.possible,
        }
    }

    /// Reckons how long the items will take.
    pub fn estimate(&mut self) -> Result<(), EngineError> {
        if self.report.due + self.report.possible == 0 {
            return Ok(());
        }
        self.report.jobs = self.planned.remote().and_then(|remote| {
            let items = self.report.due + self.report.possible;
            Some(Jobs { backend: remote.name.clone(), jobs: remote.jobs_for(items)? })
        });
        if self.planned.workers == usize::MAX {
            return Ok(());
        }
        let views = self.resolver.view.iter().chain(self.history.iter().flat_map(History::views));
        for view in views {
            if let Some(micros) = view.mean_micros()? {
                let seconds = |items: u64| items as f64 * micros / 1e6 / self.planned.workers as f64;
                self.report.seconds = Some(seconds(self.report.due));
                self.report.possible_seconds = Some(seconds(self.report.possible));
                return Ok(());
            }
        }
        Ok(())
    }
}

fn blank(plan: &Plan, planned: &PlannedStage) -> StagePlan {
    let name_of = |input: &Input| match *input {
        Input::Source(source) => plan.workflow.sources[source].name.clone(),
        Input::Stage(stage) => plan.stages[stage].name.clone(),
    };
    StagePlan {
        name: planned.name.clone(),
        total_known: true,
        inputs: planned.inputs.iter().map(name_of).collect(),
        after: planned.after.iter().map(|&stage| plan.stages[stage].name.clone()).collect(),
        verb: match planned.verb {
            Verb::Map => "map",
            Verb::FlatMap => "flat_map",
            Verb::Filter => "filter",
            Verb::Reduce { .. } => "reduce",
            Verb::Once => "once",
        }
        .to_string(),
        action: planned.action.clone(),
        ..StagePlan::default()
    }
}
