//! What a run would do: the stages in the order of the graph, and why.

use crate::engine::events::{Followed, Jobs, StagePlan};

use super::grid::{Cell, Grid, one_line};
use super::phrase::{count, duration, grouped, shell_quote};
use super::style::{Style, Tint};

/// The plan as text.
pub fn render(stages: &[StagePlan], style: Style, width: Option<usize>) -> String {
    let mut out = grid(stages).render(style, width);
    stages.iter().for_each(|stage| reasons(&mut out, stage, stages, style));
    out.push('\n');
    out.push_str(&conclusion(stages));
    out
}

/// Whether there is anything to run.
pub fn anything_to_do(stages: &[StagePlan]) -> bool {
    stages.iter().any(|s| s.due + s.possible > 0)
}

fn grid(stages: &[StagePlan]) -> Grid {
    let header = ["stage", "from", "does", "total", "done", "due", "possible", "blocked", "failed"];
    let mut grid = Grid::new(header);
    for stage in stages {
        grid.push(vec![
            Cell::text(&stage.name).tinted(Tint::Bold),
            Cell::text(stage.inputs.join(", ")),
            Cell::text(format!("{}: {}", stage.verb, stage.action)),
            Cell::number(total(stage)),
            Cell::count(stage.done, Tint::Green),
            Cell::count(stage.due, Tint::Cyan),
            Cell::count(stage.possible, Tint::Plain),
            Cell::count(stage.blocked, Tint::Yellow),
            Cell::count(stage.failed, Tint::Red),
        ]);
    }
    grid
}

fn total(stage: &StagePlan) -> String {
    match (stage.total_known, stage.total) {
        (true, n) => grouped(n),
        (false, 0) => "?".into(),
        (false, n) => format!("{}+", grouped(n)),
    }
}

