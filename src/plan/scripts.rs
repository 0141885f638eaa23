//! Local files that a command names: their content counts, and of Python scripts the code that they reach.

use std::path::{Component, Path, PathBuf};

use super::PlanError;
use super::compile::Compiler;
use super::fingerprint::Fingerprint;
use crate::data::{Hash, source};
use crate::spec::model::{CommandAction, CommandLine};
use crate::spec::template::Template;

/// A word of a command; `None` where it differs from item to item or is not known before the command runs.
type Word = Option<String>;

impl Compiler<'_> {
    /// Adds the content of the local files that a command names.
    pub(super) fn add_scripts(&self, parts: &mut Fingerprint, command: &CommandAction) -> Result<(), PlanError> {
        let words = self.words_of(command);
        for (number, word) in words.iter().enumerate() {
            let before = number.checked_sub(1).and_then(|at| words[at].as_deref());
            let Some(word) = word.as_deref() else { continue };
            if before == Some("-m") && words[..number].iter().flatten().any(|word| is_python(Path::new(word))) {
                self.add_run_module(parts, word)?;
            } else if !before.is_some_and(names_an_output) {
                let value = word.split_once('=').map(|(_, value)| value);
                if let Some(path) = [Some(word), value].into_iter().flatten().find_map(|word| self.local_file(word)) {
                    self.add_script(parts, &path)?;
                }
            }
        }
        Ok(())
    }

    fn words_of(&self, command: &CommandAction) -> Vec<Word> {
        let words = match &command.line {
            CommandLine::Argv(argv) => argv.iter().flat_map(|element| self.constant_words(element)).collect(),
            CommandLine::Shell(script) => self.words_of_script(script.source()),
        };
        // `bash -c "…"` is a script in a word.
        let inner = |word: Word| match word {
            Some(word) if word.contains(char::is_whitespace) => self.words_of_script(&word),
            word => vec![word],
        };
        words.into_iter().flat_map(inner).collect()
    }

    fn constant_words(&self, template: &Template) -> Vec<Word> {
        if template.names().per_item() {
            return vec![None];
        }
        template.render_words(&self.scope()).map_or_else(|_| vec![None], |words| words.into_iter().map(Some).collect())
    }

    /// The words of a shell script as far as they are known before it runs.
    fn words_of_script(&self, script: &str) -> Vec<Word> {
        let mut words = Vec::new();
        for word in shell_words(script) {
            match word.and_then(|word| Template::parse(&word, false).ok()) {
                Some(template) => words.extend(self.constant_words(&template)),
                None => words.push(None),
            }
        }
        words
    }

    /// A file in the workflow's folder that a word names and that no output is.
    fn local_file(&self, word: &str) -> Option<PathBuf> {
        let dir = &self.workflow.dir;
        let cwd = self.stage.settings.cwd.as_ref().filter(|cwd| !cwd.names().per_item());
        let cwd = cwd.and_then(|_| self.constant_cwd(&self.stage.settings).ok());
        let found = cwd.iter().chain([dir]).map(|base| cleaned(&base.join(word)));
        found
            .into_iter()
            .find(|path| path.starts_with(dir) && path.is_file() && !self.found.reading.excluded.contains(path))
    }

    fn add_script(&self, parts: &mut Fingerprint, path: &Path) -> Result<(), PlanError> {
        let is_python = path.extension().is_some_and(|e| e == "py") || runs_python(path);
        if is_python {
            let folders = self.project_path(path.parent().unwrap_or(path))?;
            let project = self.found.projects.seen_from(folders);
            let reached = project.script_parts(path).map_err(|e| self.code_unreadable(e))?;
            reached.into_iter().for_each(|(name, value)| add(parts, name, value));
            return Ok(());
        }
        let digests = self.found.reading.digests.as_deref();
        let (_, digest) = source::file_digest(path, digests).map_err(|e| self.unreadable(path, e))?;
        let shown = path.strip_prefix(&self.workflow.dir).unwrap_or(path).display();
        add(parts, format!("script:{shown}"), Hash::of(&digest).to_string());
        Ok(())
    }

    /// `python -m module`
    fn add_run_module(&self, parts: &mut Fingerprint, module: &str) -> Result<(), PlanError> {
        let folders = self.project_path(&self.constant_cwd(&self.stage.settings)?)?;
        let project = self.found.projects.seen_from(folders);
        let reached = project.run_parts(module).map_err(|e| self.code_unreadable(e))?;
        reached.into_iter().for_each(|(name, value)| add(parts, name, value));
        Ok(())
    }
}

