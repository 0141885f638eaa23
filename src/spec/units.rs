//! Small notations: durations, shares, function names.

use std::time::Duration;

use crate::data::Value;
use crate::spec::yaml::{Node, Scalar};

const UNITS: [(&str, f64); 6] = [("ms", 1e-3), ("min", 60.0), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86400.0)];

/// The longest duration that is accepted: a hundred years.
const MAX_SECONDS: f64 = 3.2e9;

/// `30s`, `1.5h`, `100ms`, `2m`, `1d`; a bare number counts seconds.
pub fn duration(node: &Node) -> Option<Duration> {
    let Scalar { text, value, .. } = node.scalar()?;
    matches!(value, Value::Int(_) | Value::Float(_) | Value::Text(_)).then(|| duration_of(text))?
}

/// The same in text, one or several spans as in `3h50m`.
pub fn duration_of(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if let Some(seconds) = decimal(rest) {
        return checked_seconds(seconds);
    }
    let mut seconds = 0.0;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let (unit, factor) = UNITS.iter().find(|(unit, _)| tail.trim_start().starts_with(unit))?;
        seconds += decimal(number)? * factor;
        rest = tail.trim_start()[unit.len()..].trim_start();
        if rest.is_empty() {
            return checked_seconds(seconds);
        }
    }
}

fn checked_seconds(seconds: f64) -> Option<Duration> {
    (0.0..=MAX_SECONDS).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// In lower case, each before those that it ends with.
const SIZES: [(&str, u64); 13] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("t", 1 << 40),
    ("b", 1),
];

/// `512MiB`, `1.5GB`, `2G` (as in Slurm, 2 GiB); a bare number counts bytes.
pub fn size(node: &Node) -> Option<u64> {
    let Scalar { text, value, .. } = node.scalar()?;
    let bytes = match value {
        Value::Int(bytes) => return u64::try_from(*bytes).ok(),
        Value::Text(_) => {
            let text = text.trim().to_ascii_lowercase();
            let (number, unit) = SIZES.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, bytes)))?;
            decimal(number.trim())? * *unit as f64
        }
        _ => return None,
    };
    (bytes <= 1e18).then_some(bytes as u64)
}

/// `5%`, from 0 to 100.
pub fn percent(node: &Node) -> Option<f64> {
    let share = decimal(node.text()?.trim().strip_suffix('%')?.trim())?;
    (0.0..=100.0).contains(&share).then_some(share)
}

/// Digits with at most one point: no signs, no exponents, no words.
fn decimal(text: &str) -> Option<f64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && text.bytes().any(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// `module:function`, apart; an error is the way out.
pub fn function(text: &str) -> Result<(String, String), String> {
    let dotted = |t: &str| !t.is_empty() && t.split('.').all(is_identifier);
    if let Some((module, function)) = text.split_once(':') {
        if dotted(module) && dotted(function) {
            return match module.strip_suffix(".py") {
                Some(stem) => Err(format!("a module has no extension: write {stem}:{function}")),
                None => Ok((module.into(), function.into())),
            };
        }
        let path = module.strip_suffix(".py").unwrap_or(module).trim_start_matches("./").replace('/', ".");
        if dotted(&path) && dotted(function) {
            return Err(format!("name the module, not its file: write {path}:{function}"));
        }
        let function = function.trim_end_matches("()");
        if dotted(module) && dotted(function) {
            return Err(format!("write {module}:{function}"));
        }
    } else if let Some((module, function)) = text.rsplit_once('.')
        && dotted(module)
        && is_identifier(function)
    {
        return Err(format!("a colon stands before the function: write {module}:{function}"));
    } else if is_identifier(text) {
        return Err(format!("say in which module it is: write module:{text}"));
    }
    Err("write module:function, as in `features:measure` for `measure` in features.py".into())
}

/// Whether Python could have a name like this.
pub fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_') && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::yaml::parse;

    #[test]
    fn sizes() {
        let read = |text: &str| size(&parse(text).expect("YAML"));
        assert_eq!(read("2GiB"), Some(2 << 30));
        assert_eq!(read("1.5 GB"), Some(1_500_000_000));
        assert_eq!(["512m", "512MiB", "536870912"].map(read), [Some(512 << 20); 3]);
        assert_eq!(read("1000kB"), Some(1_000_000));
        assert_eq!(["GiB", "lots", "-1G", "1.5", "1e9", "null", "2 GiB!"].map(read), [None; 7]);
    }

    #[test]
    fn spans_of_the_command_line() {
        let seconds = |text: &str| duration_of(text).map(|d| d.as_secs_f64());
        assert_eq!(seconds("3h50m"), Some(13800.0));
        assert_eq!(seconds("1d 2h 3min 4s 5ms"), Some(93784.005));
        assert_eq!(["90", "90s", "1.5m"].map(seconds), [Some(90.0); 3]);
        assert_eq!(["", "h", "3x", "3h50", "-1s", "3h m"].map(seconds), [None; 6]);
    }

    #[test]
    fn durations() {
        for (text, millis) in [
            ("30s", Some(30_000)),
            ("1.5h", Some(5_400_000)),
            ("100ms", Some(100)),
            ("2m", Some(120_000)),
            ("2 min", Some(120_000)),
            ("1d", Some(86_400_000)),
            ("45", Some(45_000)),
            ("0.5", Some(500)),
            ("-3s", None),
            ("soon", None),
            ("s", None),
            ("1e3s", None),
            ("infs", None),
            ("99999999d", None),
            ("true", None),
        ] {
            let node = parse(text).expect("valid");
            assert_eq!(duration(&node).map(|d| d.as_millis()), millis, "{text}");
        }
    }

    #[test]
    fn functions() {
        assert_eq!(function("a.b:c"), Ok(("a.b".into(), "c".into())));
        for (text, help) in [
            ("features.measure", "features:measure"),
            ("features.py:measure", "features:measure"),
            ("lib/features.py:measure", "lib.features:measure"),
            ("measure", "module:measure"),
            ("features:measure()", "features:measure"),
            ("a b", "features:measure"),
        ] {
            assert!(function(text).expect_err(text).contains(help), "{text}");
        }
    }

    #[test]
    fn shares() {
        assert_eq!(percent(&parse("5%").expect("valid")), Some(5.0));
        assert_eq!(percent(&parse("0.5 %").expect("valid")), Some(0.5));
        assert_eq!(percent(&parse("101%").expect("valid")), None);
    }
}
