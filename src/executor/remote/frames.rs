//! What bpp-flow and its peers on other machines say to each other.
//!
//! A peer is a keeper (`node.py`: one task at a time, of a Python worker or of commands), a bridge (`bridge.py`: each
//! task is one of an engine's), or a leash (of a keeper that an engine's worker started, which gets no tasks). Frames are as in [`wire`]: a `u32` payload length, a `u8` kind, the payload; integers
//! are little-endian, dicts are marshal data.
//!
//! To a peer:
//! - `O` options (bridges only, right after the frame with their modules): dict {kind, options, name, dir}.
//! - `R` runtime: dict {worker, node, remote, bootstrap, name, leash}: what runs on nodes, and how these reach bpp-flow.
//! - `P` pool: u32 pool, dict: where and how functions or commands run.
//! - `J` job: u32 job, u32 pool, dict {frame, label, keep_stdout}.
//! - `B` body: u64 seq, bytes that go before the body of that task.
//! - `T` task: u64 seq, u32 job, u32 pool, u32 items, u32 timeout in ms (0: none), u8 [`Form`], body.
//! - `S` stop: take no new item (leashes too). `U` upload: digest, content. `b` beat. `Q` quit.
//! - `C` cancel: u64 seq (only from `remote.py` to its keepers).
//!
//! From a peer:
//! - `h` hello: dict ([`Hello`]). `c` capacity: dict ([`Capacity`]). `i` info: text. `x` trouble: text. `b` beat.
//! - `s` started: u64 seq. `p` part: u64 seq, u8 kind (`P`: a worker's part; `C`: ends of commands), payload.
//! - `e` end: u64 seq, u8 how, u32 begun, i32 status, u32 peak in KiB, u8 over memory, u32 the slot's word, text.
//! - `n` need: the digest of an upload.

use std::path::Path;

use super::listener::Invitation;
use crate::data::{Usage, Value};
use crate::executor::keeper::protocol::{CommandResult, Ending};
use crate::executor::marshal::{Damaged, Reader, Token, Writer};
use crate::executor::slot::InHand;
use crate::executor::{CommandItem, Job, PoolKey, SharedObject, wire};

/// Version of the protocol.
pub(super) const PROTOCOL: i64 = 1;
/// What names an upload.
pub(super) type Digest = [u8; 32];
/// The body of a task is sent in pieces of this size.
const PIECE: usize = 256 << 20;

/// What a task's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The worker's frames of a chunk.
    Rows = 0,
    Commands = 1,
    /// The worker's frames of a group.
    Group = 2,
}

/// What a task is sent with.
pub(super) struct TaskHead {
    pub seq: u64,
    pub job: u32,
    pub pool: u32,
    pub items: u32,
    /// In milliseconds; 0: none.
    pub timeout: u32,
    pub form: Form,
}

/// Who a peer is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hello {
    pub protocol: i64,
    pub token: String,
    pub role: String,
    pub name: String,
    pub host: String,
    pub job: Option<String>,
    /// Tasks at once.
    pub slots: usize,
    /// When its engine ends it, in seconds since 1970.
    pub until: Option<f64>,
}

/// What an engine has.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Capacity {
    /// Tasks at once.
    pub slots: usize,
    pub workers: usize,
    pub dashboard: Option<String>,
    pub note: Option<String>,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TaskEnd {
    pub how: How,
    pub begun: u32,
    pub status: i32,
    pub peak_kib: u32,
    pub over_memory: bool,
    pub in_hand: InHand,
    /// What there is to say: a message, or the last output of a worker that died.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    Done,
    /// Nothing of its job can run.
    Broken,
    /// The worker died.
    Died,
    /// The item in hand took longer than its limit.
    Expired,
    /// The engine lost it.
    Lost,
    /// Nothing of it was begun.
    Refused,
    /// The worker stopped talking, or talked nonsense.
    Silent,
}

/// From a peer.
#[derive(Debug, PartialEq)]
pub(super) enum FromPeer {
    Hello(Hello),
    Capacity(Capacity),
    Started(u64),
    Part { seq: u64, kind: u8, payload: Vec<u8> },
    End { seq: u64, end: TaskEnd },
    Need(Digest),
    Info(String),
    Trouble(String),
    Beat,
}

/// What a bridge is to connect to.
pub(super) fn options(kind: &str, name: &str, dir: &Path, given: &[(String, Value)]) -> Vec<u8> {
    frame(b'O', &[], |w| {
        w.dict();
        text(w, "kind", kind);
        text(w, "name", name);
        text(w, "dir", &dir.to_string_lossy());
        w.text("options");
        w.map(given.iter().map(|(name, value)| (name.as_str(), value)));
        w.end_dict();
    })
}

