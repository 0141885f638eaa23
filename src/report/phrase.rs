//! Numbers, durations and commands as people read and paste them.

use std::path::Path;

/// `1,200`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 item`, `1,200 items`.
pub fn count(n: u64, noun: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(n))
}

/// A time span: `42ms`, `4.2s`, `42s`, `1m 20s`, `2h 5m`, `3d 4h`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    if seconds == 0.0 {
        "0s".into()
    } else if seconds < 0.0995 {
        format!("{}ms", (seconds * 1000.0).ceil())
    } else if seconds < 9.95 {
        format!("{seconds:.1}s")
    } else {
        whole_seconds(seconds.round() as u64)
    }
}

/// A time to wait, in whole seconds: `4s`, `1m 20s`.
pub fn wait(seconds: f64) -> String {
    whole_seconds(seconds.max(0.0).ceil() as u64)
}

fn whole_seconds(s: u64) -> String {
    let (big, small, names) = match s {
        0..60 => return format!("{s}s"),
        60..3600 => (s / 60, s % 60, ("m", "s")),
        3600..86400 => (s / 3600, s % 3600 / 60, ("h", "m")),
        _ => (s / 86400, s % 86400 / 3600, ("d", "h")),
    };
    if small == 0 { format!("{big}{}", names.0) } else { format!("{big}{} {small}{}", names.0, names.1) }
}

/// Items per second: `210/s`, `2.5/s`, `12/min`.
pub fn rate(per_second: f64) -> String {
    if per_second >= 9.95 {
        format!("{}/s", grouped(per_second.round() as u64))
    } else if per_second >= 0.95 {
        format!("{per_second:.1}/s")
    } else {
        format!("{:.0}/min", per_second * 60.0)
    }
}

/// `c1, c2, c3, …`: the first few of `of` keys, each as it can be pasted back.
pub fn samples(keys: &[String], of: u64) -> String {
    let mut text = keys.iter().map(|k| shell_quote(k)).collect::<Vec<_>>().join(", ");
    if (keys.len() as u64) < of && !keys.is_empty() {
        text.push_str(", …");
    }
    text
}

/// The word as one argument of a POSIX shell: bare where that is safe.
pub fn shell_quote(word: &str) -> String {
    let bare = |c: char| c.is_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(bare) {
        return word.to_string();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The words as one line of a shell.
pub fn shell_line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(shell_quote).collect::<Vec<_>>().join(" ")
}

/// How bpp-flow was called, to print further commands for the same workflow and state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invocation {
    /// The workflow file as it was given or found.
    pub file: String,
    /// The options that decide which workflow and state it is: `--state DIR`, `--param K=V`.
    pub options: Vec<String>,
}

impl Invocation {
    /// For a file, without options.
    pub fn new(file: &Path) -> Invocation {
        Invocation { file: file.display().to_string(), options: Vec::new() }
    }

    /// A command line to paste: `bpp-flow COMMAND FILE OPTIONS REST`.
    pub fn command(&self, command: &[&str], rest: &[&str]) -> String {
        let options = self.options.iter().map(String::as_str);
        let file = std::iter::once(self.file.as_str());
        let words = std::iter::once("bpp-flow").chain(command.iter().copied()).chain(file).chain(options);
        shell_line(words.chain(rest.iter().copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        for (n, text) in [(0, "0"), (999, "999"), (1200, "1,200"), (12_345_678, "12,345,678")] {
            assert_eq!(grouped(n), text);
        }
        assert_eq!(count(1, "item"), "1 item");
        assert_eq!(count(0, "item"), "0 items");
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let cases = [
            (0.0, "0s"),
            (0.0421, "43ms"),
            (0.25, "0.2s"),
            (4.24, "4.2s"),
            (9.96, "10s"),
            (59.6, "1m"),
            (80.0, "1m 20s"),
            (7500.0, "2h 5m"),
            (273_600.0, "3d 4h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
        assert_eq!(wait(3.2), "4s");
    }

    #[test]
    fn rates_keep_two_digits_that_matter() {
        let cases = [(210.4, "210/s"), (1_200_000.0, "1,200,000/s"), (2.54, "2.5/s"), (0.2, "12/min")];
        for (per_second, text) in cases {
            assert_eq!(rate(per_second), text);
        }
    }

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(shell_quote("cell-1/0"), "cell-1/0");
        assert_eq!(shell_quote(""), "''");
        assert_eq!(shell_quote(r#"["a","it's"]"#), r#"'["a","it'\''s"]'"#);
        assert_eq!(shell_quote("~x"), "'~x'");
    }

    #[test]
    fn samples_say_whether_there_are_more() {
        let keys = ["a b".to_string(), "c".to_string()];
        assert_eq!(samples(&keys, 2), "'a b', c");
        assert_eq!(samples(&keys, 20), "'a b', c, …");
        assert_eq!(samples(&[], 20), "");
    }

    #[test]
    fn a_command_names_the_same_workflow_and_state() {
        let invocation = Invocation { file: "my flow.yaml".into(), options: vec!["--state".into(), "/tmp/s".into()] };
        let line = invocation.command(&["errors"], &["--item", "a b"]);
        assert_eq!(line, "bpp-flow errors 'my flow.yaml' --state /tmp/s --item 'a b'");
    }
}
