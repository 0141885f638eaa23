//! Which items of a task were reported: each is, exactly once.

use crate::data::{Failure, Table, Usage};

use super::Outcomes;

/// The items of a task, as far as reported.
pub(super) struct Tally {
    reported: Vec<bool>,
    left: usize,
}

impl Tally {
    pub(super) fn new(items: usize) -> Tally {
        Tally { reported: vec![false; items], left: items }
    }

    /// Takes note of outcomes; those of items reported before are taken out of them.
    pub(super) fn accept(&mut self, outcomes: Outcomes) -> Outcomes {
        let fresh = |i: &u32| self.reported.get(*i as usize) == Some(&false);
        let failed = outcomes.failed.iter().map(|(i, _)| i);
        let outcomes = if outcomes.done.iter().chain(failed).all(fresh) { outcomes } else { only(outcomes, fresh) };
        for &i in outcomes.done.iter().chain(outcomes.failed.iter().map(|(i, _)| i)) {
            self.left -= usize::from(!std::mem::replace(&mut self.reported[i as usize], true));
        }
        outcomes
    }

    /// Takes note of an item's failure; `None` if the item was reported before.
    pub(super) fn fail(&mut self, item: u32, failure: Failure, usage: Usage) -> Option<Outcomes> {
        let outcomes = self.accept(Outcomes {
            done: Vec::new(),
            counts: None,
            added: Table::empty(0),
            failed: vec![(item, failure)],
            usage: vec![usage],
        });
        (!outcomes.failed.is_empty()).then_some(outcomes)
    }

    /// Whether the item was reported.
    pub(super) fn has(&self, item: u32) -> bool {
        self.reported.get(item as usize).copied().unwrap_or(true)
    }

    /// The number of items.
    pub(super) fn len(&self) -> usize {
        self.reported.len()
    }

    /// The number of items not reported.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// The items not reported.
    pub(super) fn unfinished(&self) -> Vec<u32> {
        (0..).zip(&self.reported).filter(|(_, reported)| !**reported).map(|(i, _)| i).collect()
    }
}

/// The outcomes of items that `keep` accepts.
fn only(outcomes: Outcomes, keep: impl Fn(&u32) -> bool) -> Outcomes {
    let Outcomes { done, counts, added, failed, usage } = outcomes;
    let mut row = 0;
    let mut kept_rows = Vec::new();
    let mut kept_done = Vec::new();
    let mut kept_counts = counts.is_some().then(Vec::new);
    let mut kept_usage = Vec::new();
    for (at, item) in done.iter().enumerate() {
        let rows = counts.as_ref().map_or(1, |c| c[at]);
        if keep(item) {
            kept_rows.extend(row..row + rows);
            kept_done.push(*item);
            kept_counts.iter_mut().for_each(|c| c.push(rows));
            kept_usage.extend(usage.get(at));
        }
        row += rows;
    }
    let rest = usage.iter().skip(done.len()).copied().chain(std::iter::repeat(Usage::default()));
    let (kept_failed, failed_usage): (Vec<_>, Vec<Usage>) =
        failed.into_iter().zip(rest).filter(|((item, _), _)| keep(item)).unzip();
    kept_usage.extend(failed_usage);
    Outcomes {
        added: added.take(&kept_rows),
        done: kept_done,
        counts: kept_counts,
        failed: kept_failed,
        usage: kept_usage,
    }
}

#[cfg(test)]
mod tests {
    use crate::data::{FailureKind, Value};

    use super::*;

    fn outcomes(done: &[u32], counts: Option<&[u32]>, cells: &[i64], failed: &[u32]) -> Outcomes {
        let rows = cells.iter().map(|&c| vec![("x".to_string(), Value::Int(c))]);
        Outcomes {
            done: done.to_vec(),
            counts: counts.map(<[u32]>::to_vec),
            added: Table::from_rows(rows),
            failed: failed.iter().map(|&i| (i, Failure::new(FailureKind::Exit, "no"))).collect(),
            usage: done.iter().chain(failed).map(|i| Usage::of_micros(i * 10)).collect(),
        }
    }

    #[test]
    fn a_second_report_of_an_item_is_dropped() {
        let mut tally = Tally::new(5);
        assert!(tally.fail(1, Failure::new(FailureKind::Timeout, "over 1s"), Usage::default()).is_some());
        assert!(tally.fail(1, Failure::new(FailureKind::Timeout, "over 1s"), Usage::default()).is_none());
        let kept = tally.accept(outcomes(&[0, 1, 3], Some(&[2, 1, 1]), &[7, 8, 9, 10], &[2]));
        assert_eq!((kept.done, kept.counts), (vec![0, 3], Some(vec![2, 1])));
        let cells: Vec<Value> = (0..3).map(|r| kept.added.column("x").unwrap().value(r)).collect();
        assert_eq!(cells, [7, 8, 10].map(Value::Int));
        assert_eq!((kept.failed.len(), kept.usage), (1, [0, 30, 20].map(Usage::of_micros).to_vec()));
        assert_eq!((tally.unfinished(), tally.left()), (vec![4], 1));
    }

    #[test]
    fn items_that_the_task_does_not_have_are_dropped() {
        let mut tally = Tally::new(1);
        assert_eq!(tally.accept(outcomes(&[0, 4], None, &[1, 2], &[])).done, [0]);
        assert_eq!(tally.left(), 0);
    }
}
