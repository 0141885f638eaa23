//! Values in shell scripts: quoting, and the places where quoting would not help.
//!
//! A value is printed as one single-quoted word (a list as several). That is safe wherever the shell expects a word,
//! and nowhere else: inside quotes, backticks, arithmetic, `${…}`, comments and here-documents a template is refused,
//! and so it is among the words of commands that evaluate them ([`Command`]).
//! [`Scanner`] follows the script's text as bash reads it; where it cannot be sure it refuses.

mod command;

use std::collections::VecDeque;
use std::ops::Range;

use super::engine::Part;
use super::{RenderError, TemplateError, values};
use crate::data::Value;
use command::Command;

/// Appends a value as the shell reads it back; a `number`, and nothing else, where bash would evaluate it.
pub(super) fn quote(value: &Value, number: bool, out: &mut String) -> Result<(), RenderError> {
    let Value::List(items) = value else {
        return quote_word(&values::print(value)?, number, out);
    };
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(' ');
        }
        quote_word(&values::print(item)?, number, out)?;
    }
    Ok(())
}

fn quote_word(text: &str, number: bool, out: &mut String) -> Result<(), RenderError> {
    if number && text.contains(|c: char| !c.is_ascii_digit() && !"+-.".contains(c)) {
        return Err(RenderError(format!("{text:?} is no number, and `[[ ]]` would evaluate it: use `[ ]`")));
    }
    if text.contains('\0') {
        return Err(RenderError("a NUL character cannot be given to a shell".into()));
    }
    out.push('\'');
    out.push_str(&text.replace('\'', r"'\''"));
    out.push('\'');
    Ok(())
}

/// Refuses templates where their values could not be quoted; gives those whose values must be numbers.
pub(super) fn check(parts: &[Part]) -> Result<Vec<Range<usize>>, TemplateError> {
    let mut scanner = Scanner::default();
    for part in parts {
        match part {
            Part::Text(text) => scanner.text(text),
            Part::Value { at, .. } => {
                if let Some(place) = scanner.unsafe_place() {
                    return Err(refused(place, THROUGH_ENV, at.clone()));
                }
                if scanner.redirected == Some(true) {
                    return Err(refused("right after `>&`", "write `> FILE 2>&1`", at.clone()));
                }
                scanner.value(at.clone());
            }
        }
    }
    scanner.end_word();
    match scanner.misplaced() {
        Some(at) => Err(refused("among words that bash evaluates once more", EVALUATED, at)),
        None => Ok(scanner.commands.into_iter().flat_map(|command| command.numbers).collect()),
    }
}

const THROUGH_ENV: &str = "pass it through the environment: `env: {F: \"{{ … }}\"}`, and write \"$F\" here";
const EVALUATED: &str = "numbers can be compared with `[ a -eq b ]`; no name of a variable can be a template";

fn refused(place: &str, help: &str, at: Range<usize>) -> TemplateError {
    let message = format!("a template cannot stand {place}: its value could not be quoted for the shell");
    TemplateError { message, help: Some(help.into()), at }
}

/// Where bash is in a script.
struct Scanner {
    /// What is open, innermost last; the first is the script itself.
    frames: Vec<Frame>,
    /// The command being read in each `Commands` frame.
    commands: Vec<Command>,
    /// The word being read, quotes and all.
    word: String,
    /// It is what a redirection goes to; whether that duplicates a descriptor (`>&`), and so is expanded twice.
    redirected: Option<bool>,
    /// It is read in the parentheses of `a=( )`.
    elements: bool,
    /// The script declares integer variables: an assignment to one evaluates.
    integers: bool,
    /// The first template.
    first: Option<Range<usize>>,
    comment: bool,
    /// The last character was an unquoted backslash, or a `$`.
    escaped: bool,
    dollar: bool,
    /// Here-documents whose text begins after the next line end: name, tabs stripped.
    announced: VecDeque<(String, bool)>,
    /// The line being read of a here-document's text.
    body: Option<String>,
    /// Where it lost its way.
    lost: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// Commands: the script, `$( )`; with the number of open parentheses.
    Commands(usize),
    Single,
    Ansi,
    Double,
    Backticks,
    /// `$(( ))` and `(( ))`, with the number of open parentheses.
    Arithmetic(usize),
    /// `$[ ]`
    Bracket,
    /// `${ }`
    Parameter,
}

