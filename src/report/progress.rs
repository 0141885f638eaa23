//! The run as it goes, on stderr: bars on a terminal, plain lines elsewhere.
//!
//! [`Reporter`] reads the engine's events until the channel closes, so the engine is never blocked by a reporter that
//! gave up: what cannot be written to the events file is told once at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::data::Failure;
use crate::engine::events::{Event, ItemStatus};
use crate::executor::EngineNews;

use super::grid::{cut, one_line};
use super::json::EventLog;
use super::meter::Meter;
use super::phrase::{count, duration, shell_quote};
use super::style::{Style, Tint};
use super::tell;

/// Bars are redrawn this often, and the loop wakes.
const TICK: Duration = Duration::from_millis(100);
/// Plain lines come this often.
const LINES_EVERY: Duration = Duration::from_secs(5);
/// With more stages than this, bars of finished stages go.
const MANY_STAGES: usize = 12;
/// Kinds of failures that are told as they happen; the rest is told at the end.
const EARLY_FAILURES: usize = 10;

/// What is shown while a run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    /// A bar per stage.
    Bars,
    /// A line per stage now and then.
    Lines,
    /// Nothing.
    Nothing,
}

/// Shows a run's events as they come.
pub struct Reporter {
    style: Style,
    live: Live,
    verbose: bool,
    log: Option<EventLog>,
    log_failure: Option<io::Error>,
    state: State,
    bars: Bars,
    began: Instant,
    told: Duration,
}

/// What is known of the run.
#[derive(Default)]
struct State {
    stages: Vec<String>,
    meters: BTreeMap<String, Meter>,
    signatures: BTreeSet<(String, String)>,
    /// What engines said.
    told: BTreeSet<(String, String)>,
}

impl Reporter {
    /// A reporter; bars become lines where the terminal cannot show them.
    pub fn new(live: Live, style: Style, verbose: bool) -> Reporter {
        let bars = Bars::new(live == Live::Bars);
        let live = if live == Live::Bars && bars.multi.is_hidden() { Live::Lines } else { live };
        Reporter {
            style,
            live,
            verbose,
            log: None,
            log_failure: None,
            state: State::default(),
            bars,
            began: Instant::now(),
            told: Duration::ZERO,
        }
    }

    /// Also writes all events to a file.
    pub fn with_log(mut self, path: &Path) -> io::Result<Reporter> {
        self.log = Some(EventLog::create(path)?);
        Ok(self)
    }

