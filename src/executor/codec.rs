//! The compact binary form of what bpp-flow and its keepers say to each other: length-prefixed frames of
//! little-endian numbers and length-prefixed bytes. Both ends are the same binary, so there is no version.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Bytes of a frame's head: payload length and kind.
pub(super) const HEAD: usize = 5;

/// Writes one frame.
pub(super) struct FrameWriter(Vec<u8>);

impl FrameWriter {
    /// A frame of that kind, without payload yet.
    pub(super) fn new(kind: u8) -> FrameWriter {
        FrameWriter(vec![0, 0, 0, 0, kind])
    }

    pub(super) fn u8(&mut self, v: u8) -> &mut Self {
        self.0.push(v);
        self
    }

    pub(super) fn u32(&mut self, v: u32) -> &mut Self {
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }

    pub(super) fn i32(&mut self, v: i32) -> &mut Self {
        self.u32(v.cast_unsigned())
    }

    pub(super) fn u64(&mut self, v: u64) -> &mut Self {
        self.0.extend_from_slice(&v.to_le_bytes());
        self
    }

    pub(super) fn bytes(&mut self, v: &[u8]) -> &mut Self {
        self.u32(v.len() as u32);
        self.0.extend_from_slice(v);
        self
    }

    pub(super) fn os(&mut self, v: &OsStr) -> &mut Self {
        self.bytes(v.as_bytes())
    }

    /// A present or missing value, written by `put`.
    pub(super) fn option<T>(&mut self, v: Option<T>, put: impl FnOnce(&mut Self, T)) -> &mut Self {
        self.u8(v.is_some().into());
        if let Some(v) = v {
            put(self, v);
        }
        self
    }

    /// A list, each element written by `put`.
    pub(super) fn list<T>(&mut self, items: &[T], mut put: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.u32(items.len() as u32);
        items.iter().for_each(|item| put(self, item));
        self
    }

    /// The finished frame.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let payload = (self.0.len() - HEAD) as u32;
        self.0[..4].copy_from_slice(&payload.to_le_bytes());
        self.0
    }
}

/// A frame does not read as what its kind says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("damaged frame")]
pub struct DamagedFrame;

/// Reads a frame's payload.
pub(super) struct FrameReader<'a>(&'a [u8]);

impl<'a> FrameReader<'a> {
    pub(super) fn new(payload: &'a [u8]) -> FrameReader<'a> {
        FrameReader(payload)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], DamagedFrame> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(DamagedFrame)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DamagedFrame> {
        self.take(N)?.try_into().map_err(|_| DamagedFrame)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DamagedFrame> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32, DamagedFrame> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn i32(&mut self) -> Result<i32, DamagedFrame> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, DamagedFrame> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], DamagedFrame> {
        let n = self.u32()? as usize;
        self.take(n)
    }

    pub(super) fn os(&mut self) -> Result<OsString, DamagedFrame> {
        Ok(OsString::from_vec(self.bytes()?.to_vec()))
    }

    pub(super) fn option<T>(
        &mut self,
        get: impl FnOnce(&mut Self) -> Result<T, DamagedFrame>,
    ) -> Result<Option<T>, DamagedFrame> {
        if self.u8()? == 0 { Ok(None) } else { get(self).map(Some) }
    }

    pub(super) fn list<T>(
        &mut self,
        mut get: impl FnMut(&mut Self) -> Result<T, DamagedFrame>,
    ) -> Result<Vec<T>, DamagedFrame> {
        let n = self.u32()?;
        (0..n).map(|_| get(self)).collect()
    }

    /// Ends the reading; bytes left over are damage.
    pub(super) fn end(self) -> Result<(), DamagedFrame> {
        if self.0.is_empty() { Ok(()) } else { Err(DamagedFrame) }
    }
}
