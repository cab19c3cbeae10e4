//! Examples made on threads ahead of the steps that take them, for a device that must not wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use super::mix::{Example, Mixer};
use crate::{Error, Result};

/// Threads that make examples `first ..`, at most `room` of them waiting. They end when this is dropped.
pub struct Ahead {
    made: Receiver<(u64, Example)>,
    early: BTreeMap<u64, Example>,
}

impl Ahead {
    /// Starts one thread a mixer.
    pub fn start(mixers: Vec<Mixer>, first: u64, room: usize) -> Self {
        let (give, made) = sync_channel(room);
        let next = Arc::new(AtomicU64::new(first));
        for mut mixer in mixers {
            let (give, next) = (give.clone(), Arc::clone(&next));
            thread::spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if give.send((index, mixer.example(index))).is_err() {
                        return;
                    }
                }
            });
        }
        Self { made, early: BTreeMap::new() }
    }

    /// Examples `first .. first + count`; to be asked for in order.
    pub fn take(&mut self, first: u64, count: usize) -> Result<Vec<Example>> {
        (first..first + count as u64).map(|index| self.one(index)).collect()
    }

    fn one(&mut self, index: u64) -> Result<Example> {
        loop {
            if let Some(example) = self.early.remove(&index) {
                return Ok(example);
            }
            let stopped = |_| Error::Train("the threads that make examples stopped early".into());
            let (at, example) = self.made.recv().map_err(stopped)?;
            self.early.insert(at, example);
        }
    }
}
