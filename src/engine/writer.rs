//! The one thread that commits. A commit starts when the previous one ends and takes all that has come meanwhile.

use std::path::PathBuf;

use crossbeam_channel::{Receiver, Sender};

use super::budget::Permit;
use super::dispatcher::Message;
use super::made;
use crate::data::source::Digests;
use crate::data::{Batch, Failure, Usage};
use crate::store::{Store, Write};

/// Something to be committed, and what to say once it is.
pub struct Entry {
    pub write: Write,
    pub receipt: Option<Receipt>,
    /// Bytes held until then.
    pub permit: Option<Permit>,
    /// Files that must be durable before it is.
    pub made: Vec<PathBuf>,
}

/// What is durable now.
pub enum Receipt {
    /// Outcomes of items.
    Outcomes(Box<Committed>),
    /// The roster of a source, whole.
    Source(usize),
}

/// Outcomes that are durable now.
pub struct Committed {
    pub stage: usize,
    /// Items that succeeded.
    pub done: u64,
    /// Items that failed for good: key and story.
    pub failed: Vec<(String, Failure)>,
    /// Keys, attempts and usage of all, done first, for those who asked.
    pub items: Vec<(String, u16, Usage)>,
    /// The rows that those done give.
    pub forward: Option<Batch>,
}

/// At most this many entries a commit, so that one commit stays short.
const ENTRIES_A_COMMIT: usize = 256;

/// Commits until `end` says so and nothing is left; tells the dispatcher after each commit. (The channel's own end
/// would not do: a thread that reads a source may wait for input for ever.)
pub fn run(
    store: &Store,
    digests: Option<&Digests>,
    entries: &Receiver<Entry>,
    end: &Receiver<()>,
    told: &Sender<Message>,
) {
    while let Some(first) = next(entries, end) {
        let mut writes = Vec::new();
        let mut receipts = Vec::new();
        let mut permits = Vec::new();
        let mut made = Vec::new();
        for entry in std::iter::once(first).chain(entries.try_iter().take(ENTRIES_A_COMMIT)) {
            writes.push(entry.write);
            receipts.extend(entry.receipt);
            permits.extend(entry.permit);
            made.extend(entry.made);
        }
        writes.extend(learnt(digests));
        let committed = made::sync(&made).and_then(|()| Ok(store.commit(&writes)?));
        let message = match committed {
            Ok(()) => Message::Committed(receipts),
            Err(error) => Message::Broken(error),
        };
        drop(permits);
        let failed = matches!(message, Message::Broken(_));
        if told.send(message).is_err() || failed {
            return;
        }
    }
}

/// What was learnt of files' contents, to be kept.
pub fn learnt(digests: Option<&Digests>) -> Option<Write> {
    let learnt = digests?.take_learnt();
    (!learnt.is_empty()).then_some(Write::Digests(learnt))
}

fn next(entries: &Receiver<Entry>, end: &Receiver<()>) -> Option<Entry> {
    crossbeam_channel::select! {
        recv(entries) -> entry => entry.ok(),
        recv(end) -> _ => entries.try_recv().ok(),
    }
}
