//! Runs a plan: decides what is due, hands chunks to executors, commits outcomes, moves rows on.

pub mod api;
pub mod events;
