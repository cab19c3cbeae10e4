//! WAV out: 16- and 24-bit integers and 32-bit float.
//!
//! An integer of b bits is round(x · 2^(b−1)), held to the range of b bits; there is no dither. A sample outside ±1
//! loses its peak and is counted as clipped (exactly 1.0 becomes the largest integer and is not). Float keeps every bit.
//! The length is known beforehand, so the header is right from the first byte and a pipe is as good an output as a file.
//!
//! ```
//! use cascabel::audio::{SampleRate, Sound, WavDepth, write_stream};
//! let sound = Sound::new(SampleRate::new(8_000)?, vec![vec![0.0, 2.0]])?;
//! let mut bytes = Vec::new();
//! let written = write_stream(&mut bytes, "memory", &sound, WavDepth::Int16)?;
//! assert_eq!((bytes.len(), written.clipped), (44 + 4, 1));
//! # Ok::<(), cascabel::Error>(())
//! ```

use super::atomic::write_whole;
use super::sound::Sound;
use crate::error::{Error, Result};
use std::io::{Cursor, Write};
use std::path::Path;

/// How a sample is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WavDepth {
    /// 16-bit integer.
    #[default]
    Int16,
    /// 24-bit integer.
    Int24,
    /// 32-bit float.
    Float32,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Frames.
    pub frames: usize,
    /// Samples, over all channels, that lay outside ±1 and were cut to it. Always 0 for float.
    pub clipped: u64,
}

impl WavDepth {
    /// Bytes of one sample.
    pub fn bytes(self) -> usize {
        match self {
            Self::Int16 => 2,
            Self::Int24 => 3,
            Self::Float32 => 4,
        }
    }

    /// The sample in the file's bytes, the first [`Self::bytes`] of the four.
    fn pack(self, x: f32) -> [u8; 4] {
        // A product with a power of two is exact, and so is the rounded value in f32: at most 2^23 in size.
        let integer = |scale: f32| (x * scale).round().clamp(-scale, scale - 1.0) as i32;
        match self {
            Self::Int16 => integer(32_768.0).to_le_bytes(),
            Self::Int24 => integer(8_388_608.0).to_le_bytes(),
            Self::Float32 => x.to_le_bytes(),
        }
    }
}

/// Writes the file `path`: it appears whole, under its name, or not at all.
pub fn write_path(path: &Path, sound: &Sound, depth: WavDepth) -> Result<Written> {
    let name = path.display().to_string();
    write_whole(path, |writer| write_stream(writer, &name, sound, depth))
}

/// Writes to any output, standard output for one; `name` is what an error calls it.
pub fn write_stream(mut out: impl Write, name: &str, sound: &Sound, depth: WavDepth) -> Result<Written> {
    let failed = |source| Error::io("write", name, source);
    let data_len = sound.frames() as u64 * (sound.channel_count() * depth.bytes()) as u64;
    out.write_all(&header(name, sound, depth, data_len)?).map_err(failed)?;
    let clipped = write_samples(&mut out, sound, depth).map_err(failed)?;
    if data_len % 2 == 1 {
        // A RIFF chunk ends on an even byte.
        out.write_all(&[0]).map_err(failed)?;
    }
    out.flush().map_err(failed)?;
    Ok(Written { frames: sound.frames(), clipped })
}

/// Interleaves and packs block by block; returns the count of clipped samples.
fn write_samples(out: &mut impl Write, sound: &Sound, depth: WavDepth) -> std::io::Result<u64> {
    const BLOCK: usize = 4_096;
    let mut packed = Vec::with_capacity(BLOCK * sound.channel_count() * depth.bytes());
    let mut clipped = 0;
    for start in (0..sound.frames()).step_by(BLOCK) {
        packed.clear();
        for n in start..sound.frames().min(start + BLOCK) {
            for channel in sound.channels() {
                let x = channel[n];
                clipped += u64::from(x.abs() > 1.0);
                packed.extend_from_slice(&depth.pack(x)[..depth.bytes()]);
            }
        }
        out.write_all(&packed)?;
    }
    Ok(if depth == WavDepth::Float32 { 0 } else { clipped })
}

