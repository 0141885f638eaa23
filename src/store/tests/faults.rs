//! Disks that fail: writes and syncs that do not succeed, power that goes at any moment. Whatever was acknowledged is
//! there afterwards, and after an error nothing more is written.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use super::damage::Dice;
use super::{open, put, roster_batch, roster_end, roster_writes, segment_of, settle, stored};
use crate::store::db::Handle;
use crate::store::{FILE, OpenOptions, Store, StoreError, Write};

const BLOCK: usize = 4096;
/// Items of each commit.
const STEP: u64 = 60;

/// What happened to a disk.
#[derive(Debug, Clone)]
enum Event {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
    /// So many commits had returned.
    Acknowledged(u64),
}

/// What goes wrong, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Nothing,
    /// This write and all after it: no space left.
    Write(usize),
    /// This write only, half of which arrives.
    TornWrite(usize),
    /// This sync only.
    Sync(usize),
}

/// A file in memory that remembers all that happened to it.
#[derive(Debug, Clone)]
struct Disk(Arc<Mutex<Medium>>);

#[derive(Debug)]
struct Medium {
    bytes: Vec<u8>,
    events: Vec<Event>,
    fault: Fault,
    writes: usize,
    syncs: usize,
}

impl Disk {
    fn new(fault: Fault) -> Disk {
        Disk(Arc::new(Mutex::new(Medium { bytes: Vec::new(), events: Vec::new(), fault, writes: 0, syncs: 0 })))
    }

    fn medium(&self) -> MutexGuard<'_, Medium> {
        self.0.lock().unwrap()
    }

    fn store(&self) -> Result<Store, StoreError> {
        let new = self.medium().bytes.is_empty();
        Ok(Store::new(Handle::write_over(self.clone(), new)?, "memory".into(), None))
    }
}

