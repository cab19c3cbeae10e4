//! Work in many parts over threads; what the parts give comes in their order, whoever did them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::{Error, Result};

/// `work(state, i)` for parts 0 … `parts` − 1, on one thread a state. After an error no more parts are begun; of several errors that of
/// the first part is returned.
pub fn spread<S: Send, R: Send>(
    states: &mut [S],
    parts: usize,
    work: impl Fn(&mut S, usize) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (work, done) = (&work, Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for state in states.iter_mut() {
            let (next, failed, done) = (&next, &failed, &done);
            scope.spawn(move || {
                while !failed.load(Ordering::Relaxed) {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= parts {
                        return;
                    }
                    let result = work(state, i);
                    failed.fetch_or(result.is_err(), Ordering::Relaxed);
                    done.lock().unwrap_or_else(|e| e.into_inner()).insert(i, result);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    let results = done.into_values().collect::<Result<Vec<_>>>()?;
    if results.len() == parts { Ok(results) } else { Err(Error::Train("a thread stopped early".into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_the_first_error_is_told() -> Result<()> {
        let slow = |_: &mut (), i: usize| {
            std::thread::sleep(std::time::Duration::from_millis((7 - i) as u64));
            Ok(i)
        };
        assert_eq!(spread(&mut [(); 3], 7, slow)?, (0..7).collect::<Vec<_>>());
        let fails = |_: &mut (), i: usize| if i < 4 { Ok(()) } else { Err(Error::Train(i.to_string())) };
        assert_eq!(spread(&mut [(); 3], 9, fails).unwrap_err().to_string(), "training: 4");
        assert!(spread(&mut [(); 0], 0, |_, _| Ok(()))?.is_empty());
        assert!(spread(&mut [(); 0], 1, |_, _| Ok(())).is_err());
        Ok(())
    }
}
