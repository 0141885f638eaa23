//! Why items are due: what differs from the versions and rows that the store knows.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;

use super::tally::Tally;
use crate::data::{Batch, Hash, Table, Uses, Value};
use crate::engine::EngineError;
use crate::engine::resolve::{Due, Resolved};
use crate::engine::versions::with_results;
use crate::plan::Fingerprint;
use crate::spec::model::Input;
use crate::store::model::RosterBatch;
use crate::store::{Store, View};

/// Earlier versions looked at for a reason.
const EARLIER_VERSIONS: usize = 5;

/// Why an item is due.
#[derive(Debug, Clone)]
pub(super) struct Reason {
    /// As `plan --json` counts it.
    pub name: &'static str,
    /// What differs, in words.
    pub detail: Option<String>,
}

impl Reason {
    fn plain(name: &'static str) -> Reason {
        Reason { name, detail: None }
    }

    fn told_by(due: Due) -> Option<Reason> {
        match due {
            Due::NoResult => None,
            Due::FailedBefore => Some(Reason::plain("failed_before")),
            Due::Lost => Some(Reason::plain("lost")),
            Due::LimitChanged => Some(Reason::plain("limit_changed")),
            Due::Fresh => Some(Reason::plain("fresh")),
            Due::FileMissing => Some(Reason::plain("file_missing")),
            Due::FileChanged => Some(Reason::plain("file_changed")),
        }
    }
}

/// Earlier versions of a stage that have results, the latest first.
pub(super) struct History(Vec<(Fingerprint, View)>);

impl History {
    fn of(tally: &Tally, store: &Store) -> Result<History, EngineError> {
        let stage = &tally.planned;
        let mut known = with_results(store, &stage.name)?;
        known.retain(|v| v.version != stage.version);
        let mut earlier = Vec::new();
        for version in known.iter().take(EARLIER_VERSIONS) {
            if let Some(fingerprint) = Fingerprint::from_json(&version.components) {
                earlier.push((fingerprint, store.view(&stage.name, version.version)?));
            }
        }
        Ok(History(earlier))
    }

    pub fn views(&self) -> impl Iterator<Item = &View> {
        self.0.iter().map(|(_, view)| view)
    }
}

impl Tally {
    /// Why each of the items at `due` is due.
    pub fn reasons(
        &mut self,
        store: Option<&Store>,
        batch: &Batch,
        resolved: &Resolved,
        due: &[u32],
        before: Option<&RosterBatch>,
    ) -> Result<Vec<Reason>, EngineError> {
        let told: HashMap<u32, Due> = resolved.due.iter().copied().collect();
        let mut reasons: Vec<Option<Reason>> = due.iter().map(|i| Reason::told_by(told[i])).collect();
        if let Some(store) = store.filter(|_| reasons.iter().any(Option::is_none)) {
            if self.history.is_none() {
                self.history = Some(History::of(self, store)?);
            }
            self.versions_reasons(batch, resolved, due, &mut reasons)?;
            self.rows_reasons(batch, due, before, &mut reasons)?;
        }
        Ok(reasons.into_iter().map(|reason| reason.unwrap_or(Reason::plain("new"))).collect())
    }

    /// Items that have a result at an earlier version: what changed since.
    fn versions_reasons(
        &mut self,
        batch: &Batch,
        resolved: &Resolved,
        due: &[u32],
        reasons: &mut [Option<Reason>],
    ) -> Result<(), EngineError> {
        let Some(history) = &self.history else { return Ok(()) };
        let mut changes = Vec::new();
        for (earlier, view) in &history.0 {
            let open = open(reasons);
            let told = self.planned.fingerprint.changes_since(earlier);
            let (Some(first), false) = (told.first(), open.is_empty()) else { continue };
            let places: Vec<u32> = open.iter().map(|&at| due[at]).collect();
            let inputs: Vec<Hash> = places.iter().map(|&i| resolved.inputs[i as usize]).collect();
            let hits = view.lookup(&batch.items.take(&places), &inputs, self.planned.keyed)?;
            let words = told.iter().map(|change| change.words.as_str()).collect::<Vec<_>>().join("; ");
            for (at, _) in open.iter().zip(&hits).filter(|(_, hit)| hit.is_some()) {
                reasons[*at] = Some(Reason { name: first.reason, detail: None });
            }
            if hits.iter().any(Option::is_some) && !self.report.changes.contains(&words) {
                changes.push(words);
            }
        }
        self.report.changes.extend(changes);
        Ok(())
    }

