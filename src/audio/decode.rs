//! From a byte source to a [`Sound`], by symphonia: probe, pick the track, decode packet by packet, compare with what
//! the header promised.

use super::sound::Sound;
use super::units::SampleRate;
use crate::error::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use symphonia::core::audio::GenericAudioBufferRef;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as Fault;
use symphonia::core::formats::well_known::{FORMAT_ID_AIFF, FORMAT_ID_WAVE};
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType, probe::Hint};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;

/// A data length from here on in a WAV or AIFF header means "until the end": ffmpeg writes 2^32 − 1 into a pipe, sox
/// 2^31 − 4,096 or 2^31 − 2^24.
const UNKNOWN_LENGTH: u64 = 0x7f00_0000;

/// Decodes the whole source. `name` is what errors call it.
///
/// Damaged files have made symphonia's arithmetic panic; that too becomes an error here, so that one bad file among
/// many does not end the others.
pub fn decode(source: Box<dyn MediaSource>, name: &str) -> Result<Sound> {
    let guarded = AssertUnwindSafe(|| Decoding::open(source, name)?.run());
    catch_unwind(guarded).unwrap_or_else(|_| Err(Error::input(name, "a sound file", "one that is damaged")))
}

/// One source on its way to a sound.
struct Decoding<'a> {
    name: &'a str,
    format: Box<dyn FormatReader>,
    /// What has been decoded: `[channel][frame]`.
    channels: Vec<Vec<f32>>,
    rate: Option<u32>,
    /// Frames promised by the headers so far; `None` where one promised nothing.
    promised: Option<u64>,
    /// Encoded bytes of the track read so far.
    bytes: u64,
}

/// How a stream of packets ended.
enum End {
    /// Where the container says.
    Regular,
    /// The bytes ran out earlier.
    Short,
    /// Another stream follows in the same file (chained Ogg).
    Chained,
}

impl<'a> Decoding<'a> {
    fn open(source: Box<dyn MediaSource>, name: &'a str) -> Result<Self> {
        let stream = MediaSourceStream::new(source, Default::default());
        let (format, meta) = (FormatOptions::default(), MetadataOptions::default());
        let format = symphonia::default::get_probe()
            .probe(&Hint::new(), stream, format, meta)
            .map_err(|fault| refused(name, "a sound file", fault))?;
        Ok(Self { name, format, channels: Vec::new(), rate: None, promised: Some(0), bytes: 0 })
    }

    fn run(mut self) -> Result<Sound> {
        let end = loop {
            match self.one_stream()? {
                End::Chained => continue,
                end => break end,
            }
        };
        let decoded = self.frames() as u64;
        if let Some(promised) = self.promised.filter(|p| *p > decoded && !self.is_endless(*p)) {
            let got = format!("{decoded}: the file is truncated or damaged");
            return Err(Error::input(self.name, format!("{promised} frames as its header says"), got));
        }
        let container = self.format.format_info().format;
        if matches!(end, End::Short) && container != FORMAT_ID_WAVE && container != FORMAT_ID_AIFF {
            return Err(self.at("a whole packet", "the end of the file: it is truncated"));
        }
        let rate = SampleRate::of(self.name, self.rate.unwrap_or(0))?;
        Sound::of(self.name, rate, self.channels)
    }

    /// Decodes one stream of the container's default sound track.
    fn one_stream(&mut self) -> Result<End> {
        let missing = || Error::input(self.name, "a sound track", "none");
        let track = self.format.default_track(TrackType::Audio).ok_or_else(missing)?;
        let (id, promised) = (track.id, track.num_frames);
        let params = audio_params(track).ok_or_else(missing)?;
        // The header's rate and channels are judged before any decoding.
        if let Some(hz) = params.sample_rate {
            SampleRate::of(self.name, hz)?;
        }
        let options = AudioDecoderOptions::default().gapless(true).verify(true);
        let mut decoder = symphonia::default::get_codecs()
            .make_audio_decoder(params, &options)
            .map_err(|fault| refused(self.name, "a codec that can be decoded", fault))?;
        self.promised = self.promised.zip(promised).map(|(so_far, more)| so_far.saturating_add(more));
        let end = self.packets(id, decoder.as_mut())?;
        if decoder.finalize().verify_ok == Some(false) && matches!(end, End::Regular) && !self.is_short() {
            return Err(Error::input(self.name, "samples that match the file's checksum", "others: it is damaged"));
        }
        Ok(end)
    }

