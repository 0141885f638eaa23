//! Segments and roster batches as blobs.
//!
//! ```text
//! segment: 'S' | format u8 | items u32 | length of who u32 | sum of who 8 | who | sum of body 8 | body
//!     who: rows, origins u64…, inputs 16 bytes… (not compressed: hashes do not get shorter)
//!     body, LZ4: done u32 | micros u32… | peaks in KiB (not in format 1) | attempts | counts | added table
//!         | failures as JSON | the version that made them, if another (not in formats 1 and 2)
//! roster:  'R' | format u8 | digest 16 | sum of body 8 | body
//!     body, LZ4: items u32 | rows | origins u64… | keys | table | bad rows as JSON
//! ```
//! Sums are the heads of blake3 hashes; numbers are little-endian. Damaged bytes give an error, never a panic.

use arrow_array::StringArray;

use super::bytes::{Reader, decompress, put_compressed, put_rows, put_varint, sum};
use super::error::StoreError;
use super::model::{RosterBatch, Segment};
use crate::data::codec::{read_table, write_table};
use crate::data::{Failure, Hash, Items, Origin, Table, Usage};

/// The format that is written; older ones are read.
const FORMAT: u8 = 3;
const SEGMENT: &str = "a segment";
const ROSTER: &str = "a roster batch";
const WHO_START: usize = 18;

/// A segment as it is stored, and what the store's directory says of it.
#[derive(Debug, Clone)]
pub struct EncodedSegment {
    pub(crate) bytes: Vec<u8>,
    pub(super) summary: Summary,
}

/// What the directory knows of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    /// The smallest row.
    pub first: u64,
    /// The largest row.
    pub last: u64,
    pub items: u32,
    pub failed: u32,
}

impl EncodedSegment {
    /// The number of items.
    pub fn items(&self) -> u64 {
        u64::from(self.summary.items)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// Who the items of a segment are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Who {
    pub rows: Vec<u64>,
    pub origins: Vec<Origin>,
    pub inputs: Vec<Hash>,
}

impl Segment {
    /// The bytes that are stored. Costs CPU only, so that callers may do it in parallel.
    pub fn encode(&self) -> EncodedSegment {
        let mut out = Vec::with_capacity(64 + self.len() * 32 + self.added.bytes());
        out.extend_from_slice(&[b'S', FORMAT]);
        out.extend_from_slice(&(self.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 12]);
        put_rows(&mut out, &self.rows);
        put_numbers(&mut out, &self.origins, |n| n.to_le_bytes());
        put_numbers(&mut out, &self.inputs, |hash| hash.0);
        let who = out.len() - WHO_START;
        out[6..10].copy_from_slice(&(who as u32).to_le_bytes());
        let who_sum = sum(&out[WHO_START..]);
        out[10..18].copy_from_slice(&who_sum);
        put_body(&mut out, &self.body());
        let summary = Summary {
            first: self.rows.iter().copied().min().unwrap_or(0),
            last: self.rows.iter().copied().max().unwrap_or(0),
            items: self.len() as u32,
            failed: (self.len() - self.done) as u32,
        };
        EncodedSegment { bytes: out, summary }
    }

    fn body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.len() * 6 + self.added.bytes());
        out.extend_from_slice(&(self.done as u32).to_le_bytes());
        put_numbers(&mut out, &self.usage, |used| used.micros.to_le_bytes());
        put_mostly_equal(&mut out, &self.usage, |used| used.peak_kib.to_le_bytes());
        put_mostly_equal(&mut out, &self.attempts, |n| n.to_le_bytes());
        match &self.counts {
            None => out.push(0),
            Some(counts) => {
                out.push(1);
                put_numbers(&mut out, counts, |n| n.to_le_bytes());
            }
        }
        write_table(&self.added, &mut out);
        put_json(&mut out, &self.failures);
        match &self.made {
            None => out.push(0),
            Some(version) => {
                out.push(1);
                out.extend_from_slice(&version.0);
            }
        }
        out
    }
}

/// Only who the items of a stored segment are.
pub(crate) fn decode_who(bytes: &[u8]) -> Result<Who, StoreError> {
    let (who, _) = split_segment(bytes)?;
    Ok(who)
}

