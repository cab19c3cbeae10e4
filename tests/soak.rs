//! A line between devices of nothing, for half an hour of simulated time, or more: `CASCABEL_SOAK_HOURS=24 cargo test --release --test soak -- --nocapture`.
//!
//! Every frame that comes in is its own number, and goes out as it is (the model runs beside it), so what is lost, repeated, bridged or late can be read
//! from what comes out, and must be what was counted. Callbacks have 64 frames, or any number from 1 to 4,096; now and then either end
//! stalls for 20 to 400 ms, and all that the microphone has by then comes at once.

use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use cascabel::Result;
use cascabel::audio::SampleRate;
use cascabel::audio::device::{Clocked, Format, Sink, Source, Turn};
use cascabel::engine::bundled;
use cascabel::engine::live::{Doing, Ends, Line, LineOptions, Session, Voice, wire};

const RATE: u64 = 48_000;
/// Numbers that an f32 tells apart.
const NUMBERS: u64 = 1 << 23;
/// The shortest and the longest stall, in frames.
const STALL: [u64; 2] = [RATE / 50, 2 * RATE / 5];

/// The soaks may run side by side; what measures by a clock is alone.
static ALONE: RwLock<()> = RwLock::new(());

/// Random numbers, the same every time.
struct Random(u64);

impl Random {
    fn of(&mut self, from: u64, to: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        from + self.0 % (to - from + 1)
    }
}

/// What happens when, in frames of simulated time: the end of the microphone's or the loudspeaker's next block.
struct Schedule {
    random: Random,
    sizes: [u64; 2],
    frames: u64,
    /// (minus the time, which end, its frames)
    events: BinaryHeap<(std::cmp::Reverse<u64>, usize, u64)>,
    /// The next stall, and until when it lasts, of either end.
    next_stall: u64,
    stalled: [u64; 2],
    shared: Arc<Mutex<Now>>,
}

/// What the loudspeaker has to know of a call.
#[derive(Default)]
struct Now {
    time: u64,
    /// When the last stall was over.
    calm_since: u64,
    stalls: u64,
}

impl Schedule {
    fn new(seed: u64, sizes: [u64; 2], frames: u64, shared: Arc<Mutex<Now>>) -> Self {
        let events = (0..2).map(|end| (std::cmp::Reverse(64), end, 64)).collect();
        Self { random: Random(seed), sizes, frames, events, next_stall: 5 * RATE, stalled: [0; 2], shared }
    }
}

impl Iterator for Schedule {
    type Item = Turn;

    fn next(&mut self) -> Option<Turn> {
        let (std::cmp::Reverse(time), end, size) = self.events.pop()?;
        if time >= self.frames {
            return None;
        }
        // The last seconds are calm, so that all can be read at the end.
        if time >= self.next_stall && time + 3 * RATE < self.frames {
            self.next_stall = time + self.random.of(4 * RATE, 9 * RATE);
            let lasts = self.random.of(STALL[0], STALL[1]);
            self.stalled[self.random.of(0, 1) as usize] = time + lasts;
            let mut now = self.shared.lock().unwrap();
            (now.calm_since, now.stalls) = (time + lasts, now.stalls + 1);
        }
        let next = self.random.of(self.sizes[0], self.sizes[1]);
        if time < self.stalled[end] {
            // The microphone goes on and brings all of it later; the loudspeaker has played nothing.
            let late = if end == 0 { size + self.stalled[0] - time } else { next };
            self.events.push((std::cmp::Reverse(self.stalled[end]), end, late));
            return Some(Turn { hear: 0, fill: 0 });
        }
        self.events.push((std::cmp::Reverse(time + next), end, next));
        self.shared.lock().unwrap().time = time;
        Some(if end == 0 {
            Turn { hear: size as usize, fill: 0 }
        } else {
            Turn { hear: 0, fill: size as usize }
        })
    }
}

/// Frames that are their own numbers.
struct Numbers {
    format: Format,
    at: u64,
}

impl Source for Numbers {
    fn format(&self) -> Format {
        self.format
    }

    fn read(&mut self, frames: &mut [f32]) -> usize {
        for x in frames.iter_mut() {
            *x = (self.at % NUMBERS) as f32 / NUMBERS as f32;
            self.at += 1;
        }
        frames.len()
    }
}

