//! How fast a stage goes and how long it will take, from its counts; pure in the clock.

use std::collections::VecDeque;
use std::time::Duration;

use crate::engine::events::Counts;

use super::phrase::{grouped, rate, wait};
use super::style::{Style, Tint};

/// Rates are over this long.
const WINDOW: Duration = Duration::from_secs(10);
/// A rate needs this much time to mean something.
const SHORTEST: Duration = Duration::from_millis(200);

/// A stage's counts as they came, with the recent past.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    counts: Counts,
    failures: u64,
    past: VecDeque<(Duration, u64)>,
    finished: bool,
}

impl Meter {
    /// New counts, at a time since the run's start.
    pub fn update(&mut self, now: Duration, counts: Counts) {
        if self.past.is_empty() {
            self.past.push_back((now, self.ended()));
        }
        self.counts = counts;
        self.remember(now);
    }

    /// One more item of this run has failed.
    pub fn fail(&mut self, now: Duration) {
        self.failures += 1;
        self.remember(now);
    }

    /// The stage has no more to do.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Whether the stage has no more to do.
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// The latest counts.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether this run has, or had, something to do here.
    pub fn active(&self) -> bool {
        self.ended() + self.counts.due + self.counts.running > 0
    }

    /// Items that this run brought to an end.
    fn ended(&self) -> u64 {
        self.counts.ran + self.failures
    }

    fn remember(&mut self, now: Duration) {
        let ended = self.ended();
        let several = self.past.len() > 1;
        match self.past.back_mut() {
            // Ten samples a second are enough; the first of the window must stay as it is.
            Some(last) if now < last.0 + WINDOW / 100 && several => last.1 = ended,
            _ => self.past.push_back((now, ended)),
        }
        while self.past.len() > 2 && self.past[1].0 + WINDOW < now {
            self.past.pop_front();
        }
    }

    /// Items per second over the last seconds; `None` before there is anything to go by.
    pub fn rate(&self, now: Duration) -> Option<f64> {
        let &(start, before) = self.past.front()?;
        let span = now.checked_sub(start).filter(|s| *s >= SHORTEST)?;
        let ended = self.ended().checked_sub(before).filter(|n| *n > 0)?;
        Some(ended as f64 / span.as_secs_f64())
    }

    /// Seconds until the stage is through; `None` where the total or the rate is not known.
    pub fn seconds_left(&self, now: Duration) -> Option<f64> {
        seconds_left(&self.counts, self.rate(now)?)
    }

    /// `1,200/2,000 done, 3 failed, 210/s, 4s left`.
    pub fn line(&self, now: Duration, style: Style) -> String {
        let Counts { done, failed, blocked, .. } = self.counts;
        let mut parts = vec![match self.counts.end() {
            Some(end) => format!("{}/{} done", grouped(done), grouped(end)),
            None => format!("{} done", grouped(done)),
        }];
        if failed > 0 {
            parts.push(style.paint(Tint::Red, &format!("{} failed", grouped(failed))));
        }
        if blocked > 0 {
            parts.push(style.paint(Tint::Yellow, &format!("{} blocked", grouped(blocked))));
        }
        if !self.finished {
            parts.extend(self.rate(now).map(rate));
            parts.extend(self.seconds_left(now).map(|s| format!("{} left", wait(s))));
        }
        parts.join(", ")
    }
}

/// Seconds until a stage is through at a rate; `None` where it cannot be told.
pub fn seconds_left(counts: &Counts, rate: f64) -> Option<f64> {
    let left = counts.end()?.saturating_sub(counts.done + counts.failed + counts.blocked);
    (rate > 0.0).then(|| left as f64 / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    fn counts(cached: u64, ran: u64, failed: u64) -> Counts {
        let done = cached + ran;
        Counts { total: 2000, total_known: true, done, ran, failed, due: 2000 - done - failed, ..Counts::default() }
    }

    #[test]
    fn a_line_has_all_there_is_to_say() {
        let mut meter = Meter::default();
        meter.update(at(0.0), counts(990, 0, 0));
        meter.update(at(1.0), counts(990, 210, 3));
        assert_eq!(meter.line(at(1.0), Style::PLAIN), "1,200/2,000 done, 3 failed, 210/s, 4s left");
        meter.finish();
        assert_eq!(meter.line(at(1.0), Style::PLAIN), "1,200/2,000 done, 3 failed");
    }

    #[test]
    fn nothing_is_guessed() {
        let mut meter = Meter::default();
        meter.update(at(0.0), Counts { total: 500, done: 7, blocked: 2, ..Counts::default() });
        assert_eq!(meter.line(at(0.1), Style::PLAIN), "7 done, 2 blocked");
        assert_eq!(meter.seconds_left(at(9.0)), None);
    }

    #[test]
    fn what_a_source_promises_is_the_end_until_there_is_more() {
        let mut meter = Meter::default();
        meter.update(at(0.0), Counts::default());
        let promised = Counts { total: 200, done: 100, ran: 100, due: 100, expected: Some(1000), ..Counts::default() };
        meter.update(at(1.0), promised);
        assert_eq!(meter.line(at(1.0), Style::PLAIN), "100/1,000 done, 100/s, 9s left");
        meter.update(at(2.0), Counts { total: 1001, ..promised });
        assert_eq!(meter.seconds_left(at(2.0)), None);
    }

    #[test]
    fn cached_results_are_no_speed_and_failures_are() {
        let mut meter = Meter::default();
        meter.update(at(0.0), counts(0, 0, 0));
        meter.update(at(1.0), counts(1000, 0, 0));
        assert_eq!(meter.rate(at(1.0)), None);
        meter.fail(at(2.0));
        meter.fail(at(2.0));
        assert_eq!(meter.rate(at(2.0)), Some(1.0));
    }

    #[test]
    fn the_rate_follows_the_last_seconds() {
        let mut meter = Meter::default();
        for second in 0..100 {
            let ran = if second < 50 { second } else { 50 + (second - 50) * 10 };
            meter.update(at(second as f64), counts(0, ran, 0));
        }
        let rate = meter.rate(at(99.0)).expect("a rate");
        assert!((9.9..10.1).contains(&rate), "{rate}");
        assert!(meter.past.len() < 20);
    }
}
