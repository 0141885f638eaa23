//! Glob patterns and the files that match them.
//!
//! `*`, `?` and `[a-z]` stay within a name, a segment `**` is any number of folders, `{csv,tsv}` one of several
//! texts, `{name}` a named wildcard: at least one character, as many as fit. Hidden names match only where the
//! pattern spells out the dot; names that begin with `.bpp-flow` never do. Matches are regular files, sorted by path.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

/// The folder of bpp-flow's own state.
const STATE_FOLDER: &str = ".bpp-flow";

/// A pattern, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    root: PathBuf,
    segments: Vec<Segment>,
    /// The named wildcards, in order of appearance.
    pub names: Vec<String>,
}

#[derive(Debug, Clone)]
enum Segment {
    /// A name as it stands.
    Plain(String),
    /// `**`
    Folders,
    Wild(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Char(char),
    /// `?`
    One,
    /// `*`
    Any,
    /// `[a-z]`, `[!a-z]`
    Class {
        ranges: Vec<(char, char)>,
        negated: bool,
    },
    /// `{a,b}`
    Either(Vec<String>),
    /// `{name}`, by its place in the pattern's names
    Named(usize),
}

/// A file that matched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Match {
    /// The path as the pattern spells it: relative where the pattern is.
    pub path: String,
    /// What the named wildcards stand for.
    pub texts: Vec<String>,
}

impl Pattern {
    /// Whether the text has wildcards at all.
    pub fn is_wild(text: &str) -> bool {
        text.contains(['*', '?', '[', '{'])
    }

    /// Takes a pattern apart; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Pattern, String> {
        let mut names = Vec::new();
        let (root, rest) = match text.strip_prefix('/') {
            Some(rest) => ("/", rest),
            None => ("", text),
        };
        let mut segments = Vec::new();
        for part in rest.split('/').filter(|p| !p.is_empty() && *p != ".") {
            segments.push(match part {
                "**" => Segment::Folders,
                _ if !Pattern::is_wild(part) => Segment::Plain(part.to_string()),
                _ => Segment::Wild(parse_tokens(part, &mut names)?),
            });
        }
        Ok(Pattern { root: root.into(), segments, names })
    }

    /// Whether a path would match, whatever is there.
    pub fn accepts(&self, path: &str) -> bool {
        let (absolute, rest) = match path.strip_prefix('/') {
            Some(rest) => (true, rest),
            None => (false, path),
        };
        let parts: Vec<&str> = rest.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
        let mut texts = vec![String::new(); self.names.len()];
        absolute == self.root.is_absolute() && fits(&self.segments, &parts, &mut texts)
    }

    /// All files that match, sorted by path; `excluded` holds absolute paths that never do.
    pub fn find(&self, dir: &Path, excluded: &HashSet<PathBuf>) -> io::Result<Vec<Match>> {
        let texts = vec![String::new(); self.names.len()];
        let mut walk = Walk { dir, excluded, matches: Vec::new() };
        walk.descend(&self.root, &self.segments, &texts)?;
        let mut matches = walk.matches;
        matches.sort();
        matches.dedup_by(|a, b| a.path == b.path);
        Ok(matches)
    }
}

fn parse_tokens(part: &str, names: &mut Vec<String>) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = part;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        tokens.push(match c {
            '?' => Token::One,
            '*' => Token::Any,
            '[' => {
                let from = if rest.starts_with(['!', '^']) { 2 } else { 1 };
                let end =
                    rest.get(from..).and_then(|r| r.find(']')).ok_or_else(|| format!("[ without ] in {part:?}"))?;
                let class = &rest[..end + from];
                rest = &rest[class.len() + 1..];
                parse_class(class)
            }
            '{' => {
                let end = rest.find('}').ok_or_else(|| format!("{{ without }} in {part:?}"))?;
                let inner = &rest[..end];
                rest = &rest[end + 1..];
                parse_braces(inner, names)?
            }
            c => Token::Char(c),
        });
    }
    Ok(tokens)
}

