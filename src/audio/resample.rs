//! Any rate to any rate, a whole sound at a time, aligned.
//!
//! Overlap-add of FFT blocks (rubato's `Fft`): a block of M frames is transformed, multiplied by a windowed sinc
//! (squared Blackman–Harris window, linear phase, cut-off at the lower of both Nyquist rates less its slope), its
//! spectrum shortened or lengthened to that of L frames, and transformed back, with L / M = to / from exactly. The
//! filter is M taps long and symmetric, so it delays by M/2 frames in, L/2 frames out; both are made even, hence the
//! delay is a whole number of frames and is removed without remainder: frame n of the output is the sound at time
//! n / to. Computed in f64, so that the error is the rounding of the f32 result (below −130 dB) and a
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

/// Frames in the shorter of the two blocks, at least: the filter then passes 97% of the lower Nyquist rate within 1e-6,
/// and stops all above 101.25%.
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
    let channels = sound
        .channels()
        .iter()
        .map(|channel| one_channel(&mut fft, channel, frames))
        .collect::<Result<_>>()?;
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
pub(crate) fn gcd(a: usize, b: usize) -> usize {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    const PAIRS: [(u32, u32); 10] = [
        (48_000, 16_000),
        (16_000, 48_000),
        (44_100, 16_000),
        (16_000, 44_100),
        (44_100, 48_000),
        (8_000, 16_000),
        (11_025, 16_000),
        (192_000, 16_000),
        (16_001, 16_000),
        (12_345, 54_321),
    ];

    fn rate(hz: u32) -> SampleRate {
        SampleRate::new(hz).unwrap()
    }

    fn sine(hz: f64, at: u32, frames: usize) -> Vec<f64> {
        (0..frames).map(|n| 0.8 * (TAU * hz * n as f64 / f64::from(at) + 0.7).sin()).collect()
    }

    fn sound(at: u32, samples: &[f64]) -> Sound {
        Sound::new(rate(at), vec![samples.iter().map(|x| *x as f32).collect()]).unwrap()
    }

    /// Largest difference in dB of the sine's amplitude, away from the ends where the sine starts and stops.
    fn sine_error_db(hz: f64, from: u32, to: u32) -> f64 {
        let frames = from as usize / 2 + 4 * block_sizes(rate(from), rate(to)).0 + 1;
        let out = resample(&sound(from, &sine(hz, from, frames)), rate(to)).unwrap();
        let wanted = sine(hz, to, out.frames());
        let edge = 2 * resample_delay(rate(from), rate(to));
        let middle = edge..out.frames() - edge;
        let got = &out.channels()[0];
        let worst = middle.map(|n| (f64::from(got[n]) - wanted[n]).abs()).fold(0.0, f64::max);
        20.0 * (worst / 0.8).log10()
    }

    #[test]
    fn a_sine_keeps_amplitude_and_phase() {
        for (from, to) in
            PAIRS.into_iter().filter(|(from, to)| block_sizes(rate(*from), rate(*to)).0 < 10_000)
        {
            let nyquist = f64::from(from.min(to)) / 2.0;
            for share in [0.01, 0.25, 0.5, 0.9, 0.97] {
                let db = sine_error_db(share * nyquist, from, to);
                assert!(db < -130.0, "{from} -> {to} at {share} of Nyquist: {db:.1} dB");
            }
        }
    }

    #[test]
    fn what_lies_above_the_new_nyquist_rate_is_gone() {
        for hz in [8_100.0, 8_500.0, 15_000.0, 23_000.0] {
            let out = resample(&sound(48_000, &sine(hz, 48_000, 48_000)), rate(16_000)).unwrap();
            let middle = &out.channels()[0][2_000..14_000];
            let peak = middle.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let db = 20.0 * (f64::from(peak) / 0.8).log10();
            assert!(db < -130.0, "{hz} Hz: {db:.1} dB");
        }
    }

    #[test]
    fn an_impulse_stays_where_it_was() {
        for (from, to) in PAIRS {
            // A position that falls on a whole frame on both sides, if there is one within the sound.
            let unit = from as usize / gcd(from as usize, to as usize);
            let at = unit * (600usize.div_ceil(unit));
            let mut samples = vec![0.0; at + 801];
            samples[at] = 1.0;
            let out = resample(&sound(from, &samples), rate(to)).unwrap();
            let channel = &out.channels()[0];
            let peak = (0..channel.len()).max_by(|a, b| channel[*a].total_cmp(&channel[*b])).unwrap();
            assert_eq!(peak, at / unit * (to as usize / (from as usize / unit)), "{from} -> {to}");
            // Linear phase: the response is the same on either side.
            for d in 1..100.min(peak).min(channel.len() - peak) {
                assert!(
                    (channel[peak - d] - channel[peak + d]).abs() < 1e-6,
                    "{from} -> {to}, {d} frames off"
                );
            }
        }
    }

    #[test]
    fn every_length_comes_out_as_stated() {
        for (from, to) in PAIRS {
            for frames in [1, 2, 3, 159, 160, 441, 1_023, 1_025, 4_097] {
                let input = sound(from, &vec![0.5; frames]);
                let out = resample(&input, rate(to)).unwrap();
                assert_eq!(out.frames(), rate(from).frames_at(rate(to), frames), "{from} -> {to}, {frames}");
                assert_eq!(out.rate(), rate(to));
                let back = resample_to_length(&out, rate(from), frames).unwrap();
                assert_eq!(back.frames(), frames);
            }
        }
    }

    #[test]
    fn the_same_rate_changes_nothing() {
        let input = sound(16_000, &sine(440.0, 16_000, 1_001));
        assert_eq!(resample(&input, rate(16_000)).unwrap(), input);
        assert_eq!(resample_delay(rate(16_000), rate(16_000)), 0);
        assert_eq!(resample_to_length(&input, rate(16_000), 1_003).unwrap().channels()[0][1_000..].len(), 3);
        assert!(resample_to_length(&input, rate(48_000), 0).is_err());
    }

    #[test]
    fn channels_do_not_mix() {
        let (left, right) = (sine(300.0, 44_100, 5_000), sine(1_000.0, 44_100, 5_000));
        let alone = resample(&sound(44_100, &right), rate(16_000)).unwrap();
        let both =
            Sound::new(rate(44_100), [left, right].map(|c| c.iter().map(|x| *x as f32).collect()).to_vec());
        let both = resample(&both.unwrap(), rate(16_000)).unwrap();
        assert_eq!(both.channels()[1], alone.channels()[0]);
    }

    #[test]
    fn a_sample_of_any_finite_size_passes() {
        let huge = sound(48_000, &vec![f64::from(f32::MAX) / 4.0; 3_000]);
        assert!(resample(&huge, rate(16_000)).is_ok());
    }
}
