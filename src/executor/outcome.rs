//! What commands wrote and how they ended, as outcomes of their items.

use serde_json::Value as Json;

use super::ending::{in_words, over, over_memory};
use super::keeper::protocol::{CommandResult, Ending};
use super::{Job, Outcomes, Shape, Work};
use crate::data::{Failure, FailureKind, TableBuilder, Value};
use crate::spec::model::Stdout;

type Row = Vec<(String, Value)>;

/// The outcomes of commands of one job.
///
/// In a `filter` the exit code decides: 0 keeps the row, another code among `ok_codes` drops it; with `stdout: json`
/// the truth value written does.
pub(super) fn outcomes(job: &Job, results: Vec<CommandResult>) -> Outcomes {
    let mut table = TableBuilder::default();
    let (mut done, mut counts, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    let (mut usage, mut failed_usage) = (Vec::new(), Vec::new());
    for result in results {
        let (index, used) = (result.index, result.usage);
        match rows_of(job, result) {
            Ok(rows) => {
                done.push(index);
                counts.push(rows.len() as u32);
                usage.push(used);
                rows.iter().for_each(|row| table.push_row(row.iter().map(|(n, v)| (n.as_str(), v))));
            }
            Err(failure) => {
                failed.push((index, failure));
                failed_usage.push(used);
            }
        }
    }
    usage.extend(failed_usage);
    let counts = (job.shape != Shape::One).then_some(counts);
    Outcomes { done, counts, added: table.finish(), failed, usage }
}

/// The rows that a command gives, or why it failed.
fn rows_of(job: &Job, result: CommandResult) -> Result<Vec<Row>, Failure> {
    let Work::Command { stdout, ok_codes } = &job.work else { return Ok(Vec::new()) };
    let failure = match result.ending {
        Ending::Exited(status) if !libc::WIFEXITED(status) => Failure::new(FailureKind::Crash, in_words(status)),
        Ending::Exited(status) => {
            let code = libc::WEXITSTATUS(status);
            if !ok_codes.contains(&code) {
                Failure::new(FailureKind::Exit, format!("exit code {code}"))
            } else {
                match rows_from(stdout, job.shape, code, result.stdout) {
                    Ok(rows) => return Ok(rows),
                    Err(message) => Failure::new(FailureKind::Output, message),
                }
            }
        }
        Ending::NotStarted => Failure::new(FailureKind::Exit, text(result.stdout)),
        Ending::TimedOut => over(job.timeout.unwrap_or_default()),
        Ending::OverMemory => over_memory(job.pool.memory.unwrap_or_default(), result.usage.peak_kib),
        Ending::TooMuchOutput => Failure::new(FailureKind::Output, "more than 256 MiB on standard output"),
    };
    Err(Failure { output: text(result.stderr), ..failure })
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// The rows that standard output holds, or what is wrong with it.
fn rows_from(stdout: &Stdout, shape: Shape, code: i32, bytes: Vec<u8>) -> Result<Vec<Row>, String> {
    if shape == Shape::Keep {
        let keep = match stdout {
            Stdout::Json => match json(&bytes)? {
                Json::Bool(keep) => keep,
                other => return Err(format!("standard output is {}, not true or false", kind(&other))),
            },
            _ => code == 0,
        };
        return Ok(if keep { vec![Vec::new()] } else { Vec::new() });
    }
    match stdout {
        Stdout::Ignore => Ok(vec![Vec::new()]),
        Stdout::Text { column } => Ok(vec![vec![(column.clone(), Value::Text(line_text(bytes)?))]]),
        Stdout::Json => match json(&bytes)? {
            Json::Array(items) if shape == Shape::Many => items.into_iter().map(object).collect(),
            other => Ok(vec![object(other)?]),
        },
        Stdout::Jsonl => {
            let rows = lines(&bytes)?;
            if shape == Shape::One && rows.len() != 1 {
                return Err(format!("standard output has {} lines, not one", rows.len()));
            }
            Ok(rows)
        }
    }
}

/// Text, a trailing newline cut.
fn line_text(bytes: Vec<u8>) -> Result<String, String> {
    let mut text = String::from_utf8(bytes)
        .map_err(|e| format!("standard output is not UTF-8 (byte {})", e.utf8_error().valid_up_to()))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

fn json(bytes: &[u8]) -> Result<Json, String> {
    serde_json::from_slice(bytes).map_err(|e| match bytes.iter().all(u8::is_ascii_whitespace) {
        true => "standard output is empty, not JSON".into(),
        false => format!("standard output is not JSON: {e}"),
    })
}

fn lines(bytes: &[u8]) -> Result<Vec<Row>, String> {
    let lines = (1..).zip(bytes.split(|&b| b == b'\n'));
    let filled = lines.filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace));
    filled.map(|(n, line)| json(line).and_then(object).map_err(|e| format!("line {n}: {e}"))).collect()
}

fn object(json: Json) -> Result<Row, String> {
    match json {
        Json::Object(entries) => Ok(entries.into_iter().map(|(name, v)| (name, Value::from_json(v))).collect()),
        other => Err(format!("standard output is {}, not a JSON object", kind(&other))),
    }
}

fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a truth value",
        Json::Number(_) => "a number",
        Json::String(_) => "text",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::PoolKey;
    use super::*;
    use crate::data::Usage;

    fn job(stdout: Stdout, shape: Shape) -> Arc<Job> {
        Arc::new(Job {
            stage: "s".into(),
            work: Work::Command { stdout, ok_codes: vec![0, 1] },
            shape,
            pool: PoolKey { cwd: "/".into(), ..PoolKey::default() },
            workers: 1,
            timeout: Some(Duration::from_millis(1500)),
            files: Vec::new(),
        })
    }

    fn result(index: u32, ending: Ending, stdout: &[u8]) -> CommandResult {
        CommandResult {
            index,
            usage: Usage::of_micros(index + 1),
            ending,
            stdout: stdout.to_vec(),
            stderr: b"why".to_vec(),
        }
    }

    fn one(stdout: Stdout, shape: Shape, bytes: &[u8]) -> Result<Vec<Row>, String> {
        rows_from(&stdout, shape, 0, bytes.to_vec())
    }

    #[test]
    fn every_ending_is_told_apart() {
        let text = Stdout::Text { column: "out".into() };
        let results = vec![
            result(0, Ending::Exited(0), b"a\n"),
            result(1, Ending::Exited(3 << 8), b"x"),
            result(2, Ending::Exited(1 << 8), b"b\n\n"),
            result(3, Ending::Exited(9), b""),
            result(4, Ending::TimedOut, b""),
            result(5, Ending::NotStarted, b"program \"x\" not found"),
            result(6, Ending::TooMuchOutput, b""),
            result(7, Ending::Exited(0), b"\xff"),
        ];
        let got = outcomes(&job(text, Shape::One), results);
        assert_eq!((got.done, got.counts), (vec![0, 2], None));
        let cells: Vec<Value> = (0..2).map(|r| got.added.column("out").unwrap().value(r)).collect();
        assert_eq!(cells, [Value::Text("a".into()), Value::Text("b\n".into())]);
        assert_eq!(got.usage, [1, 3, 2, 4, 5, 6, 7, 8].map(Usage::of_micros));
        let told: Vec<_> = got.failed.iter().map(|(i, f)| (*i, f.kind, f.message.as_str())).collect();
        assert_eq!(
            told,
            [
                (1, FailureKind::Exit, "exit code 3"),
                (3, FailureKind::Crash, "killed by signal 9 (SIGKILL)"),
                (4, FailureKind::Timeout, "over 1.5s"),
                (5, FailureKind::Exit, "program \"x\" not found"),
                (6, FailureKind::Output, "more than 256 MiB on standard output"),
                (7, FailureKind::Output, "standard output is not UTF-8 (byte 0)"),
            ]
        );
        assert!(got.failed.iter().all(|(_, f)| f.output == "why"));
        assert_eq!(got.failed[2].1.limit, Some(1500));
    }

    #[test]
    fn json_becomes_columns() {
        let row = |n: i64| vec![("n".to_string(), Value::Int(n))];
        assert_eq!(one(Stdout::Json, Shape::One, b"{\"n\": 1}\n"), Ok(vec![row(1)]));
        assert_eq!(one(Stdout::Json, Shape::Many, b"[{\"n\": 1}, {\"n\": 2}]"), Ok(vec![row(1), row(2)]));
        assert_eq!(one(Stdout::Jsonl, Shape::Many, b"{\"n\":1}\n\n{\"n\":2}\n"), Ok(vec![row(1), row(2)]));
        assert_eq!(one(Stdout::Jsonl, Shape::Many, b""), Ok(vec![]));
        assert_eq!(one(Stdout::Ignore, Shape::One, b""), Ok(vec![vec![]]));
        for (stdout, shape, bytes, message) in [
            (Stdout::Json, Shape::One, &b"[1]"[..], "standard output is a list, not a JSON object"),
            (Stdout::Json, Shape::One, b"\n", "standard output is empty, not JSON"),
            (Stdout::Jsonl, Shape::One, b"{}\n{}", "standard output has 2 lines, not one"),
            (Stdout::Jsonl, Shape::Many, b"{}\n3", "line 2: standard output is a number, not a JSON object"),
        ] {
            assert_eq!(one(stdout, shape, bytes), Err(message.to_string()));
        }
    }

    #[test]
    fn a_filter_keeps_by_exit_code_or_by_the_truth_written() {
        let kept = |stdout: &Stdout, code, bytes: &[u8]| rows_from(stdout, Shape::Keep, code, bytes.to_vec());
        assert_eq!(kept(&Stdout::Ignore, 0, b"").unwrap().len(), 1);
        assert_eq!(kept(&Stdout::Ignore, 1, b"").unwrap().len(), 0);
        assert_eq!(kept(&Stdout::Json, 0, b"false\n").unwrap().len(), 0);
        assert_eq!(kept(&Stdout::Json, 0, b"true").unwrap().len(), 1);
        assert!(kept(&Stdout::Json, 0, b"1").is_err());
    }
}