/// The segment that [`Segment::encode`] wrote.
pub(crate) fn decode_segment(bytes: &[u8]) -> Result<Segment, StoreError> {
    let (who, body) = split_segment(bytes)?;
    let format = bytes[1];
    let body = checked_body(body, SEGMENT)?;
    let items = who.rows.len();
    let mut reader = Reader::new(&body, SEGMENT);
    let done = reader.u32()? as usize;
    let micros = reader.column(items, u32::from_le_bytes)?;
    let peaks = match format {
        1 => vec![0; items],
        _ => take_mostly_equal(&mut reader, items, u32::from_le_bytes)?,
    };
    let attempts = take_mostly_equal(&mut reader, items, u16::from_le_bytes)?;
    if done > items {
        return Err(reader.damaged("its length"));
    }
    let counts = match reader.u8()? {
        0 => None,
        _ => Some(reader.column(done, u32::from_le_bytes)?),
    };
    let added = take_table(&mut reader)?;
    let failures: Vec<(String, Failure)> = take_json(&mut reader)?;
    let made = match format {
        1 | 2 => None,
        _ => (reader.u8()? != 0).then(|| reader.array()).transpose()?.map(Hash),
    };
    let given = counts.as_ref().map_or(done as u64, |counts| counts.iter().map(|&n| u64::from(n)).sum());
    if failures.len() != items - done || added.rows() as u64 != given {
        return Err(reader.damaged("its length"));
    }
    reader.finish()?;
    let Who { rows, origins, inputs } = who;
    let usage = micros.into_iter().zip(peaks).map(|(micros, peak_kib)| Usage { micros, peak_kib }).collect();
    Ok(Segment { rows, origins, inputs, usage, attempts, done, counts, added, failures, made })
}

/// Who, and the body with its sum.
fn split_segment(bytes: &[u8]) -> Result<(Who, &[u8]), StoreError> {
    let mut reader = Reader::new(bytes, SEGMENT);
    let [kind, format] = reader.array()?;
    if kind != b'S' || !(1..=FORMAT).contains(&format) {
        return Err(reader.damaged("its head"));
    }
    let items = reader.u32()? as usize;
    let length = reader.u32()? as usize;
    let expected: [u8; 8] = reader.array()?;
    let who = reader.take(length)?;
    if sum(who) != expected {
        return Err(reader.damaged("who its items are"));
    }
    let body = *reader.rest();
    let mut reader = Reader::new(who, SEGMENT);
    // Each item takes 24 bytes besides its row.
    if items > who.len() / 24 {
        return Err(reader.damaged("its length"));
    }
    let rows = reader.rows(items)?;
    let origins = reader.column(items, u64::from_le_bytes)?;
    let inputs = reader.column(items, Hash)?;
    reader.finish()?;
    Ok((Who { rows, origins, inputs }, body))
}

/// The bytes that are stored of a roster batch.
pub(crate) fn encode_roster(batch: &RosterBatch) -> Vec<u8> {
    let items = &batch.items;
    let mut body = Vec::with_capacity(64 + items.bytes() + batch.table.bytes());
    body.extend_from_slice(&(items.len() as u32).to_le_bytes());
    put_rows(&mut body, &items.rows);
    put_numbers(&mut body, &items.origins, |n| n.to_le_bytes());
    match &items.keys {
        None => body.push(0),
        Some(keys) => {
            body.push(1);
            put_texts(&mut body, keys);
        }
    }
    write_table(&batch.table, &mut body);
    put_json(&mut body, &batch.bad);
    let mut out = vec![b'R', FORMAT];
    out.extend_from_slice(&batch.digest.0);
    put_body(&mut out, &body);
    out
}

/// The batch that [`encode_roster`] wrote.
pub(crate) fn decode_roster(bytes: &[u8]) -> Result<RosterBatch, StoreError> {
    let mut reader = Reader::new(bytes, ROSTER);
    let [kind, format] = reader.array()?;
    if kind != b'R' || !(1..=FORMAT).contains(&format) {
        return Err(reader.damaged("its head"));
    }
    let digest = Hash(reader.array()?);
    let body = checked_body(reader.rest(), ROSTER)?;
    let mut reader = Reader::new(&body, ROSTER);
    let items = reader.u32()? as usize;
    // Each item takes 8 bytes besides its row.
    if items > body.len() / 8 {
        return Err(reader.damaged("its length"));
    }
    let rows = reader.rows(items)?;
    let origins = reader.column(items, u64::from_le_bytes)?;
    let keys = match reader.u8()? {
        0 => None,
        _ => Some(take_texts(&mut reader, items)?),
    };
    let table = take_table(&mut reader)?;
    let bad = take_json(&mut reader)?;
    if table.rows() != items {
        return Err(reader.damaged("its length"));
    }
    reader.finish()?;
    Ok(RosterBatch { items: Items { rows, origins, keys }, table, bad, digest })
}

