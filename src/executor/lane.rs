//! A lane of a Python worker: the chunk that it has in hand, sent whole, streamed (a group's rows) or in parts.

use std::time::{Duration, Instant};

use super::chunk::{Chunk, Content};
use super::queue::{Payload, Queued};
use super::seat::Hand;
use super::slot::{InHand, Slot};
use super::wire;
use crate::data::Table;

/// Where the number of the lane stands in a task's frame.
const LANE_AT: std::ops::Range<usize> = 17..21;

/// A task in hand of a Python worker.
pub(super) struct Lane {
    pub chunk: Chunk,
    /// Rows that the group's function still has to get.
    pub rows: Option<Box<dyn Iterator<Item = Table> + Send>>,
    /// The slot's word when it was last seen to change.
    seen: (u64, Instant),
}

impl Lane {
    /// Takes up a task: the lane and the first frame.
    pub(super) fn begin(number: usize, mut task: Queued) -> (Lane, Vec<u8>) {
        let hand = Hand::new(&mut task);
        let seen = (0, Instant::now());
        match task.payload {
            Payload::Frame { frame, rows } => {
                let mut bytes = frame.recv().unwrap_or_default();
                set_lane(&mut bytes, number);
                (Lane { chunk: Chunk::new(hand, rows.map(Content::Rows)), rows: None, seen }, bytes)
            }
            Payload::Group { rows, args, .. } => {
                let frame = wire::group_frame(hand.seq, hand.job_id, number as u32, &args);
                (Lane { chunk: Chunk::new(hand, None), rows: Some(rows), seen }, frame)
            }
        }
    }

    /// What the worker has in hand of this task; nothing if that has been reported.
    pub(super) fn in_hand(&self, number: usize, slot: &Slot) -> InHand {
        self.chunk.placed(slot.in_hand(number, self.chunk.hand.seq))
    }

    /// How long the worker has been at the same.
    pub(super) fn at_it_for(&mut self, number: usize, slot: &Slot) -> Duration {
        let raw = slot.raw(number);
        if raw != self.seen.0 {
            self.seen = (raw, Instant::now());
        }
        self.seen.1.elapsed()
    }

    /// Whether items before the one in hand were not reported.
    pub(super) fn has_finished_more(&self, number: usize, slot: &Slot) -> bool {
        let reported = self.chunk.reported() as u32;
        matches!(slot.in_hand(number, self.chunk.hand.seq), InHand::Item(item) if item > reported)
    }

    /// The frame of the next part, if there is one.
    pub(super) fn next_part(&mut self, number: usize) -> Option<Vec<u8>> {
        let part = self.chunk.next_part()?;
        let hand = &self.chunk.hand;
        Some(wire::task_frame(hand.seq, hand.job_id, number as u32, &hand.job, &part))
    }
}

fn set_lane(frame: &mut [u8], number: usize) {
    if let Some(place) = frame.get_mut(LANE_AT) {
        place.copy_from_slice(&(number as u32).to_le_bytes());
    }
}
