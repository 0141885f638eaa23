//! A file that is changed in memory only.
//!
//! After a run was killed redb repairs a file before it reads it. Where it must not or cannot be written (a read-only
//! or full disk, somebody else's folder), it is repaired here.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

const BLOCK: usize = 4096;

/// What the file holds, and over it what was written since.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    length: u64,
    /// Up to here the file shows through.
    shown: u64,
    changed: HashMap<u64, Box<[u8; BLOCK]>>,
}

impl Overlay {
    pub fn new(file: File) -> io::Result<Overlay> {
        let length = file.metadata()?.len();
        Ok(Overlay { file, state: Mutex::new(State { length, shown: length, changed: HashMap::new() }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block as it is in the file.
    fn original(&self, shown: u64, block: u64) -> io::Result<Box<[u8; BLOCK]>> {
        let mut bytes = Box::new([0; BLOCK]);
        let start = block * BLOCK as u64;
        let length = shown.saturating_sub(start).min(BLOCK as u64) as usize;
        self.file.read_exact_at(&mut bytes[..length], start)?;
        Ok(bytes)
    }
}

/// Each block that some bytes lie in: its number, the first byte in it, and which of the bytes these are.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % BLOCK as u64) as usize;
        let piece = done..length.min(done + BLOCK - within);
        done = piece.end;
        (!piece.is_empty()).then_some((at / BLOCK as u64, within, piece))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > state.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (block, within, piece) in pieces(offset, out.len()) {
            let length = piece.len();
            match state.changed.get(&block) {
                Some(bytes) => out[piece].copy_from_slice(&bytes[within..within + length]),
                None => out[piece].copy_from_slice(&self.original(state.shown, block)?[within..within + length]),
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut state = self.state();
        let state = &mut *state;
        state.length = length;
        state.shown = state.shown.min(length);
        state.changed.retain(|block, bytes| {
            let kept = length.saturating_sub(block * BLOCK as u64).min(BLOCK as u64) as usize;
            bytes[kept..].fill(0);
            kept > 0
        });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        for (block, within, piece) in pieces(offset, data.len()) {
            if !state.changed.contains_key(&block) {
                let original = self.original(state.shown, block)?;
                state.changed.insert(block, original);
            }
            let bytes = state.changed.get_mut(&block).expect("put there above");
            bytes[within..within + piece.len()].copy_from_slice(&data[piece]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let write =
            (0..30_000u64, prop::collection::vec(any::<u8>(), 1..9000)).prop_map(|(at, data)| Step::Write(at, data));
        prop::collection::vec(prop_oneof![write, (1..40_000u64).prop_map(Step::SetLen)], 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

        #[test]
        fn it_reads_as_a_file_would_and_leaves_the_file_alone(length in 0..20_000usize, steps in steps()) {
            let original: Vec<u8> = (0..length).map(|i| i as u8 | 1).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&original).unwrap();
            let overlay = Overlay::new(file.try_clone().unwrap()).unwrap();
            let mut plain = original.clone();
            for step in steps {
                match step {
                    Step::SetLen(length) => {
                        plain.resize(length as usize, 0);
                        overlay.set_len(length).unwrap();
                    }
                    Step::Write(at, data) => {
                        let end = at as usize + data.len();
                        if end > plain.len() {
                            plain.resize(end, 0);
                            overlay.set_len(end as u64).unwrap();
                        }
                        plain[at as usize..end].copy_from_slice(&data);
                        overlay.write(at, &data).unwrap();
                    }
                }
            }
            let mut read = vec![0; plain.len()];
            overlay.read(0, &mut read).unwrap();
            prop_assert!(read == plain && overlay.len().unwrap() == plain.len() as u64);
            prop_assert!(overlay.read(1, &mut read).is_err() || plain.is_empty(), "past the end");
            let mut kept = vec![0; length];
            file.read_exact_at(&mut kept, 0).unwrap();
            prop_assert!(kept == original && file.metadata().unwrap().len() == length as u64);
        }
    }
}