    /// Shows events until their channel closes. Returns why the events file is not whole, if it is not.
    pub fn run(mut self, events: &Receiver<Event>) -> io::Result<()> {
        let mut next = self.began + TICK;
        loop {
            match events.recv_deadline(next) {
                Ok(event) => self.handle(&event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= next {
                self.tick();
                next = Instant::now() + TICK;
            }
        }
        self.bars.clear();
        self.log_failure.map_or(Ok(()), Err)
    }

    fn handle(&mut self, event: &Event) {
        self.record(event);
        let now = self.began.elapsed();
        let messages = self.state.take(event, now, self.style, self.verbose);
        match event {
            Event::StageFinished { summary, .. } => self.end_stage(&summary.name, now),
            Event::Draining { .. } => self.bars.show(&self.state, now, self.style),
            _ => {}
        }
        let always = matches!(event, Event::Draining { .. });
        if self.live != Live::Nothing || always {
            messages.iter().for_each(|m| self.say(m));
        }
    }

    fn record(&mut self, event: &Event) {
        let Some(log) = &mut self.log else { return };
        if let Err(error) = log.write(event, &jiff::Timestamp::now().to_string()) {
            self.log_failure = Some(error);
            self.log = None;
        }
    }

    fn tick(&mut self) {
        let now = self.began.elapsed();
        match self.live {
            Live::Bars => self.bars.show(&self.state, now, self.style),
            Live::Lines if now >= self.told + LINES_EVERY => {
                self.told = now;
                self.state.lines(now, self.style).iter().for_each(|l| self.say(l));
            }
            Live::Lines | Live::Nothing => {}
        }
    }

    fn end_stage(&mut self, name: &str, now: Duration) {
        match self.live {
            Live::Bars => self.bars.show(&self.state, now, self.style),
            Live::Lines => {
                if let Some(line) = self.state.last_line(name, now, self.style) {
                    self.say(&line);
                }
            }
            Live::Nothing => {}
        }
    }

    /// A line on stderr, above the bars.
    fn say(&self, line: &str) {
        self.bars.multi.suspend(|| tell(&format!("{line}\n")));
    }
}

impl State {
    /// Takes in an event; returns what is to be told at once.
    fn take(&mut self, event: &Event, now: Duration, style: Style, verbose: bool) -> Option<String> {
        match event {
            Event::RunStarted { stages, .. } => self.stages = stages.clone(),
            Event::Progress { stage, counts } => self.meter(stage).update(now, *counts),
            Event::StageFinished { stage, .. } => self.meter(stage).finish(),
            Event::ItemFailed { stage, key, failure } => {
                self.meter(stage).fail(now);
                return self.failure(stage, key, failure, style, verbose);
            }
            Event::Item { stage, key, status, attempt, seconds, .. } if verbose => {
                return Some(item(stage, key, *status, *attempt, *seconds));
            }
            Event::Suspects { stage, items } => return Some(suspects(stage, *items)),
            Event::Draining { in_hand: 0, .. } => {}
            Event::Draining { signal, in_hand, grace } => return Some(draining(signal, *in_hand, *grace)),
            Event::Engine { engine } => return self.engine(engine, style),
            // Outputs are told in the summary.
            Event::SourceRead { .. } | Event::Item { .. } | Event::OutputWritten { .. } | Event::RunFinished { .. } => {
            }
        }
        None
    }

    fn meter(&mut self, stage: &str) -> &mut Meter {
        self.meters.entry(stage.to_string()).or_default()
    }

    /// Where an engine can be watched, and what it has to say, once each.
    fn engine(&mut self, engine: &EngineNews, style: Style) -> Option<String> {
        let told = engine.dashboard.as_ref().map(|url| format!("dashboard {url}"));
        let waiting = engine.pending.iter().filter(|(reason, _)| engine.workers == 0 && !reason.is_empty());
        let waiting = waiting.map(|(reason, n)| format!("{} ({reason})", count(*n as u64, "job") + " pending"));
        let told = told.into_iter().chain(waiting).chain(engine.note.clone());
        let new: Vec<String> = told.filter(|what| self.told.insert((engine.name.clone(), what.clone()))).collect();
        (!new.is_empty()).then(|| format!("{}  {}", style.paint(Tint::Bold, &engine.name), new.join("; ")))
    }

    /// The first failure of each kind is told at once, the others only in a verbose run.
    fn failure(&mut self, stage: &str, key: &str, failure: &Failure, style: Style, verbose: bool) -> Option<String> {
        let known = self.signatures.len();
        let new = known < EARLY_FAILURES && self.signatures.insert((stage.to_string(), failure.signature()));
        let message = cut(&one_line(failure.message.lines().next().unwrap_or("")), 160);
        let told = format!("{stage}  {}: {} {message}", shell_quote(key), failure.kind);
        (new || verbose).then(|| format!("{}  {told}", style.paint(Tint::Red, "failed")))
    }

    /// The stages with something to do, in the order of the graph.
    fn active(&self) -> impl Iterator<Item = (&str, &Meter)> {
        let known = self.stages.iter().filter_map(|name| Some((name.as_str(), self.meters.get(name)?)));
        known.filter(|(_, meter)| meter.active())
    }

    fn width(&self) -> usize {
        self.stages.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(24)
    }

    /// A line per stage that is at work.
    fn lines(&self, now: Duration, style: Style) -> Vec<String> {
        let width = self.width();
        let going = self.active().filter(|(_, meter)| !meter.finished());
        going.map(|(name, meter)| format!("{name:width$}  {}", meter.line(now, style))).collect()
    }

    fn last_line(&self, name: &str, now: Duration, style: Style) -> Option<String> {
        let meter = self.meters.get(name).filter(|m| m.active())?;
        Some(format!("{name:width$}  {}, finished", meter.line(now, style), width = self.width()))
    }
}

fn item(stage: &str, key: &str, status: ItemStatus, attempt: u32, seconds: f64) -> String {
    let status = match status {
        ItemStatus::Done => "done  ",
        ItemStatus::Failed => "failed",
    };
    let again = if attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
    format!("{status}  {stage}  {} in {}{again}", shell_quote(key), duration(seconds))
}

fn suspects(stage: &str, items: u64) -> String {
    let (were, run) = if items == 1 { ("was", "it runs") } else { ("were", "they run") };
    format!("{stage}: {} {were} in hand when an earlier run was killed: {run} alone first", count(items, "item"))
}

fn draining(signal: &str, in_hand: u64, grace: Option<f64>) -> String {
    let items = count(in_hand, "item");
    if signal.to_ascii_uppercase().contains("INT") {
        format!("interrupted: finishing {items} in hand; press Ctrl-C again to stop at once")
    } else {
        let limit = grace.map_or(String::new(), |seconds| format!(", for at most {}", duration(seconds)));
        format!("{signal}: finishing {items} in hand{limit}")
    }
}

/// The bars of a terminal; hidden elsewhere.
struct Bars {
    multi: MultiProgress,
    bars: BTreeMap<String, ProgressBar>,
}

impl Bars {
    fn new(shown: bool) -> Bars {
        let target = if shown { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
        Bars { multi: MultiProgress::with_draw_target(target), bars: BTreeMap::new() }
    }

    fn show(&mut self, state: &State, now: Duration, style: Style) {
        if self.multi.is_hidden() {
            return;
        }
        let width = state.width();
        let many = state.stages.len() > MANY_STAGES;
        for (place, (name, meter)) in state.active().enumerate() {
            if many && meter.finished() {
                if let Some(bar) = self.bars.get(name) {
                    self.multi.remove(bar);
                }
                continue;
            }
            let multi = &self.multi;
            let add = || multi.insert(place, ProgressBar::no_length());
            let bar = self.bars.entry(name.to_string()).or_insert_with(add);
            draw(bar, name, width, meter);
            bar.set_message(meter.line(now, style));
            bar.tick();
        }
    }

    fn clear(&self) {
        self.bars.values().for_each(ProgressBar::finish_and_clear);
        // A terminal that is gone has nothing to clean up.
        let _ = self.multi.clear();
    }
}

fn draw(bar: &ProgressBar, name: &str, width: usize, meter: &Meter) {
    let counts = meter.counts();
    let end = counts.end().or(meter.finished().then_some(counts.total));
    let known = end.is_some();
    let template = if known { "{prefix}  {bar:24}  {wide_msg}" } else { "{prefix}  {spinner:24}  {wide_msg}" };
    let style = ProgressStyle::with_template(template).expect("a constant template");
    let style = style.progress_chars("━╸ ").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ");
    if bar.prefix().is_empty() || known != bar.length().is_some() {
        bar.set_style(style);
        bar.set_prefix(format!("{:width$}", cut(name, width)));
    }
    if let Some(end) = end {
        bar.set_length(end.max(1));
        bar.set_position(counts.done + counts.failed + counts.blocked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::FailureKind;
    use crate::engine::events::{Counts, RunState, RunSummary, StageSummary};

    fn started() -> Event {
        let stages = vec!["measure".to_string(), "ratio".to_string()];
        Event::RunStarted { run: "r".into(), workflow: "w".into(), stages }
    }

    fn progress(stage: &str, done: u64, failed: u64) -> Event {
        let due = 2000 - done - failed;
        let counts = Counts { total: 2000, total_known: true, done, ran: done, failed, due, ..Counts::default() };
        Event::Progress { stage: stage.into(), counts }
    }

    fn finished(stage: &str) -> Event {
        Event::StageFinished { stage: stage.into(), summary: StageSummary { name: stage.into(), ..Default::default() } }
    }

    fn take(state: &mut State, seconds: u64, event: &Event) -> Option<String> {
        state.take(event, Duration::from_secs(seconds), Style::PLAIN, false)
    }

    #[test]
    fn lines_tell_of_stages_at_work_in_the_order_of_the_graph() {
        let mut state = State::default();
        for (seconds, event) in [
            (0, started()),
            (0, progress("ratio", 0, 0)),
            (0, progress("measure", 0, 0)),
            (1, progress("measure", 210, 3)),
            (1, progress("ratio", 100, 0)),
        ] {
            assert_eq!(take(&mut state, seconds, &event), None);
        }
        let now = Duration::from_secs(1);
        insta::assert_snapshot!(state.lines(now, Style::PLAIN).join("\n"), @r"
        measure  210/2,000 done, 3 failed, 210/s, 9s left
        ratio    100/2,000 done, 100/s, 19s left
        ");
        take(&mut state, 1, &finished("measure"));
        insta::assert_snapshot!(state.lines(now, Style::PLAIN).join("\n"), @"ratio    100/2,000 done, 100/s, 19s left");
        let last = state.last_line("measure", now, Style::PLAIN).expect("it was active");
        insta::assert_snapshot!(last, @"measure  210/2,000 done, 3 failed, finished");
    }

    #[test]
    fn a_stage_without_work_is_not_shown() {
        let mut state = State::default();
        take(&mut state, 0, &started());
        let counts = Counts { total: 5, total_known: true, done: 5, ..Counts::default() };
        take(&mut state, 0, &Event::Progress { stage: "measure".into(), counts });
        assert!(state.lines(Duration::ZERO, Style::PLAIN).is_empty());
        assert_eq!(state.last_line("measure", Duration::ZERO, Style::PLAIN), None);
    }

    #[test]
    fn only_the_first_failure_of_a_kind_is_told_at_once() {
        let fail = |key: &str, message: &str| Event::ItemFailed {
            stage: "measure".into(),
            key: key.into(),
            failure: Failure::new(FailureKind::Exception, message),
        };
        let mut state = State::default();
        let first = take(&mut state, 0, &fail("a b", "ValueError: cell 12"));
        insta::assert_snapshot!(first.unwrap_or_default(), @"failed  measure  'a b': exception ValueError: cell 12");
        assert_eq!(take(&mut state, 0, &fail("c", "ValueError: cell 13")), None);
        assert!(take(&mut state, 0, &fail("c", "KeyError: 'x'")).is_some());
        let told = state.take(&fail("d", "ValueError: cell 14"), Duration::ZERO, Style::PLAIN, true);
        assert!(told.is_some(), "a verbose run tells all");
    }

    #[test]
    fn messages_say_what_happens() {
        assert_eq!(
            draining("SIGINT", 4, None),
            "interrupted: finishing 4 items in hand; press Ctrl-C again to stop at once"
        );
        assert_eq!(draining("SIGTERM", 1, Some(30.0)), "SIGTERM: finishing 1 item in hand, for at most 30s");
        assert_eq!(item("m", "k", ItemStatus::Done, 2, 0.5), "done    m  k in 0.5s, attempt 2");
    }

    #[test]
    fn the_reporter_reads_to_the_end_and_logs_everything() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        let (sender, receiver) = crossbeam_channel::unbounded();
        let summary = RunSummary {
            run: "r".into(),
            state: RunState::Finished,
            stages: Vec::new(),
            seconds: 1.0,
            reason: None,
            failures: Vec::new(),
            outputs: Vec::new(),
        };
        for event in [started(), progress("measure", 1, 0), Event::RunFinished { summary }] {
            sender.send(event).expect("sends");
        }
        drop(sender);
        let reporter = Reporter::new(Live::Nothing, Style::PLAIN, false).with_log(&path).expect("creates");
        reporter.run(&receiver).expect("the log is whole");
        let text = std::fs::read_to_string(&path).expect("reads");
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().last().is_some_and(|l| l.starts_with(r#"{"event":"run_finished""#)));
    }
}
