//! The end of a run: what each stage did, what was written, and last what failed and what to do about it.

use crate::engine::events::{RunState, RunSummary, StageSummary};

use super::errors;
use super::grid::{Cell, Grid};
use super::phrase::{Invocation, count, duration};
use super::style::{Style, Tint};

/// The summary as text. A `brief` one says nothing where all is well.
pub fn render(
    summary: &RunSummary,
    invocation: &Invocation,
    style: Style,
    width: Option<usize>,
    brief: bool,
) -> String {
    let mut out = String::new();
    if !brief {
        if nothing_was_done(summary) {
            out.push_str(&nothing_to_do(summary));
        } else {
            out.push_str(&verdict(summary, style));
            out.push_str(&stages(&summary.stages, style, width));
        }
        summary.outputs.iter().for_each(|path| out.push_str(&format!("wrote {path}\n")));
    }
    out.push_str(&missing(&summary.stages));
    if !summary.failures.is_empty() {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&errors::list(&summary.failures, style));
        out.push_str(&errors::next_steps(&summary.failures, invocation));
    }
    if summary.state == RunState::Interrupted {
        out.push_str(&format!("go on:        {}\n", invocation.command(&["run"], &[])));
    }
    out
}

fn nothing_was_done(summary: &RunSummary) -> bool {
    let over = matches!(summary.state, RunState::Finished | RunState::Failures);
    over && summary.outputs.is_empty() && summary.stages.iter().all(|s| s.ran == 0)
}

fn nothing_to_do(summary: &RunSummary) -> String {
    let cached = summary.stages.iter().map(|s| s.cached).sum();
    format!("nothing to do: {} up to date ({})\n", count(cached, "result"), duration(summary.seconds))
}

/// How the run ended, in one line.
fn verdict(summary: &RunSummary, style: Style) -> String {
    let (word, tint) = state_word(summary.state);
    let reason = match (&summary.reason, summary.state) {
        // What broke or stopped a run is told as its error.
        (Some(reason), RunState::Interrupted | RunState::Failures) if reason != word => format!(": {reason}"),
        _ => String::new(),
    };
    let word = style.paint(tint, word);
    format!("run {} {word} in {}{reason}\n", summary.run, duration(summary.seconds))
}

/// A state in words.
pub(super) fn state_word(state: RunState) -> (&'static str, Tint) {
    match state {
        RunState::Running => ("running", Tint::Cyan),
        RunState::Finished => ("finished", Tint::Green),
        RunState::Failures => ("finished with failures", Tint::Red),
        RunState::Stopped => ("stopped", Tint::Red),
        RunState::Interrupted => ("interrupted", Tint::Yellow),
        RunState::Broken => ("broken", Tint::Red),
    }
}

fn stages(stages: &[StageSummary], style: Style, width: Option<usize>) -> String {
    let mut grid = Grid::new(["stage", "ran", "cached", "failed", "blocked", "time"]);
    for stage in stages {
        grid.push(vec![
            Cell::text(&stage.name),
            Cell::count(stage.ran, Tint::Plain),
            Cell::count(stage.cached, Tint::Plain),
            Cell::count(stage.failed, Tint::Red),
            Cell::count(stage.blocked, Tint::Yellow),
            Cell::number(duration(stage.seconds)),
        ]);
    }
    if grid.is_empty() { String::new() } else { grid.render(style, width) }
}

fn missing(stages: &[StageSummary]) -> String {
    let without = stages.iter().filter(|s| s.missing > 0);
    without.map(|s| format!("{} did without {}\n", s.name, count(s.missing, "missing row"))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::errors::tests::groups;
    use super::*;

    fn stage(name: &str, ran: u64, cached: u64, failed: u64, blocked: u64) -> StageSummary {
        let total = ran + cached + blocked;
        StageSummary { name: name.into(), ran, cached, failed, blocked, total, seconds: 12.3, missing: 0 }
    }

    fn summary(state: RunState) -> RunSummary {
        RunSummary {
            run: "20260102-030405-abcd".into(),
            state,
            stages: vec![stage("measure", 1200, 800, 0, 0), stage("ratio", 2000, 0, 0, 0)],
            seconds: 80.0,
            reason: None,
            failures: Vec::new(),
            outputs: vec!["out/ratio.parquet".into()],
        }
    }

    fn text(summary: &RunSummary, brief: bool) -> String {
        let invocation = Invocation { file: "pipeline.yaml".into(), options: Vec::new() };
        render(summary, &invocation, Style::PLAIN, None, brief)
    }

    #[test]
    fn a_run_without_failures() {
        insta::assert_snapshot!(text(&summary(RunState::Finished), false), @r"
        run 20260102-030405-abcd finished in 1m 20s
        stage      ran  cached  failed  blocked  time
        measure  1,200     800       0        0   12s
        ratio    2,000       0       0        0   12s
        wrote out/ratio.parquet
        ");
        assert_eq!(text(&summary(RunState::Finished), true), "");
    }

    #[test]
    fn failures_come_last() {
        let mut failed = summary(RunState::Failures);
        failed.stages = vec![stage("measure", 2000, 0, 1205, 0), stage("ratio", 795, 0, 0, 1205)];
        failed.stages[1].missing = 1205;
        failed.failures = groups();
        insta::assert_snapshot!(text(&failed, false), @r"
        run 20260102-030405-abcd finished with failures in 1m 20s
        stage      ran  cached  failed  blocked  time
        measure  2,000       0   1,205        0   12s
        ratio      795       0       0    1,205   12s
        wrote out/ratio.parquet
        ratio did without 1,205 missing rows

        1,205 items failed:
          measure  exception  ValueError: no such cell (features.py:12 in measure)
            1,204 items: 17, 'a b', 203, …
          measure  timeout  over #s
            1 item: 99
        look at one:  bpp-flow errors pipeline.yaml --item 17
        run again:    bpp-flow retry --failed pipeline.yaml
        ");
        insta::assert_snapshot!(text(&failed, true), @r"
        ratio did without 1,205 missing rows

        1,205 items failed:
          measure  exception  ValueError: no such cell (features.py:12 in measure)
            1,204 items: 17, 'a b', 203, …
          measure  timeout  over #s
            1 item: 99
        look at one:  bpp-flow errors pipeline.yaml --item 17
        run again:    bpp-flow retry --failed pipeline.yaml
        ");
    }

    #[test]
    fn nothing_to_do_is_one_line() {
        let mut idle = summary(RunState::Finished);
        idle.stages = vec![stage("measure", 0, 2000, 0, 0)];
        idle.outputs.clear();
        idle.seconds = 0.01;
        assert_eq!(text(&idle, false), "nothing to do: 2,000 results up to date (10ms)\n");
        idle.outputs.push("out/x.csv".into());
        assert!(text(&idle, false).contains("wrote out/x.csv"));
    }

    #[test]
    fn an_interrupted_run_says_how_to_go_on() {
        let mut interrupted = summary(RunState::Interrupted);
        interrupted.reason = Some("SIGINT".into());
        interrupted.outputs.clear();
        insta::assert_snapshot!(text(&interrupted, false), @r"
        run 20260102-030405-abcd interrupted in 1m 20s: SIGINT
        stage      ran  cached  failed  blocked  time
        measure  1,200     800       0        0   12s
        ratio    2,000       0       0        0   12s
        go on:        bpp-flow run pipeline.yaml
        ");
    }
}
