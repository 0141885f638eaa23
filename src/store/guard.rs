//! What redb panics on becomes an error.
//!
//! redb trusts the pages it reads. What a store opens with is verified ([`super::pages`]), but not every page of
//! results is read then, so each call into redb goes through [`guard`]. Panics of our own stay panics.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

use super::error::StoreError;

thread_local! {
    /// Whether this thread is guarded, and what redb panicked with.
    static GUARDED: RefCell<(u32, Option<String>)> = const { RefCell::new((0, None)) };
}

/// Runs `work`; if redb panics in it, on this thread, the store is damaged. Nothing is printed then.
pub(super) fn guard<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !noted(info) {
                before(info);
            }
        }));
    });
    GUARDED.with_borrow_mut(|(depth, _)| *depth += 1);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    let told = GUARDED.with_borrow_mut(|(depth, told)| {
        *depth -= 1;
        told.take()
    });
    match (result, told) {
        (Ok(result), _) => result,
        (Err(_), Some(what)) => Err(StoreError::damaged(what, "its pages")),
        (Err(panic), None) => panic::resume_unwind(panic),
    }
}

/// Whether the panic is redb's, in a guarded thread; keeps what it says.
fn noted(info: &PanicHookInfo) -> bool {
    let of_redb = info.location().is_some_and(|place| place.file().contains("redb"));
    GUARDED.with_borrow_mut(|(depth, told)| {
        let noted = of_redb && *depth > 0;
        if noted {
            told.get_or_insert_with(|| text(info));
        }
        noted
    })
}

fn text(info: &PanicHookInfo) -> String {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("an inconsistency").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_of_our_own_stay_panics() {
        let own = panic::catch_unwind(|| guard::<()>(|| panic!("ours")));
        assert_eq!(own.unwrap_err().downcast_ref::<&str>(), Some(&"ours"));
        assert_eq!(guard(|| Ok(1)).unwrap(), 1);
    }

    #[test]
    fn panics_of_redb_are_damage() {
        let bytes: &'static [u8] = b"\xff\xff";
        let damaged = guard(|| Ok(<&str as redb::Value>::from_bytes(bytes).len()));
        assert!(matches!(damaged, Err(StoreError::Damaged { .. })), "{damaged:?}");
    }
}
