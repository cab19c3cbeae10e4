//! Sound cards and audio servers, by cpal: on Linux ALSA, with what its plug-ins reach (PulseAudio, PipeWire), and JACK.
//!
//! An ID is `HOST:DEVICE` as [`list`] tells it, `HOST` alone for its default device, or `DEVICE` alone of any host.

mod find;
mod list;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cpal::traits::{DeviceTrait, StreamTrait};
use cpal::{BufferSize, ErrorKind, FromSample, SampleFormat, SizedSample, StreamConfig};
use cpal::{SupportedBufferSize, SupportedStreamConfigRange};

use self::find::{defaults, find, unknown};
pub use self::list::{Entry, Host, Offer, list};
use self::list::{ranges, rates};
use super::quiet::quietly;
use super::{Calls, Device, Fill, Format, Health, Hear, Running};
use crate::audio::SampleRate;
use crate::{Error, Result};

/// Frames of a call where nobody says how many: ALSA's plug-ins of audio servers lose frames of shorter ones on a busy machine.
const BLOCK: u32 = 512;
/// The rate that is taken where nobody says which, if a device has it.
const RATE: u32 = 48_000;
/// Frames that are converted at once, where a device's samples are no f32.
const CONVERTED: usize = 1_024;
/// Formats of samples, the best first.
const FORMATS: [SampleFormat; 5] =
    [SampleFormat::F32, SampleFormat::I32, SampleFormat::I24, SampleFormat::I16, SampleFormat::U8];
/// Errors in a row, without a name, after which a device is lost.
const LOST: u32 = 25;

/// Which way frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From a microphone.
    In,
    /// To a loudspeaker.
    Out,
}

/// What is asked of a device; what isn't said is its own choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Frames a second.
    pub rate: Option<SampleRate>,
    /// Samples of a frame.
    pub channels: Option<usize>,
    /// Frames of a call.
    pub block: Option<usize>,
}

/// A device one way, with what it will run at.
pub struct Card {
    name: String,
    device: cpal::Device,
    way: Way,
    config: StreamConfig,
    samples: SampleFormat,
    format: Format,
}

impl Card {
    /// Opens a device, or the first default one that can be opened (ALSA's before JACK's), and settles what it will run at. It begins at
    /// [`start`](Device::start).
    ///
    /// # Errors
    ///
    /// [`Error::Input`] for an ID that isn't there, with those that are, and for a rate, channels or a block that the device lacks; [`Error::Unavailable`]
    /// where it is there and cannot be asked: busy, not permitted, its server not running.
    pub fn open(id: Option<&str>, way: Way, wanted: Wanted) -> Result<Self> {
        quietly(|| {
            let devices = match id {
                Some(id) => vec![find(id, way)?.ok_or_else(|| unknown(id, way))?],
                None => defaults(way),
            };
            let mut errors = Vec::new();
            for device in devices {
                match Self::settle(device, way, wanted) {
                    Ok(card) => return Ok(card),
                    Err(error) => errors.push(error),
                }
            }
            // What is there and lacks what was asked for tells more than what cannot be opened.
            let telling = errors.iter().position(|error| matches!(error, Error::Input { .. }));
            match errors.is_empty() {
                true => Err(unknown("the default device", way)),
                false => Err(errors.swap_remove(telling.unwrap_or(0))),
            }
        })
    }

