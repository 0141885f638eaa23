//! Values that must not be shown or kept: [`Secrets`] takes them out of a text.
//!
//! A value is looked for as it is, and as it looks when a program prints it: as JSON, as a Python or Rust literal, as
//! a word of a shell, as part of a URL; of several lines each. Passwords that stand in URLs are hidden without having
//! been told of. Captured output is shortened before it comes here, so that half a value may stand where it was cut:
//! there the halves are looked for too.

use std::borrow::Cow;
use std::fmt::Write;
use std::ops::Range;

use super::{Failure, Hash};

/// What stands in the place of a secret.
pub const HIDDEN: &str = "***";
/// Shorter values are in too many words.
const SHORTEST: usize = 4;
/// What a variable's name ends in when its value is a secret.
const ENDINGS: [&str; 5] = ["TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD"];

/// Values that must not be shown or kept.
#[derive(Clone, Default)]
pub struct Secrets {
    /// Every form of every value.
    forms: Vec<String>,
}

impl Secrets {
    /// Of a process's environment, the values whose names say that they are secrets.
    pub fn of_environment(variables: impl IntoIterator<Item = (String, String)>) -> Secrets {
        let mut secrets = Secrets::default();
        let named = variables.into_iter().filter(|(name, _)| names_a_secret(name));
        named.for_each(|(_, value)| secrets.add(&value));
        secrets
    }

    /// Adds a variable that a workflow sets: any value but a number, a truth value and what is too short.
    pub fn add_variable(&mut self, name: &str, value: &str) {
        let plain = value.parse::<f64>().is_ok()
            || ["true", "false", "yes", "no"].iter().any(|word| value.eq_ignore_ascii_case(word));
        if !plain || names_a_secret(name) {
            self.add(value);
        }
    }

    /// Adds a variable if its name says that it is a secret, and its value is written out.
    pub fn add_named(&mut self, name: &str, value: &str) {
        if names_a_secret(name) && !value.contains("{{") {
            self.add(value);
        }
    }

    fn add(&mut self, value: &str) {
        for text in std::iter::once(value.trim()).chain(value.lines().map(str::trim)) {
            if text.chars().count() >= SHORTEST && !self.forms.iter().any(|form| form == text) {
                self.forms.push(text.to_string());
                self.forms.extend(printed_forms(text));
            }
        }
        self.forms.sort_unstable();
        self.forms.dedup();
    }

    /// The text with `***` in the place of each secret.
    pub fn hide<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let in_urls = passwords_in_urls(text);
        if self.forms.is_empty() && in_urls.is_empty() {
            return Cow::Borrowed(text);
        }
        let whole = self.forms.iter().flat_map(|form| places_of(form, text));
        replace(text, whole.chain(self.halves(text)).chain(in_urls).collect())
    }

    /// As [`Secrets::hide`], in place.
    pub fn hide_in(&self, text: &mut String) {
        if let Cow::Owned(hidden) = self.hide(text) {
            *text = hidden;
        }
    }

    /// The text itself, or a hash of it where it holds a secret: another secret gives another text.
    pub fn stand_in<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.hide(text) {
            Cow::Owned(_) => hashed(text).into(),
            kept => kept,
        }
    }

    /// Takes the secrets out of a failed item's story.
    pub fn hide_in_failure(&self, failure: &mut Failure) {
        for text in [&mut failure.message, &mut failure.traceback, &mut failure.output, &mut failure.place] {
            self.hide_in(text);
        }
    }

    /// Beginnings and ends of secrets where the middle of a text was left out.
    fn halves(&self, text: &str) -> Vec<Range<usize>> {
        let mut places = Vec::new();
        for (at, _) in text.match_indices(CUT) {
            let start = text[..at].rfind('\n').unwrap_or(0);
            let end = text[at..].find('\n').map_or(text.len(), |n| at + n + 1);
            let head = text[..start].trim_end_matches(char::REPLACEMENT_CHARACTER);
            let tail = text[end..].trim_start_matches(char::REPLACEMENT_CHARACTER);
            let tail_at = text.len() - tail.len();
            for form in &self.forms {
                places.extend(longest_start(form, head).map(|n| head.len() - n..head.len()));
                places.extend(longest_end(form, tail).map(|n| tail_at..tail_at + n));
            }
        }
        places
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.forms.len())
    }
}

