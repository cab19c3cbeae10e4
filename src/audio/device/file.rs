//! Files as devices: a sound in any format that is read whole beforehand, and a WAV file that grows.

use std::path::Path;

use super::{Format, Sink, Source};
use crate::audio::{Recorder, SampleRate, WavDepth, read_path};
use crate::{Error, Result};

/// A sound file to hear.
pub struct FileSource {
    format: Format,
    frames: Vec<f32>,
    at: usize,
}

impl FileSource {
    /// Reads the file, which is heard in such blocks.
    pub fn open(path: &Path, block: usize) -> Result<Self> {
        let sound = read_path(path)?;
        let format = Format { rate: sound.rate(), channels: sound.channel_count(), block };
        let frame = |n: usize| sound.channels().iter().map(move |channel| channel[n]);
        Ok(Self { format, frames: (0..sound.frames()).flat_map(frame).collect(), at: 0 })
    }

    /// Frames in all.
    pub fn frames(&self) -> usize {
        self.frames.len() / self.format.channels
    }
}

impl Source for FileSource {
    fn format(&self) -> Format {
        self.format
    }

    fn read(&mut self, frames: &mut [f32]) -> usize {
        let rest = &self.frames[self.at..];
        let count = rest.len().min(frames.len());
        frames[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        count / self.format.channels
    }
}

/// A WAV file to write.
pub struct FileSink {
    format: Format,
    recorder: Option<Recorder>,
    name: String,
}

impl FileSink {
    /// Begins the file; it has its name once it is finished.
    pub fn begin(
        path: &Path,
        rate: SampleRate,
        channels: usize,
        block: usize,
        depth: WavDepth,
    ) -> Result<Self> {
        let recorder = Some(Recorder::begin(path, rate, channels, depth)?);
        Ok(Self { format: Format { rate, channels, block }, recorder, name: path.display().to_string() })
    }
}

impl Sink for FileSink {
    fn format(&self) -> Format {
        self.format
    }

    fn write(&mut self, frames: &[f32]) -> Result<()> {
        match &mut self.recorder {
            Some(recorder) => recorder.push(frames),
            None => Err(Error::Unavailable { what: self.name.clone(), why: "it is finished".into() }),
        }
    }

    fn finish(&mut self) -> Result<()> {
        self.recorder.take().map_or(Ok(()), |recorder| recorder.finish().map(|_| ()))
    }
}
