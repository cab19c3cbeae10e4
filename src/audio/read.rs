//! Sound in: every format that symphonia decodes, from a file, a pipe or memory.
//!
//! | container | codecs |
//! |---|---|
//! | WAV, AIFF, CAF | PCM of every width, A-law, µ-law, ADPCM |
//! | FLAC, Ogg, Matroska/WebM, MP4 | FLAC, Vorbis, ALAC, AAC-LC |
//! | MP1/MP2/MP3, ADTS | MPEG audio, AAC-LC |
//!
//! What a bad file gets, always one line:
//!
//! - a folder, an empty file, text, a picture, a codec without a decoder: refused by name;
//! - a header that promises more than the file holds, or a packet cut in two: "truncated". The WAV header of a pipe is
//!   the exception: it promises 2 or 4 GiB because the writer could not know, and the file ends where it ends. So do
//!   formats that promise nothing (MPEG audio without a LAME tag, live FLAC and Matroska);
//! - a packet that does not decode, or a FLAC file whose checksum differs: refused with the time at which it stands, since
//!   leaving it out would shift all that follows;
//! - a rate outside 1 to 768 kHz, no or too many channels, no frames, NaN or infinity: refused with the position.
//!
//! The silence that an encoder added at the ends is trimmed wherever the file states it (MP3, Vorbis). In AAC symphonia
//! does not, and about 1,024 frames of it stay in front.

use super::decode::decode;
use super::resample::resample;
use super::sound::Sound;
use super::units::SampleRate;
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

/// Reads the sound file `path`. A pipe or device is read to its end first.
pub fn read_path(path: &Path) -> Result<Sound> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|source| Error::io("open", path, source))?;
    let meta = file.metadata().map_err(|source| Error::io("open", path, source))?;
    if meta.is_dir() {
        return Err(Error::input(name, "a sound file", "a folder"));
    }
    if !meta.is_file() {
        return read_stream(file, &name);
    }
    if meta.len() == 0 {
        return Err(empty(&name));
    }
    decode(Box::new(file), &name)
}

/// The mean of a file's channels at rate `to`, as a model of one channel hears it; and the file's own rate.
pub fn read_middle(path: &Path, to: SampleRate) -> Result<(Vec<f32>, SampleRate)> {
    let sound = read_path(path)?;
    Ok((resample(&sound, to)?.middle(), sound.rate()))
}

/// Reads a sound from any input, standard input for one; `name` is what an error calls it.
pub fn read_stream(mut input: impl Read, name: &str) -> Result<Sound> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes).map_err(|source| Error::io("read", name, source))?;
    read_bytes(bytes, name)
}

/// Reads a sound file that is already in memory.
pub fn read_bytes(bytes: Vec<u8>, name: &str) -> Result<Sound> {
    if bytes.is_empty() {
        return Err(empty(name));
    }
    decode(Box::new(Cursor::new(bytes)), name)
}

/// No bytes at all.
fn empty(name: &str) -> Error {
    Error::input(name, "a sound file", "an empty file")
}