/// What runs on nodes.
pub(super) fn runtime(leash: Option<&Invitation>) -> Vec<u8> {
    let (worker, node) = (wire::source_frame(), wire::node_frame());
    // Another run has another way back, and so another runtime, on engines that go on.
    let token = leash.map_or("", |leash| &leash.token);
    let digest = blake3::Hasher::new().update(&worker).update(&node).update(token.as_bytes()).finalize();
    frame(b'R', &[], |w| {
        w.dict();
        w.text("worker");
        w.bytes(&worker);
        w.text("node");
        w.bytes(&node);
        text(w, "remote", wire::REMOTE);
        text(w, "bootstrap", wire::BOOTSTRAP);
        text(w, "name", &digest.to_hex()[..16]);
        w.text("leash");
        match leash {
            None => w.none(),
            Some(leash) => invitation(w, leash),
        }
        w.end_dict();
    })
}

/// A dict of how nodes connect back.
pub(super) fn invitation(w: &mut Writer, invitation: &Invitation) {
    w.dict();
    w.text("addresses");
    w.list(invitation.addresses.len());
    invitation.addresses.iter().for_each(|address| w.text(address));
    w.text("port");
    w.int(invitation.port.into());
    text(w, "certificate", &invitation.certificate);
    text(w, "token", &invitation.token);
    text(w, "place", &invitation.place);
    w.end_dict();
}

/// Where and how a pool's functions or commands run.
pub(super) fn pool(number: u32, key: &PoolKey, uploads: &[Digest]) -> Vec<u8> {
    frame(b'P', &[&number.to_le_bytes()], |w| {
        w.dict();
        w.text("python");
        match &key.python {
            None => w.none(),
            Some(python) => {
                w.dict();
                w.text("interpreter");
                match python.interpreter.to_string_lossy() {
                    name if name.is_empty() => w.none(),
                    name => w.text(&name),
                }
                text(w, "path", &python.path.to_string_lossy());
                w.end_dict();
            }
        }
        w.text("env");
        pairs(w, &key.env);
        text(w, "cwd", &key.cwd.to_string_lossy());
        w.text("memory");
        number_or_none(w, key.memory);
        w.text("most_items");
        number_or_none(w, key.most_items.map(|n| n as u64));
        w.text("upload");
        w.list(uploads.len());
        uploads.iter().for_each(|digest| w.text(&hex(digest)));
        w.text("share");
        let share = key.python.as_ref().map_or(&[][..], |python| &python.share);
        w.list(share.len());
        for object in share {
            w.dict();
            text(w, "name", &object.name);
            text(w, "path", &object.path.to_string_lossy());
            w.text("size");
            w.int(object.stamp.size as i64);
            w.text("mtime_ns");
            w.int(object.stamp.mtime_ns as i64);
            text(w, "digest", &hex(&of_shared(object)));
            w.end_dict();
        }
        w.end_dict();
    })
}

/// Announces a job of a pool.
pub(super) fn job(number: u32, pool: u32, job: &Job) -> Vec<u8> {
    frame(b'J', &[&number.to_le_bytes(), &pool.to_le_bytes()], |w| {
        w.dict();
        w.text("frame");
        match job.pool.python {
            Some(_) => w.bytes(&wire::job_frame(number, job)),
            None => w.none(),
        }
        text(w, "label", &job.stage);
        w.text("keep_stdout");
        w.bool(crate::executor::local::keeps_stdout(job));
        w.end_dict();
    })
}

/// A task, in as many frames as it takes.
pub(super) fn task(head: &TaskHead, body: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = body.chunks(PIECE).peekable();
    let mut frames = Vec::new();
    loop {
        let piece = pieces.next().unwrap_or_default();
        if pieces.peek().is_none() {
            let mut fields = Vec::with_capacity(25 + piece.len());
            fields.extend_from_slice(&head.seq.to_le_bytes());
            for n in [head.job, head.pool, head.items, head.timeout] {
                fields.extend_from_slice(&n.to_le_bytes());
            }
            fields.push(head.form as u8);
            frames.push(frame(b'T', &[&fields, piece], |_| {}));
            return frames;
        }
        frames.push(frame(b'B', &[&head.seq.to_le_bytes(), piece], |_| {}));
    }
}

/// Commands, as the body of a task.
pub(super) fn commands(items: &[CommandItem]) -> Vec<u8> {
    let mut w = Writer::new(Vec::new());
    w.list(items.len());
    for item in items {
        w.tuple(4);
        w.list(item.argv.len());
        item.argv.iter().for_each(|arg| w.text(arg));
        pairs(&mut w, &item.env);
        match &item.cwd {
            Some(cwd) => w.text(&cwd.to_string_lossy()),
            None => w.none(),
        }
        match &item.stdin {
            Some(bytes) => w.bytes(bytes),
            None => w.none(),
        }
    }
    w.into_bytes()
}

