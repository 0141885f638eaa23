//! For programs: `--json` and the lines of `--events`.

use std::fs::File;
use std::io::{self, LineWriter, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use crate::data::{Failure, Usage};
use crate::engine::events::{Counts, Event, PlanReport, RunRecord, RunSummary};

use super::meter::seconds_left;

/// Writes one document, indented, with a newline.
pub fn print(out: &mut dyn Write, document: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, document)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// What `plan --json` prints.
pub fn plan(workflow: &str, report: &PlanReport) -> Value {
    let mut document = json!({ "workflow": workflow, "stages": report.stages });
    if !report.followed.is_empty() {
        document["item"] = json!(report.followed);
    }
    document
}

/// What `run --json` prints.
pub fn summary(summary: &RunSummary) -> Value {
    json!(summary)
}

/// What `status --json` prints: the latest run, or the bare stages where there was none.
pub fn status(workflow: &str, names: &[&str], record: Option<&RunRecord>) -> Value {
    let Some(record) = record else {
        let stages: Vec<Value> = names.iter().map(|name| stage_counts(name, &Counts::default(), None)).collect();
        return json!({ "workflow": workflow, "run": null, "state": null, "stages": stages });
    };
    let stages = record.stages.iter().enumerate();
    let mut stages: Vec<Value> =
        stages.map(|(i, (name, counts))| stage_counts(name, counts, record.rates.get(i).copied())).collect();
    for stage in &mut stages {
        if let Some((_, made)) = record.made.iter().find(|(name, _)| stage["name"] == **name) {
            stage["versions"] = made.iter().map(|(number, rows)| json!({ "version": number, "rows": rows })).collect();
        }
    }
    json!({
        "workflow": workflow,
        "run": record.id,
        "state": record.state,
        "reason": record.reason,
        "command": record.command,
        "started": record.started,
        "ended": record.ended,
        "host": record.host,
        "pid": record.pid,
        "engines": record.engines,
        "seconds": record.seconds,
        "stages": stages,
    })
}

fn stage_counts(name: &str, counts: &Counts, rate: Option<f64>) -> Value {
    let mut stage = json!({ "name": name });
    if let (Value::Object(stage), Value::Object(fields)) = (&mut stage, json!(counts)) {
        stage.extend(fields);
        stage.insert("rate".into(), json!(rate));
        stage.insert("seconds_left".into(), json!(rate.and_then(|r| seconds_left(counts, r))));
    }
    stage
}

/// A failed item with its story.
#[derive(Debug, Clone, PartialEq)]
pub struct FailedItem {
    pub stage: String,
    pub key: String,
    pub failure: Failure,
    pub attempts: u16,
    pub usage: Usage,
}

/// What `errors --item KEY --json` prints.
pub fn failed_items(items: &[FailedItem]) -> Value {
    let one = |item: &FailedItem| {
        json!({
            "stage": item.stage,
            "key": item.key,
            "kind": item.failure.kind,
            "message": item.failure.message,
            "place": item.failure.place,
            "traceback": item.failure.traceback,
            "output": item.failure.output,
            "attempts": item.attempts,
            "seconds": item.usage.seconds(),
            "peak_memory": item.usage.peak_bytes(),
        })
    };
    items.iter().map(one).collect()
}

/// The file of `--events`: a line per event, each whole as soon as it is written.
pub struct EventLog {
    file: LineWriter<File>,
}

impl EventLog {
    /// Creates the file, or empties it.
    pub fn create(path: &Path) -> io::Result<EventLog> {
        Ok(EventLog { file: LineWriter::new(File::create(path)?) })
    }

    /// Appends an event with the time.
    pub fn write(&mut self, event: &Event, time: &str) -> io::Result<()> {
        let line = event_line(event, time)?;
        self.file.write_all(line.as_bytes())
    }
}

fn event_line(event: &Event, time: &str) -> io::Result<String> {
    let mut value = serde_json::to_value(event)?;
    if let Value::Object(fields) = &mut value {
        fields.insert("time".into(), Value::String(time.into()));
    }
    Ok(format!("{value}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::FailureKind;
    use crate::engine::events::{ItemStatus, RunState};

    #[test]
    fn an_event_is_a_line_that_names_itself() {
        let event = Event::Item {
            stage: "measure".into(),
            key: "a\nb".into(),
            status: ItemStatus::Failed,
            attempt: 2,
            seconds: 0.5,
            peak_memory: None,
            kind: Some("timeout".into()),
        };
        let line = event_line(&event, "2026-01-02T03:04:05Z").expect("serialises");
        insta::assert_snapshot!(line, @r#"{"event":"item","stage":"measure","key":"a\nb","status":"failed","attempt":2,"seconds":0.5,"peak_memory":null,"kind":"timeout","time":"2026-01-02T03:04:05Z"}"#);
    }

    #[test]
    fn the_event_log_has_whole_lines_at_any_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        let mut log = EventLog::create(&path).expect("creates");
        for rows in 0..3 {
            let event = Event::SourceRead { source: "cells".into(), rows, complete: rows == 2 };
            log.write(&event, "t").expect("writes");
            let text = std::fs::read_to_string(&path).expect("reads");
            assert_eq!(text.lines().count() as u64, rows + 1);
            assert!(text.ends_with('\n'));
        }
    }

    #[test]
    fn status_has_the_counts_of_the_contract() {
        let counts = Counts { total: 10, total_known: true, done: 4, due: 6, ran: 4, ..Counts::default() };
        let record = RunRecord {
            id: "r1".into(),
            command: "bpp-flow run".into(),
            started: "2026-01-02T03:04:05Z".into(),
            ended: None,
            host: "node".into(),
            pid: 7,
            state: RunState::Running,
            reason: None,
            stages: vec![("measure".into(), counts)],
            seconds: 2.0,
            rates: vec![2.0],
            versions: Vec::new(),
            made: Vec::new(),
            engines: Vec::new(),
        };
        let value = status("cells", &["measure"], Some(&record));
        insta::assert_snapshot!(value["stages"][0], @r#"{"name":"measure","total":10,"total_known":true,"done":4,"ran":4,"failed":0,"blocked":0,"due":6,"possible":0,"running":0,"rate":2.0,"seconds_left":3.0}"#);
        let before = status("cells", &["measure"], None);
        assert_eq!(before["stages"][0]["name"], "measure");
        assert_eq!(before["stages"][0]["done"], 0);
        assert!(before["state"].is_null());
    }

    #[test]
    fn a_failed_item_has_its_whole_story() {
        let failure = Failure { traceback: "Traceback…".into(), ..Failure::new(FailureKind::Exception, "E: x") };
        let item = FailedItem {
            stage: "s".into(),
            key: "k".into(),
            failure,
            attempts: 2,
            usage: Usage { micros: 1500, peak_kib: 4 },
        };
        insta::assert_snapshot!(failed_items(&[item]), @r#"[{"stage":"s","key":"k","kind":"exception","message":"E: x","place":"","traceback":"Traceback…","output":"","attempts":2,"seconds":0.0015,"peak_memory":4096}]"#);
    }
}
