//! What bpp-flow and a Python worker say to each other, on a stream socket (descriptor 3 in the worker).
//!
//! A frame is a `u32` payload length, a `u8` kind ([`kind`]) and the payload; integers are little-endian. Cells and
//! messages are marshal data ([`super::marshal`]).
//!
//! To the worker:
//! - `S` source: marshal list of (name, text), the worker's modules. First frame, read by [`BOOTSTRAP`].
//! - `J` job: u32 job, marshal dict. No answer: its function is loaded at its first task.
//! - `T` task: u64 seq, u32 job, u32 lane, marshal tuple (rows, args, env, marks). Rows are dicts (for `call: value`
//!   values, `...` where the cell is absent); args and env a dict an item, or None; marks the items among whose cells
//!   are times, which stand as tuples (kind, text), or `...`; None where there are none.
//! - `G` group: u64 seq, u32 job, u32 lane, marshal dict of args; its rows follow at once as
//! - `R` rows: marshal tuple (rows, marks), any number, and
//! - `Z` end of rows.
//! - `Y` yield: u64 seq, u32 job: the function's rows are wanted, as they come (a source).
//! - `Q` quit: finish, exit with 0. The end of the stream: exit at once.
//!
//! From the worker:
//! - `H` hello: marshal dict {pid, version, executable, protocol}. Sent once.
//! - `P` part: u64 seq, u32 first item, u32 items, u32 mean microseconds, u32 peak memory in KiB; marshal tuple (slow, failed) with slow a
//!   list of (item, micros) and failed one of (item, micros, kind, message, traceback, output, place); then for each
//!   other item, in order, its result: a dict (shape one), a list of dicts (many), True or False (keep).
//! - `Y` rows that were yielded: u64 seq, u32 rows; marshal list of (row, message) for those that cannot be kept; then
//!   a dict for each other row, in order.
//! - `D` done: u64 seq, u32 number of items begun (from the first on).
//! - `X` broken: u64 seq, marshal text: nothing could begin, through no item's fault.
//!
//! In the slot, low half of the first word: the item in hand plus one; [`SLOT_PHASE`]: decoding, encoding or loading,
//! no item; [`SLOT_CHUNK`]: a function that takes whole chunks has several items in hand.

mod buffer;
mod decode;
mod encode;

pub use buffer::{FrameBuffer, MAX_FRAME};
pub use decode::{FromWorker, Yielded, YieldedRow, decode, decode_shape};
pub use encode::{
    bridge_frame, end_of_rows_frame, group_frame, job_frame, node_frame, quit_frame, rows_frame, source_frame,
    task_frame, yield_frame,
};

use super::marshal::Damaged;

/// Version of the protocol: a worker that says another in its hello is refused.
pub const PROTOCOL: i64 = 1;

/// What a worker is started with, as `python -c BOOTSTRAP`: it reads the worker's modules from the first frame. They
/// do not stay importable, so that nobody's `bpp_flow` is hidden, and the current folder is not searched for theirs.
pub const BOOTSTRAP: &str = include_str!("../../python/bootstrap.py");

/// What an engine's worker process is given, which gives tasks to keepers.
pub const REMOTE: &str = include_str!("../../python/bpp_flow/remote.py");

/// Low half of the slot's first word: no item is in hand.
pub const SLOT_PHASE: u32 = 0xFFFF_FFFF;

/// Low half of the slot's first word: several items at once are in hand.
pub const SLOT_CHUNK: u32 = 0xFFFF_FFFE;

/// Kinds of frames.
pub mod kind {
    pub const SOURCE: u8 = b'S';
    pub const JOB: u8 = b'J';
    pub const TASK: u8 = b'T';
    pub const GROUP: u8 = b'G';
    pub const ROWS: u8 = b'R';
    pub const END_OF_ROWS: u8 = b'Z';
    pub const QUIT: u8 = b'Q';
    pub const HELLO: u8 = b'H';
    pub const PART: u8 = b'P';
    pub const YIELD: u8 = b'Y';
    pub const DONE: u8 = b'D';
    pub const BROKEN: u8 = b'X';
}

/// The worker sent something that is no frame of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A length that no frame has.
    #[error("a frame of {0} bytes")]
    Length(u32),
    /// A kind that no frame of a worker has.
    #[error("a frame of unknown kind {0:?}")]
    Kind(char),
    /// The payload is not what its kind says.
    #[error("a damaged frame")]
    Damaged(#[from] Damaged),
    /// The worker is of another version.
    #[error("a worker of protocol {0}, not {PROTOCOL}")]
    Protocol(i64),
}

#[cfg(test)]
mod tests;
