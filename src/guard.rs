//! Work of other crates over bytes from outside, whose panics become errors.
//!
//! A decoder's arithmetic may overflow on a damaged file. [`guarded`] ends that file, not the program. Rust tells of a panic on
//! standard error before anyone can catch it; a program that wants to say one line of its own asks [`is_guarded`] in its panic hook,
//! as the command line does.
//!
//! ```
//! use cascabel::guard::{guarded, is_guarded};
//! let former = std::panic::take_hook();
//! std::panic::set_hook(Box::new(move |info| if !is_guarded() { former(info) }));
//! assert_eq!(guarded(|| 1 + 1), Some(2));
//! assert_eq!(guarded(|| [1, 2][std::hint::black_box(2)]), None);
//! ```

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What the work gave, or nothing if it panicked. What it had begun to change must not be used then.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work)).ok();
    GUARDED.set(outer);
    result
}

/// Whether this thread is inside of [`guarded`]: a panic now will be caught and told as an error.
pub fn is_guarded() -> bool {
    GUARDED.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_and_the_flag_is_put_back() {
        assert!(!is_guarded());
        assert_eq!(guarded(is_guarded), Some(true));
        let inner = guarded(|| (guarded(|| std::panic::resume_unwind(Box::new(()))), is_guarded()));
        assert_eq!(inner, Some((None::<()>, true)));
        assert!(!is_guarded());
        let elsewhere = guarded(|| std::thread::spawn(is_guarded).join());
        assert!(matches!(elsewhere, Some(Ok(false))), "another thread's panics are its own");
    }
}
