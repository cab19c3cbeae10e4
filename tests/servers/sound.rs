//! What was said, what should be heard, and how alike two sounds are.

use cascabel::audio::{SampleRate, Sound, read_path, resample};
use cascabel::engine::{ProcessOptions, Processor, bundled};
use realfft::RealFftPlanner;

pub const RATE: u32 = 48_000;
/// Frames between the places in the model's outermost rows at which speech may begin: JACK's blocks begin at every second.
const PLACE: usize = 32;
/// Frames of a segment.
const SEGMENT: usize = RATE as usize / 20;
/// A segment that is this alike came through; where a clock is followed, half a frame beside its place.
const CAME: f64 = 0.97;
/// Of the noise that is added to the recording, the deviation: some 5 dB below the speech.
const NOISE: f32 = 0.03;

/// A recording at the servers' rate, with silence before and after and with more noise than it has, and `process` of it, with the rows of the model at several places.
pub fn speech() -> (Vec<f32>, Vec<Vec<f32>>) {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo/noisy.wav");
    let recording = read_path(demo.as_ref()).unwrap();
    let (mut state, mut noise) = (1u32, 0.0f32);
    let louder = recording.channels()[0].iter().map(|x| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Uniform, of deviation 1; then low-passed, so that most of it lies where the speech is, and of deviation 1 again.
        let white = (state as f32 / u32::MAX as f32 - 0.5) * 12f32.sqrt();
        noise = 0.9 * noise + 0.19f32.sqrt() * white;
        x + NOISE * noise
    });
    let louder = Sound::new(recording.rate(), vec![louder.collect()]).unwrap();
    let noisy = resample(&louder, SampleRate::new(RATE).unwrap()).unwrap();
    let mut samples = vec![0.0; RATE as usize / 2];
    samples.extend(&noisy.channels()[0]);
    samples.resize(samples.len() + RATE as usize, 0.0);
    let model = bundled::open(bundled::DEFAULT).unwrap();
    let mut processor = Processor::open(&model, ProcessOptions::default()).unwrap();
    // The model's rows, the innermost of 8 ms, begin anywhere in a stream, at the first frame in a file: so much earlier, it is the same sound in other rows.
    let period = model.plan.period() * RATE as usize / model.rate().unwrap() as usize;
    let clean = (0..period).step_by(PLACE).map(|early| {
        let moved = std::iter::repeat_n(0.0, early).chain(samples.iter().copied()).collect();
        let sound = Sound::new(noisy.rate(), vec![moved]).unwrap();
        processor.process(&sound).unwrap().into_channels().remove(0).split_off(early)
    });
    (samples.clone(), clean.collect())
}

/// (Σab)/√(Σa²·Σb²)
pub fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let sum = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    sum(a, b) / (sum(a, a) * sum(b, b)).sqrt().max(1e-30)
}

/// How many frames `late` is behind `early`, by the greatest correlation.
pub fn lag(early: &[f32], late: &[f32]) -> usize {
    let n = (early.len() + late.len()).next_power_of_two();
    let mut planner = RealFftPlanner::<f32>::new();
    let (there, back) = (planner.plan_fft_forward(n), planner.plan_fft_inverse(n));
    let spectrum = |x: &[f32]| {
        let mut time = x.to_vec();
        time.resize(n, 0.0);
        let mut bins = there.make_output_vec();
        there.process(&mut time, &mut bins).unwrap();
        bins
    };
    let mut product: Vec<_> = spectrum(early).iter().zip(spectrum(late)).map(|(a, b)| a.conj() * b).collect();
    (product[0].im, product[n / 2].im) = (0.0, 0.0);
    let mut time = back.make_output_vec();
    back.process(&mut product, &mut time).unwrap();
    (0..late.len()).max_by(|a, b| time[*a].total_cmp(&time[*b])).unwrap()
}

/// Compares with each of the clean versions; the most alike counts.
pub fn judge(noisy: &[f32], clean: &[Vec<f32>], heard: &[f32], passed: &[f32], near_by: usize) -> Verdict {
    let verdicts = clean.iter().map(|clean| judged(noisy, clean, heard, passed, near_by));
    verdicts.max_by(|a, b| a.alike.total_cmp(&b.alike)).unwrap()
}

/// What a run was like, where the server did its part.
#[derive(Debug)]
pub struct Verdict {
    /// Segments of speech, and those that came through the pass-through.
    pub segments: usize,
    pub came: usize,
    /// Of those, heard with `process` of the speech, and the speech itself with that.
    pub alike: f64,
    pub noisy: f64,
    /// Frames that either is behind the speech.
    pub heard_late: usize,
    pub passed_late: usize,
}

/// Compares what was heard and passed with the speech and its clean version; a segment may lie so many frames away from where the lag of all
/// says, as it does where a clock is followed.
fn judged(noisy: &[f32], clean: &[f32], heard: &[f32], passed: &[f32], near_by: usize) -> Verdict {
    let (heard_late, passed_late) = (lag(clean, heard), lag(noisy, passed));
    let part = |x: &[f32], from: usize| -> Vec<f32> {
        (from..from + SEGMENT).map(|n| x.get(n).copied().unwrap_or(0.0)).collect()
    };
    let loud = |from: &usize| part(noisy, *from).iter().map(|x| x * x).sum::<f32>() > 1e-3;
    let spoken: Vec<usize> = (0..noisy.len() - SEGMENT).step_by(SEGMENT).filter(loud).collect();
    // The place near a lag at which a segment of one is most alike one of the other.
    let near = |one: &[f32], other: &[f32], from: usize, late: usize| {
        let (one, lags) = (part(one, from), late.saturating_sub(near_by)..=late + near_by);
        let alike = lags.map(|late| (late, correlation(&one, &part(other, from + late))));
        alike.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap()
    };
    let came = |from: &&usize| near(noisy, passed, **from, passed_late).1 > CAME;
    let kept: Vec<usize> = spoken.iter().filter(came).copied().collect();
    let all = |x: &[f32], late: &dyn Fn(usize) -> usize| {
        kept.iter().flat_map(|from| part(x, from + late(*from))).collect::<Vec<f32>>()
    };
    let expected = all(clean, &|_| 0);
    Verdict {
        segments: spoken.len(),
        came: kept.len(),
        alike: correlation(&expected, &all(heard, &|from| near(clean, heard, from, heard_late).0)),
        noisy: correlation(&expected, &all(noisy, &|_| 0)),
        heard_late,
        passed_late,
    }
}

impl Verdict {
    /// Holds what must hold, but for the latency, which `latency` frames and a block either way are to cover.
    pub fn check(&self, latency: usize, block: usize) -> Result<(), String> {
        let late = self.heard_late.abs_diff(latency);
        if self.came * 2 < self.segments || self.alike <= 0.99 || self.noisy >= 0.95 || late > block {
            return Err(format!("{self:?}, reported {latency}"));
        }
        println!("{self:?}, reported {latency}");
        Ok(())
    }
}
