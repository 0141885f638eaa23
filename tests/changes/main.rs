//! Random workflows that are edited at random, and run after each edit: `plan` promised what then ran, what ran is
//! exactly what an oracle says is due, results equal those of a run from nothing, and then there is nothing to do.
//!
//! - `flow`: a workflow as a value, and the files that it is written as.
//! - `edits`: how it is made up and changed, and which changes may not count.
//! - `oracle`: what every stage's items are, what they give, and what earlier runs have settled of them.
//! - `trial`: a workflow under edits, and all that is checked after each.
//!
//! Variables: `BPP_TEST_CASES` (how many edits are checked, default 510), `BPP_TEST_SEED` (the first workflow, default
//! 1), and those of `tests/suite`, whose `env` and `random` are shared. A failing case tells its seed; seeds that once
//! failed are kept in `trial`.
#![expect(clippy::disallowed_methods, reason = "the suite starts the program")]

#[path = "../suite/env.rs"]
#[expect(dead_code, reason = "what only the other suites use")]
mod env;
#[path = "../suite/random.rs"]
mod random;

mod edits;
mod flow;
mod oracle;
mod trial;
