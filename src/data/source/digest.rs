//! The contents of files as hashes, and a memory of them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rayon::prelude::*;

/// What a file looks like from outside: as long as this is the same, its content is taken to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FileStamp {
    /// In bytes.
    pub size: u64,
    /// Time of the last change, in nanoseconds since 1970.
    pub mtime_ns: i128,
    pub inode: u64,
}

impl FileStamp {
    /// The stamp of a file.
    pub fn of(meta: &std::fs::Metadata) -> FileStamp {
        use std::os::unix::fs::MetadataExt;
        let mtime_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        FileStamp { size: meta.len(), mtime_ns, inode: meta.ino() }
    }

    /// Changed so recently that another change might leave the same stamp.
    fn is_fresh(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        now.as_nanos() as i128 - self.mtime_ns < 2_000_000_000
    }
}

/// What is remembered of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub stamp: FileStamp,
    pub digest: [u8; 32],
    /// It was read too soon after its last change: another one might have left the same stamp.
    pub fresh: bool,
}

/// Keeps digests for longer than a process lives.
pub trait KeptDigests: Send + Sync {
    /// What is kept of the files at these paths, and whether it is to be said again lest it be forgotten.
    fn find(&self, paths: &[&Path]) -> Vec<Option<(Known, bool)>>;
    /// Keeps what was learnt, if it may be written.
    fn keep(&self, learnt: Vec<(PathBuf, Known)>);
}

/// As soon as so many have been learnt they are handed on to be kept, or forgotten.
const MOST_LEARNT: usize = 200_000;

/// Where digests are kept, once it is asked.
type Opener = Box<dyn FnOnce() -> Option<Arc<dyn KeptDigests>> + Send + Sync>;

/// The digests of files as they were last read. What a file has now counts only while its stamp is the same.
#[derive(Default)]
pub struct Digests {
    kept: RwLock<Kept>,
    /// Not kept yet.
    learnt: Mutex<HashMap<PathBuf, Known>>,
}

#[derive(Default)]
enum Kept {
    #[default]
    Nowhere,
    /// Not asked for yet.
    Somewhere(Opener),
    Here(Arc<dyn KeptDigests>),
}

impl Digests {
    /// Those that are kept where `open` says, once one is looked for.
    pub fn kept_by(open: impl FnOnce() -> Option<Arc<dyn KeptDigests>> + Send + Sync + 'static) -> Digests {
        Digests { kept: RwLock::new(Kept::Somewhere(Box::new(open))), ..Digests::default() }
    }

    /// From now on asks `kept` for what it does not know itself; `None`: nobody.
    pub fn attach(&self, kept: Option<Arc<dyn KeptDigests>>) {
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = kept.map_or(Kept::Nowhere, Kept::Here);
    }

    fn kept(&self) -> Option<Arc<dyn KeptDigests>> {
        match &*self.kept.read().unwrap_or_else(PoisonError::into_inner) {
            Kept::Nowhere => return None,
            Kept::Here(kept) => return Some(kept.clone()),
            Kept::Somewhere(_) => {}
        }
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let found = match std::mem::take(&mut *kept) {
            Kept::Nowhere => None,
            Kept::Here(found) => Some(found),
            Kept::Somewhere(open) => open(),
        };
        *kept = found.clone().map_or(Kept::Nowhere, Kept::Here);
        found
    }

    /// What is remembered of the files at these paths.
    pub fn recall(&self, paths: &[&Path]) -> Vec<Option<Known>> {
        let mut known: Vec<Option<Known>> = {
            let learnt = self.learnt();
            paths.iter().map(|path| learnt.get(*path).copied()).collect()
        };
        let open: Vec<usize> = (0..paths.len()).filter(|&at| known[at].is_none()).collect();
        let Some(kept) = self.kept().filter(|_| !open.is_empty()) else { return known };
        let asked: Vec<&Path> = open.iter().map(|&at| paths[at]).collect();
        for (at, found) in open.into_iter().zip(kept.find(&asked)) {
            let Some((found, repeat)) = found else { continue };
            if repeat {
                self.learnt().entry(paths[at].to_path_buf()).or_insert(found);
            }
            known[at] = Some(found);
        }
        known
    }

