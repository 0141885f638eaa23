//! The language: from YAML text to a validated [`model::Workflow`].

pub mod model;
pub mod template;
pub mod yaml;