/// What the line says that stands for what was left out of a long text.
const CUT: &str = " left out ";

/// Whether a variable of this name holds a secret.
fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// What [`Secrets::stand_in`] gives for a text that holds a secret.
pub fn hashed(text: &str) -> String {
    format!("{HIDDEN} {}", Hash::of(text.as_bytes()))
}

/// Where the passwords of URLs stand (`://user:password@`).
fn passwords_in_urls(text: &str) -> Vec<Range<usize>> {
    let after = |(at, mark): (usize, &str)| {
        let start = at + mark.len();
        let rest = &text[start..];
        let end =
            rest.find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'')).unwrap_or(rest.len());
        let user_end = rest[..end].rfind('@')?;
        let password = rest[..user_end].find(':')? + 1;
        (password < user_end).then_some(start + password..start + user_end)
    };
    text.match_indices("://").filter_map(after).collect()
}

fn places_of<'a>(form: &'a str, text: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
    let step = form.chars().next().map_or(1, char::len_utf8);
    let mut from = 0;
    std::iter::from_fn(move || {
        let at = from + text[from..].find(form)?;
        from = at + step;
        Some(at..at + form.len())
    })
}

/// The length of the longest beginning of a form with which `head` ends.
fn longest_start(form: &str, head: &str) -> Option<usize> {
    let starts = form.char_indices().skip(SHORTEST).map(|(n, _)| &form[..n]);
    starts.filter(|start| head.ends_with(start)).last().map(str::len)
}

/// The length of the longest end of a form with which `tail` begins.
fn longest_end(form: &str, tail: &str) -> Option<usize> {
    let ends = form.char_indices().skip(1).map(|(n, _)| &form[n..]);
    ends.take_while(|end| end.chars().count() >= SHORTEST).find(|end| tail.starts_with(end)).map(str::len)
}

fn replace(text: &str, mut places: Vec<Range<usize>>) -> Cow<'_, str> {
    if places.is_empty() {
        return Cow::Borrowed(text);
    }
    places.sort_unstable_by_key(|place| place.start);
    let (mut out, mut end) = (String::with_capacity(text.len()), None);
    for place in places {
        let before = end.unwrap_or(0);
        if end.is_none() || place.start > before {
            out.push_str(&text[before..place.start]);
            out.push_str(HIDDEN);
        }
        end = Some(place.end.max(before));
    }
    out.push_str(&text[end.unwrap_or(0)..]);
    Cow::Owned(out)
}

/// How programs print a value.
fn printed_forms(value: &str) -> [String; 12] {
    let json = serde_json::to_string(value).expect("text serialises");
    [
        json[1..json.len() - 1].to_string(),
        escaped(&json[1..json.len() - 1], |c, out| if c.is_ascii() { out.push(c) } else { utf16(c, out) }),
        escaped(value, |c, out| literal(c, '\'', false, out)),
        escaped(value, |c, out| literal(c, '"', false, out)),
        escaped(value, |c, out| literal(c, '\'', true, out)),
        escaped(value, bytes_literal),
        value.escape_debug().to_string(),
        value.replace('\'', r"'\''"),
        escaped(value, shell_escaped),
        escaped(value, |c, out| percent(c, "-._~", out)),
        escaped(value, |c, out| if c == ' ' { out.push('+') } else { percent(c, "-._~", out) }),
        escaped(value, |c, out| percent(c, "-._~/", out)),
    ]
}

