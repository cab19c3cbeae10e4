//! The bounded queue: crossbeam's. Under loom, which explores every order in which threads can take turns, one that does what crossbeam's promises,
//! so that what is explored is what we make of it.

#[cfg(not(cascabel_loom))]
pub(super) use crossbeam_queue::ArrayQueue;

#[cfg(cascabel_loom)]
pub(super) use modelled::ArrayQueue;

#[cfg(cascabel_loom)]
mod modelled {
    #![allow(clippy::disallowed_types, clippy::unwrap_used, reason = "a model for tests")]
    use std::collections::VecDeque;

    use loom::sync::Mutex;

    pub(in crate::engine::live) struct ArrayQueue<T> {
        things: Mutex<VecDeque<T>>,
        room: usize,
    }

    impl<T> ArrayQueue<T> {
        pub(in crate::engine::live) fn new(room: usize) -> Self {
            Self { things: Mutex::new(VecDeque::new()), room }
        }

        pub(in crate::engine::live) fn push(&self, thing: T) -> Result<(), T> {
            let mut things = self.things.lock().unwrap();
            if things.len() == self.room {
                return Err(thing);
            }
            things.push_back(thing);
            Ok(())
        }

        pub(in crate::engine::live) fn pop(&self) -> Option<T> {
            self.things.lock().unwrap().pop_front()
        }
    }
}
