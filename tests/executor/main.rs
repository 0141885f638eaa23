//! The local executor with real processes: what becomes of items, and that nothing is left running.
#![expect(clippy::disallowed_methods, reason = "a test plays bpp-flow and is killed")]

mod bench;
mod commands;
mod killed;
mod python;