impl Default for Scanner {
    fn default() -> Self {
        Scanner {
            frames: vec![Frame::Commands(0)],
            commands: vec![Command::default()],
            word: String::new(),
            redirected: None,
            elements: false,
            integers: false,
            first: None,
            comment: false,
            escaped: false,
            dollar: false,
            announced: VecDeque::new(),
            body: None,
            lost: None,
        }
    }
}

impl Scanner {
    fn top(&self) -> Frame {
        self.frames.last().copied().unwrap_or(Frame::Commands(0))
    }

    /// Why a value could not be quoted here.
    fn unsafe_place(&self) -> Option<&'static str> {
        let within = |frame: fn(&Frame) -> bool| self.frames.iter().any(frame);
        match self.top() {
            _ if self.lost.is_some() => self.lost,
            _ if self.body.is_some() => Some("in a here-document"),
            _ if self.comment => Some("in a comment (a line break in the value would end it)"),
            _ if self.escaped => Some("right after a backslash"),
            _ if self.dollar => Some("right after a `$`"),
            Frame::Single | Frame::Ansi => Some("inside single quotes"),
            Frame::Double => Some("inside double quotes"),
            Frame::Parameter => Some("inside ${ }"),
            _ if within(|f| *f == Frame::Backticks) => Some("inside backticks"),
            _ if within(|f| matches!(f, Frame::Arithmetic(_) | Frame::Bracket)) => Some("inside arithmetic"),
            _ if self.in_subscript() => Some("inside a subscript"),
            _ => None,
        }
    }

    /// `name[…`, or `[…` in a list of elements, which bash evaluates as arithmetic.
    fn in_subscript(&self) -> bool {
        let name = self.word.split('[').next().unwrap_or("");
        let open = self.word.matches('[').count() > self.word.matches(']').count();
        open && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    }

    /// A value has been printed: part of a word.
    fn value(&mut self, at: Range<usize>) {
        if let (None, Some(command)) = (self.redirected, self.commands.last_mut()) {
            command.value(&self.word, at.clone());
        }
        self.first.get_or_insert(at);
        self.word.push('\u{fffd}');
    }

    fn text(&mut self, text: &str) {
        let chars: Vec<char> = text.chars().collect();
        let mut at = 0;
        while at < chars.len() {
            at += self.step(&chars[at..]);
        }
    }

    /// Reads one character or operator; returns how many characters it took.
    fn step(&mut self, rest: &[char]) -> usize {
        let c = rest[0];
        if self.body.is_some() {
            return self.body_char(c);
        }
        if self.comment {
            if c == '\n' {
                self.comment = false;
                self.end_line();
            }
            return 1;
        }
        if std::mem::take(&mut self.escaped) {
            // A line that goes on: as if nothing stood there.
            if c != '\n' {
                self.word.push(c);
            }
            return 1;
        }
        let dollar = std::mem::take(&mut self.dollar);
        match self.top() {
            Frame::Single => self.close_on(c, '\''),
            Frame::Ansi => self.quoted(c, '\''),
            Frame::Double => self.double(c, rest, dollar),
            Frame::Backticks => self.quoted(c, '`'),
            Frame::Bracket => self.close_on(c, ']'),
            Frame::Arithmetic(open) => self.arithmetic(c, rest, open, dollar),
            Frame::Parameter => self.parameter(c, rest, dollar),
            Frame::Commands(open) => self.command(c, rest, open, dollar),
        }
    }

    fn close_on(&mut self, c: char, end: char) -> usize {
        if c == end {
            self.frames.pop();
        }
        1
    }

    fn quoted(&mut self, c: char, end: char) -> usize {
        self.escaped = c == '\\';
        self.close_on(c, end)
    }

    fn open(&mut self, frame: Frame, taken: usize) -> usize {
        self.frames.push(frame);
        self.word.push('"');
        taken
    }

    /// `$(`, `$((`, `${`, `$[` and backticks, which work in double quotes too.
    fn expansion(&mut self, c: char, rest: &[char], dollar: bool) -> Option<usize> {
        let opened = match (dollar, c, rest.get(1)) {
            (true, '(', Some('(')) => self.open(Frame::Arithmetic(0), 2),
            (true, '(', _) => {
                self.frames.push(Frame::Commands(0));
                self.commands.push(Command::default());
                self.word.clear();
                1
            }
            (true, '{', _) => self.open(Frame::Parameter, 1),
            (true, '[', _) => self.open(Frame::Bracket, 1),
            (_, '`', _) => self.open(Frame::Backticks, 1),
            (false, '$', _) => {
                self.dollar = true;
                self.word.push('$');
                1
            }
            _ => return None,
        };
        Some(opened)
    }

    fn double(&mut self, c: char, rest: &[char], dollar: bool) -> usize {
        if let Some(taken) = self.expansion(c, rest, dollar) {
            return taken;
        }
        self.quoted(c, '"')
    }

    fn parameter(&mut self, c: char, rest: &[char], dollar: bool) -> usize {
        if let Some(taken) = self.expansion(c, rest, dollar) {
            return taken;
        }
        match c {
            '"' => self.open(Frame::Double, 1),
            '\'' if self.frames.contains(&Frame::Double) => {
                self.lost = Some("after a single quote in a \"${ }\"");
                1
            }
            '\'' => self.open(Frame::Single, 1),
            _ => self.quoted(c, '}'),
        }
    }

    fn arithmetic(&mut self, c: char, rest: &[char], open: usize, dollar: bool) -> usize {
        if let Some(taken) = self.expansion(c, rest, dollar) {
            return taken;
        }
        let frame = self.frames.len() - 1;
        match c {
            '(' => self.frames[frame] = Frame::Arithmetic(open + 1),
            ')' if open > 0 => self.frames[frame] = Frame::Arithmetic(open - 1),
            ')' if rest.get(1) == Some(&')') => {
                self.frames.pop();
                return 2;
            }
            ')' | '"' | '\'' => self.lost = Some("after arithmetic that cannot be followed"),
            _ => {}
        }
        1
    }

    fn command(&mut self, c: char, rest: &[char], open: usize, dollar: bool) -> usize {
        if let Some(taken) = self.expansion(c, rest, dollar) {
            return taken;
        }
        let frame = self.frames.len() - 1;
        match c {
            '\\' => self.escaped = true,
            '\'' => return self.open(if dollar { Frame::Ansi } else { Frame::Single }, 1),
            '"' => return self.open(Frame::Double, 1),
            '#' if self.word.is_empty() => self.comment = true,
            '(' if self.word.is_empty() && rest.get(1) == Some(&'(') => return self.open(Frame::Arithmetic(0), 2),
            '(' => {
                self.frames[frame] = Frame::Commands(open + 1);
                self.elements = self.word.ends_with('=');
                self.end_word();
                self.redirected = None;
                self.end_command();
            }
            ')' => {
                self.end_word();
                self.elements = false;
                self.end_command();
                if open > 0 {
                    self.frames[frame] = Frame::Commands(open - 1);
                } else if frame > 0 {
                    self.close_commands();
                }
            }
            '<' if rest.get(1) == Some(&'<') => {
                self.end_word();
                return self.here_document(rest);
            }
            '<' | '>' => return self.redirection(rest),
            '\n' => {
                self.end_word();
                self.end_command();
                self.end_line();
            }
            '&' if rest.get(1) == Some(&'>') => self.end_word(),
            ';' | '&' | '|' => {
                self.end_word();
                self.end_command();
            }
            c if c.is_whitespace() => self.end_word(),
            c => self.word.push(c),
        }
        1
    }

    fn end_word(&mut self) {
        if self.word == "case" && self.frames.len() > 1 {
            self.lost = Some("after a `case` inside $( )");
        }
        // Bash reads `a[` up to its `]` as one word, whatever stands between, but only where it may be assigned to.
        if self.in_subscript() && (self.elements || !self.word.starts_with('[')) {
            self.lost = Some("after a subscript that cannot be followed");
        }
        let word = std::mem::take(&mut self.word);
        let argument = !word.is_empty() && self.redirected.take().is_none();
        if let Some(command) = self.commands.last_mut().filter(|_| argument) {
            self.integers |= command.makes_integers(&word);
            command.word(&word);
        }
    }

    fn end_command(&mut self) {
        let over = |command: &&mut Command| !command.is_condition();
        if let Some(command) = self.commands.last_mut().filter(over) {
            command.end();
        }
    }

    /// Back in what was read before a `$(`.
    fn close_commands(&mut self) {
        self.frames.pop();
        if let (Some(inner), Some(outer)) = (self.commands.pop(), self.commands.last_mut()) {
            outer.misplaced = outer.misplaced.take().or(inner.misplaced);
            outer.numbers.extend(inner.numbers);
        }
        self.word.push('"');
    }

    /// The template that turned out to stand where its value is evaluated.
    fn misplaced(&mut self) -> Option<Range<usize>> {
        let integers = self.first.take().filter(|_| self.integers);
        self.commands.iter_mut().find_map(|command| command.misplaced.take()).or(integers)
    }

    /// `<`, `>`, `>>`, `>|`, `>&`, behind the number of a descriptor; in `[[ ]]` they compare.
    fn redirection(&mut self, rest: &[char]) -> usize {
        if self.word.bytes().all(|b| b.is_ascii_digit()) {
            self.word.clear();
        }
        self.end_word();
        if self.commands.last().is_some_and(Command::is_condition) {
            return 1;
        }
        self.redirected = Some(rest.get(1) == Some(&'&'));
        if matches!(rest.get(1), Some('&' | '|')) { 2 } else { 1 }
    }

    /// `<<NAME`, `<<-NAME`, `<<'NAME'`; `<<<` is an ordinary redirection.
    fn here_document(&mut self, rest: &[char]) -> usize {
        if rest.get(2) == Some(&'<') {
            self.redirected = Some(false);
            return 3;
        }
        let mut at = 2;
        let strip = rest.get(at) == Some(&'-');
        at += usize::from(strip);
        while rest.get(at).is_some_and(|c| matches!(c, ' ' | '\t')) {
            at += 1;
        }
        let mut name = String::new();
        let mut quote = None;
        while let Some(&c) = rest.get(at) {
            match quote {
                Some(q) if c == q => quote = None,
                None if matches!(c, '\'' | '"') => quote = Some(c),
                None if c == '\\' => {}
                None if c.is_whitespace() || matches!(c, ';' | '&' | '|' | '<' | '>' | '(' | ')') => break,
                _ => name.push(c),
            }
            at += 1;
        }
        if name.is_empty() || at == rest.len() {
            self.lost = Some("in or after the name of a here-document");
        }
        self.announced.push_back((name, strip));
        at
    }

    fn end_line(&mut self) {
        if !self.announced.is_empty() {
            self.body = Some(String::new());
        }
    }

    fn body_char(&mut self, c: char) -> usize {
        let line = self.body.get_or_insert_default();
        if c != '\n' {
            line.push(c);
            return 1;
        }
        if let Some((name, strip)) = self.announced.front() {
            let line = if *strip { line.trim_start_matches('\t') } else { line.as_str() };
            if line == name {
                self.announced.pop_front();
            }
        }
        self.body = (!self.announced.is_empty()).then(String::new);
        1
    }
}
