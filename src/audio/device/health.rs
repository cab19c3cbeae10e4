//! What is known of a device that runs.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const RUNNING: u32 = 0;
const DONE: u32 = 1;
const LOST: u32 = 2;

/// Shared by a device and whoever looks.
#[derive(Debug, Default)]
pub struct Health {
    /// Times that the device itself had frames too late or too many.
    pub xruns: AtomicU64,
    /// Calls for frames or with them, to see whether it still runs.
    pub calls: AtomicU64,
    /// Frames between the device's own end (a converter, a server) and its calls, as it says: those that came, those that go.
    pub ahead: [AtomicU64; 2],
    state: AtomicU32,
    why: Mutex<Option<String>>,
}

impl Health {
    /// Nothing more comes, as was to be.
    pub fn done(&self) {
        let _ = self.state.compare_exchange(RUNNING, DONE, Ordering::Release, Ordering::Relaxed);
    }

    /// Nothing more comes, and why. The first reason stays.
    pub fn lose(&self, why: impl Into<String>) {
        let mut place = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_none() {
            *place = Some(why.into());
        }
        let _ = self.state.compare_exchange(RUNNING, LOST, Ordering::Release, Ordering::Relaxed);
    }

    /// Whether it has come to its end.
    pub fn is_done(&self) -> bool {
        self.state.load(Ordering::Acquire) == DONE
    }

    /// Why nothing more comes, if something went wrong.
    pub fn lost(&self) -> Option<String> {
        let lost = self.state.load(Ordering::Acquire) == LOST;
        lost.then(|| self.why.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default())
    }

    /// Waits until it is done or lost.
    pub fn wait(&self) {
        while self.state.load(Ordering::Acquire) == RUNNING {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// One more call.
    pub(super) fn called(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }
}
