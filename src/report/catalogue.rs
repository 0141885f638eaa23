//! The catalogue of runs.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::engine::events::{RunRecord, RunState};

use super::grid::{Cell, Grid};
use super::phrase::duration;
use super::status;
use super::style::{Style, Tint};
use super::summary::state_word;

/// The runs as a table, in the order given.
pub fn table(runs: &[RunRecord], zone: &TimeZone, style: Style, width: Option<usize>) -> String {
    let mut grid = Grid::new(["run", "started", "time", "state", "done", "failed", "command"]);
    for run in runs {
        let (word, tint) = state_word(run.state);
        grid.push(vec![
            Cell::text(&run.id).tinted(Tint::Bold),
            Cell::text(local(&run.started, zone)),
            Cell::number(duration(run.seconds)),
            Cell::text(word).tinted(tint),
            Cell::count(run.stages.iter().map(|(_, c)| c.ran).sum(), Tint::Plain),
            Cell::count(run.stages.iter().map(|(_, c)| c.failed).sum(), Tint::Red),
            Cell::text(&run.command),
        ]);
    }
    grid.render(style, width)
}

/// All that is known of one run.
pub fn details(run: &RunRecord, zone: &TimeZone, style: Style, width: Option<usize>) -> String {
    let mut out = status::render(run, style, width);
    out.push_str(&format!("\ncommand  {}\nstarted  {}\n", run.command, local(&run.started, zone)));
    if let Some(ended) = run.ended.as_ref().filter(|_| run.state != RunState::Running) {
        out.push_str(&format!("ended    {}\n", local(ended, zone)));
    }
    out.push_str(&format!("process  {} on {}\n", run.pid, run.host));
    for (stage, version) in &run.versions {
        out.push_str(&format!("version  {stage} {version}\n"));
    }
    out
}

/// A time stamp on the reader's clock, to the second.
fn local(stamp: &str, zone: &TimeZone) -> String {
    match stamp.parse::<Timestamp>() {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => stamp.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::tests::record;
    use super::*;

    #[test]
    fn runs_are_a_table() {
        let runs = [record(RunState::Failures), record(RunState::Running)];
        insta::assert_snapshot!(table(&runs, &TimeZone::UTC, Style::PLAIN, None), @r"
        run                   started              time  state                    done  failed  command
        20260102-030405-abcd  2026-01-02 03:04:05   20s  finished with failures  1,200       3  bpp-flow run pipeline.yaml
        20260102-030405-abcd  2026-01-02 03:04:05   20s  running                 1,200       3  bpp-flow run pipeline.yaml
        ");
    }

    #[test]
    fn one_run_in_detail() {
        insta::assert_snapshot!(details(&record(RunState::Failures), &TimeZone::UTC, Style::PLAIN, None), @r"
        run 20260102-030405-abcd finished with failures after 20s
        stage     total   done  failed  blocked  due  running
        measure   2,000  1,200       3        0  793        4
        ratio    1,100+  1,100       0        3    0        0

        command  bpp-flow run pipeline.yaml
        started  2026-01-02 03:04:05
        ended    2026-01-02 03:04:25
        process  4711 on node7
        version  measure 0123456789abcdef
        ");
    }

    #[test]
    fn a_strange_time_stamp_is_shown_as_it_is() {
        assert_eq!(local("yesterday", &TimeZone::UTC), "yesterday");
    }
}
