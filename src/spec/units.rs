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
    let seconds = match value {
        Value::Int(seconds) => *seconds as f64,
        Value::Float(seconds) => *seconds,
        Value::Text(_) => {
            let (number, unit) = UNITS.iter().find_map(|(unit, s)| Some((text.trim().strip_suffix(unit)?, s)))?;
            decimal(number.trim())? * unit
        }
        _ => return None,
    };
    (0.0..=MAX_SECONDS).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
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
