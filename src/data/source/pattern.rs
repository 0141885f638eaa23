//! Glob patterns and the files that match them.
//!
//! `*`, `?` and `[a-z]` stay within a name, a segment `**` is any number of folders, `{csv,tsv}` one of several
//! texts, `{name}` a named wildcard: at least one character, as many as fit; one that stands twice is the same text.
//! A `**` at the end is all files below. Hidden names match only where the pattern spells out the dot; names that begin
//! with `.bpp-flow` never do. Links to folders are followed where a name matches them, not by `**`. Matches are regular
//! files, sorted by path.

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
    /// Whether one stands in several segments: then more than one of the texts it may be has to be tried.
    repeats: bool,
}

#[derive(Debug, Clone)]
enum Segment {
    /// A name as it stands.
    Plain(String),
    /// `**`
    Folders,
    Wild(Vec<Token>),
}

impl Segment {
    /// Its named wildcards.
    fn named(&self) -> impl Iterator<Item = usize> {
        let tokens = if let Segment::Wild(tokens) = self { tokens.as_slice() } else { &[] };
        tokens.iter().filter_map(|token| if let Token::Named(at) = token { Some(*at) } else { None })
    }
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
        if matches!(segments.last(), Some(Segment::Folders)) {
            segments.push(Segment::Wild(vec![Token::Any]));
        }
        let repeats = segments.iter().enumerate().any(|(at, segment)| {
            segment.named().any(|name| segments[at + 1..].iter().flat_map(Segment::named).any(|other| other == name))
        });
        Ok(Pattern { root: root.into(), segments, names, repeats })
    }

    /// Whether a path would match, whatever is there.
    pub fn accepts(&self, path: &str) -> bool {
        let (absolute, rest) = match path.strip_prefix('/') {
            Some(rest) => (true, rest),
            None => (false, path),
        };
        let parts: Vec<&str> = rest.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
        let texts = vec![String::new(); self.names.len()];
        absolute == self.root.is_absolute() && fits(&self.segments, &parts, &texts)
    }

    /// All files that match, sorted by path; `excluded` holds absolute paths (of files and folders) that never do.
    pub fn find(&self, dir: &Path, excluded: &HashSet<PathBuf>) -> io::Result<Vec<Match>> {
        let texts = vec![String::new(); self.names.len()];
        let mut walk = Walk { dir, excluded, all: self.repeats, matches: Vec::new() };
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
fn fits(segments: &[Segment], parts: &[&str], texts: &[String]) -> bool {
    let Some((segment, tail)) = segments.split_first() else { return parts.is_empty() };
    match (segment, parts.split_first()) {
        (Segment::Folders, None) => fits(tail, parts, texts),
        (Segment::Folders, Some((name, rest))) => {
            fits(tail, parts, texts) || (!name.starts_with('.') && fits(segments, rest, texts))
        }
        (Segment::Plain(name), Some((part, rest))) => name == part && fits(tail, rest, texts),
        (Segment::Wild(tokens), Some((part, rest))) => {
            let hidden = part.starts_with('.') && tokens.first() != Some(&Token::Char('.'));
            let mut found = |texts: &[String]| Ok(fits(tail, rest, texts));
            !hidden && each_match(tokens, part, &mut texts.to_vec(), &mut found).unwrap_or(false)
        }
        (_, None) => false,
    }
}

/// Matches a name, calling `found` with what the named wildcards stand for (those of `texts` that hold something
/// already must stand for the same), the first of them as long as can be; again and again until it says true.
fn each_match(
    tokens: &[Token],
    name: &str,
    texts: &mut Vec<String>,
    found: &mut dyn FnMut(&[String]) -> io::Result<bool>,
) -> io::Result<bool> {
    let Some((token, tail)) = tokens.split_first() else {
        return if name.is_empty() { found(texts) } else { Ok(false) };
    };
    let mut chars = name.chars();
    match token {
        Token::Char(c) if chars.next() == Some(*c) => each_match(tail, chars.as_str(), texts, found),
        Token::One if chars.next().is_some() => each_match(tail, chars.as_str(), texts, found),
        Token::Class { ranges, negated }
            if chars.next().is_some_and(|c| ranges.iter().any(|(a, b)| (*a..=*b).contains(&c)) != *negated) =>
        {
            each_match(tail, chars.as_str(), texts, found)
        }
        Token::Char(_) | Token::One | Token::Class { .. } => Ok(false),
        Token::Either(choices) => {
            for rest in choices.iter().filter_map(|choice| name.strip_prefix(choice.as_str())) {
                if each_match(tail, rest, texts, found)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Token::Any => {
            for end in ends(name) {
                if each_match(tail, &name[end..], texts, found)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Token::Named(at) if !texts[*at].is_empty() => {
            let rest = name.strip_prefix(texts[*at].as_str());
            rest.map_or(Ok(false), |rest| each_match(tail, rest, texts, found))
        }
        Token::Named(at) => {
            for end in ends(name).filter(|&end| end > 0) {
                texts[*at] = name[..end].to_string();
                let over = each_match(tail, &name[end..], texts, found);
                texts[*at].clear();
                if over? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

/// The places at which a wildcard may end, the last one first.
fn ends(name: &str) -> impl Iterator<Item = usize> + '_ {
    std::iter::once(name.len()).chain(name.char_indices().rev().map(|(at, _)| at))
}

struct Walk<'a> {
    dir: &'a Path,
    excluded: &'a HashSet<PathBuf>,
    /// Whether all texts that the wildcards of a name may stand for are tried, not only the first.
    all: bool,
    matches: Vec<Match>,
}

/// What lies in a folder.
struct Entry {
    /// Its name; what is not UTF-8 in it stands as U+FFFD.
    name: String,
    is_text: bool,
    /// A folder itself, not a link to one.
    is_real_dir: bool,
}

impl Walk<'_> {
    fn descend(&mut self, at: &Path, segments: &[Segment], texts: &[String]) -> io::Result<()> {
        let Some((segment, tail)) = segments.split_first() else {
            self.accept(at, texts);
            return Ok(());
        };
        match segment {
            Segment::Plain(name) if name == STATE_FOLDER => Ok(()),
            Segment::Plain(name) => self.descend(&at.join(name), tail, texts),
            Segment::Folders => {
                self.descend(at, tail, texts)?;
                for entry in self.entries(at)?.into_iter().filter(|e| e.is_real_dir && !e.name.starts_with('.')) {
                    self.descend(&entry.path(at)?, segments, texts)?;
                }
                Ok(())
            }
            Segment::Wild(tokens) => {
                for entry in self.entries(at)? {
                    let hidden = entry.name.starts_with('.') && tokens.first() != Some(&Token::Char('.'));
                    if !hidden && !entry.name.starts_with(STATE_FOLDER) {
                        self.try_name(at, &entry, tokens, tail, texts)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Goes on with an entry if its name matches.
    fn try_name(
        &mut self,
        at: &Path,
        entry: &Entry,
        tokens: &[Token],
        tail: &[Segment],
        texts: &[String],
    ) -> io::Result<()> {
        let only_first = !self.all;
        each_match(tokens, &entry.name, &mut texts.to_vec(), &mut |texts| {
            if entry.is_text || (entry.is_real_dir && !tail.is_empty()) {
                self.descend(&entry.path(at)?, tail, texts)?;
            } else if tail.is_empty() && !entry.is_real_dir {
                // A file that cannot be named: whoever opens it will say so.
                self.matches.push(Match { path: shown(&at.join(&entry.name)), texts: texts.to_vec() });
            }
            Ok(only_first)
        })
        .map(|_| ())
    }

    fn accept(&mut self, at: &Path, texts: &[String]) {
        let path = self.dir.join(at);
        if path.is_file() && !self.excluded.contains(&path) {
            self.matches.push(Match { path: shown(at), texts: texts.to_vec() });
        }
    }

    /// What lies in a folder and is not excluded. No folder, no entries.
    fn entries(&self, at: &Path) -> io::Result<Vec<Entry>> {
        use io::ErrorKind::{NotADirectory, NotFound};
        let folder = self.dir.join(at);
        let told = |e: io::Error| io::Error::new(e.kind(), format!("folder {}: {e}", shown(at)));
        let found = match std::fs::read_dir(&folder) {
            Ok(found) => found,
            Err(e) if matches!(e.kind(), NotFound | NotADirectory) => return Ok(Vec::new()),
            Err(e) => return Err(told(e)),
        };
        let mut entries = Vec::new();
        for entry in found {
            let entry = entry.map_err(told)?;
            if self.excluded.contains(&entry.path()) {
                continue;
            }
            let name = entry.file_name();
            entries.push(Entry {
                is_text: name.to_str().is_some(),
                name: name.to_string_lossy().into_owned(),
                is_real_dir: entry.file_type().is_ok_and(|t| t.is_dir()),
            });
        }
        Ok(entries)
    }
}

impl Entry {
    /// Its path in a folder.
    fn path(&self, at: &Path) -> io::Result<PathBuf> {
        let path = at.join(&self.name);
        if self.is_text {
            return Ok(path);
        }
        let what = format!("the name {} is not valid UTF-8: rename the folder", shown(&path));
        Err(io::Error::new(io::ErrorKind::InvalidData, what))
    }
}

/// A path, all of whose parts are text.
fn shown(path: &Path) -> String {
    path.to_str().expect("made of text").to_string()
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
        assert_eq!(paths("**", &files), ["a.csv", "b.csv", "b.tsv", "sub/c.csv"]);
        assert_eq!(paths("sub/**", &files), ["sub/c.csv"]);
    }

    #[test]
    fn named_wildcards_take_as_much_as_they_can() {
        let files = ["data/p1/s_1.swc", "data/p1/s_2_x.swc", "data/p2/p2.swc", "data/p2/_.swc"];
        let texts = |pattern: &str| found(pattern, &files).into_iter().map(|m| m.texts.join("|")).collect::<Vec<_>>();
        assert_eq!(texts("data/{patient}/{scan}_{part}.swc"), ["p1|s|1", "p1|s_2|x"]);
        assert_eq!(texts("data/{p}/{p}.swc"), ["p2"], "one name, one text");
        assert_eq!(texts("data/{p}/{s}{n}_{n}{r}.swc"), [""; 0]);
        let files = ["x_y_z/y_z.txt", "x_y_z/z.txt", "x_y_z/y.txt", "aa/a.txt"];
        let found = |pattern: &str| found(pattern, &files).into_iter().map(|m| m.texts.join("|")).collect::<Vec<_>>();
        assert_eq!(found("{a}_{b}/{b}.txt"), ["x|y_z", "x_y|z"], "whichever of its texts agrees");
        assert_eq!(found("{a}{a}/{a}.txt"), ["a"]);
    }

    #[test]
    fn excluded_files_never_match() {
        let folder = Folder::with(&[("a.csv", b""), ("b.csv", b"")]);
        let excluded = HashSet::from([folder.path().join("b.csv")]);
        let matches = Pattern::parse("*.csv").expect("valid").find(folder.path(), &excluded).expect("readable");
        assert_eq!(matches.len(), 1);
        folder.write("state/store.redb", b"");
        let excluded = HashSet::from([folder.path().join("state")]);
        let matches = Pattern::parse("**/*").expect("valid").find(folder.path(), &excluded).expect("readable");
        assert_eq!(matches.len(), 2, "nor what is in an excluded folder");
    }

    #[test]
    fn awkward_names() {
        use std::os::unix::ffi::OsStrExt;
        let folder = Folder::with(&[("a b\nc.csv", b""), ("x.csv", b""), ("sub/y.csv", b"")]);
        let odd = std::ffi::OsStr::from_bytes(b"\xff.csv");
        std::fs::write(folder.path().join(odd), b"").expect("a file");
        std::os::unix::fs::symlink(".", folder.path().join("loop")).expect("a link");
        std::os::unix::fs::symlink("nowhere", folder.path().join("gone.csv")).expect("a link");
        let find = |pattern: &str| Pattern::parse(pattern).expect("valid").find(folder.path(), &HashSet::new());
        let paths = |pattern: &str| find(pattern).expect("found").into_iter().map(|m| m.path).collect::<Vec<_>>();
        assert_eq!(
            paths("*.csv"),
            ["a b\nc.csv", "x.csv", "\u{fffd}.csv"],
            "what has no name in UTF-8 is not passed over"
        );
        assert_eq!(paths("x.*"), ["x.csv"], "and is nobody's business elsewhere");
        assert_eq!(paths("**/[xy].csv"), ["sub/y.csv", "x.csv"], "`**` goes round no circle of links");
        assert_eq!(paths("*/x.csv"), ["loop/x.csv"]);
        std::fs::create_dir(folder.path().join(std::ffi::OsStr::from_bytes(b"\xfe"))).expect("a folder");
        assert!(find("**/*.csv").expect_err("it cannot be looked into").to_string().contains("not valid UTF-8"));
    }

    #[test]
    fn mistakes_are_told() {
        for pattern in ["{", "{a b}", "[a", "{1}", "{}"] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}