/// Take no new item.
pub(super) fn stop() -> Vec<u8> {
    frame(b'S', &[], |_| {})
}

/// The content that a peer needs.
pub(super) fn upload(digest: &Digest, content: &[u8]) -> Vec<u8> {
    frame(b'U', &[digest, content], |_| {})
}

/// A sign of life.
pub(super) fn beat() -> Vec<u8> {
    frame(b'b', &[], |_| {})
}

/// Finish and leave.
pub(super) fn quit() -> Vec<u8> {
    frame(b'Q', &[], |_| {})
}

/// What a shared object is asked for by.
pub(super) fn of_shared(object: &SharedObject) -> Digest {
    *blake3::Hasher::new_derive_key("bpp-flow shared object").update(&object.content.0).finalize().as_bytes()
}

fn hex(digest: &Digest) -> String {
    blake3::Hash::from_bytes(*digest).to_hex().to_string()
}

/// Files as they are uploaded: (relative path, content, mode).
pub(super) fn files(files: &[(String, Vec<u8>, u32)]) -> Vec<u8> {
    let mut w = Writer::new(Vec::new());
    w.list(files.len());
    for (path, content, mode) in files {
        w.tuple(3);
        w.text(path);
        w.bytes(content);
        w.int((*mode).into());
    }
    w.into_bytes()
}

fn frame(kind: u8, fields: &[&[u8]], put: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut out = vec![0, 0, 0, 0, kind];
    fields.iter().for_each(|field| out.extend_from_slice(field));
    let mut writer = Writer::new(out);
    put(&mut writer);
    let mut frame = writer.into_bytes();
    let length = (frame.len() - 5) as u32;
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame
}

fn text(w: &mut Writer, name: &str, text: &str) {
    w.text(name);
    w.text(text);
}

fn pairs(w: &mut Writer, pairs: &[(String, String)]) {
    w.list(pairs.len());
    for (name, value) in pairs {
        w.tuple(2);
        w.text(name);
        w.text(value);
    }
}

fn number_or_none(w: &mut Writer, n: Option<u64>) {
    match n {
        Some(n) => w.int(i64::try_from(n).unwrap_or(i64::MAX)),
        None => w.none(),
    }
}

impl FromPeer {
    /// The message of a frame.
    pub(super) fn read(kind: u8, payload: &[u8]) -> Result<FromPeer, Damaged> {
        let mut fields = Fields(payload);
        Ok(match kind {
            b'h' => FromPeer::Hello(hello(&dict(payload)?)?),
            b'c' => FromPeer::Capacity(capacity(&dict(payload)?)),
            b's' => FromPeer::Started(fields.u64()?),
            b'p' => {
                let (seq, [kind]) = (fields.u64()?, fields.array()?);
                FromPeer::Part { seq, kind, payload: fields.0.to_vec() }
            }
            b'e' => FromPeer::End { seq: fields.u64()?, end: end(fields)? },
            b'n' => FromPeer::Need(fields.array()?),
            b'i' => FromPeer::Info(lossy(payload)),
            b'x' => FromPeer::Trouble(lossy(payload)),
            b'b' => FromPeer::Beat,
            _ => return Err(Damaged),
        })
    }
}

fn end(mut fields: Fields) -> Result<TaskEnd, Damaged> {
    let [how] = fields.array()?;
    let how = match how {
        0 => How::Done,
        1 => How::Broken,
        2 => How::Died,
        3 => How::Expired,
        4 => How::Lost,
        5 => How::Refused,
        6 => How::Silent,
        _ => return Err(Damaged),
    };
    let begun = fields.u32()?;
    let status = i32::from_le_bytes(fields.array()?);
    let peak_kib = fields.u32()?;
    let [over] = fields.array()?;
    let in_hand = match fields.u32()? {
        0 | wire::SLOT_PHASE => InHand::Nothing,
        wire::SLOT_CHUNK => InHand::Several,
        item => InHand::Item(item - 1),
    };
    Ok(TaskEnd { how, begun, status, peak_kib, over_memory: over != 0, in_hand, text: lossy(fields.0) })
}

/// How commands ended: lists of (index, micros, peak, ending, status, stdout, stderr).
pub(super) fn command_results(payload: &[u8]) -> Result<Vec<CommandResult>, Damaged> {
    let mut reader = Reader::new(payload);
    let Token::List(n) = reader.token()? else { return Err(Damaged) };
    (0..n).map(|_| command_result(&mut reader)).collect()
}

