//! Workers on other machines.

pub(super) mod listener;
