//! From a byte source to a [`Sound`], by symphonia: probe, pick the track, decode packet by packet, compare with what
//! the header promised.

use super::sound::Sound;
use super::units::SampleRate;
use crate::error::{Error, Result};
use crate::guard::guarded;
use std::io::ErrorKind;
use symphonia::core::audio::GenericAudioBufferRef;
use symphonia::core::codecs::audio::well_known::CODEC_ID_FLAC;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as Fault;
use symphonia::core::formats::well_known as known;
use symphonia::core::formats::{FormatId, FormatOptions, FormatReader, Track, TrackType, probe::Hint};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;

/// A data length from here on in a WAV header means "until the end": into a pipe, ffmpeg writes 2^32 − 1, arecord
/// 2^31 − 1, sox 2^31 − 4,096.
const UNKNOWN_LENGTH: u64 = 0x7f00_0000;

/// What is said of a file that ends before its structure does.
const CUT_SHORT: &str = "the end of the file: it is truncated or damaged";

/// Decodes the whole source. `name` is what errors call it.
///
/// Damaged files have made symphonia's arithmetic panic; that too becomes an error here, so that one bad file among
/// many does not end the others.
pub fn decode(source: Box<dyn MediaSource>, name: &str) -> Result<Sound> {
    guarded(|| Decoding::open(source, name)?.run())
        .unwrap_or_else(|| Err(Error::input(name, "a sound file", "one that is damaged")))
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
        // Live WAV and Matroska streams have no other end; one that states its length was held to it above or at open.
        let container = self.format.format_info().format;
        if matches!(end, End::Short)
            && container != known::FORMAT_ID_WAVE
            && container != known::FORMAT_ID_MKV
        {
            return Err(self.at("a whole packet", CUT_SHORT));
        }
        let missing = || Error::input(self.name, "at least one frame of sound", "none");
        let rate = SampleRate::of(self.name, self.rate.ok_or_else(missing)?)?;
        Sound::of(self.name, rate, self.channels)
    }

    /// Decodes one stream of the container's default sound track.
    fn one_stream(&mut self) -> Result<End> {
        let missing = || Error::input(self.name, "a sound track", "none");
        let track = self.format.default_track(TrackType::Audio).ok_or_else(missing)?;
        let id = track.id;
        let params = audio_params(track).ok_or_else(missing)?;
        let container = self.format.format_info().format;
        let guessed = is_mpeg(container) && track.delay.is_none();
        let promised = promise(container, track, params);
        // The header's rate and channels are judged before any decoding.
        if let Some(hz) = params.sample_rate {
            SampleRate::of(self.name, hz)?;
        }
        let options = AudioDecoderOptions::default().gapless(true).verify(true);
        let mut decoder = symphonia::default::get_codecs()
            .make_audio_decoder(params, &options)
            .map_err(|fault| refused(self.name, "a codec that can be decoded", fault))?;
        self.promised = self.promised.zip(promised).map(|(so_far, more)| so_far.saturating_add(more));
        let end = self.packets(id, guessed, decoder.as_mut())?;
        if decoder.finalize().verify_ok == Some(false) && !self.is_short() {
            return Err(Error::input(
                self.name,
                "samples that match the file's checksum",
                "others: it is damaged",
            ));
        }
        Ok(end)
    }

    /// Decodes packets until the stream ends; `guessed`: the container's idea of its length is no more than that.
    fn packets(&mut self, track: u32, guessed: bool, decoder: &mut dyn AudioDecoder) -> Result<End> {
        let mut planes = Vec::new();
        loop {
            let mut packet = match self.format.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => return Ok(End::Regular),
                Err(Fault::ResetRequired) => return Ok(End::Chained),
                Err(Fault::IoError(e)) if e.kind() == ErrorKind::UnexpectedEof => return Ok(End::Short),
                Err(fault) => return Err(self.damaged(fault)),
            };
            if packet.track_id != track {
                continue;
            }
            if guessed {
                // symphonia would cut what lies beyond its estimate of the length: half a file, if the bit rate falls.
                packet.trim_end = Default::default();
            }
            self.bytes += packet.data.len() as u64;
            match decoder.decode(&packet) {
                Ok(buffer) => self.append(&buffer, &mut planes)?,
                Err(fault) => return Err(self.damaged(fault)),
            }
        }
    }

    /// A packet that could not be fetched or decoded.
    fn damaged(&self, fault: Fault) -> Error {
        match fault {
            Fault::IoError(e) if is_systems(&e) => Error::io("read", self.name, e),
            Fault::IoError(_) => self.at("a whole packet", CUT_SHORT),
            fault => self.at("a sound packet", &fault.to_string()),
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
        container == known::FORMAT_ID_WAVE && bytes >= UNKNOWN_LENGTH as f64
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

/// Whether the container is bare MPEG audio.
fn is_mpeg(container: FormatId) -> bool {
    [known::FORMAT_ID_MP1, known::FORMAT_ID_MP2, known::FORMAT_ID_MP3].contains(&container)
}

/// The frames that a header states, where it does: elsewhere symphonia's count is an estimate from the bit rate (ADTS,
/// MPEG audio without a LAME tag) or from times in other units (MP4, Matroska, whose structure shows a cut by itself).
fn promise(container: FormatId, track: &Track, params: &AudioCodecParameters) -> Option<u64> {
    match container {
        known::FORMAT_ID_WAVE | known::FORMAT_ID_AIFF | known::FORMAT_ID_CAF => track.num_frames,
        // Some encoders count the packet of the tag itself.
        known::FORMAT_ID_MP3 if track.delay.is_some() => {
            let packet = if params.sample_rate.is_some_and(|hz| hz < 32_000) { 576 } else { 1_152 };
            track.num_frames.map(|n| n.saturating_sub(packet))
        }
        _ if params.codec == CODEC_ID_FLAC => track.num_frames,
        _ => None,
    }
}

/// A source that was refused before its first packet.
fn refused(name: &str, expected: &str, fault: Fault) -> Error {
    match fault {
        Fault::IoError(e) if is_systems(&e) => Error::io("read", name, e),
        Fault::IoError(_) => Error::input(name, expected, CUT_SHORT),
        Fault::Unsupported(why) if why.starts_with("core (probe)") => {
            Error::input(name, expected, "no known format")
        }
        Fault::Unsupported(why) if why.starts_with("core (codec)") => {
            Error::input(name, expected, "another, as Opus is")
        }
        fault => Error::input(name, expected, fault.to_string()),
    }
}

/// Whether the system failed. Otherwise a damaged length led a read or a seek astray.
fn is_systems(e: &std::io::Error) -> bool {
    !matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidInput | ErrorKind::Other)
}

#[cfg(test)]
mod tests {
    use crate::audio::{SampleRate, Sound, WavDepth, read_bytes, read_path, write_stream};
    use proptest::prelude::*;
    use std::path::{Path, PathBuf};

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
    }

    fn bytes(name: &str) -> Vec<u8> {
        std::fs::read(fixture(name)).unwrap()
    }

    fn refused(bytes: Vec<u8>) -> String {
        let error = read_bytes(bytes, "in.wav").unwrap_err().to_string();
        assert!(error.starts_with("in.wav: expected ") && !error.contains('\n'), "{error}");
        error
    }

    fn wav(rate: u32, channels: usize, frames: usize, depth: WavDepth) -> Vec<u8> {
        let tone = (0..frames).map(|n| (n as f32 * 0.1).sin()).collect();
        let sound = Sound::new(SampleRate::new(rate).unwrap(), vec![tone; channels]).unwrap();
        let mut bytes = Vec::new();
        write_stream(&mut bytes, "memory", &sound, depth).unwrap();
        bytes
    }

    /// A WAV as [`wav`] makes it with a few header bytes replaced.
    fn patched(at: usize, new: &[u8]) -> Vec<u8> {
        let mut bytes = wav(8_000, 1, 100, WavDepth::Int16);
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    }

    /// The chirp of the fixtures, left channel.
    fn chirp(n: usize) -> f64 {
        let t = n as f64 / 16_000.0;
        0.5 * (std::f64::consts::TAU * (200.0 * t + 5_600.0 * t * t)).sin()
    }

    /// 10·log10(error power / signal power) of both channels against the chirp, `late` frames later in the file.
    fn error_db(sound: &Sound, late: usize) -> f64 {
        let (mut error, mut power) = (0.0, 0.0);
        for (channel, gain) in sound.channels().iter().zip([1.0, 0.5]) {
            for (n, x) in channel.iter().skip(late).take(4_000).enumerate() {
                error += (f64::from(*x) - gain * chirp(n)).powi(2);
                power += (gain * chirp(n)).powi(2);
            }
        }
        10.0 * (error / power).log10()
    }

    #[test]
    fn every_format_gives_the_chirp() {
        // (file, frames, frames the encoder put in front, bound on the error in dB: one frame off would be −3 dB).
        let table = [
            ("chirp.wav", 4_000, 0, -80.0),
            ("chirp.aiff", 4_000, 0, -80.0),
            ("chirp.caf", 4_000, 0, -80.0),
            ("chirp.flac", 4_000, 0, -80.0),
            ("chirp.mkv", 4_000, 0, -80.0),
            ("chirp-alac.m4a", 4_000, 0, -80.0),
            ("chirp-mulaw.wav", 4_000, 0, -34.0),
            ("chirp-adpcm.wav", 4_048, 0, -20.0),
            ("chirp.ogg", 4_000, 0, -20.0),
            ("chirp.mp3", 4_000, 0, -20.0),
            ("chirp.mp2", 4_608, 481, -15.0),
            ("chirp.m4a", 5_120, 1_024, -15.0),
            ("chirp.aac", 5_120, 1_024, -15.0),
        ];
        for (name, frames, late, bound) in table {
            let sound = read_path(&fixture(name)).unwrap();
            let db = error_db(&sound, late);
            assert_eq!(
                (sound.rate().hz(), sound.channel_count(), sound.frames()),
                (16_000, 2, frames),
                "{name}"
            );
            assert!(db < bound, "{name}: {db:.1} dB");
        }
    }

    #[test]
    fn what_is_no_sound_is_one_clear_line() {
        assert!(refused(vec![]).ends_with("expected a sound file, got an empty file"));
        assert!(
            refused(b"hello, I am text\n".repeat(99)).ends_with("expected a sound file, got no known format")
        );
        assert!(refused(vec![0; 5_000]).contains("a sound file"));
        assert!(refused(bytes("chirp.opus")).contains("a codec that can be decoded"));
        let folder = read_path(&fixture("")).unwrap_err().to_string();
        assert!(folder.ends_with("expected a sound file, got a folder"), "{folder}");
        let missing = read_path(&fixture("none.wav")).unwrap_err().to_string();
        assert!(missing.starts_with("cannot open ") && missing.contains("none.wav"), "{missing}");
    }

    #[test]
    fn wrong_headers_are_one_clear_line() {
        let rate = refused(patched(24, &8u32.to_le_bytes()));
        assert!(rate.ends_with("expected a sample rate of 1000 to 768000 Hz, got 8 Hz"), "{rate}");
        assert!(refused(patched(22, &0u16.to_le_bytes())).contains("channel"));
        assert!(refused(patched(40, &0u32.to_le_bytes())).ends_with("at least one frame of sound, got none"));
        let mut float = wav(8_000, 2, 50, WavDepth::Float32);
        let at = float.len() - 4 * (2 * 10 - 1); // frame 40, channel 1
        float[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(
            refused(float.clone()).ends_with("finite samples, got NaN at frame 40 (0.005 s) of channel 1")
        );
        float[at..at + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
        assert!(refused(float).contains("got inf at frame 40"));
    }

    #[test]
    fn truncation_is_noticed() {
        let cut = |name: &str, keep: usize| refused(bytes(name)[..keep].to_vec());
        let wav = cut("chirp.wav", 8_044);
        assert!(wav.ends_with(
            "expected 4000 frames as its header says, got 2000: the file is truncated or damaged"
        ));
        let whole = ["wav", "aiff", "caf", "flac", "mkv", "ogg", "mp3", "m4a", "aac"];
        for name in whole.map(|kind| format!("chirp.{kind}")) {
            let len = bytes(&name).len();
            // An MP3 that lacks one packet or less passes.
            for keep in [1, 30, len / 2, if name.ends_with("mp3") { len - 900 } else { len - 10 }] {
                cut(&name, keep);
            }
        }
        // MP2 promises no length: what is there is given.
        assert_eq!(read_bytes(bytes("chirp.mp2")[..1_152].to_vec(), "half").unwrap().frames(), 2_304);
    }

    #[test]
    fn a_header_from_a_pipe_promises_nothing() {
        for promise in [0x7fff_f000u32, 0x7fff_ffff, u32::MAX] {
            let mut streamed = bytes("chirp.wav");
            streamed[4..8].copy_from_slice(&promise.saturating_add(36).to_le_bytes());
            streamed[40..44].copy_from_slice(&promise.to_le_bytes());
            let sound = read_bytes(streamed, "pipe").unwrap();
            assert_eq!(sound, read_path(&fixture("chirp.wav")).unwrap(), "{promise:x}");
        }
    }

    #[test]
    fn a_changed_bit_in_flac_fails_its_checksum() {
        let mut flac = bytes("chirp.flac");
        let checksum = 26; // the last 16 bytes of STREAMINFO are the MD5 of the samples
        flac[checksum] ^= 1;
        assert!(refused(flac).contains("checksum"));
    }

    #[test]
    fn a_falling_bit_rate_does_not_cut_the_end() {
        // Of the 141 packets of 576 frames, the estimate from the first ones' bit rate covers 56.
        assert_eq!(read_path(&fixture("chirp-vbr.mp3")).unwrap().frames(), 141 * 576);
    }

    #[test]
    fn chained_streams_are_joined() {
        let twice = [bytes("chirp.ogg"), bytes("chirp.ogg")].concat();
        assert_eq!(read_bytes(twice, "twice.ogg").unwrap().frames(), 8_000);
    }

    const FIXTURES: [&str; 14] = [
        "chirp.wav",
        "chirp.aiff",
        "chirp.caf",
        "chirp.flac",
        "chirp.mkv",
        "chirp-alac.m4a",
        "chirp-mulaw.wav",
        "chirp-adpcm.wav",
        "chirp.ogg",
        "chirp.mp3",
        "chirp.mp2",
        "chirp.m4a",
        "chirp.aac",
        "chirp.opus",
    ];

    /// Any answer will do, so long as it is one: a sound that keeps its promises, or one line.
    fn answers(bytes: Vec<u8>) -> Result<(), TestCaseError> {
        match read_bytes(bytes, "in") {
            Ok(sound) => {
                prop_assert!(sound.frames() > 0 && sound.channel_count() > 0);
                prop_assert!(sound.channels().iter().flatten().all(|x| x.is_finite()));
            }
            Err(error) => prop_assert!(!error.to_string().contains('\n'), "{error}"),
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..600), marker in 0usize..6) {
            let markers: [&[u8]; 6] = [b"", b"RIFF\x24\x01\0\0WAVEfmt \x10\0\0\0", b"fLaC\0\0\0\x22", b"OggS", b"ID3\x04", b"\xff\xfb"];
            bytes.splice(0..0, markers[marker].iter().copied());
            answers(bytes)?;
        }

        #[test]
        fn damaged_wavs_never_panic(
            channels in 1usize..4, frames in 1usize..300, depth in 0usize..3, cut in 0.0..1.0f64,
            flips in prop::collection::vec((0.0..1.0f64, 0u8..8, any::<bool>()), 0..6),
        ) {
            let depth = [WavDepth::Int16, WavDepth::Int24, WavDepth::Float32][depth];
            let mut bytes = wav(16_000, channels, frames, depth);
            damage(&mut bytes, &flips, cut);
            answers(bytes)?;
        }

        #[test]
        fn damaged_files_of_every_format_never_panic(
            which in 0..FIXTURES.len(), cut in 0.0..1.0f64,
            flips in prop::collection::vec((0.0..1.0f64, 0u8..8, any::<bool>()), 1..6),
        ) {
            let mut damaged = bytes(FIXTURES[which]);
            damage(&mut damaged, &flips, cut);
            answers(damaged)?;
        }
    }

    /// Flips bits, each in the header or anywhere, and in half of the cases cuts the file.
    fn damage(bytes: &mut Vec<u8>, flips: &[(f64, u8, bool)], cut: f64) {
        for (place, bit, in_header) in flips {
            let reach = if *in_header { bytes.len().min(200) } else { bytes.len() };
            bytes[(place * reach as f64) as usize] ^= 1 << bit;
        }
        if cut < 0.5 {
            bytes.truncate((2.0 * cut * bytes.len() as f64) as usize);
        }
    }
}
