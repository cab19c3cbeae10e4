//! Ctrl-C (and SIGTERM) as a flag, so that nothing half-written is left.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

/// The flag, or why there is none. Whoever comes while it is made waits for it.
static FLAG: OnceLock<Result<Arc<AtomicBool>, String>> = OnceLock::new();

/// The flag that Ctrl-C sets from now on. Until this is called, Ctrl-C ends the program at once.
pub fn flag() -> Result<Arc<AtomicBool>> {
    let flag = FLAG.get_or_init(|| {
        let flag = Arc::<AtomicBool>::default();
        let set = flag.clone();
        let handled = ctrlc::set_handler(move || set.store(true, Ordering::Relaxed));
        handled.map(|()| flag).map_err(|e| e.to_string())
    });
    let none = |why: &String| Error::Unavailable { what: "stopping by Ctrl-C".into(), why: why.clone() };
    flag.clone().map_err(|why| none(&why))
}

#[cfg(test)]
mod tests {
    #[test]
    fn threads_that_ask_at_once_get_the_same_flag() {
        let threads: Vec<_> = (0..16).map(|_| std::thread::spawn(|| super::flag().unwrap())).collect();
        let flags: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(flags.iter().all(|flag| std::sync::Arc::ptr_eq(flag, &flags[0])));
    }
}