fn parse_class(class: &str) -> Token {
    let (negated, body) = match class.strip_prefix(['!', '^']) {
        Some(body) => (true, body),
        None => (false, class),
    };
    let chars: Vec<char> = body.chars().collect();
    let mut ranges = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let is_range = i + 2 < chars.len() && chars[i + 1] == '-';
        let last = if is_range { i + 2 } else { i };
        ranges.push((chars[i], chars[last]));
        i = last + 1;
    }
    Token::Class { ranges, negated }
}

fn parse_braces(inner: &str, names: &mut Vec<String>) -> Result<Token, String> {
    if inner.contains(',') {
        return Ok(Token::Either(inner.split(',').map(str::to_string).collect()));
    }
    let is_name = !inner.is_empty()
        && !inner.starts_with(|c: char| c.is_ascii_digit())
        && inner.chars().all(|c| c.is_alphanumeric() || c == '_');
    if !is_name {
        return Err(format!("{{{inner}}} is no wildcard: a name of letters, digits and _ stands between the braces"));
    }
    let at = names.iter().position(|n| n == inner).unwrap_or_else(|| {
        names.push(inner.to_string());
        names.len() - 1
    });
    Ok(Token::Named(at))
}

/// Matches the names of a path.
fn fits(segments: &[Segment], parts: &[&str], texts: &mut [String]) -> bool {
    let Some((segment, tail)) = segments.split_first() else { return parts.is_empty() };
    match (segment, parts.split_first()) {
        (Segment::Folders, None) => fits(tail, parts, texts),
        (Segment::Folders, Some((name, rest))) => {
            fits(tail, parts, texts) || (!name.starts_with('.') && fits(segments, rest, texts))
        }
        (Segment::Plain(name), Some((part, rest))) => name == part && fits(tail, rest, texts),
        (Segment::Wild(tokens), Some((part, rest))) => {
            let mut texts = texts.to_vec();
            let hidden = part.starts_with('.') && tokens.first() != Some(&Token::Char('.'));
            !hidden && matches(tokens, part, &mut texts) && fits(tail, rest, &mut texts)
        }
        (_, None) => false,
    }
}

/// Matches a name; what the named wildcards stand for is put into `texts` (those that hold something already must
/// stand for the same).
fn matches(tokens: &[Token], name: &str, texts: &mut Vec<String>) -> bool {
    let Some((token, tail)) = tokens.split_first() else { return name.is_empty() };
    let mut chars = name.chars();
    match token {
        Token::Char(c) => chars.next() == Some(*c) && matches(tail, chars.as_str(), texts),
        Token::One => chars.next().is_some() && matches(tail, chars.as_str(), texts),
        Token::Class { ranges, negated } => chars.next().is_some_and(|c| {
            ranges.iter().any(|(a, b)| (*a..=*b).contains(&c)) != *negated && matches(tail, chars.as_str(), texts)
        }),
        Token::Either(choices) => choices
            .iter()
            .any(|choice| name.strip_prefix(choice.as_str()).is_some_and(|rest| matches(tail, rest, texts))),
        Token::Any => ends(name).any(|end| matches(tail, &name[end..], texts)),
        Token::Named(at) if !texts[*at].is_empty() => {
            let text = texts[*at].clone();
            name.strip_prefix(text.as_str()).is_some_and(|rest| matches(tail, rest, texts))
        }
        Token::Named(at) => ends(name).filter(|&end| end > 0).any(|end| {
            texts[*at] = name[..end].to_string();
            let found = matches(tail, &name[end..], texts);
            if !found {
                texts[*at].clear();
            }
            found
        }),
    }
}

/// The places at which a wildcard may end, the last one first.
fn ends(name: &str) -> impl Iterator<Item = usize> + '_ {
    std::iter::once(name.len()).chain(name.char_indices().rev().map(|(at, _)| at))
}

struct Walk<'a> {
    dir: &'a Path,
    excluded: &'a HashSet<PathBuf>,
    matches: Vec<Match>,
}

