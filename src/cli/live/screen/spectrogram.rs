//! The last seconds of one end as columns of levels.

use std::collections::VecDeque;

use realfft::num_complex::Complex32;

use crate::Result;
use crate::audio::SampleRate;
use crate::audio::stft::Stft;
use crate::engine::live::Tapped;

/// Columns a second.
const COLUMNS: u32 = 20;
/// Columns that are kept.
const KEPT: usize = 512;
/// Levels of a column, from 0 to half of 16 kHz or of the rate, if that is less.
pub const ROWS: usize = 64;
const HIGHEST_HZ: f32 = 8_000.0;
const SAMPLES: usize = 1 << 14;

/// A picture that grows at its right.
pub struct Spectrogram {
    tapped: Tapped,
    stft: Stft,
    /// Frames between two columns.
    step: usize,
    /// Bins of a row of the transform that are shown.
    bins: usize,
    middle: Vec<f32>,
    block: Vec<f32>,
    rows: Vec<Complex32>,
    columns: VecDeque<[f32; ROWS]>,
}

impl Spectrogram {
    pub fn of(tapped: Tapped, rate: SampleRate) -> Result<Self> {
        let hz = rate.hz();
        // 32 ms, as a power of two.
        let n_fft = ((hz as f32 * 0.032) as usize).next_power_of_two();
        let bins = (HIGHEST_HZ.min(hz as f32 / 2.0) / hz as f32 * n_fft as f32) as usize;
        let block = vec![0.0; SAMPLES * tapped.channels()];
        let stft = Stft::new(n_fft, n_fft / 2)?;
        let rows = stft.rows(n_fft);
        let step = (hz / COLUMNS).max(1) as usize;
        Ok(Self { tapped, stft, step, bins, middle: Vec::new(), block, rows, columns: VecDeque::new() })
    }

    /// Takes what came since.
    pub fn listen(&mut self) {
        let channels = self.tapped.channels();
        loop {
            let frames = self.tapped.take(&mut self.block);
            if frames.is_empty() {
                break;
            }
            self.middle
                .extend(frames.chunks(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32));
        }
        let needed = self.step.max(self.stft.n_fft());
        let mut at = 0;
        while self.middle.len() >= at + needed {
            let column = self.column(at);
            self.columns.push_back(column);
            at += self.step;
        }
        self.middle.drain(..at);
        let beyond = self.columns.len().saturating_sub(KEPT);
        self.columns.drain(..beyond);
    }

    /// The levels of one transform, in dB of a sine of full scale, the lowest first.
    fn column(&mut self, at: usize) -> [f32; ROWS] {
        let n_fft = self.stft.n_fft();
        self.stft.forward(&self.middle[at..at + n_fft], &mut self.rows);
        // Of three rows, centred at its beginning, its middle and its end.
        let (row, scale) = (&self.rows[self.stft.bins()..], 2.0 / self.stft.gain());
        std::array::from_fn(|n| {
            let from = n * self.bins / ROWS;
            let to = ((n + 1) * self.bins / ROWS).max(from + 1);
            let most = row[from..to].iter().map(|x| x.norm()).fold(0.0, f32::max);
            20.0 * (most * scale).max(1e-6).log10()
        })
    }

    /// The last columns, the newest last.
    pub fn last(&self, count: usize) -> impl DoubleEndedIterator<Item = &[f32; ROWS]> {
        self.columns.iter().skip(self.columns.len().saturating_sub(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::live::{Ends, Session, wire};

    #[test]
    fn a_tone_is_a_line_at_its_place_and_level() {
        let rate = SampleRate::new(48_000).unwrap();
        let ends = Ends {
            rate_in: rate,
            rate_out: rate,
            channels_in: 2,
            channels_out: 2,
            two_clocks: false,
            margin: 0,
            burst: 64,
        };
        let model = crate::engine::bundled::open("denoise").unwrap();
        let (mut capture, ..) = wire(Session::open(&model, ends, 1.0).unwrap().0);
        let mut picture = Spectrogram::of(capture.tap(), rate).unwrap();
        let tone = |n: usize| 0.1 * (std::f32::consts::TAU * 1_000.0 * n as f32 / 48_000.0).sin();
        let frames: Vec<f32> = (0..48_000).flat_map(|n| [tone(n), tone(n)]).collect();
        for part in frames.chunks(999 * 2) {
            capture.push(part);
            picture.listen();
        }
        assert!((19..=20).contains(&picture.last(usize::MAX).count()));
        let column = picture.last(1).next().unwrap();
        let loudest = (0..ROWS).max_by(|a, b| column[*a].total_cmp(&column[*b])).unwrap();
        assert_eq!(loudest, 8, "1,000 of 8,000 Hz");
        assert!((column[8] + 20.0).abs() < 1.5, "{}", column[8]);
        assert!(column[20] < -80.0, "{}", column[20]);
    }
}
