//! The language: from YAML text to a validated [`model::Workflow`].
//!
//! [`load`] is the way in: text becomes a tree with spans ([`yaml`]), is checked against the table of the language
//! ([`grammar`], [`shape`]), and is given its meaning ([`validate`]). Nothing here touches a disk, the process's
//! environment or a clock.

pub mod effective;
pub mod grammar;
pub mod model;
mod nearest;
mod profile;
pub mod schema;
pub mod shape;
pub mod template;
pub mod units;
pub mod validate;
pub mod written;
pub mod yaml;

pub use effective::effective;
pub use nearest::nearest;
pub use profile::Profile;
pub use schema::json_schema;
pub use validate::{LoadOptions, leads_outside, load};

use crate::diagnostic::Diagnostic;

/// A template's mistake at its place in the file.
fn template_mistake(node: &yaml::Node, source: &str, error: template::TemplateError) -> Diagnostic {
    let diagnostic = Diagnostic::new(node.span_of(source, error.at), error.message);
    match error.help {
        Some(help) => diagnostic.help(help),
        None => diagnostic,
    }
}
