//! Who an item is: its place, its key, its origin; and the hash of what its action sees.

use std::sync::Arc;

use arrow_array::{Array, StringArray};
use serde::{Deserialize, Serialize};

use super::table::Table;
use super::value::tag;

/// A hash of 128 bits (the head of a blake3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Hash(pub [u8; 16]);

impl Hash {
    /// The hash of some bytes.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash::from(&blake3::hash(bytes))
    }

    /// The same of what has that blake3.
    pub fn of_digest(digest: &[u8; 32]) -> Hash {
        Hash(digest[..16].try_into().expect("sixteen of thirty-two"))
    }

    /// The hash of a sequence of parts; where one ends counts.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Hash {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Hash::from(&hasher.finalize())
    }

    /// The first 64 bits.
    pub fn short(self) -> u64 {
        u64::from_le_bytes(self.0[..8].try_into().expect("eight of sixteen"))
    }
}

impl From<&blake3::Hash> for Hash {
    fn from(hash: &blake3::Hash) -> Hash {
        Hash(hash.as_bytes()[..16].try_into().expect("sixteen of thirty-two"))
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// An item's origin: who it is apart from its values. For a keyed source a hash of the key; else of the source row
/// and its occurrence number among equal rows; made deeper by each `flat_map`.
pub type Origin = u64;

/// The items of a batch, in step with the rows of a table.
#[derive(Debug, Clone)]
pub struct Items {
    /// The source row each item came from, from 0 (of the group for what follows a reduce). Not unique after a
    /// `flat_map`.
    pub rows: Vec<u64>,
    /// Who each item is.
    pub origins: Vec<Origin>,
    /// The names of the items for people; `None`: the row numbers.
    pub keys: Option<StringArray>,
}

impl Items {
    /// The number of items.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The key of item `i`, as printed and as `--item` takes it.
    pub fn key(&self, i: usize) -> String {
        match &self.keys {
            Some(keys) => keys.value(i).to_string(),
            None => self.rows[i].to_string(),
        }
    }

    /// The items of `indices`, in that order.
    pub fn take(&self, indices: &[u32]) -> Items {
        Items {
            rows: indices.iter().map(|&i| self.rows[i as usize]).collect(),
            origins: indices.iter().map(|&i| self.origins[i as usize]).collect(),
            keys: self.keys.as_ref().map(|keys| indices.iter().map(|&i| Some(keys.value(i as usize))).collect()),
        }
    }

    /// Items `offset .. offset + len`.
    pub fn slice(&self, offset: usize, len: usize) -> Items {
        Items {
            rows: self.rows[offset..offset + len].to_vec(),
            origins: self.origins[offset..offset + len].to_vec(),
            keys: self.keys.as_ref().map(|keys| keys.slice(offset, len)),
        }
    }

    /// The items of all parts, in that order.
    pub fn concat(parts: &[&Items]) -> Items {
        let keyed = parts.iter().any(|p| p.keys.is_some());
        let keys = keyed.then(|| parts.iter().flat_map(|p| (0..p.len()).map(|i| Some(p.key(i)))).collect());
        Items {
            rows: parts.iter().flat_map(|p| p.rows.iter().copied()).collect(),
            origins: parts.iter().flat_map(|p| p.origins.iter().copied()).collect(),
            keys,
        }
    }

    /// Bytes held, roughly.
    pub fn bytes(&self) -> usize {
        self.len() * 16 + self.keys.as_ref().map_or(0, |k| k.value_data().len() + k.len() * 4)
    }

    /// The children of these items after a `flat_map` in which item `i` gave `counts[i]` rows: keys get `/N`.
    pub fn children(&self, counts: &[u32]) -> Items {
        let total = counts.iter().map(|&n| n as usize).sum();
        let mut children = Items { rows: Vec::with_capacity(total), origins: Vec::with_capacity(total), keys: None };
        let mut keys = Vec::with_capacity(total);
        for (i, &count) in counts.iter().enumerate() {
            let parent = self.key(i);
            for n in 0..count {
                children.rows.push(self.rows[i]);
                children.origins.push(mix(self.origins[i], u64::from(n) + 1));
                keys.push(format!("{parent}/{n}"));
            }
        }
        children.keys = Some(StringArray::from(keys));
        children
    }
}

/// A new origin from one and a number (the child's, the input's).
pub fn mix(origin: Origin, number: u64) -> Origin {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&origin.to_le_bytes());
    bytes[8..].copy_from_slice(&number.to_le_bytes());
    Hash::of(&bytes).short()
}

/// Items and their rows.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Who the rows are.
    pub items: Items,
    /// The rows.
    pub table: Table,
}

