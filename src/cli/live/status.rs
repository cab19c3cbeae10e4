//! What is told of a line: once a second as JSON, or on the screen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

use crate::cli::SCHEMA;
use crate::engine::live::{Doing, Latency, Line, Mood, Shares};

/// The least level that is told, in dB of full scale.
pub const FLOOR_DB: f32 = -100.0;

/// A line of JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    schema: u32,
    /// Since the start.
    pub seconds: f64,
    /// opening, running, lost or done.
    pub state: &'static str,
    /// What was lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    pub model: String,
    pub mix: f32,
    pub bypass: bool,
    /// Of a model that answers: listening, hearing or answering.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<&'static str>,
    pub input: Side,
    pub output: Side,
    /// Shares of the time that a block lasts, since the last line.
    pub load: Load,
    pub latency_ms: Parts,
    /// As the devices themselves count them.
    pub xruns: u64,
    /// Calls for frames that were not all there, and the frames.
    pub late: u64,
    pub missing: u64,
    /// Frames left out, as they came too late.
    pub dropped: u64,
    /// Frames that found no room.
    pub lost: u64,
    /// Frames that a recording lost.
    pub unrecorded: u64,
    /// Frames that the last call found in the ring, and how many it holds.
    pub ring: Ring,
    /// What the input's clock is faster by than the output's.
    pub drift_ppm: f64,
    /// Times that a model was faded in: another, or the same from its beginning.
    pub swapped: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Side {
    pub rate: u32,
    pub channels: usize,
    pub frames: u64,
    pub peak_db: f32,
}

#[derive(Clone, Debug, Serialize)]
pub struct Load {
    pub blocks: u64,
    pub mean: f64,
    pub p99: f64,
    pub worst: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Parts {
    /// From a call with frames to a call for those that answer them.
    pub total: f64,
    pub total_frames: usize,
    pub to_model: f64,
    pub model: f64,
    pub from_model: f64,
    pub margin: f64,
    /// The devices' own, as they say.
    pub input_device: f64,
    pub output_device: f64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Ring {
    pub found: usize,
    pub room: usize,
}

/// Reads a line's gauges.
pub struct Reader {
    begun: Instant,
    pub model: String,
    pub mix: f32,
    pub bypass: bool,
    /// Whether there is a model to go over to.
    pub swaps: bool,
    /// What a model that answers is at, at the last look.
    pub mood: Option<Mood>,
    /// The greatest samples since the last status.
    peaks: [f32; 2],
}

/// A size as dB of full scale.
pub fn decibels(size: f32) -> f32 {
    (20.0 * size.log10()).max(FLOOR_DB)
}

impl Reader {
    pub fn new(model: String, mix: f32, swaps: bool) -> Self {
        Self { begun: Instant::now(), model, mix, bypass: false, swaps, mood: None, peaks: [0.0; 2] }
    }

    pub fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// The greatest sizes since the last look.
    pub fn look(&mut self, line: &Line) -> [f32; 2] {
        let (input, output) = line.remote.counts().take_peaks();
        let now = [input, output];
        self.mood = line.remote.counts().mood();
        self.peaks.iter_mut().zip(now).for_each(|(most, now)| *most = most.max(now));
        now
    }

    /// How it stands. What is counted since the last status begins anew.
    pub fn status(&mut self, line: &Line, doing: Option<&Doing>, unrecorded: u64) -> Status {
        self.look(line);
        let (ends, counts, gauges) = (line.ends(), line.remote.counts(), &line.gauges);
        let Latency { to_model, model, from_model, margin, total } = line.latency();
        let ms = |frames: f64| frames * 1e3 / f64::from(ends.rate_out.hz());
        let [input_device, output_device] = line.device_seconds().map(|seconds| seconds * 1e3);
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let [peak_in, peak_out] = std::mem::take(&mut self.peaks).map(decibels);
        let Shares { blocks, mean, p99, worst } = gauges.load.take();
        let (state, trouble) = match doing {
            None => ("opening", None),
            Some(Doing::Running) => ("running", None),
            Some(Doing::Done) => ("done", None),
            Some(Doing::Lost(why)) => ("lost", Some(why.clone())),
        };
        Status {
            schema: SCHEMA,
            seconds: self.seconds(),
            state,
            trouble,
            model: self.model.clone(),
            mix: self.mix,
            bypass: self.bypass,
            answer: counts.mood().map(told),
            input: Side {
                rate: ends.rate_in.hz(),
                channels: ends.channels_in,
                frames: of(&counts.heard),
                peak_db: peak_in,
            },
            output: Side {
                rate: ends.rate_out.hz(),
                channels: ends.channels_out,
                frames: of(&counts.said),
                peak_db: peak_out,
            },
            load: Load { blocks, mean, p99, worst },
            latency_ms: Parts {
                total: ms(total as f64),
                total_frames: total,
                to_model: ms(to_model),
                model: ms(model),
                from_model: ms(from_model),
                margin: ms(margin as f64),
                input_device,
                output_device,
            },
            xruns: line.xruns(),
            late: of(&counts.late),
            missing: of(&counts.missing),
            dropped: of(&counts.dropped),
            lost: of(&gauges.lost),
            unrecorded,
            ring: Ring { found: gauges.found.load(Ordering::Relaxed), room: gauges.room },
            drift_ppm: gauges.drift(),
            swapped: of(&counts.swapped),
        }
    }
}

/// A mood in a word.
pub fn told(mood: Mood) -> &'static str {
    match mood {
        Mood::Listening => "listening",
        Mood::Hearing => "hearing",
        Mood::Answering => "answering",
    }
}

impl Status {
    /// A line for people.
    pub fn summary(&self) -> String {
        format!(
            "{:.1} s through {}, {:.1} ms late; {} frames missing, {} left out, {} lost, {} not recorded, {} xruns",
            self.output.frames as f64 / f64::from(self.output.rate),
            self.model,
            self.latency_ms.total,
            self.missing,
            self.dropped,
            self.lost,
            self.unrecorded,
            self.xruns,
        )
    }
}
