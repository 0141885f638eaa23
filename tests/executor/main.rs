//! The local executor with real processes: what becomes of items, and that nothing is left running.

mod bench;
mod commands;
mod killed;
mod python;
