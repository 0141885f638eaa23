//! stub
use super::seat::Seat;
pub(super) fn work(_seat: Seat, _lanes: usize) {}
