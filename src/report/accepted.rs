//! What was accepted, stage by stage.

use crate::engine::api::Accepted;

use super::grid::{Cell, Grid};
use super::phrase::{count, grouped};
use super::style::{Style, Tint};

/// A line per stage, then what is left to run.
pub fn render(stages: &[Accepted], style: Style, width: Option<usize>) -> String {
    let mut grid = Grid::new(["stage", "accepted", "of version", "held already", "still due", "possible"]);
    for stage in stages {
        let versions: Vec<String> =
            stage.versions.iter().map(|(number, n)| format!("{number} ({})", grouped(*n))).collect();
        grid.push(vec![
            Cell::text(&stage.name).tinted(Tint::Bold),
            Cell::count(stage.accepted, Tint::Green),
            Cell::text(versions.join(", ")),
            Cell::count(stage.done, Tint::Plain),
            Cell::count(stage.due, Tint::Cyan),
            Cell::count(stage.possible, Tint::Plain),
        ]);
    }
    let accepted = stages.iter().map(|s| s.accepted).sum();
    format!("{}\n{} accepted\n", grid.render(style, width), count(accepted, "result"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_accepted_is_told_with_its_versions() {
        let measure = Accepted {
            name: "measure".into(),
            accepted: 9120,
            versions: vec![(1, 9000), (3, 120)],
            due: 4,
            ..Accepted::default()
        };
        let text = render(&[measure], Style::PLAIN, None);
        assert!(text.contains("1 (9,000), 3 (120)") && text.ends_with("\n\n9,120 results accepted\n"), "{text}");
    }
}
