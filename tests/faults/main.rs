//! The fault suite: every promise of `docs/reliability.md` under the fault that it is about.
//!
//! - `kills`: bpp-flow itself is killed, at any moment, again and again.
//! - `isolation`, `deaths`: items, workers, commands and keepers that die, are killed or stopped.
//! - `company`: items that change, close, print, fork or leave what they should not.
//! - `soak`: random workflows ([`scenario`]) under a random [`killer`], checked after each resume against an oracle.
//!
//! Variables: `BPP_SOAK_SECONDS` (how long the soak goes on, default 20), `BPP_TEST_SEED` (its first workflow; default:
//! another one each time), `BPP_TEST_KILLS` (kills of each kind in `kills`, default 3), and those of `tests/suite`, whose
//! `env` and `random` are shared.
#![expect(clippy::disallowed_methods, reason = "the suite starts the program")]

#[path = "../suite/env.rs"]
#[expect(dead_code, reason = "what only the other suite uses")]
mod env;

mod company;
mod deaths;
mod isolation;
mod killer;
mod kills;
#[path = "../suite/random.rs"]
mod random;
mod scenario;
mod soak;