/// Adds a part; what two scripts reach of one file counts together.
fn add(parts: &mut Fingerprint, name: String, value: String) {
    let value = match parts.get(&name).filter(|before| **before != value) {
        Some(before) => Hash::of_parts([before.as_bytes(), value.as_bytes()]).to_string(),
        None => value,
    };
    parts.add(name, value);
}

/// Whether the file that is named next is written, not read.
fn names_an_output(word: &str) -> bool {
    word == "-o" || word == "tee" || word.starts_with("--out")
}

/// Whether a program is a Python.
fn is_python(program: &Path) -> bool {
    program.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("python"))
}

/// Whether a script's first line says that Python runs it.
fn runs_python(path: &Path) -> bool {
    use std::io::Read;
    let mut head = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(200).read_to_end(&mut head));
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    read.is_ok() && line.starts_with(b"#!") && String::from_utf8_lossy(line).contains("python")
}

/// A path without `.` and `..`, as it is written: links are not followed.
fn cleaned(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                cleaned.pop();
            }
            component => cleaned.push(component),
        }
    }
    cleaned
}

/// The words of a shell script, without quotes; templates stand in them as they are written. `None` for a word with
/// an expansion, and for one that is written to.
fn shell_words(script: &str) -> Vec<Option<String>> {
    let mut words = Words::default();
    let mut rest = script;
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        match c {
            '{' if rest.starts_with("{{") || rest.starts_with("{%") || rest.starts_with("{#") => {
                let close = if rest.starts_with("{{") {
                    "}}"
                } else if rest.starts_with("{%") {
                    "%}"
                } else {
                    "#}"
                };
                taken = rest.find(close).map_or(rest.len(), |end| end + 2);
                words.push(&rest[..taken]);
            }
            '\'' => {
                let end = rest[1..].find('\'').map_or(rest.len(), |end| end + 2);
                words.push(rest[1..end].trim_end_matches('\''));
                taken = end;
            }
            '"' => words.open(),
            '\\' => {
                let next = rest[1..].chars().next().map_or(0, char::len_utf8);
                words.push(rest[1..1 + next].trim_end_matches('\n'));
                taken += next;
            }
            '$' | '`' => words.unknown(),
            '#' if words.word.is_none() => taken = rest.find('\n').unwrap_or(rest.len()),
            '>' => words.redirect(),
            '|' if words.is_redirect() => {}
            _ if c.is_whitespace() && words.is_redirect() => {}
            _ if c.is_whitespace() || ";|&()<".contains(c) => words.end(),
            _ => words.push(&rest[..taken]),
        }
        rest = &rest[taken..];
    }
    words.end();
    words.all
}

#[derive(Default)]
struct Words {
    all: Vec<Option<String>>,
    word: Option<String>,
    is_unknown: bool,
    is_target: bool,
}

impl Words {
    fn open(&mut self) {
        self.word.get_or_insert_default();
    }

    fn push(&mut self, text: &str) {
        self.word.get_or_insert_default().push_str(text);
    }

    fn unknown(&mut self) {
        self.open();
        self.is_unknown = true;
    }

    /// The next word is written to.
    fn redirect(&mut self) {
        self.end();
        self.is_target = true;
    }

    fn is_redirect(&self) -> bool {
        self.is_target && self.word.is_none()
    }

    fn end(&mut self) {
        let known = !std::mem::take(&mut self.is_unknown) && !std::mem::take(&mut self.is_target);
        if let Some(word) = self.word.take() {
            self.all.push(Some(word).filter(|_| known));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_scripts() {
        let words =
            |script: &str| shell_words(script).into_iter().map(|word| word.unwrap_or("?".into())).collect::<Vec<_>>();
        assert_eq!(words("tools/a.sh x | b>c;d&&e"), ["tools/a.sh", "x", "b", "?", "d", "e"]);
        assert_eq!(words("a 'b c' \"d\" e\\ f # no"), ["a", "b c", "d", "e f"]);
        assert_eq!(words("a $B \"$C/d\" x >> y >| z 2> e"), ["a", "?", "?", "x", "?", "?", "2", "?"]);
        assert_eq!(words("a {{ item.x | default('y z') }}/b"), ["a", "{{ item.x | default('y z') }}/b"]);
        assert_eq!(words("a\\\n  b"), ["a", "b"]);
        assert_eq!(words("a 'b"), ["a", "b"]);
    }

    #[test]
    fn paths_are_cleaned_as_written() {
        assert_eq!(cleaned(Path::new("/a/./b/../c")), Path::new("/a/c"));
    }
}
