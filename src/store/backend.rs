//! The file under redb, and which of redb's syncs the start and the end of a run do without.
//!
//! redb syncs three times to make an empty file and four times to close one; on an ordinary disk that is longer
//! than a small run takes. Two of these syncs protect something:
//! - *New file*: until the first commit, which syncs all that was written before, nothing has been acknowledged. A
//!   file whose first block never reached the disk is made anew ([`is_blank`]).
//! - *Closing*: the last commit (two syncs) makes the file whole. What comes after, cutting off unused space and
//!   noting that the end was clean, is checked against the file's length by the next open, whichever of it is there.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use redb::{BackendError, StorageBackend};

use super::error::StoreError;
use super::pages::Pages;

/// How many more syncs reach the disk.
#[derive(Debug, Clone)]
pub(super) struct Syncs(Arc<AtomicU32>);

const ALL: u32 = u32::MAX;
/// The two syncs of a commit.
const ONE_COMMIT: u32 = 2;

impl Syncs {
    /// From now on every sync counts.
    pub fn begin(&self) {
        self.0.store(ALL, Ordering::Release);
    }

    /// The file is about to be closed.
    pub fn end(&self) {
        self.0.store(ONE_COMMIT, Ordering::Release);
    }

    fn due(&self) -> bool {
        let less = |left: u32| if left == ALL { Some(ALL) } else { left.checked_sub(1) };
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }
}

/// A file that syncs as [`Syncs`] says.
#[derive(Debug)]
pub(super) struct Backend<F> {
    file: F,
    syncs: Syncs,
}

impl<F: StorageBackend> Backend<F> {
    /// The file, which syncs nothing until [`Syncs::begin`] if it is `new`.
    pub fn new(file: F, new: bool) -> (Backend<F>, Syncs) {
        let syncs = Syncs(Arc::new(AtomicU32::new(if new { 0 } else { ALL })));
        (Backend { file, syncs: syncs.clone() }, syncs)
    }
}

/// Whether nothing was ever committed to the file, or its magic number, which redb writes last, is missing, and there
/// is no table.
pub(super) fn is_blank(path: &Path) -> Result<bool, StoreError> {
    if !path.try_exists().map_err(StoreError::io("read", path))? {
        return Ok(true);
    }
    match Pages::open(path) {
        Err(StoreError::Damaged { .. }) => {}
        opened => return Ok(opened?.untouched),
    }
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(9).read_to_end(&mut head));
    read.map_err(StoreError::io("read", path))?;
    Ok(head.iter().all(|&b| b == 0) && Pages::find(path)?.is_none())
}

impl<F: StorageBackend> StorageBackend for Backend<F> {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.syncs.due() { self.file.sync_data() } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::FileBackend;

    use super::*;
    use crate::data::Hash;
    use crate::store::tests::segment_of;
    use crate::store::{OpenOptions, Store, Write};

    /// The disk may lose the last cut although it has the note of a clean end.
    #[test]
    fn a_file_whose_cut_was_lost_opens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let length = || std::fs::metadata(&path).unwrap().len();
        let mut cuts = 0;
        for n in 0..6 {
            let store = Store::open(dir.path(), &OpenOptions::default()).unwrap();
            let segment = segment_of(n * 5000..(n + 1) * 5000).encode();
            let version = Hash([1; 16]);
            store.commit(&[Write::Segment { stage: "s".into(), version, segment, again: false }]).unwrap();
            let before = length();
            drop(store);
            if length() < before {
                cuts += 1;
                File::options().write(true).open(&path).unwrap().set_len(before).unwrap();
            }
            let store = Store::open(dir.path(), &OpenOptions::default()).unwrap();
            assert_eq!(store.view("s", version).unwrap().items(), (n + 1) * 5000);
        }
        assert!(cuts > 0, "closing cuts off unused space");
    }

    #[test]
    fn syncs_are_counted_down_only_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        assert!(is_blank(&path).unwrap());
        let (_, syncs) = Backend::new(FileBackend::new(File::create(&path).unwrap()).unwrap(), true);
        assert!(is_blank(&path).unwrap());
        assert!(!syncs.due(), "a new file");
        syncs.begin();
        assert!((0..10).all(|_| syncs.due()));
        syncs.end();
        assert_eq!((0..4).filter(|_| syncs.due()).count(), 2);
    }
}
