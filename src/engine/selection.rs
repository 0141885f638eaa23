//! `--item` and `--row`: which due items a run takes up.

use crate::data::Items;

/// What the command line selects; empty: everything.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Keys as printed.
    pub keys: Vec<String>,
    /// Source rows, from 0.
    pub rows: Vec<u64>,
}

impl Selection {
    /// Whether everything is selected.
    pub fn is_all(&self) -> bool {
        self.keys.is_empty() && self.rows.is_empty()
    }

    /// A selection of these keys and rows; lists of several key columns may be spaced as one likes.
    pub fn new(keys: &[String], rows: &[u64]) -> Selection {
        let keys = keys.iter().map(|key| match serde_json::from_str::<Vec<serde_json::Value>>(key) {
            Ok(list) => serde_json::Value::from(list).to_string(),
            Err(_) => key.clone(),
        });
        Selection { keys: keys.collect(), rows: rows.to_vec() }
    }

    /// The keys and rows that none of these items answers to are left in `missing`.
    pub fn strike_out(missing: &mut Selection, items: &Items) {
        if missing.is_all() {
            return;
        }
        missing.rows.retain(|row| !items.rows.contains(row));
        missing.keys.retain(|wanted| !(0..items.len()).any(|i| items.key(i) == *wanted));
    }

    /// Whether item `i` is selected: by its row, its key, or the key of an item that it came from or that comes
    /// from it (`K` and `K/0` select each other).
    pub fn covers(&self, items: &Items, i: usize) -> bool {
        if self.is_all() || self.rows.contains(&items.rows[i]) {
            return true;
        }
        if self.keys.is_empty() {
            return false;
        }
        let key = items.key(i);
        self.keys.iter().any(|wanted| related(wanted, &key) || related(&key, wanted))
    }
}

fn related(longer: &str, shorter: &str) -> bool {
    longer.strip_prefix(shorter).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(keys: &[&str]) -> Items {
        Items {
            rows: (0..keys.len() as u64).collect(),
            origins: vec![0; keys.len()],
            keys: Some(keys.iter().map(|k| Some(*k)).collect()),
        }
    }

    #[test]
    fn a_key_selects_itself_its_parents_and_its_children() {
        let selection = Selection { keys: vec!["a/1".into()], rows: vec![] };
        let items = items(&["a", "a/1", "a/1/0", "a/10", "ab", "b"]);
        let covered: Vec<bool> = (0..items.len()).map(|i| selection.covers(&items, i)).collect();
        assert_eq!(covered, [true, true, true, false, false, false]);
    }

    #[test]
    fn rows_select_by_position_and_nothing_selects_all() {
        let items = items(&["a", "b"]);
        let selection = Selection { keys: vec![], rows: vec![1] };
        assert!(!selection.covers(&items, 0) && selection.covers(&items, 1));
        assert!(Selection::default().covers(&items, 0));
    }
}