    fn settle(device: cpal::Device, way: Way, wanted: Wanted) -> Result<Self> {
        let name = device.id().map_or_else(|_| "device".into(), |id| id.to_string());
        let ranges = ranges(&device, way).map_err(|e| refused(&name, e))?;
        let defaults = match way {
            Way::In => device.default_input_config(),
            Way::Out => device.default_output_config(),
        };
        let defaults = defaults.map_err(|e| refused(&name, e))?;
        let channels = wanted.channels.unwrap_or_else(|| usize::from(defaults.channels()).clamp(1, 2));
        let rate = match wanted.rate {
            Some(rate) => rate.hz(),
            None if ranges.iter().any(|range| range.contains_rate(RATE)) => RATE,
            None => defaults.sample_rate(),
        };
        let fits = |range: &&SupportedStreamConfigRange| {
            usize::from(range.channels()) == channels && range.contains_rate(rate)
        };
        let rank = |range: &&SupportedStreamConfigRange| {
            FORMATS.iter().position(|format| *format == range.sample_format()).unwrap_or(FORMATS.len())
        };
        let Some(range) = ranges.iter().filter(fits).min_by_key(rank) else {
            return Err(lacking(&name, &ranges, rate, channels));
        };
        let block = match range.buffer_size() {
            SupportedBufferSize::Range { min, max } => {
                let block = wanted.block.map_or(BLOCK.clamp(*min, *max), |block| block as u32);
                if !(*min..=*max).contains(&block) {
                    let expected = match min == max {
                        true => format!("its block of {min} frames"),
                        false => format!("a block of {min} to {max} frames"),
                    };
                    return Err(Error::input(name, expected, block.to_string()));
                }
                block
            }
            SupportedBufferSize::Unknown => wanted.block.map_or(BLOCK, |block| block as u32),
        };
        let config = StreamConfig {
            channels: channels as u16,
            sample_rate: rate,
            buffer_size: BufferSize::Fixed(block),
        };
        let format = Format { rate: SampleRate::of(&name, rate)?, channels, block: block as usize };
        Ok(Self { samples: range.sample_format(), name, device, way, config, format })
    }

    fn stream<T>(&self, calls: Calls, health: &Arc<Health>) -> std::result::Result<cpal::Stream, cpal::Error>
    where
        T: SizedSample + FromSample<f32>,
        f32: FromSample<T>,
    {
        let (told, channels) = (health.clone(), self.format.channels);
        let failed = complain(health.clone());
        let wait = Some(Duration::from_secs(5));
        let mut scratch = vec![0.0f32; CONVERTED * channels];
        let rate = f64::from(self.format.rate.hz());
        let frames = move |ahead: Duration| (ahead.as_secs_f64() * rate) as u64;
        match self.way {
            Way::In => {
                let mut hear: Hear = calls.hear.unwrap_or_else(|| Box::new(|_| ()));
                let call = move |data: &[T], info: &cpal::InputCallbackInfo| {
                    let stamp = info.timestamp();
                    let ahead = stamp.callback.duration_since(stamp.capture);
                    told.ahead[0].store(frames(ahead), Ordering::Relaxed);
                    told.called();
                    for part in data.chunks(CONVERTED * channels) {
                        let place = &mut scratch[..part.len()];
                        place.iter_mut().zip(part).for_each(|(x, sample)| *x = f32::from_sample_(*sample));
                        hear(place);
                    }
                };
                self.device.build_input_stream::<T, _, _>(self.config, call, failed, wait)
            }
            Way::Out => {
                let mut fill: Fill = calls.fill.unwrap_or_else(|| Box::new(|frames| frames.fill(0.0)));
                let call = move |data: &mut [T], info: &cpal::OutputCallbackInfo| {
                    let stamp = info.timestamp();
                    let ahead = stamp.playback.duration_since(stamp.callback);
                    told.ahead[1].store(frames(ahead), Ordering::Relaxed);
                    told.called();
                    for part in data.chunks_mut(CONVERTED * channels) {
                        let place = &mut scratch[..part.len()];
                        fill(place);
                        part.iter_mut().zip(place).for_each(|(sample, x)| *sample = T::from_sample_(*x));
                    }
                };
                self.device.build_output_stream::<T, _, _>(self.config, call, failed, wait)
            }
        }
    }
}

impl Device for Card {
    fn name(&self) -> &str {
        &self.name
    }

    fn input(&self) -> Option<Format> {
        (self.way == Way::In).then_some(self.format)
    }

    fn output(&self) -> Option<Format> {
        (self.way == Way::Out).then_some(self.format)
    }

    /// All ends of a JACK server run by one.
    fn clock(&self) -> Option<&str> {
        self.name.starts_with("jack:").then_some("jack")
    }

    fn comes_back(&self) -> bool {
        true
    }

