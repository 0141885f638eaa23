//! Tables without lines: columns in step, two blanks apart, fitted to the terminal.
//!
//! [`Layout`] measures rows and then prints them one at a time, so that a table of any length can be streamed in two
//! passes; [`Grid`] is a small table in memory on top of it.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::style::{Style, Tint};

const GAP: &str = "  ";
/// No column is squeezed below this to make a table fit.
const NARROWEST: usize = 8;
/// Cells of a small table are cut there, whatever the terminal.
const WIDEST: usize = 120;

/// A piece of text in a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tint: Tint,
    right: bool,
}

impl Cell {
    /// Text, to the left.
    pub fn text(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), ..Cell::default() }
    }

    /// A number, to the right.
    pub fn number(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), right: true, ..Cell::default() }
    }

    /// A count, to the right, in the tint; zero is dim.
    pub fn count(n: u64, tint: Tint) -> Cell {
        let tint = if n == 0 { Tint::Dim } else { tint };
        Cell { text: super::phrase::grouped(n), right: true, tint }
    }

    /// The same cell in a tint.
    pub fn tinted(self, tint: Tint) -> Cell {
        Cell { tint, ..self }
    }
}

/// The widths and sides of a table's columns.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    widths: Vec<usize>,
    right: Vec<bool>,
}

impl Layout {
    /// Makes room for a row. A column leans to the right if all its cells do.
    pub fn observe(&mut self, cells: &[Cell]) {
        for (i, cell) in cells.iter().enumerate() {
            let width = one_line(&cell.text).width();
            match self.widths.get_mut(i) {
                Some(widest) => {
                    *widest = (*widest).max(width);
                    self.right[i] &= cell.right || cell.text.is_empty();
                }
                None => {
                    self.widths.push(width);
                    self.right.push(cell.right);
                }
            }
        }
    }

    /// Makes room for the names of the columns.
    pub fn observe_header(&mut self, names: &[&str]) {
        for (widest, name) in self.widths.iter_mut().zip(names) {
            *widest = (*widest).max(name.width());
        }
        for name in &names[self.widths.len().min(names.len())..] {
            self.widths.push(name.width());
            self.right.push(false);
        }
    }

    /// Caps cells at `widest`, and squeezes the widest columns until a row fits into `width`.
    pub fn fit(&mut self, widest: usize, width: Option<usize>) {
        self.widths.iter_mut().for_each(|w| *w = (*w).min(widest));
        let Some(width) = width else { return };
        let gaps = GAP.len() * self.widths.len().saturating_sub(1);
        while self.widths.iter().sum::<usize>() + gaps > width {
            match self.widths.iter_mut().max() {
                Some(widest) if *widest > NARROWEST => *widest -= 1,
                _ => break,
            }
        }
    }

    /// A row as a line, without its end.
    pub fn line(&self, cells: &[Cell], style: Style) -> String {
        let mut line = String::new();
        for (i, cell) in cells.iter().enumerate() {
            let width = self.widths.get(i).copied().unwrap_or(0);
            let text = cut(&one_line(&cell.text), width);
            let padding = " ".repeat(width.saturating_sub(text.width()));
            let painted = style.paint(cell.tint, &text);
            let last = i + 1 == cells.len();
            match (self.right.get(i).copied().unwrap_or(false), last) {
                (true, _) => line.extend([padding.as_str(), &painted]),
                (false, true) => line.push_str(&painted),
                (false, false) => line.extend([painted.as_str(), &padding]),
            }
            if !last {
                line.push_str(GAP);
            }
        }
        line.truncate(line.trim_end().len());
        line
    }

    /// The names of the columns as a line.
    pub fn header(&self, names: &[&str], style: Style) -> String {
        let cells: Vec<Cell> = names.iter().map(|n| Cell::text(*n).tinted(Tint::Bold)).collect();
        self.line(&cells, style)
    }
}

/// A small table.
#[derive(Debug, Clone, Default)]
pub struct Grid {
    header: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Grid {
    /// A table with these columns.
    pub fn new(header: impl IntoIterator<Item = &'static str>) -> Grid {
        Grid { header: header.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn push(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines.
    pub fn render(&self, style: Style, width: Option<usize>) -> String {
        let mut layout = Layout::default();
        self.rows.iter().for_each(|row| layout.observe(row));
        layout.observe_header(&self.header);
        layout.fit(WIDEST, width);
        let mut out = layout.header(&self.header, style) + "\n";
        for row in &self.rows {
            out.push_str(&layout.line(row, style));
            out.push('\n');
        }
        out
    }
}

/// At most `width` columns of the text, with `…` where something was cut.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_string();
    }
    let mut out = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        out.push(c);
    }
    out.push('…');
    out
}

/// Control characters written out, so that a cell stays one line and cannot command the terminal; what is far
/// beyond any width is dropped.
pub fn one_line(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(4 * WIDEST) {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let mut grid = Grid::new(["stage", "done", "why"]);
        grid.push(vec![Cell::text("measure"), Cell::count(1200, Tint::Plain), Cell::text("input\nchanged")]);
        grid.push(vec![Cell::text("数"), Cell::count(3, Tint::Red), Cell::text("")]);
        grid
    }

    #[test]
    fn columns_are_in_step() {
        insta::assert_snapshot!(grid().render(Style::PLAIN, None), @r"
        stage     done  why
        measure  1,200  input\nchanged
        数           3
        ");
    }

    #[test]
    fn colour_does_not_move_columns() {
        let plain = grid().render(Style::PLAIN, None);
        let coloured = grid().render(Style::new(true), None);
        let mut stripped = coloured.replace("\x1b[0m", "");
        for tint in [Tint::Bold, Tint::Dim, Tint::Red] {
            stripped = stripped.replace(&format!("\x1b[{}m", tint.code()), "");
        }
        assert_eq!(stripped, plain);
        assert_ne!(coloured, plain);
    }

    #[test]
    fn wide_cells_are_cut_to_fit() {
        let mut grid = Grid::new(["key", "message"]);
        grid.push(vec![Cell::text("k".repeat(30)), Cell::text("m".repeat(500))]);
        let text = grid.render(Style::PLAIN, Some(40));
        assert!(text.lines().all(|l| l.width() <= 40), "{text}");
        assert!(text.contains('…'));
        let free = grid.render(Style::PLAIN, None);
        assert_eq!(free.lines().last().map(UnicodeWidthStr::width), Some(30 + 2 + WIDEST));
    }

    #[test]
    fn an_escape_sequence_stays_text() {
        assert_eq!(one_line("\x1b[31mred"), "\\u{1b}[31mred");
        assert_eq!(cut("héllo", 3), "hé…");
    }
}
