//! Examples made on threads ahead of the steps that take them, for a device that must not wait.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use candle_core::Device;

use super::examples::{Examples, Maker, Pair, Row};
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

/// Steps' examples that wait, side by side, at most.
const READY: usize = 2;

/// Threads that make the examples of a share, and one that lays them side by side. They end when this is dropped.
pub struct Ahead<R: Row> {
    /// The steps' examples, and where they go when they were learned from, to be filled again; nothing once this is dropped.
    ends: Option<Ends<R>>,
    laying: Option<JoinHandle<()>>,
}

impl<R: Row> Drop for Ahead<R> {
    /// Waits until nobody lays examples: pinned memory is let go of before the program ends.
    fn drop(&mut self) {
        self.ends = None;
        if let Some(laying) = self.laying.take() {
            let _ = laying.join();
        }
    }
}

type Ends<R> = (Receiver<Examples<R>>, Sender<Examples<R>>);

/// The examples of a step. Dropped, they are filled with others: whoever copies them to a device must have them there by then.
pub struct Taken<R: Row> {
    examples: Examples<R>,
    back: Sender<Examples<R>>,
}

impl<R: Row> Deref for Taken<R> {
    type Target = Examples<R>;

    fn deref(&self) -> &Examples<R> {
        &self.examples
    }
}

impl<R: Row> Drop for Taken<R> {
    fn drop(&mut self) {
        let empty = Examples::with_capacity(0, 0, &Device::Cpu);
        let _ = self.back.send(std::mem::replace(&mut self.examples, empty));
    }
}

impl<R: Row> Ahead<R> {
    /// Starts one thread a maker; at most `room` examples wait for each other. They lie where `device` copies from best.
    pub fn start<M: Maker<Row = R>>(makers: Vec<M>, share: Share, room: usize, device: &Device) -> Self {
        let ((give, made), (pass, ready), (back, empty)) =
            (sync_channel(room), sync_channel(READY), channel());
        let next = Arc::new(AtomicU64::new(0));
        let len = makers.first().map_or(0, Maker::rows);
        for mut maker in makers {
            let (give, next) = (give.clone(), Arc::clone(&next));
            thread::spawn(move || {
                let _last_words = LastWords(give.clone());
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if give.send(Some((n, maker.make(share.index(n))))).is_err() {
                        return;
                    }
                }
            });
        }
        // Those that wait, those being learned from, those being laid.
        for _ in 0..READY + 2 {
            let _ = back.send(Examples::with_capacity(share.count, len, device));
        }
        let laying = Some(thread::spawn(move || in_order(&made, &empty, &pass, share.count)));
        Self { ends: Some((ready, back)), laying }
    }

    /// The examples of the next step.
    pub fn take(&mut self) -> Result<Taken<R>> {
        let stopped = || Error::Train("the threads that make examples stopped early".into());
        let (ready, back) = self.ends.as_ref().ok_or_else(stopped)?;
        let examples = ready.recv().map_err(|_| stopped())?;
        Ok(Taken { examples, back: back.clone() })
    }
}

/// Says so when its thread panics: nobody else would make that example.
struct LastWords<R>(SyncSender<Option<(u64, Pair<R>)>>);

impl<R> Drop for LastWords<R> {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.send(None);
        }
    }
}

/// Puts numbered examples in order, `count` of them side by side, until nobody gives or takes.
fn in_order<R: Row>(
    made: &Receiver<Option<(u64, Pair<R>)>>,
    empty: &Receiver<Examples<R>>,
    pass: &SyncSender<Examples<R>>,
    count: usize,
) {
    let (mut early, mut next) = (BTreeMap::new(), 0);
    while let Ok(mut step) = empty.recv() {
        step.clear();
        while step.count() < count {
            match early.remove(&next) {
                Some(example) => {
                    step.push(&example);
                    next += 1;
                }
                None => {
                    let Ok(Some((n, example))) = made.recv() else { return };
                    early.insert(n, example);
                }
            }
        }
        if pass.send(step).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::corpus::Corpus;
    use crate::train::mix::{MixSpec, Mixer};

    #[test]
    fn examples_come_in_order_whoever_makes_them() -> Result<()> {
        let hum: Vec<f32> = (0..9000).map(|t| (t as f32 * 0.05).sin()).collect();
        let speech = Arc::new(Corpus::from_clips([("ada".to_string(), hum)])?);
        let spec = MixSpec { seconds: 0.05, ..MixSpec::default() };
        let mut mixer = Mixer::new(&spec, 16000, 1, speech, None)?;
        let share = Share { step: 3, batch: 8, from: 4, count: 4 };
        let mut ahead = Ahead::start(vec![mixer.clone(); 3], share, 5, &Device::Cpu);
        for step in 3..11 {
            let mut expected = Examples::with_capacity(4, mixer.rows(), &Device::Cpu);
            (8 * step + 4..8 * step + 8).for_each(|index| expected.push(&mixer.make(index)));
            let got = ahead.take()?;
            assert_eq!((got.heard(), got.wanted()), (expected.heard(), expected.wanted()), "step {step}");
        }
        Ok(())
    }

    #[test]
    fn a_maker_that_panics_ends_the_run() {
        let ((give, made), (pass, ready), (back, empty)) = (sync_channel(4), sync_channel(1), channel());
        let makes = give.clone();
        let maker = thread::spawn(move || {
            let _last_words = LastWords(makes);
            panic!("an example that cannot be made");
        });
        assert!(maker.join().is_err());
        // The other makers go on; what they make is not waited for.
        let others = Pair { heard: vec![0.0f32], wanted: vec![0.0] };
        assert!(give.send(Some((1, others))).is_ok());
        assert!(back.send(Examples::with_capacity(2, 1, &Device::Cpu)).is_ok());
        in_order(&made, &empty, &pass, 2);
        drop(pass);
        assert!(Ahead { ends: Some((ready, back)), laying: None }.take().is_err());
    }

    #[test]
    fn shares_of_all_processes_are_the_whole() {
        let share = |rank: usize| Share { step: 5, batch: 6, from: 2 * rank, count: 2 };
        let mut all: Vec<u64> = (0..3).flat_map(|rank| (0..4).map(move |n| share(rank).index(n))).collect();
        all.sort_unstable();
        assert_eq!(all, (30..42).collect::<Vec<_>>());
    }
}
