//! A place for something that one caller at a time may use; who finds it empty goes without.
//!
//! A device's callback takes its end of a session out of the slot and puts it back. When the device is lost, the session stays where it is, and the
//! next device's callback finds it, even if the lost one never ends.

use std::sync::Arc;

use super::queue::ArrayQueue;

/// Its clones are the same place.
pub struct Slot<T>(Arc<ArrayQueue<Box<T>>>);

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Slot<T> {
    /// A place with something in it.
    pub fn new(value: T) -> Self {
        let place = ArrayQueue::new(1);
        let _ = place.push(Box::new(value));
        Self(Arc::new(place))
    }

    /// Uses what is there. Neither waits nor allocates; nothing, if another caller has it.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut value = self.0.pop()?;
        let result = f(&mut value);
        let _ = self.0.push(value);
        Some(result)
    }
}
