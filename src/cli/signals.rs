//! Signals as messages.

use std::io;
use std::thread;

use crossbeam_channel::{Receiver, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::engine::api::Signal;

/// Signals arrive in the channel for as long as this lives; before and after they do what they always do.
pub(super) struct Listener {
    handle: Handle,
    thread: Option<thread::JoinHandle<()>>,
    pub signals: Receiver<Signal>,
}

impl Listener {
    /// Takes over SIGINT, SIGTERM and SIGHUP.
    pub(super) fn start() -> io::Result<Listener> {
        let mut caught = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let handle = caught.handle();
        // Unbounded: a person presses Ctrl-C a few times at most, and the handler must never wait.
        let (sender, signals) = unbounded();
        let thread = thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in caught.forever().filter_map(meaning) {
                if sender.send(signal).is_err() {
                    break;
                }
            }
        })?;
        Ok(Listener { handle, thread: Some(thread), signals })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // It has no way to panic, and there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

fn meaning(signal: i32) -> Option<Signal> {
    match signal {
        SIGINT => Some(Signal::Interrupt),
        SIGTERM => Some(Signal::Terminate),
        SIGHUP => Some(Signal::Hangup),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_becomes_a_message_each_time() {
        let listener = Listener::start().expect("listens");
        for _ in 0..2 {
            signal_hook::low_level::raise(SIGHUP).expect("raises");
            assert_eq!(listener.signals.recv(), Ok(Signal::Hangup));
        }
    }
}
