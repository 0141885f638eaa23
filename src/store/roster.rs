//! A source's rows as they were read.

use redb::{AccessGuard, StorageError};
use serde::{Deserialize, Serialize};

use super::codec::decode_roster;
use super::db::{BATCHES, LISTS, table};
use super::error::StoreError;
use super::model::{RosterBatch, RosterInfo};
use super::{Store, db};
use crate::data::Hash;

/// A roster of a source. It stays the same whatever is committed later, until a later run begins.
#[derive(Debug, Clone)]
pub struct Roster {
    store: Store,
    list: u64,
    info: RosterInfo,
}

impl Roster {
    /// What is known of it.
    pub fn info(&self) -> &RosterInfo {
        &self.info
    }

    /// Its `n`th batch; `None` past its end.
    pub fn batch(&self, n: u64) -> Result<Option<RosterBatch>, StoreError> {
        self.store.reading(|transaction| {
            let Some(digest) = self.find(transaction, n)? else { return Ok(None) };
            let blob = match table(transaction, BATCHES)? {
                Some(batches) => batches.get(digest.0)?,
                None => None,
            };
            let blob = blob.ok_or_else(|| StoreError::Replaced("the roster".into()))?;
            let batch = decode_roster(blob.value())?;
            if batch.digest != digest {
                return Err(StoreError::damaged("a digest", "a roster batch"));
            }
            Ok(Some(batch))
        })
    }

    /// The digest of its `n`th batch, which costs next to nothing; `None` past its end.
    pub fn digest(&self, n: u64) -> Result<Option<Hash>, StoreError> {
        self.store.reading(|transaction| self.find(transaction, n))
    }

    /// Where its batches end: the number of rows up to there.
    pub fn cuts(&self) -> Result<Vec<u64>, StoreError> {
        self.store.reading(|transaction| {
            let Some(lists) = table(transaction, LISTS)? else { return Ok(Vec::new()) };
            let mut cuts = Vec::new();
            for entry in lists.range((self.list, 0)..(self.list, self.info.batches))? {
                let rows = entry?.1.value().1;
                cuts.push(cuts.last().copied().unwrap_or(0) + rows);
            }
            Ok(cuts)
        })
    }

    fn find(&self, transaction: &redb::ReadTransaction, n: u64) -> Result<Option<Hash>, StoreError> {
        if n >= self.info.batches {
            return Ok(None);
        }
        let found = match table(transaction, LISTS)? {
            Some(lists) => lists.get((self.list, n))?.map(|v| Hash(v.value().0)),
            None => None,
        };
        found.map(Some).ok_or_else(|| StoreError::Replaced("the roster".into()))
    }
}

/// What is stored of a source: the ids of its lists.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Rosters {
    pub current: Option<u64>,
    pub pending: Option<u64>,
    info: Option<StoredInfo>,
}

/// [`RosterInfo`] of the current list.
#[derive(Debug, Serialize, Deserialize)]
struct StoredInfo {
    batches: u64,
    rows: u64,
    digest: Hash,
    content: Option<Hash>,
}

impl Rosters {
    pub fn from_json(json: &str) -> Result<Rosters, StoreError> {
        serde_json::from_str(json).map_err(|e| StoreError::damaged(e.to_string(), "a roster"))
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers are JSON")
    }

    /// The list that readers see, and how many rows it should have, if that is known.
    pub fn shown(&self) -> Option<(u64, Option<u64>)> {
        match (self.current, &self.info) {
            (Some(list), Some(info)) => Some((list, Some(info.rows))),
            _ => self.pending.map(|list| (list, None)),
        }
    }

    /// All lists that there are.
    pub fn lists(&self) -> impl Iterator<Item = u64> {
        self.current.into_iter().chain(self.pending)
    }

    /// From now on what readers see counts as read in part; there is nothing else.
    pub fn interrupt(&mut self) {
        let pending = self.shown().map(|(list, _)| list);
        *self = Rosters { pending, ..Rosters::default() };
    }

    pub fn set_info(&mut self, info: &RosterInfo) {
        let RosterInfo { batches, rows, digest, content, .. } = *info;
        self.info = Some(StoredInfo { batches, rows, digest, content });
    }
}

/// The current roster of a source, else the one that a run began and did not finish.
pub(super) fn find(store: &Store, source: &str) -> Result<Option<Roster>, StoreError> {
    store.reading(|transaction| {
        let stored = match table(transaction, db::ROSTERS)? {
            Some(rosters) => rosters.get(source)?.map(|json| Rosters::from_json(json.value())).transpose()?,
            None => None,
        };
        let Some(rosters) = stored else { return Ok(None) };
        if let (Some(list), Some(info)) = (rosters.current, rosters.info) {
            let StoredInfo { batches, rows, digest, content } = info;
            let info = RosterInfo { complete: true, batches, rows, digest, content };
            return Ok(Some(Roster { store: store.clone(), list, info }));
        }
        let Some(list) = rosters.pending else { return Ok(None) };
        let info = partial_info(transaction, list)?;
        Ok(Some(Roster { store: store.clone(), list, info }))
    })
}

fn partial_info(transaction: &redb::ReadTransaction, list: u64) -> Result<RosterInfo, StoreError> {
    let mut info = RosterInfo { complete: false, batches: 0, rows: 0, digest: Hash::of_parts([]), content: None };
    let Some(lists) = table(transaction, LISTS)? else { return Ok(info) };
    let mut digests = Vec::new();
    for entry in lists.range((list, 0)..=(list, u64::MAX))? {
        let (key, value) = entry?;
        // What a killed run left has no holes; one would end it.
        if key.value().1 != info.batches {
            break;
        }
        digests.push(value.value().0);
        info.batches += 1;
        info.rows += value.value().1;
    }
    info.digest = Hash::of_parts(digests.iter().map(|d| &d[..]));
    Ok(info)
}

type ListEntry<'a> = (AccessGuard<'a, (u64, u64)>, AccessGuard<'a, ([u8; 16], u64)>);

/// The hash of the digests of a list, and of where they stand.
pub(super) fn list_digest<'a>(
    entries: impl Iterator<Item = Result<ListEntry<'a>, StorageError>>,
) -> Result<Hash, StoreError> {
    let mut parts = Vec::new();
    for entry in entries {
        let (key, value) = entry?;
        parts.push((key.value().1.to_le_bytes(), value.value().0));
    }
    Ok(Hash::of_parts(parts.iter().flat_map(|(n, digest)| [&n[..], &digest[..]])))
}
