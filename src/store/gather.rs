//! Putting what outcomes gave together again.

use std::sync::Arc;

use super::model::Segment;
use super::view::Hit;
use crate::data::Table;

/// The rows that some outcomes gave.
#[derive(Debug, Clone)]
pub struct Gathered {
    /// The added columns, in the order of the outcomes.
    pub added: Table,
    /// Rows of each outcome; `None`: one each.
    pub counts: Option<Vec<u32>>,
}

impl Gathered {
    /// Gathers from outcomes that succeeded. Those that follow each other in a segment are not copied one by one.
    ///
    /// # Panics
    /// When one of them is a failure.
    pub fn from_hits<'h>(hits: impl IntoIterator<Item = &'h Hit>) -> Gathered {
        let mut runs: Vec<(&Arc<Segment>, Vec<u32>)> = Vec::new();
        for hit in hits {
            assert!((hit.at as usize) < hit.segment.done, "only what succeeded gave rows");
            match runs.last_mut() {
                Some((segment, items)) if Arc::ptr_eq(segment, &hit.segment) => items.push(hit.at),
                _ => runs.push((&hit.segment, vec![hit.at])),
            }
        }
        let counted = runs.iter().any(|(segment, _)| segment.counts.is_some());
        let counts = runs.iter().flat_map(|(segment, items)| {
            items.iter().map(|&at| segment.counts.as_ref().map_or(1, |counts| counts[at as usize]))
        });
        let counts = counted.then(|| counts.collect());
        let tables: Vec<Table> = runs.iter().map(|(segment, items)| rows_of(segment, items)).collect();
        let whole: Vec<Table> = tables.iter().filter(|table| table.rows() > 0).cloned().collect();
        let added = match whole[..] {
            [] => tables.into_iter().next().unwrap_or_else(|| Table::empty(0)),
            _ => Table::concat(&whole),
        };
        Gathered { added, counts }
    }
}

fn rows_of(segment: &Segment, items: &[u32]) -> Table {
    let ends = segment.ends();
    let start = |at: u32| ends.as_ref().map_or(at, |ends| ends[at as usize] - segment.count(at as usize));
    let end = |at: u32| ends.as_ref().map_or(at + 1, |ends| ends[at as usize]);
    if items.windows(2).all(|pair| pair[1] == pair[0] + 1) {
        let (first, last) = (start(items[0]), end(items[items.len() - 1]));
        return segment.added.slice(first as usize, (last - first) as usize);
    }
    let rows: Vec<u32> = items.iter().flat_map(|&at| start(at)..end(at)).collect();
    segment.added.take(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Value;
    use crate::store::tests::segment_of;

    fn hits(of: &[(&Arc<Segment>, u32)]) -> Vec<Hit> {
        of.iter().map(|&(segment, at)| Hit { segment: segment.clone(), at }).collect()
    }

    fn ys(table: &Table) -> Vec<f64> {
        let float = |row| match table.columns()[0].value(row) {
            Value::Float(y) => y,
            other => panic!("{other:?}"),
        };
        (0..table.rows()).map(float).collect()
    }

    #[test]
    fn rows_come_in_the_order_of_the_outcomes() {
        let (a, b) = (Arc::new(segment_of(0..5)), Arc::new(segment_of(5..9)));
        let gathered = Gathered::from_hits(&hits(&[(&a, 1), (&a, 2), (&b, 3), (&b, 0), (&a, 4)]));
        assert_eq!(ys(&gathered.added), [2.0, 4.0, 16.0, 10.0, 8.0]);
        assert_eq!(gathered.counts, None);
    }

    #[test]
    fn outcomes_may_give_many_rows_or_none() {
        let mut a = segment_of(0..4);
        a.counts = Some(vec![2, 0, 1, 1]);
        let (a, b) = (Arc::new(a), Arc::new(segment_of(8..9)));
        let gathered = Gathered::from_hits(&hits(&[(&b, 0), (&a, 3), (&a, 0), (&a, 1), (&a, 2)]));
        assert_eq!(gathered.counts, Some(vec![1, 1, 2, 0, 1]));
        assert_eq!(ys(&gathered.added), [16.0, 6.0, 0.0, 2.0, 4.0]);
        let nothing = Gathered::from_hits(&hits(&[(&a, 1)]));
        assert_eq!((nothing.added.rows(), nothing.added.names().len()), (0, 1), "columns keep their names");
        assert_eq!(Gathered::from_hits([]).added.rows(), 0);
    }
}
