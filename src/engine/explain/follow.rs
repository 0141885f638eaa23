//! One item on its way through all stages.

use super::reasons::Reason;
use super::tally::Tally;
use crate::data::{Batch, Failure, Items};
use crate::engine::EngineError;
use crate::engine::events::{Followed, StagePlan};
use crate::engine::groups::groups_of_rows;
use crate::engine::resolve::Resolved;
use crate::engine::selection::Selection;
use crate::plan::{Plan, PlannedStage};
use crate::spec::model::{Input, Verb};
use crate::store::Hit;

/// Items told of in each stage: a `flat_map` may have given many.
const TOLD: usize = 20;

/// Who is followed, and what was met of it.
pub(super) struct Following {
    key: Option<String>,
    /// By which keys it is known in each stage: those of groups, behind a reduce.
    known_as: Vec<Selection>,
    met: Vec<Vec<Followed>>,
}

impl Following {
    pub fn new(key: Option<&str>, stages: usize) -> Following {
        let key = key.map(str::to_string);
        let known_as = vec![Selection::new(key.as_slice(), &[]); stages];
        Following { key, known_as, met: vec![Vec::new(); stages] }
    }

    pub fn is_on(&self) -> bool {
        self.key.is_some()
    }

    /// Looks among the rows of a source that cannot be read.
    pub fn enter_source(&mut self, stage: usize, bad: &[(u64, String, Failure)]) {
        let wanted = self.key.clone();
        for (_, key, failure) in bad.iter().filter(|(_, key, _)| Some(key) == wanted.as_ref()) {
            let why = format!("{}: {}", failure.kind, failure.message);
            self.meet(stage, Followed { key: key.clone(), state: "failed".into(), why, ..Followed::default() });
        }
    }

    /// Behind a reduce it is known as the groups that its rows belong to.
    pub fn enter_groups(&mut self, stage: &PlannedStage, rows: &Batch) {
        if !self.is_on() {
            return;
        }
        let known_as = &self.known_as[stage.index];
        let own: Vec<u32> = (0..rows.len()).filter(|&i| known_as.covers(&rows.items, i)).map(|i| i as u32).collect();
        if !own.is_empty() {
            let groups = groups_of_rows(stage, &rows.table.take(&own));
            self.known_as[stage.index].keys.extend(groups);
        }
    }

    /// Looks among the items of a stage.
    pub fn account<'r>(
        &mut self,
        plan: &Plan,
        stage: usize,
        tally: &Tally,
        batch: &Batch,
        resolved: &Resolved,
        due: impl Iterator<Item = (&'r u32, &'r Reason)>,
    ) {
        if !self.is_on() {
            return;
        }
        let known_as = self.known_as[stage].clone();
        let is_it = |items: &Items, i: u32| known_as.covers(items, i as usize);
        let version = tally.planned.version;
        for (i, hit) in resolved.hits.iter().chain(&resolved.failed).filter(|(i, _)| is_it(&batch.items, *i)) {
            self.meet(stage, Followed { key: batch.items.key(*i as usize), ..told(hit, tally, version) });
        }
        for (&i, reason) in due.filter(|(i, _)| is_it(&batch.items, **i)) {
            let words = reason.name.replace('_', " ");
            let why = match (&reason.detail, tally.report.changes.as_slice()) {
                (Some(detail), _) => format!("{words}: {detail}"),
                (None, changes) if reason.name.ends_with("changed") && !changes.is_empty() => changes.join("; "),
                (None, _) => words,
            };
            let key = batch.items.key(i as usize);
            self.meet(stage, Followed { key, state: "due".into(), why, ..Followed::default() });
        }
        self.pass_names_on(plan, stage, &known_as);
    }

    /// What follows from a group is known by the group's name.
    fn pass_names_on(&mut self, plan: &Plan, stage: usize, known_as: &Selection) {
        for consumer in plan.consumers(Input::Stage(stage)) {
            let names = &mut self.known_as[consumer.index].keys;
            let new: Vec<String> = known_as.keys.iter().filter(|key| !names.contains(key)).cloned().collect();
            names.extend(new);
        }
    }

    fn meet(&mut self, stage: usize, followed: Followed) {
        if self.met[stage].len() < TOLD {
            self.met[stage].push(followed);
        }
    }

    /// What was met, stage by stage, and where nothing was, why not.
    pub fn finish(
        &mut self,
        plan: &Plan,
        order: &[usize],
        reports: &[StagePlan],
    ) -> Result<Vec<Followed>, EngineError> {
        let Some(key) = self.key.clone() else { return Ok(Vec::new()) };
        if self.met.iter().all(Vec::is_empty) {
            return Err(EngineError::NoItem { keys: key });
        }
        let mut told: Vec<Followed> = Vec::new();
        for (&stage, report) in order.iter().zip(reports) {
            let met = std::mem::take(&mut self.met[stage]);
            if met.is_empty() {
                told.extend(absent(&plan.stages[stage], plan, &told, &key));
            }
            let settled =
                |followed: Followed| match (report.blocked > 0 && report.done + report.due == 0, &*followed.state) {
                    (true, "done" | "due") => Followed { state: "blocked".into(), ..followed },
                    (false, "due") if report.due == 0 => Followed { state: "possible".into(), ..followed },
                    _ => followed,
                };
            told.extend(met.into_iter().map(|followed| Followed { stage: report.name.clone(), ..settled(followed) }));
        }
        Ok(told)
    }
}

fn told(hit: &Hit, tally: &Tally, version: crate::data::Hash) -> Followed {
    let seconds = Some(hit.usage().seconds());
    let attempts = Some(hit.attempt());
    let made = tally.numbers.get(hit.made().unwrap_or(version));
    let common = Followed { version: made, attempts, seconds, ..Followed::default() };
    match hit.failure() {
        Some(failure) => {
            Followed { state: "failed".into(), why: format!("{}: {}", failure.kind, failure.message), ..common }
        }
        None => {
            let rows = hit.segment.count(hit.at as usize);
            let state = match (&tally.planned.verb, rows) {
                (Verb::Filter, 0) => "dropped",
                (Verb::FlatMap, 0) => "gone",
                _ => "done",
            };
            Followed { state: state.into(), ..common }
        }
    }
}

/// Why a stage has not met the item: what became of it before.
fn absent(stage: &PlannedStage, plan: &Plan, told: &[Followed], key: &str) -> Option<Followed> {
    let above: Vec<&str> = stage.inputs.iter().filter_map(Input::stage).map(|s| &*plan.stages[s].name).collect();
    let found = |states: &[&str]| {
        told.iter().find(|f| above.contains(&&*f.stage) && states.contains(&&*f.state)).map(|f| f.stage.clone())
    };
    let (state, why) = if let Some(before) = found(&["due", "possible"]) {
        ("possible", format!("behind {before}"))
    } else if let Some(before) = found(&["failed", "blocked"]) {
        ("blocked", format!("behind {before}"))
    } else {
        let before = found(&["dropped", "gone"])?;
        ("gone", format!("{before} gave no row of it"))
    };
    let stage = stage.name.clone();
    Some(Followed { stage, key: key.to_string(), state: state.into(), why, ..Followed::default() })
}
