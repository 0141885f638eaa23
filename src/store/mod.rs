//! Keeps outcomes, durably.
pub mod model;
