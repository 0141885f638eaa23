//! How many items a worker gets in one message.

use std::time::Duration;

/// Aimed at: this much work a chunk.
const TARGET_MICROS: f64 = 200_000.0;
/// The work of a chunk is this many times what it costs beside that, if possible.
const WORTH: f64 = 10.0;
/// Never more items than this: parts of a chunk must stay small in memory and on the wire.
const MOST_ITEMS: usize = 16_000;
/// A chunk grows at most by this factor from one measurement to the next.
const GROWTH: usize = 16;

/// What a stage has learned about its items.
#[derive(Debug, Clone)]
pub struct Pace {
    /// `chunk_size` as a number: honoured exactly.
    fixed: Option<usize>,
    /// `batch_size` or `max_tasks_per_worker`: never more than this.
    most: usize,
    /// A chunk is worth at least this much work, as long as there is enough for all workers.
    least_micros: f64,
    mean_micros: Option<f64>,
    last: usize,
}

/// What there is to cut a chunk from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Items waiting.
    pub waiting: usize,
    /// Whether more may come.
    pub more_coming: bool,
    /// Workers of the stage.
    pub workers: usize,
}

impl Pace {
    /// Nothing learned yet. A chunk costs `overhead` beside its items.
    pub fn new(chunk_size: Option<usize>, most: Option<usize>, overhead: Duration) -> Pace {
        let least_micros = overhead.as_micros() as f64 * WORTH;
        Pace { fixed: chunk_size, most: most.unwrap_or(usize::MAX), least_micros, mean_micros: None, last: 1 }
    }

    /// Items took so long in an earlier run.
    pub fn expect(&mut self, micros: f64) {
        self.mean_micros.get_or_insert(micros);
    }

    /// How long an item may take, as far as that is known.
    pub fn item(&self) -> Option<Duration> {
        self.mean_micros.map(|micros| Duration::from_secs_f64(micros / 1e6))
    }

    /// Learns from items that took `micros` together.
    pub fn learn(&mut self, items: usize, micros: u64) {
        if items == 0 {
            return;
        }
        let mean = micros as f64 / items as f64;
        self.mean_micros = Some(match self.mean_micros {
            Some(old) => old * 0.7 + mean * 0.3,
            None => mean,
        });
    }

    /// The size of the next chunk; 0: wait for more. `insist` takes what there is.
    pub fn next(&mut self, queue: Queue, insist: bool) -> usize {
        if queue.waiting == 0 {
            return 0;
        }
        if let Some(fixed) = self.fixed {
            let size = fixed.min(self.most);
            let short = queue.waiting < size && queue.more_coming && !insist;
            return if short { 0 } else { size.min(queue.waiting) };
        }
        let wanted = match self.mean_micros {
            None => 1,
            Some(mean) => ((TARGET_MICROS / mean.max(0.1)) as usize).clamp(1, MOST_ITEMS),
        };
        let least = self.mean_micros.map_or(1, |mean| (self.least_micros / mean.max(0.1)) as usize);
        let share = queue.waiting.div_ceil(2 * queue.workers).max(least.min(queue.waiting.div_ceil(queue.workers)));
        let share = if queue.more_coming { usize::MAX } else { share };
        let size = wanted.min(self.last.saturating_mul(GROWTH)).min(share).min(self.most).min(queue.waiting);
        self.last = self.last.max(size);
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(waiting: usize, more_coming: bool) -> Queue {
        Queue { waiting, more_coming, workers: 4 }
    }

    #[test]
    fn a_given_size_is_honoured_exactly_until_the_end() {
        let mut pace = Pace::new(Some(70), None, Duration::ZERO);
        assert_eq!(pace.next(queue(50, true), false), 0);
        assert_eq!(pace.next(queue(150, true), false), 70);
        assert_eq!(pace.next(queue(80, false), false), 70);
        assert_eq!(pace.next(queue(10, false), false), 10);
        assert_eq!(pace.next(queue(10, true), true), 10);
    }

    #[test]
    fn a_batch_is_a_true_maximum() {
        assert_eq!(Pace::new(Some(70), Some(20), Duration::ZERO).next(queue(100, true), false), 20);
        let mut pace = Pace::new(None, Some(20), Duration::ZERO);
        for _ in 0..5 {
            pace.learn(1, 1);
            assert!(pace.next(queue(1000, true), false) <= 20);
        }
    }

    #[test]
    fn auto_starts_with_one_and_aims_at_a_fifth_of_a_second() {
        let mut pace = Pace::new(None, None, Duration::ZERO);
        assert_eq!(pace.next(queue(1000, true), false), 1);
        pace.learn(1, 5_000);
        assert_eq!(pace.next(queue(1000, true), false), 16);
        assert_eq!(pace.next(queue(1000, true), false), 40);
    }

    #[test]
    fn slow_items_go_one_by_one() {
        let mut pace = Pace::new(None, None, Duration::ZERO);
        pace.learn(1, 5_000_000);
        assert_eq!(pace.next(queue(1000, true), false), 1);
    }

    #[test]
    fn the_rest_is_shared_among_the_workers() {
        let mut pace = Pace::new(None, None, Duration::ZERO);
        pace.learn(1, 1);
        pace.next(queue(100_000, true), false);
        assert_eq!(pace.next(queue(40, false), false), 5);
    }

    #[test]
    fn the_last_chunks_are_worth_what_they_cost() {
        let size = |overhead| {
            let mut pace = Pace::new(None, None, overhead);
            pace.learn(1, 100);
            pace.next(queue(100_000, true), false);
            pace.next(queue(400, false), false)
        };
        assert_eq!(size(Duration::ZERO), 50);
        assert_eq!(size(Duration::from_micros(800)), 80);
        assert_eq!(size(Duration::from_millis(2)), 100, "each worker has its share");
    }
}