    /// Decodes packets until the stream ends.
    fn packets(&mut self, track: u32, decoder: &mut dyn AudioDecoder) -> Result<End> {
        let mut planes = Vec::new();
        loop {
            let packet = match self.format.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => return Ok(End::Regular),
                Err(Fault::ResetRequired) => return Ok(End::Chained),
                Err(Fault::IoError(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(End::Short),
                Err(Fault::IoError(e)) => return Err(Error::io("read", self.name, e)),
                Err(fault) => return Err(self.at("a sound packet", &fault.to_string())),
            };
            if packet.track_id != track {
                continue;
            }
            self.bytes += packet.data.len() as u64;
            match decoder.decode(&packet) {
                Ok(buffer) => self.append(&buffer, &mut planes)?,
                Err(fault) => return Err(self.at("a sound packet", &fault.to_string())),
            }
        }
    }

    /// Adds a decoded packet; its rate and channels must be those of the packets before.
    fn append(&mut self, buffer: &GenericAudioBufferRef<'_>, planes: &mut Vec<Vec<f32>>) -> Result<()> {
        let (rate, count) = (buffer.spec().rate(), buffer.num_planes());
        let known = *self.rate.get_or_insert(rate);
        if self.channels.is_empty() {
            self.channels.resize_with(count, Vec::new);
        }
        if (known, self.channels.len()) != (rate, count) {
            let expected = format!("{known} Hz and {} channels to the end", self.channels.len());
            return Err(self.at(&expected, &format!("{rate} Hz and {count} channels")));
        }
        buffer.copy_to_vecs_planar(planes);
        for (channel, plane) in self.channels.iter_mut().zip(planes) {
            if channel.try_reserve(plane.len()).is_err() {
                let why = "it does not fit into the memory; cut it into parts".into();
                return Err(Error::Unavailable { what: format!("a sound as long as {}", self.name), why });
            }
            channel.extend_from_slice(plane);
        }
        Ok(())
    }

    /// Frames decoded so far.
    fn frames(&self) -> usize {
        self.channels.first().map_or(0, Vec::len)
    }

    /// Whether fewer frames came than were promised.
    fn is_short(&self) -> bool {
        self.promised.is_some_and(|promised| promised > self.frames() as u64)
    }

    /// Whether so many promised frames are a pipe's way to say that the length was unknown. The bytes that the
    /// promise stands for follow from those that a decoded frame took.
    fn is_endless(&self, promised: u64) -> bool {
        let container = self.format.format_info().format;
        let decoded = self.frames().max(1) as f64;
        let bytes = promised as f64 * self.bytes as f64 / decoded;
        (container == FORMAT_ID_WAVE || container == FORMAT_ID_AIFF) && bytes >= UNKNOWN_LENGTH as f64
    }

    /// An error at the point reached.
    fn at(&self, expected: &str, got: &str) -> Error {
        let seconds = self.frames() as f64 / f64::from(self.rate.unwrap_or(1).max(1));
        Error::input(self.name, expected, format!("{got} (after {seconds:.3} s)"))
    }
}

/// The track's codec, if it is one for sound.
fn audio_params(track: &Track) -> Option<&AudioCodecParameters> {
    track.codec_params.as_ref().and_then(|params| params.audio())
}

/// A source that was refused before its first packet.
fn refused(name: &str, expected: &str, fault: Fault) -> Error {
    match fault {
        Fault::IoError(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => Error::io("read", name, e),
        Fault::IoError(_) => Error::input(name, expected, "the end of the file within its header, or no sound file"),
        fault => Error::input(name, expected, fault.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use crate::audio::{read_bytes, read_path};
    use std::path::Path;

    #[test]
    fn probe_fixtures() {
        let mut names: Vec<_> = std::fs::read_dir("tests/data").unwrap().map(|e| e.unwrap().path()).collect();
        names.sort();
        for p in names {
            let b = std::fs::read(&p).unwrap();
            match read_path(&p) {
                Ok(s) => println!("{} {} {} {}", p.display(), s.rate(), s.channel_count(), s.frames()),
                Err(e) => println!("{e}"),
            }
            for cut in [b.len() / 2, b.len() - 10, 60, 1] {
                match read_bytes(b[..cut].to_vec(), "cut") {
                    Ok(s) => println!("    {cut}/{} OK {}", b.len(), s.frames()),
                    Err(e) => println!("    {cut}/{} {e}", b.len()),
                }
            }
            let twice = [b.clone(), b].concat();
            println!("    twice {:?}", read_bytes(twice, "twice").map(|s| s.frames()).map_err(|e| e.to_string()));
        }
        let _ = Path::new("");
    }
}
