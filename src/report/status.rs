//! The latest run, while it goes and after.

use crate::engine::events::{RunRecord, RunState};
use crate::executor::EngineNews;

use super::grid::{Cell, Grid};
use super::meter::seconds_left;
use super::phrase::{count, duration, grouped, rate, wait};
use super::style::{Style, Tint};
use super::summary::state_word;

/// The run's state and a line per stage.
pub fn render(record: &RunRecord, style: Style, width: Option<usize>) -> String {
    let going = record.state == RunState::Running;
    let (word, tint) = state_word(record.state);
    let word = style.paint(tint, word);
    let mut out = if going {
        let RunRecord { id, seconds, pid, host, .. } = record;
        format!("run {id} {word} for {} (process {pid} on {host})\n", duration(*seconds))
    } else {
        format!("run {} {word} after {}\n", record.id, duration(record.seconds))
    };
    if let Some(reason) = &record.reason {
        out.push_str(&format!("{reason}\n"));
    }
    out += &grid(record, going).render(style, width);
    record.engines.iter().filter(|_| going).for_each(|engine| out.push_str(&engine_line(engine)));
    for (stage, made) in &record.made {
        let noun = |at| if at == 0 { " rows" } else { "" };
        let parts = made.iter().enumerate();
        let parts: Vec<String> =
            parts.map(|(at, (number, n))| format!("{}{} from version {number}", grouped(*n), noun(at))).collect();
        out.push_str(&format!("{stage}: {}\n", parts.join(", ")));
    }
    out
}

/// What an engine has.
fn engine_line(engine: &EngineNews) -> String {
    let mut parts = vec![count(engine.workers as u64, "worker")];
    if engine.running > 0 {
        parts.push(format!("{} running", count(engine.running as u64, "job")));
    }
    parts.extend(engine.pending.iter().map(|(reason, n)| format!("{} pending ({reason})", count(*n as u64, "job"))));
    parts.extend(engine.dashboard.iter().map(|url| format!("dashboard {url}")));
    parts.extend(engine.note.clone());
    format!("{} ({}): {}\n", engine.name, engine.kind, parts.join(", "))
}

fn grid(record: &RunRecord, going: bool) -> Grid {
    let mut header = vec!["stage", "total", "done", "failed", "blocked", "due", "running"];
    if going {
        header.extend(["rate", "left"]);
    }
    let mut grid = Grid::new(header);
    for (i, (name, counts)) in record.stages.iter().enumerate() {
        let total = grouped(counts.total) + if counts.total_known { "" } else { "+" };
        let mut cells = vec![
            Cell::text(name).tinted(Tint::Bold),
            Cell::number(total),
            Cell::count(counts.done, Tint::Green),
            Cell::count(counts.failed, Tint::Red),
            Cell::count(counts.blocked, Tint::Yellow),
            Cell::count(counts.due + counts.possible, Tint::Plain),
            Cell::count(counts.running, Tint::Cyan),
        ];
        if going {
            let speed = record.rates.get(i).copied().filter(|r| *r > 0.0);
            let left = speed.and_then(|r| seconds_left(counts, r)).filter(|s| *s > 0.0);
            cells.push(Cell::number(speed.map(rate).unwrap_or_default()));
            cells.push(Cell::number(left.map(wait).unwrap_or_default()));
        }
        grid.push(cells);
    }
    grid
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::engine::events::Counts;

    pub(in crate::report) fn record(state: RunState) -> RunRecord {
        let measure = Counts {
            total: 2000,
            total_known: true,
            done: 1200,
            ran: 1200,
            failed: 3,
            due: 793,
            running: 4,
            ..Counts::default()
        };
        let ratio = Counts { total: 1100, done: 1100, blocked: 3, ..Counts::default() };
        RunRecord {
            id: "20260102-030405-abcd".into(),
            command: "bpp-flow run pipeline.yaml".into(),
            started: "2026-01-02T03:04:05Z".into(),
            ended: (state != RunState::Running).then(|| "2026-01-02T03:04:25Z".into()),
            host: "node7".into(),
            pid: 4711,
            state,
            reason: None,
            stages: vec![("measure".into(), measure), ("ratio".into(), ratio)],
            seconds: 20.0,
            rates: vec![210.0, 0.0],
            versions: vec![("measure".into(), "0123456789abcdef".into())],
            made: Vec::new(),
            engines: Vec::new(),
        }
    }

    #[test]
    fn a_run_that_is_going() {
        insta::assert_snapshot!(render(&record(RunState::Running), Style::PLAIN, None), @r"
        run 20260102-030405-abcd running for 20s (process 4711 on node7)
        stage     total   done  failed  blocked  due  running   rate  left
        measure   2,000  1,200       3        0  793        4  210/s    4s
        ratio    1,100+  1,100       0        3    0        0
        ");
    }

    #[test]
    fn rows_of_several_versions() {
        let mut accepted = record(RunState::Finished);
        accepted.made = vec![("measure".into(), vec![(1, 9120), (2, 880)])];
        let text = render(&accepted, Style::PLAIN, None);
        assert!(text.ends_with("\nmeasure: 9,120 rows from version 1, 880 from version 2\n"), "{text}");
    }

    #[test]
    fn a_run_that_was_stopped() {
        let mut stopped = record(RunState::Stopped);
        stopped.reason = Some("3 failures, max_failures is 2".into());
        insta::assert_snapshot!(render(&stopped, Style::PLAIN, None), @r"
        run 20260102-030405-abcd stopped after 20s
        3 failures, max_failures is 2
        stage     total   done  failed  blocked  due  running
        measure   2,000  1,200       3        0  793        4
        ratio    1,100+  1,100       0        3    0        0
        ");
    }
}
