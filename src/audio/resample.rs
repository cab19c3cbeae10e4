//! Any rate to any rate, a whole sound at a time, aligned.
//!
//! Overlap-add of FFT blocks (rubato's `Fft`): a block of M frames is transformed, multiplied by a windowed sinc
//! (squared Blackman–Harris window, linear phase, cut-off at the lower of both Nyquist rates less its slope), its
//! spectrum shortened or lengthened to that of L frames, and transformed back, with L / M = to / from exactly. The
//! filter is M taps long and symmetric, so it delays by M/2 frames in, L/2 frames out; both are made even, hence the
//! delay is a whole number of frames and is removed without remainder: frame n of the output is the sound at time
//! n / to. Computed in f64, so that the error is the rounding of the f32 result (below −130 dB in the passband) and a
//! sample of any finite size passes.
//!
//! ```
//! use cascabel::audio::{SampleRate, Sound, resample};
//! let sound = Sound::new(SampleRate::new(48_000)?, vec![vec![0.25; 4_801]])?;
//! assert_eq!(resample(&sound, SampleRate::new(16_000)?)?.frames(), 1_600);
//! # Ok::<(), cascabel::Error>(())
//! ```

use super::sound::Sound;
use super::units::SampleRate;
use crate::error::{Error, Result};
use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Fft, FixedSync, Resampler};

/// Frames in the shorter of the two blocks, at least: the filter's slope is then about 1% of that side's rate.
const BLOCK: usize = 1_024;

/// The sound at rate `to`: round(frames · to / from) frames, at least 1, in line with the original.
pub fn resample(sound: &Sound, to: SampleRate) -> Result<Sound> {
    resample_to_length(sound, to, sound.rate().frames_at(to, sound.frames()))
}

/// The same with a length of the caller's choice, so that a sound that went to another rate and back ends where it
/// ended before. Past the end of the sound the filter rings out into silence.
pub fn resample_to_length(sound: &Sound, to: SampleRate, frames: usize) -> Result<Sound> {
    if sound.rate() == to {
        let mut channels = sound.channels().to_vec();
        channels.iter_mut().for_each(|channel| channel.resize(frames, 0.0));
        return Sound::of("resampled sound", to, channels);
    }
    let mut fft = build(sound.rate(), to)?;
    let channels = sound.channels().iter().map(|channel| one_channel(&mut fft, channel, frames)).collect::<Result<_>>()?;
    Sound::of("resampled sound", to, channels)
}

/// The delay of the filter in frames at rate `to`, which [`resample`] removes: what a stream would have to wait.
pub fn resample_delay(from: SampleRate, to: SampleRate) -> usize {
    if from == to { 0 } else { block_sizes(from, to).1 / 2 }
}

/// (M, L): the smallest even pair in the ratio of the rates of which neither is below [`BLOCK`].
fn block_sizes(from: SampleRate, to: SampleRate) -> (usize, usize) {
    let (from, to) = (from.hz() as usize, to.hz() as usize);
    let divisor = gcd(from, to);
    let (unit_in, unit_out) = (from / divisor, to / divisor);
    let times = BLOCK.div_ceil(unit_in.min(unit_out)).next_multiple_of(2);
    (unit_in * times, unit_out * times)
}

/// Euclid's greatest common divisor.
fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// One block in, one block out, for a single channel.
fn build(from: SampleRate, to: SampleRate) -> Result<Fft<f64>> {
    let (block_in, _) = block_sizes(from, to);
    Fft::new_custom(
        from.hz() as usize,
        to.hz() as usize,
        block_in,
        1,
        1,
        rubato::WindowFunction::BlackmanHarris2,
        FixedSync::Both,
    )
    .map_err(|e| Error::input("resampler", format!("a way from {from} to {to}"), e.to_string()))
}

/// Block after block, the delay dropped at the front, silence fed once the input has ended.
fn one_channel(fft: &mut Fft<f64>, input: &[f32], frames: usize) -> Result<Vec<f32>> {
    fft.reset();
    let (size_in, size_out) = (fft.input_frames_next(), fft.output_frames_next());
    let (mut block_in, mut block_out) = (vec![0.0; size_in], vec![0.0; size_out]);
    let mut output = Vec::with_capacity(frames);
    let mut skip = fft.output_delay();
    let mut blocks = input.chunks(size_in);
    while output.len() < frames {
        let piece = blocks.next().unwrap_or(&[]);
        block_in.fill(0.0);
        block_in.iter_mut().zip(piece).for_each(|(wide, x)| *wide = f64::from(*x));
        one_block(fft, &block_in, &mut block_out)
            .map_err(|e| Error::input("resampler", "blocks of its own size", e))?;
        let fresh = block_out.iter().skip(skip).take(frames - output.len());
        output.extend(fresh.map(|x| *x as f32));
        skip = skip.saturating_sub(size_out);
    }
    Ok(output)
}

/// Wraps both slices as the resampler wants them.
fn one_block(fft: &mut Fft<f64>, input: &[f64], output: &mut [f64]) -> Result<(), String> {
    let (len_in, len_out) = (input.len(), output.len());
    let input = SequentialSlice::new(input, 1, len_in).map_err(|e| e.to_string())?;
    let mut output = SequentialSlice::new_mut(output, 1, len_out).map_err(|e| e.to_string())?;
    fft.process_into_buffer(&input, &mut output, None).map_err(|e| e.to_string())?;
    Ok(())
}