/// The bytes before the samples. hound writes a header for no samples; the two lengths are then put in, so that
/// nothing need be sought back.
fn header(name: &str, sound: &Sound, depth: WavDepth, data_len: u64) -> Result<Vec<u8>> {
    let spec = hound::WavSpec {
        channels: sound.channel_count() as u16, // at most 26
        sample_rate: sound.rate().hz(),
        bits_per_sample: 8 * depth.bytes() as u16,
        sample_format: match depth {
            WavDepth::Float32 => hound::SampleFormat::Float,
            WavDepth::Int16 | WavDepth::Int24 => hound::SampleFormat::Int,
        },
    };
    let failed = |e: hound::Error| Error::io("write", name, std::io::Error::other(e.to_string()));
    let mut header = Cursor::new(Vec::new());
    hound::WavWriter::new(&mut header, spec).and_then(hound::WavWriter::finalize).map_err(failed)?;
    let mut header = header.into_inner();
    let data_field = header.len() - 4;
    // RIFF's own length counts all after its first 8 bytes, the padding too.
    let riff_len = (data_field - 4) as u64 + data_len + data_len % 2;
    let (Ok(riff), Ok(data)) = (u32::try_from(riff_len), u32::try_from(data_len)) else {
        let got = format!("{data_len} bytes");
        return Err(Error::input(name, "at most 4 GiB of samples in a WAV file", got));
    };
    header[4..8].copy_from_slice(&riff.to_le_bytes());
    header[data_field..].copy_from_slice(&data.to_le_bytes());
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{SampleRate, read_bytes, read_path};

    fn sound(channels: usize, frames: usize) -> Sound {
        let wave = |c: usize| (0..frames).map(|n| ((n * (c + 3)) as f32 * 0.37).sin() * 0.9).collect();
        Sound::new(SampleRate::new(44_100).unwrap(), (0..channels).map(wave).collect()).unwrap()
    }

    fn encode(sound: &Sound, depth: WavDepth) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_stream(&mut bytes, "memory", sound, depth).unwrap();
        bytes
    }

    #[test]
    fn every_depth_comes_back() {
        for (depth, bound) in
            [(WavDepth::Int16, 0.5 / 32768.0), (WavDepth::Int24, 0.5 / 8388608.0), (WavDepth::Float32, 0.0)]
        {
            for channels in [1, 2, 3, 6, 18] {
                for frames in [1, 2, 1_151, 1_152, 1_153, 4_097] {
                    let sent = sound(channels, frames);
                    let back = read_bytes(encode(&sent, depth), "memory").unwrap();
                    assert_eq!((back.rate(), back.channel_count()), (sent.rate(), channels));
                    for (a, b) in sent.channels().iter().zip(back.channels()) {
                        assert_eq!(a.len(), b.len());
                        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= bound), "{depth:?} {channels}");
                    }
                }
            }
        }
    }

    #[test]
    fn hound_reads_the_same_and_the_lengths_are_true() {
        for depth in [WavDepth::Int16, WavDepth::Int24, WavDepth::Float32] {
            let bytes = encode(&sound(1, 4_097), depth);
            assert_eq!(u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize, bytes.len() - 8);
            assert_eq!(bytes.len() % 2, 0);
            let reader = hound::WavReader::new(&bytes[..]).unwrap();
            assert_eq!((reader.duration(), reader.spec().sample_rate), (4_097, 44_100));
        }
        let bytes = encode(&sound(2, 9), WavDepth::Int24);
        let judge: Vec<i32> =
            hound::WavReader::new(&bytes[..]).unwrap().samples().map(|s| s.unwrap()).collect();
        let wanted = (sound(2, 9).channels()[1][8] * 8_388_608.0).round() as i32;
        assert_eq!(judge[17], wanted);
    }

    #[test]
    fn clipping_is_counted_and_held() {
        let rate = SampleRate::new(8_000).unwrap();
        let loud = Sound::new(rate, vec![vec![1.0, -1.0, 1.001, -7.0, f32::MAX, 0.99999]]).unwrap();
        for (depth, clipped) in [(WavDepth::Int16, 3), (WavDepth::Int24, 3), (WavDepth::Float32, 0)] {
            assert_eq!(
                write_stream(std::io::sink(), "sink", &loud, depth).unwrap(),
                Written { frames: 6, clipped }
            );
        }
        let back = read_bytes(encode(&loud, WavDepth::Int16), "memory").unwrap();
        let top = 32_767.0 / 32_768.0;
        assert_eq!(back.channels()[0], [top, -1.0, top, -1.0, top, top]);
        assert_eq!(read_bytes(encode(&loud, WavDepth::Float32), "memory").unwrap(), loud);
    }

    #[test]
    fn integers_survive_a_second_round_trip_unchanged() {
        let first = encode(&sound(2, 500), WavDepth::Int16);
        let second = encode(&read_bytes(first.clone(), "memory").unwrap(), WavDepth::Int16);
        assert_eq!(first, second);
    }

    #[test]
    fn a_path_is_written_whole_and_a_full_pipe_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        write_path(&path, &sound(2, 100), WavDepth::Float32).unwrap();
        assert_eq!(read_path(&path).unwrap(), sound(2, 100));
        let mut small = [0u8; 60];
        let error =
            write_stream(&mut small[..], "pipe", &sound(2, 100), WavDepth::Int16).unwrap_err().to_string();
        assert!(error.starts_with("cannot write pipe: "), "{error}");
    }
}