impl Batch {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes held, roughly.
    pub fn bytes(&self) -> usize {
        self.items.bytes() + self.table.bytes()
    }

    /// The rows of `indices`, in that order.
    pub fn take(&self, indices: &[u32]) -> Batch {
        Batch { items: self.items.take(indices), table: self.table.take(indices) }
    }

    /// Rows `offset .. offset + len`.
    pub fn slice(&self, offset: usize, len: usize) -> Batch {
        Batch { items: self.items.slice(offset, len), table: self.table.slice(offset, len) }
    }

    /// All rows of all parts, in that order.
    pub fn concat(parts: &[Batch]) -> Batch {
        if let [only] = parts {
            return only.clone();
        }
        let items: Vec<&Items> = parts.iter().map(|p| &p.items).collect();
        let tables: Vec<Table> = parts.iter().map(|p| p.table.clone()).collect();
        Batch { items: Items::concat(&items), table: Table::concat(&tables) }
    }
}

/// Which columns an action sees, and so which its results depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Uses {
    /// The whole row.
    All,
    /// These, whether the row has them or not.
    Columns(Arc<[String]>),
}

impl Uses {
    /// Whether the column counts.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Uses::All => true,
            Uses::Columns(names) => names.iter().any(|n| n == name),
        }
    }
}

/// The hash of each row's used cells: over the sorted names of the cells that are there, then the cells. Absent
/// cells and those set aside do not count, so rows hash alike whatever their neighbours are.
pub fn row_hashes(table: &Table, uses: &Uses) -> Vec<Hash> {
    let mut columns: Vec<_> =
        table.names().iter().zip(table.columns()).filter(|(name, _)| uses.contains(name)).collect();
    columns.sort_by(|a, b| a.0.cmp(b.0));
    let counts = |row: usize, i: usize| !matches!(columns[i].1.tag(row), tag::ABSENT | tag::ASIDE);
    let mixed: Vec<usize> =
        (0..columns.len()).filter(|&i| matches!(columns[i].1, super::table::Column::Cells(_))).collect();
    let prefix = |row: usize| {
        let there = (0..columns.len()).filter(|&i| counts(row, i));
        Hash::of_parts(there.map(|i| columns[i].0.as_bytes())).short().to_le_bytes()
    };
    let mut prefixes = hashbrown::HashMap::<Vec<bool>, [u8; 8]>::new();
    let fixed = if mixed.is_empty() && table.rows() > 0 { Some(prefix(0)) } else { None };
    let mut cells = Vec::new();
    (0..table.rows())
        .map(|row| {
            cells.clear();
            match fixed {
                Some(prefix) => cells.extend_from_slice(&prefix),
                None => {
                    let there: Vec<bool> = mixed.iter().map(|&i| counts(row, i)).collect();
                    cells.extend_from_slice(prefixes.entry(there).or_insert_with(|| prefix(row)));
                }
            }
            for (i, (_, column)) in columns.iter().enumerate() {
                if fixed.is_some() || counts(row, i) {
                    column.encode_cell(row, &mut cells);
                }
            }
            Hash::of(&cells)
        })
        .collect()
}
