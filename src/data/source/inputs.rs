//! Which files the sources of a workflow read, as far as their definitions tell.

use super::pattern::Pattern;
use crate::spec::model::{Reader, Source};

/// The files that sources read: paths, and patterns of paths, each with the source's name.
#[derive(Debug, Default)]
pub struct Inputs {
    plain: Vec<(String, String)>,
    patterns: Vec<(Pattern, String)>,
}

impl Inputs {
    /// Those of `sources`.
    pub fn of(sources: &[Source]) -> Inputs {
        let mut inputs = Inputs::default();
        for source in sources {
            match &source.reader {
                Reader::Files { paths, .. } => paths.iter().for_each(|path| inputs.add(path, &source.name)),
                Reader::Glob { pattern } => inputs.add(pattern, &source.name),
                Reader::Lines { path: Some(path) } => inputs.plain.push((path.clone(), source.name.clone())),
                _ => {}
            }
        }
        inputs
    }

    fn add(&mut self, path: &str, source: &str) {
        match Pattern::parse(path).ok().filter(|_| Pattern::is_wild(path)) {
            Some(pattern) => self.patterns.push((pattern, source.to_string())),
            None => self.plain.push((path.to_string(), source.to_string())),
        }
    }

    /// The paths that stand for themselves, and their sources.
    pub fn plain(&self) -> impl Iterator<Item = (&str, &str)> {
        self.plain.iter().map(|(path, source)| (path.as_str(), source.as_str()))
    }

    /// The source with a pattern that this path matches; both as they are written.
    pub fn reader_of(&self, path: &str) -> Option<&str> {
        self.patterns.iter().find(|(pattern, _)| pattern.accepts(path)).map(|(_, source)| source.as_str())
    }
}
