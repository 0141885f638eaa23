//! Failures: grouped as a table, and one item's story.

use crate::data::bytes_in_words;
use crate::engine::events::FailureGroup;

use super::grid::{Cell, Grid, cut, one_line};
use super::json::FailedItem;
use super::phrase::{Invocation, count, duration, grouped, samples, shell_quote};
use super::style::{Style, Tint};

/// Keys that a group shows.
const SAMPLES: usize = 3;

/// The groups as a table.
pub fn table(groups: &[FailureGroup], style: Style, width: Option<usize>) -> String {
    let mut grid = Grid::new(["stage", "kind", "count", "cause", "items"]);
    for group in groups {
        grid.push(vec![
            Cell::text(&group.stage),
            Cell::text(&group.kind).tinted(Tint::Red),
            Cell::number(grouped(group.count)),
            Cell::text(&group.signature),
            Cell::text(sample_keys(group)),
        ]);
    }
    grid.render(style, width)
}

/// The groups as a list, for the end of a run: nothing of a cause is cut but what is beyond reason.
pub fn list(groups: &[FailureGroup], style: Style) -> String {
    let total: u64 = groups.iter().map(|g| g.count).sum();
    let mut out = style.paint(Tint::Red, &format!("{} failed", count(total, "item")));
    out.push_str(":\n");
    for group in groups {
        let cause = cut(&one_line(&group.signature), 200);
        let kind = style.paint(Tint::Red, &group.kind);
        out.push_str(&format!("  {}  {kind}  {cause}\n", style.paint(Tint::Bold, &group.stage)));
        let noun = if group.count == 1 { "item" } else { "items" };
        out.push_str(&format!("    {} {noun}: {}\n", grouped(group.count), sample_keys(group)));
    }
    out
}

/// What to do about the failures: commands to paste.
pub fn next_steps(groups: &[FailureGroup], invocation: &Invocation) -> String {
    let mut out = String::new();
    if let Some(key) = groups.iter().find_map(|g| g.keys.first()) {
        out.push_str(&format!("look at one:  {}\n", invocation.command(&["errors"], &["--item", key])));
    }
    out.push_str(&format!("run again:    {}\n", invocation.command(&["retry", "--failed"], &[])));
    out
}

fn sample_keys(group: &FailureGroup) -> String {
    let shown = &group.keys[..group.keys.len().min(SAMPLES)];
    samples(shown, group.count)
}

/// One failed item: what happened, its traceback, its output.
pub fn story(item: &FailedItem, style: Style) -> String {
    let FailedItem { stage, key, failure, attempts, usage } = item;
    let mut details = count(u64::from(*attempts), "attempt");
    if let Some(peak) = usage.peak_bytes() {
        details.push_str(&format!(", at most {} of memory", bytes_in_words(peak)));
    }
    let mut out = format!(
        "{}  {}  {} after {} ({details})\n",
        style.paint(Tint::Bold, stage),
        shell_quote(key),
        style.paint(Tint::Red, failure.kind.name()),
        duration(usage.seconds()),
    );
    let told = failure.traceback.trim_end().ends_with(failure.message.trim_end());
    if !told || failure.traceback.is_empty() {
        out.push_str(&format!("{}\n", failure.message.trim_end()));
    }
    section(&mut out, "traceback", &failure.traceback, style);
    section(&mut out, "output", &failure.output, style);
    out
}

fn section(out: &mut String, name: &str, text: &str, style: Style) {
    if text.trim().is_empty() {
        return;
    }
    out.push_str(&format!("\n{}\n", style.paint(Tint::Dim, &format!("-- {name} --"))));
    out.push_str(text.trim_end());
    out.push('\n');
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::data::{Failure, FailureKind, Usage};

    pub(in crate::report) fn groups() -> Vec<FailureGroup> {
        let group = |kind: &str, signature: &str, count, keys: &[&str]| FailureGroup {
            stage: "measure".into(),
            kind: kind.into(),
            signature: signature.into(),
            count,
            keys: keys.iter().map(|k| (*k).to_string()).collect(),
        };
        vec![
            group(
                "exception",
                "ValueError: no such cell (features.py:12 in measure)",
                1204,
                &["17", "a b", "203", "4"],
            ),
            group("timeout", "over #s", 1, &["99"]),
        ]
    }

    #[test]
    fn groups_are_a_table() {
        insta::assert_snapshot!(table(&groups(), Style::PLAIN, None), @r"
        stage    kind       count  cause                                                 items
        measure  exception  1,204  ValueError: no such cell (features.py:12 in measure)  17, 'a b', 203, …
        measure  timeout        1  over #s                                               99
        ");
    }

    #[test]
    fn groups_are_a_list_with_commands_to_paste() {
        let invocation = Invocation { file: "my flow.yaml".into(), options: vec!["--state".into(), "s".into()] };
        let text = list(&groups(), Style::PLAIN) + &next_steps(&groups(), &invocation);
        insta::assert_snapshot!(text, @r"
        1,205 items failed:
          measure  exception  ValueError: no such cell (features.py:12 in measure)
            1,204 items: 17, 'a b', 203, …
          measure  timeout  over #s
            1 item: 99
        look at one:  bpp-flow errors 'my flow.yaml' --state s --item 17
        run again:    bpp-flow retry --failed 'my flow.yaml' --state s
        ");
    }

    #[test]
    fn a_story_has_the_traceback_and_the_output_once() {
        let traceback =
            "Traceback (most recent call last):\n  File \"features.py\", line 12, in measure\nValueError: no\n";
        let failure = Failure {
            traceback: traceback.into(),
            output: "reading cell 17\n".into(),
            ..Failure::new(FailureKind::Exception, "ValueError: no")
        };
        let item = FailedItem {
            stage: "measure".into(),
            key: "17".into(),
            failure,
            attempts: 2,
            usage: Usage::of_micros(1_500_000),
        };
        insta::assert_snapshot!(story(&item, Style::PLAIN), @r#"
        measure  17  exception after 1.5s (2 attempts)

        -- traceback --
        Traceback (most recent call last):
          File "features.py", line 12, in measure
        ValueError: no

        -- output --
        reading cell 17
        "#);
        let bare = FailedItem { failure: Failure::new(FailureKind::Timeout, "over 30s"), attempts: 1, ..item };
        insta::assert_snapshot!(story(&bare, Style::PLAIN), @r"
        measure  17  timeout after 1.5s (1 attempt)
        over 30s
        ");
    }
}
