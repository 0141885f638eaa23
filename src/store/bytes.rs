//! Writing and reading the small parts of blobs. Nothing here trusts the bytes it reads.

use super::error::StoreError;

/// Appends a length or number in as few bytes as it needs.
pub(super) fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Signed differences as unsigned numbers, small ones small.
fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

/// Row numbers that follow each other are a start; others are differences.
pub(super) fn put_rows(out: &mut Vec<u8>, rows: &[u64]) {
    let first = rows.first().copied().unwrap_or(0);
    if rows.iter().enumerate().all(|(i, &row)| row == first.wrapping_add(i as u64)) {
        out.push(0);
        return put_varint(out, first);
    }
    out.push(1);
    let mut last = 0u64;
    for &row in rows {
        put_varint(out, zigzag(row.wrapping_sub(last) as i64));
        last = row;
    }
}

/// Appends a hash of what follows.
pub(super) fn sum(bytes: &[u8]) -> [u8; 8] {
    blake3::hash(bytes).as_bytes()[..8].try_into().expect("eight of thirty-two")
}

/// Reads from the front of some bytes; each error names `what`.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8], what: &'static str) -> Reader<'a> {
        Reader { rest: bytes, what }
    }

    pub fn damaged(&self, part: &str) -> StoreError {
        StoreError::damaged(part, self.what)
    }

    pub fn take(&mut self, n: usize) -> Result<&'a [u8], StoreError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or_else(|| self.damaged("a length"))?;
        self.rest = rest;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        Ok(self.take(N)?.try_into().expect("taken so long"))
    }

    pub fn u8(&mut self) -> Result<u8, StoreError> {
        Ok(self.take(1)?[0])
    }

    pub fn u32(&mut self) -> Result<u32, StoreError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// `n` equally wide numbers or hashes, which `f` makes from their bytes.
    pub fn column<const N: usize, T>(&mut self, n: usize, f: impl Fn([u8; N]) -> T) -> Result<Vec<T>, StoreError> {
        let bytes = n.checked_mul(N).ok_or_else(|| self.damaged("a length"))?;
        let (cells, _) = self.take(bytes)?.as_chunks::<N>();
        Ok(cells.iter().map(|&cell| f(cell)).collect())
    }

    pub fn varint(&mut self) -> Result<u64, StoreError> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(self.damaged("a number"))
    }

    pub fn rows(&mut self, n: usize) -> Result<Vec<u64>, StoreError> {
        match self.u8()? {
            0 => {
                let first = self.varint()?;
                Ok((0..n as u64).map(|i| first.wrapping_add(i)).collect())
            }
            1 if n <= self.rest.len() => {
                let mut last = 0u64;
                let mut rows = Vec::with_capacity(n);
                for _ in 0..n {
                    last = last.wrapping_add(unzigzag(self.varint()?) as u64);
                    rows.push(last);
                }
                Ok(rows)
            }
            _ => Err(self.damaged("row numbers")),
        }
    }

    /// What has not been read yet.
    pub fn rest(&mut self) -> &mut &'a [u8] {
        &mut self.rest
    }

    /// That all has been read.
    pub fn finish(self) -> Result<(), StoreError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged("its end")) }
    }
}

/// Appends the LZ4 form of `plain`, its length before it.
pub(super) fn put_compressed(out: &mut Vec<u8>, plain: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&(plain.len() as u32).to_le_bytes());
    out.resize(start + 4 + lz4_flex::block::get_maximum_output_size(plain.len()), 0);
    let written = lz4_flex::block::compress_into(plain, &mut out[start + 4..]).expect("room for the worst case");
    out.truncate(start + 4 + written);
}

/// The inverse of [`put_compressed`]; `bytes` is all there is.
pub(super) fn decompress(bytes: &[u8], what: &'static str) -> Result<Vec<u8>, StoreError> {
    let mut reader = Reader::new(bytes, what);
    let length = reader.u32()? as usize;
    // LZ4 makes at most 255 bytes of one.
    if length / 255 > bytes.len() {
        return Err(reader.damaged("a length"));
    }
    lz4_flex::block::decompress(&bytes[4..], length).map_err(|_| reader.damaged("compressed bytes"))
}