    fn reopen(&mut self) -> Result<()> {
        let Format { rate, channels, block } = self.format;
        let wanted = Wanted { rate: Some(rate), channels: Some(channels), block: Some(block) };
        *self = quietly(|| {
            let gone = || Error::Unavailable { what: self.name.clone(), why: "it is not there".into() };
            let device = find(&self.name, self.way)?.ok_or_else(gone)?;
            // A server that was started anew may have other blocks.
            let back = Self::settle(device.clone(), self.way, wanted)
                .or_else(|_| Self::settle(device, self.way, Wanted { block: None, ..wanted }));
            back.map_err(|error| match error {
                Error::Input { .. } => Error::Unavailable {
                    what: self.name.clone(),
                    why: format!("it is there, but without {rate} and {channels} channels"),
                },
                other => other,
            })
        })?;
        Ok(())
    }

    fn start(&mut self, calls: Calls, health: &Arc<Health>) -> Result<Running> {
        quietly(|| {
            let stream = match self.samples {
                SampleFormat::I32 => self.stream::<i32>(calls, health),
                SampleFormat::I24 => self.stream::<cpal::I24>(calls, health),
                SampleFormat::I16 => self.stream::<i16>(calls, health),
                SampleFormat::U8 => self.stream::<u8>(calls, health),
                // What is none of these is refused by name.
                _ => self.stream::<f32>(calls, health),
            };
            let stream = stream.map_err(|e| refused(&self.name, e))?;
            stream.play().map_err(|e| refused(&self.name, e))?;
            Ok(Running(Box::new(Ended(Some(stream)))))
        })
    }
}

/// A stream of a device that is gone may never end: a thread of its own waits for it, and this one for at most a second.
struct Ended(Option<cpal::Stream>);

impl Drop for Ended {
    fn drop(&mut self) {
        let stream = self.0.take();
        let (told, ended) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("cascabel device".into());
        let dropped = thread.spawn(move || {
            drop(stream);
            let _ = told.send(());
        });
        if dropped.is_ok() {
            let _ = ended.recv_timeout(Duration::from_secs(1));
        }
    }
}

/// What a device's errors do.
fn complain(health: Arc<Health>) -> impl FnMut(cpal::Error) + Send + 'static {
    let (mut in_a_row, mut calls) = (0, 0);
    move |error| match error.kind() {
        ErrorKind::Xrun => _ = health.xruns.fetch_add(1, Ordering::Relaxed),
        ErrorKind::DeviceChanged | ErrorKind::RealtimeDenied => {}
        ErrorKind::BackendError | ErrorKind::Other => {
            // A device that is gone fails over and over, at once.
            let now = health.calls.load(Ordering::Relaxed);
            in_a_row = if now == calls { in_a_row + 1 } else { 0 };
            calls = now;
            if in_a_row >= LOST {
                health.lose(one_line(error));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        _ => health.lose(one_line(error)),
    }
}

/// What of a device's rates and numbers of channels is missing.
fn lacking(name: &str, ranges: &[SupportedStreamConfigRange], rate: u32, channels: usize) -> Error {
    let at_rate = ranges.iter().filter(|range| range.contains_rate(rate));
    let numbers: BTreeSet<u16> = at_rate.map(SupportedStreamConfigRange::channels).collect();
    let any_of = |numbers: Vec<String>| numbers.join(" or ");
    if !numbers.is_empty() {
        let numbers = any_of(numbers.iter().map(u16::to_string).collect());
        return Error::input(
            name,
            format!("{numbers} channels at {rate} Hz"),
            format!("{channels} channels"),
        );
    }
    let rates = any_of(rates(ranges).iter().map(u32::to_string).collect());
    match rates.is_empty() {
        true => Error::Unavailable { what: name.into(), why: "it has no rate".into() },
        false => Error::input(name, format!("a rate of {rates} Hz"), format!("{rate} Hz")),
    }
}

fn refused(name: &str, error: cpal::Error) -> Error {
    let help = match error.kind() {
        ErrorKind::DeviceBusy => "; a sound server's own device (alsa:pulse, alsa:pipewire) shares the card",
        ErrorKind::PermissionDenied => "; may this user use it (group audio)?",
        ErrorKind::HostUnavailable => "; is its server running?",
        ErrorKind::DeviceNotAvailable => {
            "; `cascabel devices` lists what is there, --input and --output take it"
        }
        _ => "",
    };
    Error::Unavailable { what: name.into(), why: format!("{}{help}", one_line(error)) }
}

fn one_line(error: impl Display) -> String {
    let text = error.to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').into()
}
