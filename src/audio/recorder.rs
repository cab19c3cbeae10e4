//! WAV out of which nobody knows how long it will be.
//!
//! The file lies under a hidden name beside its own until it is finished, and what lies there is a whole WAV file at every second: the lengths in its
//! header are set again as it grows. Dropped, it is finished as it is, if there is a frame in it.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::atomic::Part;
use super::units::SampleRate;
use super::write::{WavDepth, Written, header, name_of_wav};
use crate::error::{Error, Result};

/// The most bytes of samples: what a WAV header can say, less room for itself.
const MOST: u64 = u32::MAX as u64 - 1_024;

/// A WAV file that grows.
pub struct Recorder {
    part: Option<Part>,
    path: PathBuf,
    rate: SampleRate,
    channels: usize,
    depth: WavDepth,
    frames: u64,
    /// Frames that the header tells of.
    told: u64,
    clipped: u64,
    packed: Vec<u8>,
}

impl Recorder {
    /// Begins a file at a name. Under it nothing changes before [`finish`](Self::finish).
    pub fn begin(path: &Path, rate: SampleRate, channels: usize, depth: WavDepth) -> Result<Self> {
        name_of_wav(path)?;
        let mut part = Part::begin(path)?;
        let name = path.display().to_string();
        let header = header(&name, rate, channels, depth, 0)?;
        part.file().write_all(&header).map_err(|e| Error::io("write", path, e))?;
        let part = Some(part);
        Ok(Self {
            part,
            path: path.into(),
            rate,
            channels,
            depth,
            frames: 0,
            told: 0,
            clipped: 0,
            packed: Vec::new(),
        })
    }

    /// Writes frames, channels side by side. After an error (a full disk, 4 GiB) the file can be finished with what is in it.
    pub fn push(&mut self, frames: &[f32]) -> Result<()> {
        let Some(part) = &mut self.part else { return Ok(()) };
        let bytes = self.depth.bytes();
        let room = (MOST - self.frames * (self.channels * bytes) as u64) / (self.channels * bytes) as u64;
        if (frames.len() / self.channels) as u64 > room {
            let name = self.path.display().to_string();
            return Err(Error::input(name, "at most 4 GiB of samples in a WAV file", "more"));
        }
        self.packed.clear();
        for x in frames {
            self.clipped += u64::from(x.abs() > 1.0);
            self.packed.extend(self.depth.pack(*x).iter().take(bytes));
        }
        part.file().write_all(&self.packed).map_err(|e| Error::io("write", &self.path, e))?;
        self.frames += (frames.len() / self.channels) as u64;
        if self.frames - self.told >= u64::from(self.rate.hz()) {
            self.tell()?;
        }
        Ok(())
    }

    /// Gives the file its name.
    pub fn finish(mut self) -> Result<Written> {
        self.close()?;
        let clipped = if self.depth == WavDepth::Float32 { 0 } else { self.clipped };
        Ok(Written { frames: self.frames as usize, clipped })
    }

    fn close(&mut self) -> Result<()> {
        self.tell()?;
        let Some(mut part) = self.part.take() else { return Ok(()) };
        let bytes = self.len() + self.len() % 2;
        let head = header("", self.rate, self.channels, self.depth, 0)?.len() as u64;
        // What of a failed call went into the file goes; a RIFF chunk ends on an even byte.
        part.file().set_len(head + bytes).map_err(|e| Error::io("write", &self.path, e))?;
        part.finish_or_stay()
    }

    fn len(&self) -> u64 {
        self.frames * (self.channels * self.depth.bytes()) as u64
    }

    /// Sets the lengths in the header.
    fn tell(&mut self) -> Result<()> {
        let name = self.path.display().to_string();
        let header = header(&name, self.rate, self.channels, self.depth, self.len())?;
        let Some(part) = &mut self.part else { return Ok(()) };
        let file = part.file();
        let told = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&header));
        told.and_then(|()| file.seek(SeekFrom::End(0))).map_err(|e| Error::io("write", &self.path, e))?;
        self.told = self.frames;
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if self.frames > 0 {
            let _ = self.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{Sound, read_path, write_path};

    #[test]
    fn what_grew_is_what_is_written_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (grown, whole) = (folder.path().join("grown.wav"), folder.path().join("whole.wav"));
        let rate = SampleRate::new(8_000).unwrap();
        let wave = |c: usize| (0..20_001).map(|n| ((n * (c + 3)) as f32 * 0.37).sin() * 1.01).collect();
        for depth in [WavDepth::Int16, WavDepth::Int24, WavDepth::Float32] {
            for channels in [1, 3] {
                let sound = Sound::new(rate, (0..channels).map(wave).collect()).unwrap();
                let written = write_path(&whole, &sound, depth).unwrap();
                let frames: Vec<f32> =
                    (0..20_001).flat_map(|n| sound.channels().iter().map(move |c| c[n])).collect();
                let mut recorder = Recorder::begin(&grown, rate, channels, depth).unwrap();
                frames.chunks(777 * channels).for_each(|part| recorder.push(part).unwrap());
                assert_eq!(recorder.finish().unwrap(), written);
                assert!(std::fs::read(&grown).unwrap() == std::fs::read(&whole).unwrap(), "{depth:?}");
            }
        }
    }

    #[test]
    fn what_is_left_is_whole_and_names_that_cannot_be_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        let rate = SampleRate::new(8_000).unwrap();
        let begin = |path: &Path| Recorder::begin(path, rate, 1, WavDepth::Int16);
        let mut recorder = begin(&path).unwrap();
        recorder.push(&[0.5; 9_000]).unwrap();
        assert!(!path.exists());
        let hidden = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        assert_eq!(read_path(&hidden).unwrap().frames(), 9_000, "while it grows");
        drop(recorder);
        assert_eq!(read_path(&path).unwrap().frames(), 9_000, "dropped");
        drop(begin(&folder.path().join("empty.wav")).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "of no frame nothing is left");
        assert!(begin(folder.path()).err().unwrap().to_string().ends_with("got a folder"));
        assert!(
            begin(&folder.path().join("no/a.wav")).err().unwrap().to_string().starts_with("cannot create")
        );
        #[cfg(target_os = "linux")]
        {
            assert!(begin("/dev/null".as_ref()).err().unwrap().to_string().contains("a device or a pipe"));
            let mut full = begin(&path).unwrap();
            full.frames = MOST / 2;
            assert!(full.push(&[0.0; 9_000]).unwrap_err().to_string().contains("4 GiB"));
            full.frames = 0;
        }
    }
}