impl Walk<'_> {
    fn descend(&mut self, at: &Path, segments: &[Segment], texts: &[String]) -> io::Result<()> {
        let Some((segment, tail)) = segments.split_first() else {
            return self.accept(at, texts);
        };
        match segment {
            Segment::Plain(name) if name == STATE_FOLDER => Ok(()),
            Segment::Plain(name) => self.descend(&at.join(name), tail, texts),
            Segment::Folders => {
                self.descend(at, tail, texts)?;
                for (name, is_real_dir) in self.names(at)? {
                    if is_real_dir && !name.starts_with('.') {
                        self.descend(&at.join(name), segments, texts)?;
                    }
                }
                Ok(())
            }
            Segment::Wild(tokens) => {
                for (name, _) in self.names(at)? {
                    let mut texts = texts.to_vec();
                    let hidden = name.starts_with('.') && tokens.first() != Some(&Token::Char('.'));
                    if !hidden && !name.starts_with(STATE_FOLDER) && matches(tokens, &name, &mut texts) {
                        self.descend(&at.join(name), tail, &texts)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn accept(&mut self, at: &Path, texts: &[String]) -> io::Result<()> {
        let path = self.dir.join(at);
        if path.is_file() && !self.excluded.contains(&path) {
            let shown = at.to_str().expect("made of text").to_string();
            self.matches.push(Match { path: shown, texts: texts.to_vec() });
        }
        Ok(())
    }

    /// The names in a folder, and whether each is a folder itself (not a link to one). No folder, no names.
    fn names(&self, at: &Path) -> io::Result<Vec<(String, bool)>> {
        use io::ErrorKind::{NotADirectory, NotFound};
        let entries = match std::fs::read_dir(self.dir.join(at)) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), NotFound | NotADirectory) => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
            let name = entry.file_name().into_string().map_err(|name| {
                io::Error::new(io::ErrorKind::InvalidData, format!("the name {name:?} is not valid UTF-8"))
            })?;
            names.push((name, is_dir));
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::source::testing::Folder;

    fn found(pattern: &str, files: &[&str]) -> Vec<Match> {
        let folder = Folder::with(&files.iter().map(|f| (*f, &b""[..])).collect::<Vec<_>>());
        Pattern::parse(pattern).expect("valid").find(folder.path(), &HashSet::new()).expect("readable")
    }

    fn paths(pattern: &str, files: &[&str]) -> Vec<String> {
        found(pattern, files).into_iter().map(|m| m.path).collect()
    }

    #[test]
    fn wildcards_stay_within_a_name() {
        let files = ["a.csv", "b.csv", "b.tsv", "sub/c.csv", ".hidden.csv", ".bpp-flow/x/d.csv"];
        assert_eq!(paths("*.csv", &files), ["a.csv", "b.csv"]);
        assert_eq!(paths("?.[a-c]sv", &files), ["a.csv", "b.csv"]);
        assert_eq!(paths("[!a].*", &files), ["b.csv", "b.tsv"]);
        assert_eq!(paths("b.{csv,tsv}", &files), ["b.csv", "b.tsv"]);
        assert_eq!(paths("**/*.csv", &files), ["a.csv", "b.csv", "sub/c.csv"]);
        assert_eq!(paths(".*.csv", &files), [".hidden.csv"]);
        assert_eq!(paths(".bpp-flow/*/d.csv", &files), [""; 0]);
        assert_eq!(paths("nowhere/*.csv", &files), [""; 0]);
        assert_eq!(paths("./sub/c.csv", &files), ["sub/c.csv"]);
    }

    #[test]
    fn named_wildcards_take_as_much_as_they_can() {
        let files = ["data/p1/s_1.swc", "data/p1/s_2_x.swc", "data/p2/p2.swc", "data/p2/_.swc"];
        let texts = |pattern: &str| found(pattern, &files).into_iter().map(|m| m.texts.join("|")).collect::<Vec<_>>();
        assert_eq!(texts("data/{patient}/{scan}_{part}.swc"), ["p1|s|1", "p1|s_2|x"]);
        assert_eq!(texts("data/{p}/{p}.swc"), ["p2"], "one name, one text");
    }

    #[test]
    fn excluded_files_never_match() {
        let folder = Folder::with(&[("a.csv", b""), ("b.csv", b"")]);
        let excluded = HashSet::from([folder.path().join("b.csv")]);
        let matches = Pattern::parse("*.csv").expect("valid").find(folder.path(), &excluded).expect("readable");
        assert_eq!(matches.len(), 1);
    }

    #[test]
    fn mistakes_are_told() {
        for pattern in ["{", "{a b}", "[a", "{1}", "{}"] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}