fn escaped(value: &str, mut each: impl FnMut(char, &mut String)) -> String {
    let mut out = String::with_capacity(value.len() * 2);
    value.chars().for_each(|c| each(c, &mut out));
    out
}

fn utf16(c: char, out: &mut String) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        let _ = write!(out, "\\u{unit:04x}");
    }
}

/// As `repr()` of Python, or `ascii()`.
fn literal(c: char, quote: char, ascii: bool, out: &mut String) {
    match c {
        '\\' => out.push_str(r"\\"),
        '\n' => out.push_str(r"\n"),
        '\r' => out.push_str(r"\r"),
        '\t' => out.push_str(r"\t"),
        c if c == quote => out.extend(['\\', c]),
        c if c.is_ascii() && !c.is_ascii_control() => out.push(c),
        c if !ascii && !c.is_control() => out.push(c),
        c => {
            let _ = match u32::from(c) {
                n @ 0..=0xff => write!(out, "\\x{n:02x}"),
                n @ 0x100..=0xffff => write!(out, "\\u{n:04x}"),
                n => write!(out, "\\U{n:08x}"),
            };
        }
    }
}

/// As `repr()` of Python's bytes.
fn bytes_literal(c: char, out: &mut String) {
    if c.is_ascii() {
        return literal(c, '\'', true, out);
    }
    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
        let _ = write!(out, "\\x{byte:02x}");
    }
}

/// As `printf %q` of bash.
fn shell_escaped(c: char, out: &mut String) {
    if c.is_ascii() && !c.is_ascii_alphanumeric() && !"%+-./:=@_".contains(c) {
        out.push('\\');
    }
    out.push(c);
}

