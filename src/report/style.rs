//! Colour, where it is wanted. Meaning never depends on it.

/// Whether text for one stream is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    color: bool,
}

/// How a piece of text is to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tint {
    #[default]
    Plain,
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Tint {
    pub(super) fn code(self) -> &'static str {
        match self {
            Tint::Plain => "0",
            Tint::Bold => "1",
            Tint::Dim => "2",
            Tint::Red => "1;31",
            Tint::Green => "32",
            Tint::Yellow => "33",
            Tint::Cyan => "36",
        }
    }
}

impl Style {
    /// No colour.
    pub const PLAIN: Style = Style { color: false };

    /// With or without colour.
    pub fn new(color: bool) -> Style {
        Style { color }
    }

    /// Whether there is colour.
    pub fn color(self) -> bool {
        self.color
    }

    /// The text, in the tint where there is colour.
    pub fn paint(self, tint: Tint, text: &str) -> String {
        if !self.color || tint == Tint::Plain || text.is_empty() {
            return text.to_string();
        }
        format!("\x1b[{}m{text}\x1b[0m", tint.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paint_leaves_text_alone_without_color() {
        assert_eq!(Style::PLAIN.paint(Tint::Red, "3"), "3");
        assert_eq!(Style::new(true).paint(Tint::Plain, "3"), "3");
        assert_eq!(Style::new(true).paint(Tint::Red, ""), "");
        assert_eq!(Style::new(true).paint(Tint::Red, "3"), "\x1b[1;31m3\x1b[0m");
    }
}