impl Medium {
    fn write(&mut self, offset: u64, data: &[u8]) {
        apply(&mut self.bytes, offset, data);
        self.events.push(Event::Write(offset, data.to_vec()));
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.medium().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let medium = self.medium();
        let start = offset as usize;
        let bytes = medium.bytes.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut medium = self.medium();
        medium.bytes.resize(length as usize, 0);
        medium.events.push(Event::SetLen(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut medium = self.medium();
        let n = medium.syncs;
        medium.syncs += 1;
        if medium.fault == Fault::Sync(n) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        medium.events.push(Event::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut medium = self.medium();
        let n = medium.writes;
        medium.writes += 1;
        match medium.fault {
            Fault::Write(from) if n >= from => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            Fault::TornWrite(which) if n == which => {
                medium.write(offset, &data[..data.len() / 2]);
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
            _ => {
                medium.write(offset, data);
                Ok(())
            }
        }
    }

    fn try_lock_range(&self, _: std::ops::Bound<u64>, _: std::ops::Bound<u64>) -> Result<bool, redb::BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(
        &self,
        _: std::ops::Bound<u64>,
        _: std::ops::Bound<u64>,
    ) -> Result<bool, redb::BackendError> {
        Ok(true)
    }

    fn lock_range(&self, _: std::ops::Bound<u64>, _: std::ops::Bound<u64>) -> Result<(), redb::BackendError> {
        Ok(())
    }

    fn lock_shared_range(&self, _: std::ops::Bound<u64>, _: std::ops::Bound<u64>) -> Result<(), redb::BackendError> {
        Ok(())
    }

    fn unlock_range(&self, _: std::ops::Bound<u64>, _: std::ops::Bound<u64>) -> Result<(), redb::BackendError> {
        Ok(())
    }

    fn query_lock_range(&self, _: std::ops::Bound<u64>, _: std::ops::Bound<u64>) -> Result<bool, redb::BackendError> {
        Ok(false)
    }
}

fn apply(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + data.len());
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[start..end].copy_from_slice(data);
}

fn writes(n: u64) -> Vec<Write> {
    let mut writes = vec![put(&segment_of(n * STEP..(n + 1) * STEP), n % 3 == 2)];
    writes.push(Write::Note { key: format!("run/{n}"), json: "x".repeat(300 * (n as usize % 5)) });
    if n % 4 == 1 {
        writes.extend(roster_writes(&[roster_batch(0..10, n as u8), roster_batch(10..20, 1)]));
        writes.push(roster_end(2));
    }
    writes
}

/// Three runs of a workflow, the second of which tidies; ends at the first error.
fn runs(disk: &Disk) -> Result<(), StoreError> {
    let mut n = 0;
    for (run, commits) in [7, 6, 3].into_iter().enumerate() {
        let store = disk.store()?;
        for _ in 0..commits {
            store.commit(&writes(n)).inspect_err(|_| {
                let refused = store.commit(&writes(90));
                assert!(matches!(refused, Err(StoreError::Spent)), "{refused:?}");
            })?;
            n += 1;
            disk.medium().events.push(Event::Acknowledged(n));
        }
        if run == 1 {
            store.tidy()?;
        }
    }
    Ok(())
}

/// What lies on the disk when the power goes after some events: all that was synced, and of what was written since any
/// blocks whatever.
fn image(events: &[Event], dice: &mut Dice) -> Vec<u8> {
    let synced = events.iter().rposition(|event| matches!(event, Event::Sync)).map_or(0, |at| at + 1);
    let mut bytes = Vec::new();
    // None, all, or some.
    let kept = [0, 100, 50, 10, 90][dice.roll(5)];
    for (at, event) in events.iter().enumerate() {
        let mut arrives = || at < synced || dice.roll(100) < kept;
        match event {
            Event::Write(offset, data) => {
                let mut start = 0;
                while start < data.len() {
                    let at = *offset as usize + start;
                    let end = data.len().min(start + BLOCK - at % BLOCK);
                    if arrives() {
                        apply(&mut bytes, at as u64, &data[start..end]);
                    }
                    start = end;
                }
            }
            Event::SetLen(length) if arrives() => bytes.resize(*length as usize, 0),
            _ => {}
        }
    }
    bytes
}

/// The commits that had returned.
fn acknowledged(events: &[Event]) -> u64 {
    events.iter().rev().find_map(|event| if let Event::Acknowledged(n) = event { Some(*n) } else { None }).unwrap_or(0)
}

/// A folder in memory, where there is one: thousands of files are synced here.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// All that was acknowledged is in a file, for a run, or for a reader and then a run.
fn holds(dir: &Path, bytes: &[u8], commits: u64, reader: bool, what: &str) {
    std::fs::write(dir.join(FILE), bytes).unwrap();
    let all = |store: &Store| {
        let found = stored(store, 0..commits * STEP);
        assert!(found.iter().all(|&found| found), "{what}: {commits} commits were acknowledged");
        for n in 0..commits {
            assert!(store.note(&format!("run/{n}")).unwrap().is_some(), "{what}: note {n}");
        }
        if commits > 1 {
            assert!(store.roster("in").unwrap().unwrap().batch(1).unwrap().is_some(), "{what}");
        }
    };
    if reader {
        match Store::read(dir).unwrap_or_else(|e| panic!("{what}: {e:?}")) {
            Some(store) => all(&store),
            None => assert_eq!(commits, 0, "{what}"),
        }
    }
    settle(dir);
    let store = Store::open(dir, &OpenOptions::default()).unwrap_or_else(|e| panic!("{what}: {e:?}"));
    all(&store);
    store.commit(&writes(commits)).unwrap_or_else(|e| panic!("{what}: {e:?}"));
    drop(store);
    settle(dir);
    let verified = Store::verify(dir, &OpenOptions::default()).unwrap().unwrap();
    assert!(verified.damaged.is_empty(), "{what}: {verified:?}");
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// `BPP_TEST_CRASHES` crash points (default 200).
#[test]
fn power_goes_at_any_moment() {
    let disk = Disk::new(Fault::Nothing);
    runs(&disk).unwrap();
    let events = disk.medium().events.clone();
    let dir = folder();
    let mut dice = Dice(number("BPP_TEST_SEED", 0) as u64);
    let crashes = number("BPP_TEST_CRASHES", 200);
    for crash in 0..crashes {
        let at = (crash * 7919 + dice.roll(3)) % (events.len() + 1);
        let bytes = image(&events[..at], &mut dice);
        let what = format!("crash {crash} after event {at} of {}", events.len());
        holds(dir.path(), &bytes, acknowledged(&events[..at]), crash % 2 == 0, &what);
    }
    println!("{crashes} crash points among {} events", events.len());
}

/// The process goes, the machine stays: what was written is there, whether it was synced or not.
fn fails(fault: Fault, dir: &Path, dice: &mut Dice) -> bool {
    let disk = Disk::new(fault);
    let ended = runs(&disk);
    let events = disk.medium().events.clone();
    let commits = acknowledged(&events);
    let bytes = disk.medium().bytes.clone();
    holds(dir, &bytes, commits, true, &format!("{fault:?}"));
    // Half a first block, of a file that never held anything, is told of as damage.
    let never = commits == 0 && matches!(fault, Fault::TornWrite(_));
    if !never && !matches!(fault, Fault::Sync(_)) {
        let bytes = image(&events, dice);
        holds(dir, &bytes, commits, false, &format!("{fault:?}, then the power"));
    }
    ended.is_err()
}

/// `BPP_TEST_FAULTS`: every how manieth write and sync fails (default 9).
#[test]
fn writes_and_syncs_fail() {
    let whole = Disk::new(Fault::Nothing);
    runs(&whole).unwrap();
    let writes = whole.medium().writes;
    let syncs = whole.medium().syncs;
    let step = number("BPP_TEST_FAULTS", 9);
    let dir = folder();
    let mut dice = Dice(1);
    let (mut tried, mut failed) = (0, 0);
    let mut count = |fault| {
        tried += 1;
        failed += usize::from(fails(fault, dir.path(), &mut dice));
    };
    (0..writes).step_by(step).for_each(|n| count(Fault::Write(n)));
    (step / 2..writes).step_by(step).for_each(|n| count(Fault::TornWrite(n)));
    (0..syncs).step_by(step.div_ceil(4)).for_each(|n| count(Fault::Sync(n)));
    println!("{tried} faults, of which {failed} failed a run; {writes} writes, {syncs} syncs");
    assert!(failed * 2 > tried, "{failed} of {tried}");
}

/// A sync that failed may have lost what was written before it, although it can still be read. Nothing is built on it.
#[test]
fn nothing_is_built_on_a_failed_sync() {
    let whole = Disk::new(Fault::Nothing);
    runs(&whole).unwrap();
    let syncs = whole.medium().syncs;
    let dir = folder();
    for n in (0..syncs).step_by(number("BPP_TEST_FAULTS", 3)) {
        let disk = Disk::new(Fault::Sync(n));
        let _ = runs(&disk);
        // Lost: what was written between the last good sync and the failed one.
        let mut events = disk.medium().events.clone();
        let good = events.iter().enumerate().filter(|(_, e)| matches!(e, Event::Sync)).map(|(at, _)| at);
        let last = good.take(n).last().map_or(0, |at| at + 1);
        let later =
            whole.medium().events.iter().enumerate().filter(|(_, e)| matches!(e, Event::Sync)).nth(n).unwrap().0;
        let commits = acknowledged(&events);
        events.drain(last..later.min(events.len()));
        let bytes = image(&events, &mut Dice(n as u64));
        if bytes.len() > BLOCK {
            holds(dir.path(), &bytes, commits, true, &format!("sync {n} of {syncs}"));
        }
    }
}

/// The same file, opened by readers that must repair it at the same time.
#[test]
fn readers_repair_together() {
    let disk = Disk::new(Fault::Nothing);
    let store = disk.store().unwrap();
    store.commit(&writes(0)).unwrap();
    let dir = folder();
    std::fs::write(dir.path().join(FILE), &disk.medium().bytes).unwrap();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..8).map(|_| scope.spawn(|| Store::read(dir.path()).unwrap().unwrap())).collect();
        for reader in readers {
            assert!(stored(&reader.join().unwrap(), 0..STEP).iter().all(|&found| found));
        }
    });
    assert_eq!(stored(&open(dir.path()), 0..STEP + 1).iter().filter(|&&found| found).count() as u64, STEP);
}