    /// Items that had a result for another input: which columns differ, where that can be told.
    fn rows_reasons(
        &mut self,
        batch: &Batch,
        due: &[u32],
        before: Option<&RosterBatch>,
        reasons: &mut [Option<Reason>],
    ) -> Result<(), EngineError> {
        let differing = before.map(|before| differences(batch, before, self.planned.keyed, &self.planned.uses));
        for at in open(reasons) {
            if let Some(columns) = differing.as_ref().and_then(|d| d.get(&due[at])) {
                reasons[at] = Some(Reason { name: "input_changed", detail: Some(columns.clone()) });
            }
        }
        let unshared: Vec<String> =
            self.others.iter().filter(|words| !self.report.changes.contains(words)).cloned().collect();
        if !open(reasons).is_empty() {
            self.report.changes.extend(unshared);
        }
        let views = self.resolver.view.iter().chain(self.history.iter().flat_map(History::views));
        for view in views {
            let open = open(reasons);
            let origins: Vec<_> = open.iter().map(|&at| batch.items.origins[due[at] as usize]).collect();
            for (at, known) in open.into_iter().zip(view.inputs_of(&origins)?) {
                if known.is_none() {
                    continue;
                }
                reasons[at] = Some(match self.others.is_empty() {
                    true => Reason { name: "input_changed", detail: self.rows_of_others() },
                    false => Reason::plain("share_changed"),
                });
            }
        }
        Ok(())
    }

    /// Where rows come from stages, it is those that gave others.
    fn rows_of_others(&self) -> Option<String> {
        let stages = self.planned.inputs.iter().filter(|input| matches!(input, Input::Stage(_))).count();
        (stages > 0).then(|| format!("other rows of {}", self.report.inputs.join(", ")))
    }
}

/// The places of those without a reason so far.
fn open(reasons: &[Option<Reason>]) -> Vec<usize> {
    (0..reasons.len()).filter(|&at| reasons[at].is_none()).collect()
}

/// Of rows that were there before, which of the columns in use differ: by key; without keys by position, where most
/// rows of the batch stand as they stood.
fn differences(batch: &Batch, before: &RosterBatch, keyed: bool, uses: &Uses) -> HashMap<u32, String> {
    let old_row: HashMap<String, usize> = (0..before.items.len()).map(|i| (before.items.key(i), i)).collect();
    let mut found = HashMap::new();
    let mut compared = 0;
    for i in 0..batch.len() {
        let Some(&old) = old_row.get(&batch.items.key(i)) else { continue };
        compared += 1;
        let columns = differing_columns((&batch.table, i), (&before.table, old), uses);
        if !columns.is_empty() {
            found.insert(i as u32, columns.join(", "));
        }
    }
    let in_place = keyed || (batch.len() == before.items.len() && found.len() * 2 <= compared.max(2));
    if in_place { found } else { HashMap::new() }
}

fn differing_columns(new: (&Table, usize), old: (&Table, usize), uses: &Uses) -> Vec<String> {
    let cells = |(table, row): (&Table, usize)| -> BTreeMap<String, Value> {
        table.row(row).into_iter().filter(|(name, _)| uses.contains(name)).collect()
    };
    let (new, old) = (cells(new), cells(old));
    let names: BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    names
        .into_iter()
        .filter(|name| new.get(*name) != old.get(*name) && !matches!(new.get(*name), Some(Value::Aside(_))))
        .map(|name| {
            if let (Some(Value::File { path, .. }), Some(Value::File { path: before, .. })) =
                (new.get(name), old.get(name))
                && path == before
            {
                return format!("content of {name}");
            }
            let shown =
                |v: Option<&Value>| v.map_or("nothing".to_string(), |v| v.to_string().chars().take(30).collect());
            format!("{name}: {} → {}", shown(old.get(name)), shown(new.get(name)))
        })
        .collect()
}
