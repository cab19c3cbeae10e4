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
use super::units::SampleRate;
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
    pub(super) fn pack(self, x: f32) -> [u8; 4] {
        // A product with a power of two is exact, and so is the rounded value in f32: at most 2^23 in size.
        let integer = |scale: f32| (x * scale).round().clamp(-scale, scale - 1.0) as i32;
        match self {
            Self::Int16 => integer(32_768.0).to_le_bytes(),
            Self::Int24 => integer(8_388_608.0).to_le_bytes(),
            Self::Float32 => x.to_le_bytes(),
        }
    }
}

/// Endings that promise another format than the one that is written.
const OTHERS: [&str; 19] = [
    "aac", "ac3", "aif", "aiff", "ape", "au", "caf", "flac", "m4a", "mka", "mp3", "mp4", "oga", "ogg",
    "opus", "w64", "webm", "wma", "wv",
];

/// Refuses a name by which a WAV file would be taken for another format.
pub fn name_of_wav(path: &Path) -> Result<()> {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    match ending.filter(|ending| OTHERS.contains(&ending.as_str())) {
        Some(ending) => {
            let expected = "a name that ends in .wav, which is what is written";
            Err(Error::input(path.display().to_string(), expected, format!(".{ending}")))
        }
        None => Ok(()),
    }
}

/// Writes the file `path`: it appears whole, under its name, or not at all. A name of another format's is refused.
pub fn write_path(path: &Path, sound: &Sound, depth: WavDepth) -> Result<Written> {
    name_of_wav(path)?;
    let name = path.display().to_string();
    write_whole(path, |writer| write_stream(writer, &name, sound, depth))
}

/// Writes to any output, standard output for one; `name` is what an error calls it.
pub fn write_stream(out: impl Write, name: &str, sound: &Sound, depth: WavDepth) -> Result<Written> {
    let mut writer = WavStream::begin(out, name, sound.rate(), sound.channel_count(), sound.frames(), depth)?;
    let channels: Vec<&[f32]> = sound.channels().iter().map(Vec::as_slice).collect();
    writer.push(&channels)?;
    writer.finish()
}

/// A WAV that is written as its sound comes: its length is said first.
pub struct WavStream<W> {
    out: W,
    name: String,
    depth: WavDepth,
    channels: usize,
    /// Frames said, and those that came.
    frames: usize,
    done: usize,
    clipped: u64,
    packed: Vec<u8>,
}

impl<W: Write> WavStream<W> {
    /// Writes the header of so many frames; `name` is what an error calls the output.
    pub fn begin(
        mut out: W,
        name: &str,
        rate: SampleRate,
        channels: usize,
        frames: usize,
        depth: WavDepth,
    ) -> Result<Self> {
        let data_len = frames as u64 * (channels * depth.bytes()) as u64;
        let header = header(name, rate, channels, depth, data_len)?;
        out.write_all(&header).map_err(|e| Error::io("write", name, e))?;
        Ok(Self { out, name: name.into(), depth, channels, frames, done: 0, clipped: 0, packed: Vec::new() })
    }

    /// Writes the next frames, equally many of each channel, and hands them on at once. More than were said are refused.
    pub fn push(&mut self, channels: &[&[f32]]) -> Result<()> {
        const BLOCK: usize = 4_096;
        let frames = channels.first().map_or(0, |channel| channel.len());
        if channels.len() != self.channels || channels.iter().any(|channel| channel.len() != frames) {
            let lengths: Vec<usize> = channels.iter().map(|channel| channel.len()).collect();
            let got = format!("channels of {lengths:?} frames");
            return Err(Error::input(&self.name, format!("{} channels of equal length", self.channels), got));
        }
        if frames > self.frames - self.done {
            let (said, got) = (self.frames, self.done + frames);
            return Err(Error::input(&self.name, format!("{said} frames in all"), got.to_string()));
        }
        for start in (0..frames).step_by(BLOCK) {
            self.packed.clear();
            for n in start..frames.min(start + BLOCK) {
                for channel in channels {
                    let x = channel[n];
                    self.clipped += u64::from(x.abs() > 1.0);
                    self.packed.extend_from_slice(&self.depth.pack(x)[..self.depth.bytes()]);
                }
            }
            self.out.write_all(&self.packed).map_err(|e| Error::io("write", &self.name, e))?;
        }
        self.done += frames;
        self.out.flush().map_err(|e| Error::io("write", &self.name, e))
    }

    /// Ends the file; fewer frames than were said become silence.
    pub fn finish(mut self) -> Result<Written> {
        let missing = self.frames - self.done;
        let bytes = self.channels * self.depth.bytes();
        // A RIFF chunk ends on an even byte.
        let rest = vec![0; missing * bytes + self.frames * bytes % 2];
        let end = self.out.write_all(&rest).and_then(|()| self.out.flush());
        end.map_err(|e| Error::io("write", &self.name, e))?;
        let clipped = if self.depth == WavDepth::Float32 { 0 } else { self.clipped };
        Ok(Written { frames: self.frames, clipped })
    }
}

/// The bytes before the samples. hound writes a header for no samples; the two lengths are then put in, so that
/// nothing need be sought back.
pub(super) fn header(
    name: &str,
    rate: SampleRate,
    channels: usize,
    depth: WavDepth,
    data_len: u64,
) -> Result<Vec<u8>> {
    let spec = hound::WavSpec {
        channels: channels as u16, // at most 26
        sample_rate: rate.hz(),
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
    fn a_stream_has_the_bytes_of_the_whole_and_keeps_to_what_it_said() {
        let sound = sound(2, 5_001);
        for depth in [WavDepth::Int16, WavDepth::Int24, WavDepth::Float32] {
            let mut bytes = Vec::new();
            let mut stream = WavStream::begin(&mut bytes, "memory", sound.rate(), 2, 5_001, depth).unwrap();
            for (from, to) in [(0, 1), (1, 4_600), (4_600, 4_600), (4_600, 5_001)] {
                let channels: Vec<&[f32]> = sound.channels().iter().map(|c| &c[from..to]).collect();
                stream.push(&channels).unwrap();
            }
            assert!(
                stream
                    .push(&[&[0.0], &[0.0]])
                    .unwrap_err()
                    .to_string()
                    .contains("5001 frames in all, got 5002")
            );
            assert!(stream.push(&[&[0.0]]).unwrap_err().to_string().contains("2 channels of equal length"));
            assert_eq!(stream.finish().unwrap().frames, 5_001);
            assert_eq!(bytes, encode(&sound, depth));
        }
        let mut short = Vec::new();
        WavStream::begin(&mut short, "memory", sound.rate(), 1, 3, WavDepth::Int24)
            .unwrap()
            .finish()
            .unwrap();
        assert_eq!(read_bytes(short, "memory").unwrap().channels()[0], [0.0; 3]);
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
