//! The bytes that a run may hold: batches, frames and results not yet committed share one budget, so that memory
//! does not grow with the number of items.

use std::sync::{Arc, Condvar, Mutex};

/// A number of bytes, shared.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    freed: Condvar,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    held: usize,
    waiting: usize,
    closed: bool,
}

/// Bytes held until all clones are dropped.
#[derive(Debug, Clone)]
pub struct Permit {
    _held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Budget {
        Budget(Arc::new(Shared { state: Mutex::default(), freed: Condvar::new(), limit }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits until the budget has room (any room: the last batch may exceed it), then holds `bytes` of it. `None`:
    /// the budget was closed.
    pub fn acquire(&self, bytes: usize) -> Option<Permit> {
        let mut state = self.lock();
        while state.held >= self.0.limit && !state.closed {
            state.waiting += 1;
            state = self.0.freed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
            state.waiting -= 1;
        }
        if state.closed {
            return None;
        }
        state.held += bytes;
        Some(self.permit(bytes))
    }

    /// Holds `bytes` at once, over the limit if need be: for rows that have nowhere to wait.
    pub fn overdraw(&self, bytes: usize) -> Permit {
        self.lock().held += bytes;
        self.permit(bytes)
    }

    fn permit(&self, bytes: usize) -> Permit {
        Permit { _held: Arc::new(Held { budget: self.clone(), bytes }) }
    }

    /// Whether somebody waits for room.
    pub fn is_contended(&self) -> bool {
        self.lock().waiting > 0
    }

    /// Wakes all who wait, empty-handed, and refuses everybody from now on.
    pub fn close(&self) {
        self.lock().closed = true;
        self.0.freed.notify_all();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.lock().held -= self.bytes;
        self.budget.0.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_when_the_last_clone_goes() {
        let budget = Budget::new(10);
        let first = budget.acquire(10).unwrap();
        let second = first.clone();
        let waiter = std::thread::spawn({
            let budget = budget.clone();
            move || budget.acquire(5).is_some()
        });
        drop(first);
        while !budget.is_contended() {
            std::thread::yield_now();
        }
        drop(second);
        assert!(waiter.join().unwrap());
        assert_eq!(budget.lock().held, 0);
    }

    #[test]
    fn closing_wakes_those_who_wait() {
        let budget = Budget::new(1);
        let _held = budget.overdraw(5);
        let waiter = std::thread::spawn({
            let budget = budget.clone();
            move || budget.acquire(1).is_none()
        });
        while !budget.is_contended() {
            std::thread::yield_now();
        }
        budget.close();
        assert!(waiter.join().unwrap());
    }
}