/// What of a stage will run and may run, how long that takes, and why, with the first keys of each reason.
fn reasons(out: &mut String, stage: &StagePlan, plan: &[StagePlan], style: Style) {
    if stage.due + stage.possible == 0 {
        return;
    }
    let mut words = Vec::new();
    if stage.due > 0 {
        words.push(format!("{} to run{}", grouped(stage.due), about(stage.seconds)));
    }
    if stage.possible > 0 {
        let more = if stage.due > 0 { " more" } else { "" };
        let possible = match stage.total_known {
            true => format!("up to {}{more} possible", grouped(stage.possible)),
            false => format!("{} or more{more} possible", grouped(stage.possible)),
        };
        words.push(format!("{possible}, behind {}{}", behind(stage, plan), about(stage.possible_seconds)));
    }
    if let Some(Jobs { backend, jobs }) = &stage.jobs {
        words.push(format!("in up to {} of {backend}", count(*jobs, "job")));
    }
    out.push_str(&format!("\n{}: {}\n", style.paint(Tint::Bold, &stage.name), words.join("; ")));
    stage.changes.iter().for_each(|change| out.push_str(&format!("  {change}\n")));
    let mut grid = Vec::new();
    for (reason, &n) in stage.reasons.iter().filter(|(_, n)| **n > 0) {
        let keys = stage.samples.get(reason).map(Vec::as_slice).unwrap_or_default();
        grid.push((sign(reason, style), grouped(n), reason.replace('_', " "), explained(keys, n)));
    }
    let digits = grid.iter().map(|r| r.1.len()).max().unwrap_or(0);
    let words = grid.iter().map(|r| r.2.len()).max().unwrap_or(0);
    for (sign, n, reason, keys) in grid {
        let line = format!("  {sign} {n:>digits$}  {reason:words$}  {keys}");
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// What is new, what replaces something, what is tried again.
fn sign(reason: &str, style: Style) -> String {
    match reason {
        "new" => style.paint(Tint::Green, "+"),
        "failed_before" | "lost" | "limit_changed" | "fresh" => style.paint(Tint::Yellow, "!"),
        _ => style.paint(Tint::Cyan, "~"),
    }
}

/// The stages before this one that have something to run.
fn behind(stage: &StagePlan, plan: &[StagePlan]) -> String {
    let runs = |name: &&String| plan.iter().any(|s| s.name == **name && s.due + s.possible > 0);
    let before: Vec<&str> = stage.inputs.iter().chain(&stage.after).filter(runs).map(String::as_str).collect();
    before.join(", ")
}

fn about(seconds: Option<f64>) -> String {
    seconds.filter(|s| *s >= 1.0).map_or_else(String::new, |s| format!(", about {}", duration(s)))
}

/// One item's way through the stages.
pub fn render_followed(followed: &[Followed], style: Style, width: Option<usize>) -> String {
    let mut grid = Grid::new(["stage", "key", "", "why", "version", "attempts", "seconds"]);
    for met in followed {
        let tint = match met.state.as_str() {
            "done" => Tint::Green,
            "due" | "possible" => Tint::Cyan,
            "failed" => Tint::Red,
            _ => Tint::Yellow,
        };
        let number = |n: Option<String>| Cell::number(n.unwrap_or_default());
        grid.push(vec![
            Cell::text(&met.stage).tinted(Tint::Bold),
            Cell::text(&met.key),
            Cell::text(&met.state).tinted(tint),
            Cell::text(&met.why),
            number(met.version.map(|n| n.to_string())),
            number(met.attempts.map(|n| n.to_string())),
            number(met.seconds.map(|s| format!("{s:.3}"))),
        ]);
    }
    grid.render(style, width)
}

/// `c7 (area: 3 → 4), 'c 9', …`: keys as they can be pasted back, with what changed.
fn explained(samples: &[String], of: u64) -> String {
    let mut words: Vec<String> = samples.iter().map(|sample| one_line(&quote_key(sample))).collect();
    if (samples.len() as u64) < of && !words.is_empty() {
        words.push("…".into());
    }
    words.join(", ")
}

/// The key is quoted, the change behind it stays as it is.
fn quote_key(sample: &str) -> String {
    let tells = |at: &usize| ["→", "content of ", "other rows of "].iter().any(|told| sample[*at..].contains(told));
    let change = sample.rfind(" (").filter(|at| sample.ends_with(')') && tells(at));
    let change = sample.find('→').and_then(|arrow| sample[..arrow].rfind(" (")).or(change);
    match change {
        Some(at) => format!("{}{}", shell_quote(&sample[..at]), &sample[at..]),
        None => shell_quote(sample),
    }
}

fn conclusion(stages: &[StagePlan]) -> String {
    if !anything_to_do(stages) {
        return match stages.iter().map(|s| s.failed).sum() {
            0 => "nothing to do\n".into(),
            failed => format!("nothing to do; {} failed before: retry runs them again\n", count(failed, "item")),
        };
    }
    let due = stages.iter().map(|s| s.due).sum();
    let possible: u64 = stages.iter().map(|s| s.possible).sum();
    let known = stages.iter().all(|s| s.total_known || s.possible == 0);
    let more = match (possible, known) {
        (0, _) => String::new(),
        (n, true) => format!(", up to {} more behind them", grouped(n)),
        (n, false) => format!(", {} or more behind them", grouped(n)),
    };
    let seconds: f64 = stages.iter().filter_map(|s| s.seconds).sum();
    format!("{} to run{more}{}\n", count(due, "item"), about(Some(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, verb: &str, input: &str, action: &str) -> StagePlan {
        StagePlan {
            name: name.into(),
            verb: verb.into(),
            inputs: vec![input.into()],
            action: action.into(),
            total: 2000,
            total_known: true,
            ..StagePlan::default()
        }
    }

    fn measure() -> StagePlan {
        let mut measure = stage("measure", "map", "cells", "python features:measure");
        (measure.done, measure.due, measure.failed) = (1988, 12, 0);
        measure.reasons = [("new".into(), 10), ("input_changed".into(), 2)].into();
        measure.samples = [
            ("new".into(), vec!["c 1".into(), "c2".into(), "c3".into()]),
            ("input_changed".into(), vec!["c 7 (area: 3 → 4)".into(), "c9".into()]),
        ]
        .into();
        measure.changes = vec!["function measure in features.py changed".into()];
        measure.seconds = Some(42.0);
        measure
    }

    #[test]
    fn a_plan_tells_how_much_and_why() {
        let mut summary = stage("summary", "reduce", "measure", "python features:summary");
        (summary.total, summary.total_known, summary.possible) = (0, false, 3);
        insta::assert_snapshot!(render(&[measure(), summary], Style::PLAIN, None), @r"
        stage    from     does                             total   done  due  possible  blocked  failed
        measure  cells    map: python features:measure     2,000  1,988   12         0        0       0
        summary  measure  reduce: python features:summary      ?      0    0         3        0       0

        measure: 12 to run, about 42s
          function measure in features.py changed
          ~  2  input changed  'c 7' (area: 3 → 4), c9
          + 10  new            'c 1', c2, c3, …

        summary: 3 or more possible, behind measure

        12 items to run, 3 or more behind them, about 42s
        ");
    }

    #[test]
    fn nothing_to_do_is_said() {
        let mut idle = stage("measure", "map", "cells", "python features:measure");
        idle.done = 2000;
        assert!(render(&[idle.clone()], Style::PLAIN, None).ends_with("\nnothing to do\n"));
        (idle.done, idle.failed) = (1999, 1);
        let text = render(&[idle], Style::PLAIN, None);
        assert!(text.ends_with("\nnothing to do; 1 item failed before: retry runs them again\n"), "{text}");
    }
}
