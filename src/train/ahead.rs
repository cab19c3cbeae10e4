//! Examples made on threads ahead of the steps that take them, for a device that must not wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use super::mix::{Example, Mixer};
use crate::{Error, Result};

/// Which examples one process makes: of each step's `batch`, `count` from `from` on.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// The first step.
    pub step: u64,
    /// Examples of a step.
    pub batch: usize,
    /// The first of them that is this process's.
    pub from: usize,
    /// How many are.
    pub count: usize,
}

impl Share {
    /// The index of the n-th example.
    fn index(self, n: u64) -> u64 {
        let count = self.count as u64;
        (self.step + n / count) * self.batch as u64 + self.from as u64 + n % count
    }
}

/// Threads that make the examples of a share in order, at most `room` of them waiting. They end when this is dropped.
pub struct Ahead {
    made: Receiver<(u64, Example)>,
    early: BTreeMap<u64, Example>,
}

impl Ahead {
    /// Starts one thread a mixer.
    pub fn start(mixers: Vec<Mixer>, share: Share, room: usize) -> Self {
        let (give, made) = sync_channel(room);
        let next = Arc::new(AtomicU64::new(0));
        for mut mixer in mixers {
            let (give, next) = (give.clone(), Arc::clone(&next));
            thread::spawn(move || {
                loop {
                    let index = share.index(next.fetch_add(1, Ordering::Relaxed));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_all_processes_are_the_whole() {
        let share = |rank: usize| Share { step: 5, batch: 6, from: 2 * rank, count: 2 };
        let mut all: Vec<u64> = (0..3).flat_map(|rank| (0..4).map(move |n| share(rank).index(n))).collect();
        all.sort_unstable();
        assert_eq!(all, (30..42).collect::<Vec<_>>());
    }
}
