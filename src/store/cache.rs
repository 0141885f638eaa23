//! Decoded segments, the least recently used of which go first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::model::Segment;

/// Bytes of decoded segments that are kept, about.
const LIMIT: usize = 32 << 20;

/// Segments by their place in a directory.
#[derive(Debug, Default)]
pub(super) struct Cache {
    segments: HashMap<u32, Cached>,
    by_use: BTreeMap<u64, u32>,
    bytes: usize,
    uses: u64,
}

#[derive(Debug)]
struct Cached {
    segment: Arc<Segment>,
    bytes: usize,
    used: u64,
}

impl Cache {
    pub fn get(&mut self, place: u32) -> Option<Arc<Segment>> {
        let cached = self.segments.get_mut(&place)?;
        self.uses += 1;
        self.by_use.remove(&cached.used);
        self.by_use.insert(self.uses, place);
        cached.used = self.uses;
        Some(cached.segment.clone())
    }

    pub fn put(&mut self, place: u32, segment: Arc<Segment>) {
        self.uses += 1;
        let bytes = 256 + segment.bytes();
        self.bytes += bytes;
        self.by_use.insert(self.uses, place);
        if let Some(old) = self.segments.insert(place, Cached { segment, bytes, used: self.uses }) {
            self.bytes -= old.bytes;
            self.by_use.remove(&old.used);
        }
        while self.bytes > LIMIT && self.segments.len() > 1 {
            let (_, oldest) = self.by_use.pop_first().expect("as many as segments");
            self.bytes -= self.segments.remove(&oldest).expect("in step with the uses").bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::segment_of;

    #[test]
    fn what_was_not_used_goes() {
        let segment = Arc::new(segment_of(0..8192));
        let fits = (LIMIT / (segment.bytes() + 256)) as u32;
        let mut cache = Cache::default();
        for place in 0..fits {
            cache.put(place, segment.clone());
        }
        assert!(cache.get(0).is_some());
        cache.put(fits, segment.clone());
        assert!(cache.get(0).is_some(), "just used");
        assert!(cache.get(1).is_none(), "the oldest");
        assert!(cache.bytes <= LIMIT);
    }
}