fn command_result(reader: &mut Reader) -> Result<CommandResult, Damaged> {
    let Token::Tuple(7) = reader.token()? else { return Err(Damaged) };
    let mut number = || match reader.token()? {
        Token::Int(n) => Ok(n),
        Token::Long(false, _) => Ok(i32::MAX),
        _ => Err(Damaged),
    };
    let (index, micros, peak_kib, ending, status) = (number()?, number()?, number()?, number()?, number()?);
    let mut bytes = || match reader.token()? {
        Token::Bytes(bytes) => Ok(bytes.to_vec()),
        _ => Err(Damaged),
    };
    let (stdout, stderr) = (bytes()?, bytes()?);
    let ending = match ending {
        0 => Ending::Exited(status),
        1 => Ending::NotStarted,
        2 => Ending::TimedOut,
        3 => Ending::TooMuchOutput,
        4 => Ending::OverMemory,
        _ => return Err(Damaged),
    };
    let usage = Usage { micros: micros.cast_unsigned(), peak_kib: peak_kib.cast_unsigned() };
    Ok(CommandResult { index: index.cast_unsigned(), usage, ending, stdout, stderr })
}

type Dict = Vec<(String, Value)>;

fn dict(payload: &[u8]) -> Result<Dict, Damaged> {
    match Reader::new(payload).value() {
        Ok(Value::Map(entries)) => Ok(entries),
        _ => Err(Damaged),
    }
}

fn get<'a>(dict: &'a Dict, name: &str) -> Option<&'a Value> {
    dict.iter().find(|(n, _)| n == name).map(|(_, value)| value)
}

fn text_in(dict: &Dict, name: &str) -> Option<String> {
    match get(dict, name)? {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

fn count_in(dict: &Dict, name: &str) -> usize {
    match get(dict, name) {
        Some(Value::Int(n)) => usize::try_from(*n).unwrap_or_default(),
        _ => 0,
    }
}

fn hello(dict: &Dict) -> Result<Hello, Damaged> {
    let protocol = match get(dict, "protocol") {
        Some(Value::Int(n)) => *n,
        _ => return Err(Damaged),
    };
    Ok(Hello {
        protocol,
        token: text_in(dict, "token").unwrap_or_default(),
        role: text_in(dict, "role").ok_or(Damaged)?,
        name: text_in(dict, "name").unwrap_or_default(),
        host: text_in(dict, "host").unwrap_or_default(),
        job: text_in(dict, "job"),
        slots: count_in(dict, "slots"),
        until: match get(dict, "until") {
            Some(Value::Float(at)) => Some(*at),
            Some(Value::Int(at)) => Some(*at as f64),
            _ => None,
        },
    })
}

fn capacity(dict: &Dict) -> Capacity {
    Capacity {
        slots: count_in(dict, "slots"),
        workers: count_in(dict, "workers"),
        dashboard: text_in(dict, "dashboard"),
        note: text_in(dict, "note"),
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Damaged)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u32(&mut self) -> Result<u32, Damaged> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Damaged> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(kind: u8, payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = FromPeer::read(kind, &payload);
            let _ = command_results(&payload);
        }
    }

    #[test]
    fn a_body_that_does_not_fit_goes_before_its_task() {
        let head = TaskHead { seq: 7, job: 1, pool: 2, items: 1, timeout: 0, form: Form::Group };
        let body: Vec<u8> = (0..PIECE + 3).map(|i| i as u8).collect();
        let frames = task(&head, &body);
        assert_eq!(frames.iter().map(|frame| frame[4]).collect::<Vec<_>>(), b"BT");
        assert_eq!(frames[0][5..13], 7u64.to_le_bytes());
        assert_eq!((&frames[0][13..], &frames[1][30..]), body.split_at(PIECE));
        assert_eq!(task(&head, &[]).len(), 1);
    }

    #[test]
    fn an_end_names_the_item_in_hand() {
        let end = |word: u32| {
            let mut payload = 9u64.to_le_bytes().to_vec();
            payload.push(2);
            [3u32, 11, 2048].iter().for_each(|n| payload.extend(n.to_le_bytes()));
            payload.push(0);
            payload.extend(word.to_le_bytes());
            payload.extend(b"tail");
            match FromPeer::read(b'e', &payload) {
                Ok(FromPeer::End { seq: 9, end }) => end,
                other => panic!("{other:?}"),
            }
        };
        let died = end(3);
        assert_eq!((died.how, died.begun, died.status, died.peak_kib), (How::Died, 3, 11, 2048));
        assert_eq!((died.in_hand, died.text.as_str()), (InHand::Item(2), "tail"));
        assert_eq!(end(wire::SLOT_CHUNK).in_hand, InHand::Several);
        assert_eq!([end(0).in_hand, end(wire::SLOT_PHASE).in_hand], [InHand::Nothing; 2]);
    }
}