fn percent(c: char, bare: &str, out: &mut String) {
    if c.is_ascii_alphanumeric() || bare.contains(c) {
        return out.push(c);
    }
    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
        let _ = write!(out, "%{byte:02X}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(variables: &[(&str, &str)]) -> Secrets {
        let mut secrets = Secrets::default();
        variables.iter().for_each(|(name, value)| secrets.add_variable(name, value));
        secrets
    }

    #[test]
    fn a_name_says_what_is_secret() {
        let of = |name: &str| Secrets::of_environment([(name.to_string(), "sesame".to_string())]);
        for name in ["API_TOKEN", "key", "AwsSecret", "DB_PASSWORD", "PGPASSWD"] {
            assert_eq!(of(name).hide("open sesame!"), "open ***!", "{name}");
        }
        for name in ["HOME", "KEYS", "TOKEN_FILE", "SECRETARY"] {
            assert_eq!(of(name).hide("open sesame!"), "open sesame!", "{name}");
        }
    }

    #[test]
    fn what_a_workflow_sets_is_hidden_but_for_plain_words() {
        for value in ["12345", "-1.5e3", "true", "False", "YES", "no", "abc"] {
            assert!(matches!(secrets(&[("MODE", value)]).hide(value), Cow::Borrowed(_)), "{value}");
        }
        assert_eq!(secrets(&[("MODE", "tangerine")]).hide("a tangerine"), "a ***");
        assert_eq!(secrets(&[("PIN_KEY", "12345")]).hide("pin 12345"), "pin ***");
        assert_eq!(Secrets::default().hide("x"), "x");
    }

    #[test]
    fn passwords_of_urls_are_hidden_whatever_they_are() {
        for (text, hidden) in [
            ("cannot reach postgresql://me:pw@h:5432/db?x=a@b", "cannot reach postgresql://me:***@h:5432/db?x=a@b"),
            ("url: 'redis://:p:w@h'", "url: 'redis://:***@h'"),
            ("http://h:80/a@b and https://me@h", "http://h:80/a@b and https://me@h"),
        ] {
            assert_eq!(Secrets::default().hide(text), hidden);
            assert_eq!(Secrets::default().hide(hidden), hidden);
        }
    }

    #[test]
    fn secrets_within_and_over_one_another_leave_nothing() {
        let both = secrets(&[("A", "abcdef"), ("B", "efgh"), ("C", "bcde")]);
        assert_eq!(both.hide("xabcdefghx abcdef efgh"), "x***x *** ***");
        assert_eq!(secrets(&[("A", "aaaa")]).hide("baaaaaab"), "b***b");
        assert_eq!(secrets(&[("A", "äöüß")]).hide("ßäöüßä"), "ß***ä");
    }

    #[test]
    fn printed_forms_are_hidden_too() {
        let value = "p\"a's\\ß\n\t&/€ 𝄞";
        let secrets = secrets(&[("A_KEY", value)]);
        for form in [
            value.to_string(),
            serde_json::to_string(value).unwrap(),
            format!("{value:?}"),
            r#"'p"a\'s\\ß\n\t&/€ 𝄞'"#.into(),
            r#"b'p"a\'s\\\xc3\x9f\n\t&/\xe2\x82\xac \xf0\x9d\x84\x9e'"#.into(),
            r#"'p"a\'s\\\xdf\n\t&/\u20ac \U0001d11e'"#.into(),
            r#""p\"a's\\\u00df\n\t&/\u20ac \ud834\udd1e""#.into(),
            "p%22a%27s%5C%C3%9F%0A%09%26%2F%E2%82%AC%20%F0%9D%84%9E".into(),
            "p%22a%27s%5C%C3%9F%0A%09%26%2F%E2%82%AC+%F0%9D%84%9E".into(),
        ] {
            let hidden = secrets.hide(&form).replace(['\'', '"', 'b'], "");
            assert_eq!(hidden, HIDDEN, "{form}");
        }
        assert_eq!(secrets.hide("one line: &/€ 𝄞"), "one line: ***");
    }

    #[test]
    fn halves_are_hidden_where_output_was_cut() {
        let fruit = secrets(&[("A", "tangerine-dream")]);
        for marker in ["[... 70 bytes left out ...]", "… 70 bytes left out …", "[... 7 characters left out ...]"] {
            let text = format!("is tanger\n{marker}\ndream, and tang");
            assert_eq!(fruit.hide(&text), format!("is ***\n{marker}\n***, and tang"));
        }
        assert_eq!(fruit.hide("… 70 bytes left out …\ne-dream"), "… 70 bytes left out …\n***");
        let umlauts = secrets(&[("A", "äöüäöü")]);
        assert_eq!(
            umlauts.hide("x äöüä\u{fffd}\n… 9 bytes left out …\n\u{fffd}üäöü"),
            "x ***\u{fffd}\n… 9 bytes left out …\n\u{fffd}***"
        );
    }

    #[test]
    fn a_stand_in_differs_with_the_secret_and_does_not_tell_it() {
        let (one, two) = (secrets(&[("A", "tangerine")]), secrets(&[("A", "mandarine")]));
        assert_eq!(one.stand_in("plain"), "plain");
        assert_ne!(one.stand_in("a tangerine"), two.stand_in("a mandarine"));
        assert!(!one.stand_in("a tangerine").contains("tangerine"));
        assert_eq!(format!("{one:?}"), "Secrets(1)");
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_left_and_nothing_else_changes(
            value in "\\PC{4,20}", before in "[a-z\n]{0,20}", after in "[a-z\n]{0,20}",
        ) {
            let value = value.trim();
            proptest::prop_assume!(value.chars().count() >= SHORTEST && !value.contains("***"));
            let secrets = secrets(&[("A_KEY", value)]);
            let text = format!("{before}{value}{after}");
            let hidden = secrets.hide(&text).into_owned();
            proptest::prop_assert!(!hidden.contains(value), "{}", hidden);
            proptest::prop_assert!(hidden.contains(HIDDEN));
            proptest::prop_assert_eq!(secrets.hide(&hidden).into_owned(), hidden);
        }
    }
}
