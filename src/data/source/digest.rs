//! The contents of files as hashes, and a memory of them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

/// What a file looks like from outside: as long as this is the same, its content is taken to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// Remembers digests of files.
pub trait DigestCache: Send + Sync {
    /// The digest of the file as it was with this stamp.
    fn get(&self, path: &Path, stamp: &FileStamp) -> Option<[u8; 32]>;
    /// Remembers a digest.
    fn put(&self, path: &Path, stamp: &FileStamp, digest: [u8; 32]);
}

/// A cache for as long as the process lives.
#[derive(Debug, Default)]
pub struct MemoryDigests(Mutex<HashMap<std::path::PathBuf, (FileStamp, [u8; 32])>>);

impl DigestCache for MemoryDigests {
    fn get(&self, path: &Path, stamp: &FileStamp) -> Option<[u8; 32]> {
        let known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.get(path).filter(|(s, _)| s == stamp).map(|(_, digest)| *digest)
    }

    fn put(&self, path: &Path, stamp: &FileStamp, digest: [u8; 32]) {
        let mut known = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.insert(path.to_path_buf(), (*stamp, digest));
    }
}

/// Read at once: enough for several cores, little enough for memory. (A mapped file would count as memory whole.)
const BLOCK: usize = 4 << 20;

/// The blake3 of a file's content, and the file's stamp.
pub fn file_digest(path: &Path, cache: Option<&dyn DigestCache>) -> io::Result<(FileStamp, [u8; 32])> {
    let mut file = File::open(path)?;
    let stamp = FileStamp::of(&file.metadata()?);
    if let Some(known) = cache.and_then(|c| c.get(path, &stamp)) {
        return Ok((stamp, known));
    }
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
    if let Some(cache) = cache.filter(|_| !stamp.is_fresh()) {
        cache.put(path, &stamp, digest);
    }
    Ok((stamp, digest))
}