fn put_numbers<const N: usize, T: Copy>(out: &mut Vec<u8>, numbers: &[T], bytes: impl Fn(T) -> [u8; N]) {
    out.reserve(numbers.len() * N);
    numbers.iter().for_each(|&n| out.extend_from_slice(&bytes(n)));
}

/// One number where all are equal.
fn put_mostly_equal<const N: usize, T: Copy>(out: &mut Vec<u8>, numbers: &[T], bytes: impl Fn(T) -> [u8; N]) {
    match numbers.first().map(|&first| bytes(first)) {
        Some(first) if numbers.iter().all(|&n| bytes(n) == first) => {
            out.push(0);
            out.extend_from_slice(&first);
        }
        _ => {
            out.push(1);
            put_numbers(out, numbers, bytes);
        }
    }
}

fn take_mostly_equal<const N: usize, T: Copy>(
    reader: &mut Reader,
    n: usize,
    read: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, StoreError> {
    match reader.u8()? {
        0 => Ok(vec![read(reader.array()?); n]),
        _ => reader.column(n, read),
    }
}

fn put_texts(out: &mut Vec<u8>, texts: &StringArray) {
    for text in texts {
        put_varint(out, text.map_or(0, str::len) as u64);
    }
    texts.iter().flatten().for_each(|text| out.extend_from_slice(text.as_bytes()));
}

fn take_texts(reader: &mut Reader, n: usize) -> Result<StringArray, StoreError> {
    let lengths = (0..n).map(|_| reader.varint()).collect::<Result<Vec<u64>, _>>()?;
    lengths
        .into_iter()
        .map(|length| {
            let bytes = reader.take(usize::try_from(length).map_err(|_| reader.damaged("a length"))?)?;
            std::str::from_utf8(bytes).map(Some).map_err(|_| reader.damaged("text"))
        })
        .collect()
}

fn take_table(reader: &mut Reader) -> Result<Table, StoreError> {
    let rest = reader.rest();
    read_table(rest).map_err(|_| reader.damaged("its columns"))
}

/// No values take no bytes.
fn put_json<T: serde::Serialize>(out: &mut Vec<u8>, values: &[T]) {
    let json = match values {
        [] => Vec::new(),
        _ => serde_json::to_vec(values).expect("text and numbers are JSON"),
    };
    put_varint(out, json.len() as u64);
    out.extend_from_slice(&json);
}

fn take_json<T: serde::de::DeserializeOwned>(reader: &mut Reader) -> Result<Vec<T>, StoreError> {
    let length = reader.varint()?;
    let bytes = reader.take(usize::try_from(length).map_err(|_| reader.damaged("a length"))?)?;
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(bytes).map_err(|_| reader.damaged("failures"))
}

fn put_body(out: &mut Vec<u8>, plain: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    put_compressed(out, plain);
    let sum = sum(&out[start + 8..]);
    out[start..start + 8].copy_from_slice(&sum);
}

fn checked_body(bytes: &[u8], what: &'static str) -> Result<Vec<u8>, StoreError> {
    let mut reader = Reader::new(bytes, what);
    let expected: [u8; 8] = reader.array()?;
    let rest = *reader.rest();
    if sum(rest) != expected {
        return Err(reader.damaged("its contents"));
    }
    decompress(rest, what)
}

/// A blob whose sums are right whatever its parts hold, so that fuzzing gets behind them. The parts: kind, format, for
/// a segment its number of items (u32), the length of who (u16) and who, then the plain body.
pub(crate) fn sealed(parts: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + parts.len());
    let body = match parts {
        [b'S', format, i, t, e, m, low, high, rest @ ..] => {
            let (who, body) = rest.split_at(rest.len().min(u16::from_le_bytes([*low, *high]).into()));
            out.extend_from_slice(&[b'S', *format, *i, *t, *e, *m]);
            out.extend_from_slice(&(who.len() as u32).to_le_bytes());
            out.extend_from_slice(&sum(who));
            out.extend_from_slice(who);
            body
        }
        [kind, format, body @ ..] => {
            out.extend_from_slice(&[*kind, *format]);
            out.extend_from_slice(&Hash::default().0);
            body
        }
        _ => parts,
    };
    put_body(&mut out, body);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::data::{Column, FailureKind, Value};
    use crate::store::tests::segment_of;

    fn awkward_segment() -> Segment {
        let mut segment = segment_of(0..40);
        segment.rows = (0..40).map(|i| i * i % 37).collect();
        segment.attempts[3] = 2;
        segment.usage[5].peak_kib = 7;
        segment.done = 30;
        segment.counts = Some((0..30).map(|i| i % 3).collect());
        let values = [Value::Int(1), Value::Text("ü".into()), Value::Null, Value::Absent, Value::Float(f64::NAN)];
        let column = Column::from_values((0..30).map(|i| values[i % 5].clone()));
        segment.added = Table::new(vec!["a".into()].into(), vec![column], 30);
        let failure = |i| (format!("key {i}"), Failure::new(FailureKind::Exception, "ValueError: no"));
        segment.failures = (0..10).map(failure).collect();
        segment.made = Some(Hash::of(b"1"));
        segment
    }

    fn awkward_roster() -> RosterBatch {
        let keys: StringArray = ["a", "", "ü"].into_iter().map(Some).collect();
        let items = Items { rows: vec![4, 7, 5], origins: vec![1, u64::MAX, 3], keys: Some(keys) };
        let bad = vec![(6, "k".to_string(), Failure::new(FailureKind::Input, "line 7: 2 fields"))];
        RosterBatch { items, table: segment_of(0..3).added, bad, digest: Hash([9; 16]) }
    }

    #[test]
    fn segments_come_back() {
        for segment in [awkward_segment(), segment_of(0..0), segment_of(u64::MAX - 3..u64::MAX)] {
            let encoded = segment.encode();
            let back = decode_segment(&encoded.bytes).unwrap();
            assert_eq!(format!("{back:?}"), format!("{segment:?}"));
            let who = decode_who(&encoded.bytes).unwrap();
            assert_eq!((who.rows, who.origins, who.inputs), (segment.rows, segment.origins, segment.inputs));
        }
        let summary = awkward_segment().encode().summary;
        assert_eq!(summary, Summary { first: 0, last: 36, items: 40, failed: 10 });
    }

    #[test]
    fn roster_batches_come_back() {
        let batch = awkward_roster();
        let back = decode_roster(&encode_roster(&batch)).unwrap();
        assert_eq!(format!("{back:?}"), format!("{batch:?}"));
    }

    #[test]
    fn rows_that_follow_each_other_take_no_room() {
        let (ordered, mut shuffled) = (segment_of(0..8192), segment_of(0..8192));
        shuffled.rows.reverse();
        assert!(ordered.encode().bytes() + 8000 < shuffled.encode().bytes());
        assert!(ordered.encode().bytes() < 8192 * 34, "{}", ordered.encode().bytes());
    }

    /// Changes some bytes, cuts some off; sums are made good again if `summed`, so that what is behind them is tried.
    fn damage(mut bytes: Vec<u8>, changes: &[(prop::sample::Index, u8)], cut: usize, summed: bool) -> Vec<u8> {
        bytes.truncate(bytes.len() - cut.min(bytes.len()));
        for (at, value) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
        }
        if summed && bytes.len() > WHO_START {
            let who = u32::from_le_bytes(bytes[6..10].try_into().unwrap()) as usize;
            if let Some(end) = WHO_START.checked_add(who).filter(|end| end + 8 <= bytes.len()) {
                let (who, body) = (sum(&bytes[WHO_START..end]), sum(&bytes[end + 8..]));
                bytes[10..18].copy_from_slice(&who);
                bytes[end..end + 8].copy_from_slice(&body);
            }
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

        #[test]
        fn damage_is_an_error_and_no_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in prop_oneof![Just(0usize), 0..60usize],
            summed: bool,
        ) {
            let whole = awkward_segment().encode().bytes;
            let bytes = damage(whole.clone(), &changes, cut, summed);
            let read = decode_segment(&bytes);
            if !summed {
                prop_assert_eq!(read.is_ok(), bytes == whole);
            }
            let whole = encode_roster(&awkward_roster());
            let bytes = damage(whole.clone(), &changes, cut, false);
            let read = decode_roster(&bytes);
            // The digest says what the batch is, not what its bytes are.
            prop_assert_eq!(read.is_ok(), bytes.len() == whole.len() && bytes[18..] == whole[18..] && bytes[..2] == whole[..2]);
        }

        #[test]
        fn any_plain_body_is_read_or_refused(plain in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = vec![b'R', FORMAT];
            bytes.extend_from_slice(&[0; 16]);
            put_body(&mut bytes, &plain);
            let _ = decode_roster(&bytes);
            let whole = segment_of(0..2).encode().bytes;
            let who = WHO_START + u32::from_le_bytes(whole[6..10].try_into().unwrap()) as usize;
            let mut bytes = whole[..who].to_vec();
            put_body(&mut bytes, &plain);
            let _ = decode_segment(&bytes);
        }
    }
}
