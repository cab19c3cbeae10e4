//! Things handed to a thread that must not free them, and back.
//!
//! ```text
//! whoever steers: offer ─► coming ─► take: the real-time thread : give_back ─► spent ─► tidy: freed where they came from
//! ```
//!
//! Neither side waits. What finds no room on its way back is held by the real-time thread, which takes nothing new until it is gone.

use super::queue::ArrayQueue;

/// The queues between the two.
pub(super) struct Exchange<T> {
    coming: ArrayQueue<Box<T>>,
    spent: ArrayQueue<Box<T>>,
}

/// The real-time thread's hand: what it could not give back yet.
pub(super) struct Held<T>(Option<Box<T>>);

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Exchange<T> {
    pub(super) fn new(room: usize) -> Self {
        Self { coming: ArrayQueue::new(room), spent: ArrayQueue::new(room) }
    }

    /// Offers a thing; it comes back if the real-time thread has not taken those before.
    pub(super) fn offer(&self, thing: Box<T>) -> Result<(), Box<T>> {
        self.tidy();
        self.coming.push(thing)
    }

    /// Frees what has come back.
    pub(super) fn tidy(&self) {
        while self.spent.pop().is_some() {}
    }

    /// The next thing, on the real-time thread, once it has nothing to give back.
    pub(super) fn take(&self, held: &mut Held<T>) -> Option<Box<T>> {
        if let Some(thing) = held.0.take() {
            held.0 = self.spent.push(thing).err();
        }
        if held.0.is_some() { None } else { self.coming.pop() }
    }

    /// Sends a thing back from the real-time thread, at the latest with the next [`take`](Self::take).
    pub(super) fn give_back(&self, held: &mut Held<T>, thing: Box<T>) {
        debug_assert!(held.0.is_none(), "nothing is taken before the last is gone");
        held.0 = self.spent.push(thing).err();
    }
}

/// Every way in which the two threads can take turns: `make loom`.
#[cfg(all(test, cascabel_loom))]
mod tests {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use loom::thread;

    use super::*;
    use crate::engine::live::slot::Slot;

    loom::thread_local! {
        static REAL_TIME: std::cell::Cell<bool> = std::cell::Cell::new(false);
    }

    /// Counts where it is freed.
    struct Thing {
        number: usize,
        freed: Arc<AtomicUsize>,
    }

    impl Drop for Thing {
        fn drop(&mut self) {
            assert!(!REAL_TIME.with(|here| here.get()), "freed on the real-time thread");
            self.freed.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn loom_things_are_taken_in_order_and_freed_where_they_came_from() {
        loom::model(|| {
            let (exchange, freed) = (Arc::new(Exchange::<Thing>::new(1)), Arc::new(AtomicUsize::new(0)));
            let thing = |number| Box::new(Thing { number, freed: freed.clone() });
            let first = thing(0);
            let theirs = exchange.clone();
            let real_time = thread::spawn(move || {
                REAL_TIME.with(|here| here.set(true));
                let (mut held, mut current) = (Held::default(), first);
                for _ in 0..3 {
                    if let Some(next) = theirs.take(&mut held) {
                        assert_eq!(next.number, current.number + 1, "in order, none twice");
                        theirs.give_back(&mut held, std::mem::replace(&mut current, next));
                    }
                }
                REAL_TIME.with(|here| here.set(false));
                (held, current)
            });
            let mut offered = 0;
            for number in 1..3 {
                match exchange.offer(thing(number)) {
                    Ok(()) => offered += 1,
                    // Refused: the caller's again, here and at once.
                    Err(thing) => {
                        drop(thing);
                        break;
                    }
                }
            }
            let rest = real_time.join().unwrap();
            assert!(rest.1.number <= offered);
            drop((rest, exchange));
            let made = if offered < 2 { offered + 2 } else { 3 };
            assert_eq!(freed.load(SeqCst), made, "every one, once");
        });
    }

    #[test]
    fn loom_commands_arrive_in_order_or_are_refused() {
        loom::model(|| {
            let queue = Arc::new(ArrayQueue::new(2));
            let theirs = queue.clone();
            let steering =
                thread::spawn(move || (0..3).filter(|n| theirs.push(*n).is_ok()).collect::<Vec<u32>>());
            let mut got: Vec<u32> = (0..2).filter_map(|_| queue.pop()).collect();
            let sent = steering.join().unwrap();
            got.extend(std::iter::from_fn(|| queue.pop()));
            assert_eq!(got, sent);
        });
    }

    #[test]
    fn loom_one_caller_at_a_time_has_what_is_in_a_slot_and_it_stays() {
        loom::model(|| {
            let slot = Slot::new(0);
            let (a, b) = (slot.clone(), slot.clone());
            let add = |slot: Slot<u32>| thread::spawn(move || slot.with(|n| *n += 1).is_some());
            let (a, b) = (add(a), add(b));
            let uses = u32::from(a.join().unwrap()) + u32::from(b.join().unwrap());
            assert!((1..=2).contains(&uses));
            assert_eq!(slot.with(|n| *n), Some(uses));
        });
    }
}