    /// Remembers a digest.
    pub fn put(&self, path: &Path, stamp: &FileStamp, digest: [u8; 32]) {
        let known = Known { stamp: *stamp, digest, fresh: stamp.is_fresh() };
        let many = {
            let mut learnt = self.learnt();
            learnt.insert(path.to_path_buf(), known);
            (learnt.len() >= MOST_LEARNT).then(|| learnt.drain().collect())
        };
        if let Some((many, kept)) = many.zip(self.kept()) {
            kept.keep(many);
        }
    }

    /// What is not kept yet, to be kept.
    pub fn take_learnt(&self) -> Vec<(PathBuf, Known)> {
        self.learnt().drain().collect()
    }

    fn learnt(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Known>> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Read at once: enough for several cores, little enough for memory. (A mapped file would count as memory whole.)
const BLOCK: usize = 4 << 20;

/// Files that are asked for together.
const TOGETHER: usize = 256;

/// A file's stamp, and the blake3 of its content.
pub type Digested = (FileStamp, [u8; 32]);

/// The blake3 of a file's content, and the file's stamp.
pub fn file_digest(path: &Path, known: Option<&Digests>) -> io::Result<Digested> {
    let last = known.and_then(|known| known.recall(&[path]).pop().flatten());
    digest_unless(path, last, known)
}

/// The same of many files, on all cores.
pub fn file_digests(paths: &[PathBuf], known: Option<&Digests>) -> Vec<io::Result<Digested>> {
    let together = |paths: &[PathBuf]| -> Vec<io::Result<Digested>> {
        let asked: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        let last = known.map_or_else(|| vec![None; paths.len()], |known| known.recall(&asked));
        paths.iter().zip(last).map(|(path, last)| digest_unless(path, last, known)).collect()
    };
    paths.par_chunks(TOGETHER).flat_map_iter(together).collect()
}

/// Reads the file, unless what is known of it can be relied on.
pub fn digest_unless(path: &Path, last: Option<Known>, known: Option<&Digests>) -> io::Result<Digested> {
    if let Some(last) = last.filter(|last| !last.fresh)
        && FileStamp::of(&std::fs::metadata(path)?) == last.stamp
    {
        return Ok((last.stamp, last.digest));
    }
    let mut file = File::open(path)?;
    let stamp = FileStamp::of(&file.metadata()?);
    let mut hasher = blake3::Hasher::new();
    let mut block = vec![0; BLOCK.min(stamp.size as usize + 1)];
    loop {
        match file.read(&mut block)? {
            0 => break,
            n if n > 1 << 18 => hasher.update_rayon(&block[..n]),
            n => hasher.update(&block[..n]),
        };
    }
    let digest = *hasher.finalize().as_bytes();
    if let Some(known) = known.filter(|_| !stamp.is_fresh()) {
        known.put(path, &stamp, digest);
    }
    Ok((stamp, digest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::source::testing::Folder;

    #[test]
    fn what_is_known_is_asked_and_fresh_files_are_not_relied_on() {
        let folder = Folder::with(&[("a", b"one")]);
        let path = folder.path().join("a");
        let known = Digests::default();
        let (stamp, digest) = file_digest(&path, Some(&known)).expect("readable");
        assert_eq!(digest, *blake3::hash(b"one").as_bytes());
        assert_eq!(known.recall(&[&path])[0], None, "changed a moment ago");
        known.put(&path, &stamp, [7; 32]);
        assert_eq!(known.recall(&[&path])[0].map(|k| k.digest), Some([7; 32]));
        assert_eq!(file_digest(&path, Some(&known)).expect("readable").1, digest, "still fresh");
        let old = SystemTime::now() - Duration::from_secs(60);
        File::open(&path).and_then(|file| file.set_modified(old)).expect("can be set back");
        let stamp = FileStamp::of(&std::fs::metadata(&path).expect("there"));
        known.put(&path, &stamp, [7; 32]);
        assert_eq!(file_digest(&path, Some(&known)).expect("readable").1, [7; 32]);
        assert_eq!(known.take_learnt().len(), 1);
        assert_eq!(file_digest(&path, Some(&known)).expect("readable").1, digest, "forgotten");
    }
}
