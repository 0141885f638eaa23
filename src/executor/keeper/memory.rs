//! How much memory everything that a keeper has started holds.

use std::ffi::c_int;
use std::fs;
use std::time::{Duration, Instant};

use super::sweep::descendants;

/// How often memory is looked at; how often, at most, the process table is read, and the share of the time that this may
/// take.
struct Rhythm {
    look: Duration,
    scan: Duration,
    share: u32,
}

/// Where it has a limit.
const LIMITED: Rhythm = Rhythm { look: Duration::from_millis(20), scan: Duration::from_millis(50), share: 50 };
/// Where it has none.
const UNLIMITED: Rhythm = Rhythm { look: Duration::from_millis(100), scan: Duration::from_millis(250), share: 500 };

/// Looks at the memory of a keeper's descendants from time to time.
pub(super) struct Sampler {
    /// Bytes.
    limit: Option<u64>,
    tree: Vec<c_int>,
    next: Instant,
    next_scan: Instant,
}

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// What all processes together hold resident, in KiB.
    pub kib: u32,
    /// Whether that is more than the limit.
    pub over: bool,
}

impl Sampler {
    /// A sampler for a tree that is only this process yet.
    pub(super) fn new(limit: Option<u64>, root: c_int) -> Sampler {
        let next = Instant::now() + rhythm(limit).look;
        Sampler { limit, tree: vec![root], next, next_scan: next }
    }

    /// How long until the next look.
    pub(super) fn patience(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Looks, if it is time.
    pub(super) fn look(&mut self) -> Option<Sample> {
        let now = Instant::now();
        if now < self.next {
            return None;
        }
        let rhythm = rhythm(self.limit);
        self.next = now + rhythm.look;
        if now >= self.next_scan {
            self.tree = descendants();
            self.next_scan = now + rhythm.scan.max(now.elapsed() * rhythm.share);
        }
        let mut bytes = self.tree.iter().map(|&pid| resident(pid)).sum();
        let is_over = |bytes: u64| self.limit.is_some_and(|limit| bytes > limit);
        if is_over(bytes) && self.tree.len() > 1 {
            // Pages that several share are counted once before anybody is stopped for them.
            bytes = self.tree.iter().map(|&pid| proportional(pid).unwrap_or_else(|| resident(pid))).sum();
        }
        Some(Sample { kib: u32::try_from(bytes >> 10).unwrap_or(u32::MAX), over: is_over(bytes) })
    }
}

fn rhythm(limit: Option<u64>) -> Rhythm {
    if limit.is_some() { LIMITED } else { UNLIMITED }
}

/// Resident bytes of a process; 0 when it is gone.
fn resident(pid: c_int) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: Option<u64> = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// The same, where pages that `n` processes share count for an `n`th each; `None` where the kernel does not tell.
fn proportional(pid: c_int) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_holds_something() {
        let me = std::process::id() as c_int;
        let held = resident(me);
        assert!(held > 1 << 20, "{held}");
        if let Some(pss) = proportional(me) {
            assert!(pss > 1 << 20 && pss <= held * 2, "{pss} of {held}");
        }
        assert_eq!(resident(-1), 0);
    }

    #[test]
    fn the_limit_is_passed_or_not() {
        let me = std::process::id() as c_int;
        let mut sampler = Sampler::new(Some(1 << 20), me);
        assert_eq!(sampler.look(), None, "too soon");
        std::thread::sleep(sampler.patience());
        sampler.next_scan += Duration::from_secs(60);
        assert!(sampler.look().unwrap().over);
        let mut sampler = Sampler::new(Some(1 << 50), me);
        std::thread::sleep(sampler.patience());
        sampler.next_scan += Duration::from_secs(60);
        assert!(!sampler.look().unwrap().over);
    }
}
