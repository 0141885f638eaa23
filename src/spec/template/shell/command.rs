//! Commands of bash that evaluate their words once more: there quoting does not help.
//!
//! `[[ x -eq 1 ]]`, `let`, `declare -i` and their like take a word for arithmetic, and arithmetic runs the
//! `$(…)` in `a[$(…)]`, however well the word was quoted. [`Command`] follows the words of one command and says when a
//! template stands in such a place, also where only a later word tells. In `[[ ]]` numbers are let through, and nothing
//! else, as the script is rendered.

use std::ops::Range;

/// Builtins that evaluate their arguments, or take names, whose subscripts are evaluated.
const EVALUATES: [&str; 10] =
    ["alias", "compgen", "complete", "eval", "let", "mapfile", "read", "readarray", "trap", "unset"];
/// Builtins that do so behind an option.
const EVALUATES_BY_OPTION: [(&str, &str); 6] =
    [("[[", "-v"), ("[[", "-R"), ("[", "-v"), ("test", "-v"), ("printf", "-v"), ("wait", "-p")];
/// Builtins that declare variables.
const DECLARES: [&str; 5] = ["declare", "export", "local", "readonly", "typeset"];
/// Operators of `[[ ]]` that take numbers.
const NUMERIC: [&str; 6] = ["-eq", "-ne", "-lt", "-le", "-gt", "-ge"];
/// Variables whose values are evaluated.
const EVALUATED: [&str; 8] = ["BASH_ENV", "ENV", "HISTCMD", "OPTIND", "PROMPT_COMMAND", "PS4", "RANDOM", "SRANDOM"];
/// Words before the name of a command.
const BEFORE: [&str; 14] =
    ["!", "builtin", "command", "coproc", "do", "elif", "else", "exec", "if", "then", "time", "until", "while", "{"];

/// The command that is being read.
#[derive(Debug, Default)]
pub(super) struct Command {
    name: String,
    /// Its words are evaluated.
    evaluates: bool,
    /// The first template in it.
    first: Option<Range<usize>>,
    /// A template whose place turned out to be one where its value is evaluated.
    pub misplaced: Option<Range<usize>>,
    /// Templates whose values must be numbers.
    pub numbers: Vec<Range<usize>>,
    /// Those of the word being read, and of the one before.
    here: Vec<Range<usize>>,
    before: Vec<Range<usize>>,
    /// The word before compares numbers.
    compares: bool,
}

impl Command {
    /// A template stands behind `before` in its word.
    pub fn value(&mut self, before: &str, at: Range<usize>) {
        let variable = before.split(['=', '+']).next().filter(|name| name.len() < before.len());
        let name = !before.contains('=') && self.declares();
        if name || variable.is_some_and(|name| EVALUATED.contains(&name)) {
            self.misplaced.get_or_insert(at.clone());
        }
        self.first.get_or_insert(at.clone());
        self.here.push(at);
        self.judge();
    }

    /// A word has ended.
    pub fn word(&mut self, word: &str) {
        self.compare(word);
        // What quotes and expansions leave of it: `$(true)read` is `read`.
        let rest = word.replace("$\"", "").replace('"', "");
        let word = if rest.is_empty() { word } else { &rest };
        if self.is_condition() && word == "]]" {
            return self.end();
        }
        if self.name.is_empty() {
            let comes_before = BEFORE.contains(&word) || word.starts_with('-') || is_assignment(word);
            if !comes_before {
                self.name = word.to_string();
                self.evaluates = EVALUATES.contains(&word);
            }
        } else {
            self.evaluates |= EVALUATES_BY_OPTION.contains(&(&self.name, word))
                || self.declares() && word.starts_with('-') && word.contains(['a', 'A', 'i', 'n']);
        }
        self.judge();
    }

    fn compare(&mut self, word: &str) {
        let here = std::mem::take(&mut self.here);
        if std::mem::take(&mut self.compares) {
            self.numbers.extend_from_slice(&here);
        }
        if self.is_condition() && NUMERIC.contains(&word) {
            self.numbers.append(&mut self.before);
            self.compares = true;
        }
        self.before = here;
    }

    /// Whether this word of it gives variables the integer attribute: wherever a script assigns to them, it evaluates.
    pub fn makes_integers(&self, word: &str) -> bool {
        self.declares() && word.starts_with('-') && word.contains('i')
    }

    fn declares(&self) -> bool {
        DECLARES.contains(&self.name.as_str())
    }

    /// Whether it is a `[[` in which `&&`, `(` and line ends mean something else.
    pub fn is_condition(&self) -> bool {
        self.name == "[["
    }

    /// Another command begins.
    pub fn end(&mut self) {
        let (misplaced, numbers) = (self.misplaced.take(), std::mem::take(&mut self.numbers));
        *self = Command { misplaced, numbers, ..Command::default() };
    }

    fn judge(&mut self) {
        if self.evaluates && self.misplaced.is_none() {
            self.misplaced.clone_from(&self.first);
        }
    }
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+[]".contains(&b))
    })
}
