//! Outcomes of items that make files, with the files in their places.

use std::path::PathBuf;

use rayon::prelude::*;

use super::Staged;
use super::staging::Finished;
use crate::data::source::Digests;
use crate::data::value::tag;
use crate::data::{Failure, FailureKind, Table};
use crate::executor::Outcomes;

/// Moves the files of the items that are done to their places and adds their columns; an item whose files are not there
/// has failed. `staged` are the items' files, in step with those done. Also gives the files that are to be made durable.
pub fn settle(outcomes: Outcomes, staged: Vec<Staged>, digests: &Digests) -> (Outcomes, Vec<PathBuf>) {
    let Outcomes { done, counts, added, mut failed, mut usage } = outcomes;
    let names: Vec<String> =
        staged.first().map(|s| s.paths.iter().map(|(n, _)| n.clone()).collect()).unwrap_or_default();
    let rows = |at: usize| counts.as_ref().map_or(1, |counts| counts[at]);
    let starts: Vec<u32> =
        (0..done.len()).scan(0, |next, at| Some(std::mem::replace(next, *next + rows(at)))).collect();
    let clashes: Vec<Option<Failure>> =
        (0..done.len()).map(|at| clash(&names, &added, starts[at]..starts[at] + rows(at))).collect();
    let finished: Vec<Result<Finished, Failure>> = staged
        .into_par_iter()
        .zip(clashes)
        .map(|(staged, clash)| clash.map_or_else(|| staged.finish(digests), Err))
        .collect();
    let failed_usage = usage.split_off(done.len());
    let mut kept = Outcomes {
        done: Vec::new(),
        counts: counts.as_ref().map(|_| Vec::new()),
        added: Table::empty(0),
        failed: Vec::new(),
        usage: Vec::new(),
    };
    let (mut row_numbers, mut cells, mut paths) = (Vec::new(), Vec::new(), Vec::new());
    let (mut late, mut late_usage) = (Vec::new(), Vec::new());
    for (at, finished) in finished.into_iter().enumerate() {
        match finished {
            Ok((columns, files)) => {
                kept.done.push(done[at]);
                kept.usage.push(usage[at]);
                kept.counts.iter_mut().for_each(|counts| counts.push(rows(at)));
                row_numbers.extend(starts[at]..starts[at] + rows(at));
                cells.extend((0..rows(at)).map(|_| columns.clone()));
                paths.extend(files);
            }
            Err(failure) => {
                late.push((done[at], failure));
                late_usage.push(usage[at]);
            }
        }
    }
    let files = Table::from_rows(cells);
    kept.added = match added.names().is_empty() {
        true => files,
        false => added.take(&row_numbers).join(&files),
    };
    failed.extend(late);
    kept.failed = failed;
    kept.usage.extend(failed_usage);
    kept.usage.extend(late_usage);
    (kept, paths)
}

/// The failure of an item that gives a column the name of a file.
fn clash(names: &[String], added: &Table, mut rows: std::ops::Range<u32>) -> Option<Failure> {
    let taken = |name: &&String| {
        let column = added.column(name)?;
        rows.any(|row| column.tag(row as usize) != tag::ABSENT).then_some(())
    };
    let mut taken = taken;
    let name = names.iter().find(|name| taken(name).is_some())?;
    let message = format!("it gives a column `{name}`, which is the file `{name}`");
    Some(Failure::new(FailureKind::Output, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Value;

    #[test]
    fn a_column_with_the_name_of_a_file_is_a_clash() {
        let row = |name: &str| vec![(name.to_string(), Value::Int(1))];
        let added = Table::from_rows([row("a"), row("b"), row("x")]);
        let names = ["x".to_string()];
        assert!(clash(&names, &added, 0..2).is_none());
        assert!(clash(&names, &added, 1..3).is_some());
    }
}
