//! What people and programs are shown: progress, summaries, tables, JSON.
//!
//! Everything here turns values of [`crate::engine::events`] into text. The functions that build text are pure and
//! take the clock, the width and the [`Style`] as arguments; only [`Reporter`] writes, to stderr and to the events
//! file. The environment is read by `cli`.

pub mod accepted;
pub mod catalogue;
pub mod config;
pub mod errors;
pub mod grid;
pub mod holdings;
pub mod json;
pub mod meter;
pub mod phrase;
pub mod plan;
pub mod progress;
pub mod rows;
pub mod status;
pub mod style;
pub mod summary;

pub use grid::{Cell, Grid};
pub use phrase::Invocation;
pub use progress::{Live, Reporter};
pub use style::{Style, Tint};

/// Writes to stderr. A terminal that is gone is no reason to fail.
pub fn tell(text: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), text.as_bytes());
}