/// What was read from the frames that came out.
#[derive(Debug, Default)]
struct Read {
    frames: u64,
    /// Frames that were no number in its place, and numbers that passed meanwhile.
    unread: u64,
    passed: u64,
    /// The last number, and how many frames since have not been read.
    last: Option<u64>,
    since: u64,
    /// Numbers in a row that may be the way back.
    row: Vec<u64>,
    /// Frames from a number's coming to its going, the least and the most, more than a second after a stall.
    late: Option<[u64; 2]>,
}

struct Reader {
    format: Format,
    shared: Arc<Mutex<Now>>,
    read: Arc<Mutex<Read>>,
}

impl Sink for Reader {
    fn format(&self) -> Format {
        self.format
    }

    fn write(&mut self, frames: &[f32]) -> Result<()> {
        let now = self.shared.lock().unwrap();
        let calm = now.time > now.calm_since + RATE;
        // A call at a time is for the frames from then on.
        self.read.lock().unwrap().block(frames, now.time, calm);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Read {
    fn block(&mut self, frames: &[f32], time: u64, calm: bool) {
        for (n, x) in (time..).zip(frames) {
            self.frames += 1;
            let number = f64::from(*x) * NUMBERS as f64;
            let number =
                (number.fract() == 0.0 && (0.0..NUMBERS as f64).contains(&number)).then_some(number as u64);
            let expected = self.last.map(|last| (last + 1) % NUMBERS);
            if number.is_some() && number == expected && self.since == 0 {
                self.last = number;
                if calm {
                    let late = (n + NUMBERS - expected.unwrap()) % NUMBERS;
                    let [least, most] = self.late.unwrap_or([late; 2]);
                    self.late = Some([least.min(late), most.max(late)]);
                }
            } else {
                self.seek(number);
            }
        }
    }

    /// Four numbers in a row, the first above none, are known again.
    fn seek(&mut self, number: Option<u64>) {
        self.since += 1;
        let follows = |row: &Vec<u64>| row.last().is_none_or(|last| number == Some((last + 1) % NUMBERS));
        match number {
            Some(number) if number > 0 && follows(&self.row) => self.row.push(number),
            _ => self.row.clear(),
        }
        if self.row.len() == 4 {
            let first = self.row[0];
            if let Some(last) = self.last {
                self.unread += self.since - 4;
                self.passed += (first + NUMBERS - 1 - last) % NUMBERS;
            }
            (self.last, self.since) = (Some(self.row[3]), 0);
            self.row.clear();
        }
    }
}

/// KiB of the process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn soak(name: &str, sizes: [u64; 2], slack: u64) {
    let _beside = ALONE.read();
    let hours: f64 = std::env::var("CASCABEL_SOAK_HOURS").map_or(0.5, |hours| hours.parse().unwrap());
    let frames = (hours / 2.0 * 3_600.0 * RATE as f64) as u64;
    let format =
        Format { rate: SampleRate::new(RATE as u32).unwrap(), channels: 1, block: sizes[1] as usize };
    let (shared, read) = (Arc::<Mutex<Now>>::default(), Arc::<Mutex<Read>>::default());
    let source = Box::new(Numbers { format, at: 0 });
    let sink = Box::new(Reader { format, shared: shared.clone(), read: read.clone() });
    let mut device = Clocked::new("null", Some(source), Some(sink), false);
    device.set_turns(Schedule::new(7, sizes, frames, shared.clone()));
    let model = bundled::open(bundled::DEFAULT).unwrap();
    // A call of either end that is as long as it can be finds what it needs.
    let options = LineOptions { mix: 0.0, margin: Some(2 * sizes[1] as usize), worker: false };
    let mut line = Line::open(&model, vec![Box::new(device)], options).unwrap();
    line.start().unwrap();
    let mut early = None;
    while line.tend() == Doing::Running {
        std::thread::sleep(std::time::Duration::from_millis(100));
        if early.is_none() && shared.lock().unwrap().time > frames / 10 {
            early = Some(resident());
        }
    }
    let (early, late) = (early.unwrap_or_default(), resident());
    let of = |count: &AtomicU64| count.load(Relaxed);
    let counts = line.remote.counts();
    let (missing, dropped, lost) = (of(&counts.missing), of(&counts.dropped), of(&line.gauges.lost));
    let (read, stalls) = (read.lock().unwrap(), shared.lock().unwrap().stalls);
    let seconds = read.frames as f64 / RATE as f64;
    let latency = line.remote.latency().total as u64;
    println!(
        "{name}: {seconds:.0} s, {stalls} stalls; {missing} frames missing, {dropped} left out, {lost} lost; late {:?} of {latency}; {early} to {late} KiB",
        read.late.unwrap()
    );
    assert!(stalls > 20 && missing > 0 && dropped > 0, "nothing happened");
    // What passed unread is what was bridged and left out, to the frame; nothing else was skipped or repeated.
    assert_eq!(read.passed + missing, read.unread + dropped + lost, "{read:?}");
    let [least, most] = read.late.unwrap();
    assert!(latency.abs_diff(least) <= slack && latency.abs_diff(most) <= slack, "late {least} to {most}");
    assert!(late <= early + 512, "memory grew from {early} to {late} KiB");
}

/// The microphone and the loudspeaker on threads of their own, twenty times as fast as a clock would call them, either held up now and then: whatever order
/// their calls come in, what came is said once, or counted.
#[test]
fn two_threads() {
    let _alone = ALONE.write();
    const FAST: f64 = 20.0;
    let frames: u64 = 300 * RATE;
    let rate = SampleRate::new(RATE as u32).unwrap();
    let ends = Ends {
        rate_in: rate,
        rate_out: rate,
        channels_in: 1,
        channels_out: 1,
        two_clocks: false,
        margin: 512,
        burst: 9_600,
    };
    let (session, remote) = Session::open(Voice::Through, ends, 1.0).unwrap();
    let (mut capture, mut playback, gauges) = wire(session);
    let format = Format { rate, channels: 1, block: 256 };
    let begun = Instant::now();
    // Waits for the frames' time; one in so many calls is held up.
    let paced = move |random: &mut Random, at: u64| {
        // The last seconds are calm, so that all can be read at the end.
        let held = if random.of(1, 2_000) == 1 && at + 3 * RATE < frames {
            random.of(STALL[0], STALL[1])
        } else {
            0
        };
        let due = Duration::from_secs_f64((at + held) as f64 / RATE as f64 / FAST);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    };
    let (mut read, done) = (Read::default(), AtomicBool::new(false));
    let done = &done;
    let mut source = Numbers { format, at: 0 };
    std::thread::scope(|scope| {
        let (capture, source) = (&mut capture, &mut source);
        scope.spawn(move || {
            let (mut random, mut at) = (Random(3), 0);
            while !done.load(Relaxed) {
                let mut block = vec![0.0; random.of(1, 512) as usize];
                source.read(&mut block);
                paced(&mut random, at);
                capture.push(&block);
                at += block.len() as u64;
            }
        });
        let (mut random, mut at) = (Random(5), 0);
        while at < frames {
            let mut block = vec![0.0; random.of(1, 512) as usize];
            paced(&mut random, at);
            playback.fill(&mut block);
            read.block(&block, at, false);
            at += block.len() as u64;
        }
        done.store(true, Relaxed);
    });
    // What was lost last lies behind what the ring still holds: it is read, call by call, until all is in its place.
    let mut block = vec![0.0; 256];
    for n in 0..1_000 {
        if n > 100 && read.since == 0 {
            break;
        }
        source.read(&mut block);
        capture.push(&block);
        playback.fill(&mut block);
        read.block(&block, 0, false);
    }
    let of = |count: &AtomicU64| count.load(Relaxed);
    let counts = remote.counts();
    let (missing, dropped, lost) = (of(&counts.missing), of(&counts.dropped), of(&gauges.lost));
    println!("two threads: {missing} frames missing, {dropped} left out, {lost} lost; {read:?}");
    assert!(missing > 0 && dropped > 0, "nothing happened");
    assert!(read.frames >= frames && read.since == 0);
    assert_eq!(read.passed + missing, read.unread + dropped + lost);
}

#[test]
fn calls_of_64_frames() {
    // 2 ms that are not waited for, and a block.
    soak("64 frames", [64, 64], 96 + 64);
}

#[test]
fn calls_of_any_length() {
    soak("1 to 4,096 frames", [1, 4_096], 96 + 2 * 4_096);
}
