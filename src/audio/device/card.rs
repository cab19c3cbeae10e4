//! Sound cards and audio servers, by cpal: on Linux ALSA, with what its plug-ins reach (PulseAudio, PipeWire), and JACK.
//!
//! An ID is `HOST:DEVICE` as [`list`] tells it, `HOST` alone for its default device, or `DEVICE` alone of any host.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{BufferSize, ErrorKind, FromSample, HostId, SampleFormat, SizedSample, StreamConfig};
use cpal::{SupportedBufferSize, SupportedStreamConfigRange};
use serde::Serialize;

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
/// Rates that devices have, as a rule; of those are told that lie within what it says.
const RATES: [u32; 10] = [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000];
/// ALSA's device of nothing. It has no clock: its calls come as fast as they are answered.
const CLOCKLESS: &str = "alsa:null";
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

/// A host and its devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Host {
    /// Its name, the first half of an ID.
    pub name: String,
    /// Why there are none, if it cannot be asked.
    pub trouble: Option<String>,
    /// Its devices.
    pub devices: Vec<Entry>,
}

/// A device that could be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What to open it by.
    pub id: String,
    /// What people call it.
    pub description: String,
    /// What it gives, and whether it is its host's default.
    pub input: Option<Offer>,
    /// What it takes.
    pub output: Option<Offer>,
}

/// What a device has, one way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Offer {
    /// Its host takes it where none is named.
    pub default: bool,
    /// Rates in Hz; none where that cannot be asked now.
    pub rates: Vec<u32>,
    /// The most channels.
    pub channels: usize,
    /// Fewest and most frames of a call, where it says so.
    pub blocks: Option<[usize; 2]>,
}

/// All hosts and devices, as they are now.
pub fn list() -> Vec<Host> {
    quietly(|| cpal::available_hosts().into_iter().map(host).collect())
}

fn host(id: HostId) -> Host {
    let name = id.name().to_lowercase();
    let found = cpal::host_from_id(id).and_then(|host| {
        let default = |way| {
            let device =
                if way == Way::In { host.default_input_device() } else { host.default_output_device() };
            device.and_then(|device| device.id().ok())
        };
        let defaults = [default(Way::In), default(Way::Out)];
        Ok(host.devices()?.filter_map(|device| entry(&device, &defaults)).collect())
    });
    match found {
        Ok(devices) => Host { name, trouble: None, devices },
        Err(error) => Host { name, trouble: Some(one_line(error)), devices: Vec::new() },
    }
}

fn entry(device: &cpal::Device, defaults: &[Option<cpal::DeviceId>; 2]) -> Option<Entry> {
    let id = device.id().ok().filter(|id| id.to_string() != CLOCKLESS)?;
    let [input, output] = [Way::In, Way::Out].map(|way| {
        let default = &defaults[usize::from(way == Way::Out)];
        goes(device, way).then(|| offer(device, way, default.as_ref() == Some(&id)))
    });
    let description = device.description().map_or_else(|_| String::new(), |of| of.name().to_string());
    (input.is_some() || output.is_some()).then(|| Entry { id: id.to_string(), description, input, output })
}

/// Whether frames go this way, as far as the device says without being opened.
fn goes(device: &cpal::Device, way: Way) -> bool {
    use cpal::DeviceDirection::{Duplex, Input, Output, Unknown};
    let direction = device.description().map_or(Unknown, |of| of.direction());
    matches!((direction, way), (Duplex | Unknown, _) | (Input, Way::In) | (Output, Way::Out))
}

fn offer(device: &cpal::Device, way: Way, default: bool) -> Offer {
    let ranges = ranges(device, way).unwrap_or_default();
    let has = |rate: &u32| ranges.iter().any(|range| range.contains_rate(*rate));
    let mut rates: Vec<u32> = RATES.into_iter().filter(has).collect();
    if rates.is_empty() {
        rates.extend(ranges.iter().map(SupportedStreamConfigRange::max_sample_rate).max());
    }
    let blocks = ranges.iter().filter_map(|range| match range.buffer_size() {
        SupportedBufferSize::Range { min, max } => Some([*min as usize, *max as usize]),
        SupportedBufferSize::Unknown => None,
    });
    Offer {
        default,
        rates,
        channels: ranges.iter().map(|range| usize::from(range.channels())).max().unwrap_or(0),
        blocks: blocks.reduce(|[a, b], [c, d]| [a.min(c), b.max(d)]),
    }
}

fn ranges(
    device: &cpal::Device,
    way: Way,
) -> std::result::Result<Vec<SupportedStreamConfigRange>, cpal::Error> {
    match way {
        Way::In => device.supported_input_configs().map(Iterator::collect),
        Way::Out => device.supported_output_configs().map(Iterator::collect),
    }
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
    /// Opens a device, or the default one, and settles what it will run at. It begins at [`start`](Device::start).
    pub fn open(id: Option<&str>, way: Way, wanted: Wanted) -> Result<Self> {
        quietly(|| {
            let device = find(id, way)?;
            let name = device.id().map_or_else(|_| "device".into(), |id| id.to_string());
            Self::settle(name, device, way, wanted)
        })
    }

    fn settle(name: String, device: cpal::Device, way: Way, wanted: Wanted) -> Result<Self> {
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
            let has = offer(&device, way, false);
            let rates: Vec<String> = has.rates.iter().map(u32::to_string).collect();
            let rates = format!("a rate of {} Hz", rates.join(", "));
            let numbers = format!("1 to {} channels", has.channels);
            let has_rate = ranges.iter().any(|range| range.contains_rate(rate));
            let has_number = ranges.iter().any(|range| usize::from(range.channels()) == channels);
            return Err(match (has_rate, has_number) {
                (false, true) => Error::input(name, rates, format!("{rate} Hz")),
                (true, false) => Error::input(name, numbers, format!("{channels} channels")),
                _ => Error::input(
                    name,
                    format!("{rates} and {numbers}"),
                    format!("{rate} Hz, {channels} channels"),
                ),
            });
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
        let again = |wanted| Self::open(Some(&self.name), self.way, wanted);
        // A server that was started anew may have other blocks.
        *self = again(wanted).or_else(|_| again(Wanted { block: None, ..wanted }))?;
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

fn find(id: Option<&str>, way: Way) -> Result<cpal::Device> {
    let default = |host: &cpal::Host| match way {
        Way::In => host.default_input_device(),
        Way::Out => host.default_output_device(),
    };
    let Some(id) = id else {
        // The system's own host first, then a server that runs without it.
        let own = cpal::default_host();
        let others = cpal::available_hosts().into_iter().filter(|id| *id != own.id());
        let found =
            default(&own).or_else(|| others.filter_map(|id| default(&cpal::host_from_id(id).ok()?)).next());
        return found.ok_or_else(|| unknown("the default device", way));
    };
    if let Ok(host) = HostId::from_str(id) {
        let host = cpal::host_from_id(host).map_err(|e| refused(id, e))?;
        return default(&host).ok_or_else(|| match host.id().name().eq_ignore_ascii_case("jack") {
            true => Error::Unavailable { what: id.into(), why: "its server is not running".into() },
            false => unknown(id, way),
        });
    }
    let hosts = cpal::available_hosts();
    let of = |host: HostId, name: &str| {
        let host = cpal::host_from_id(host).ok()?;
        let id = cpal::DeviceId::new(host.id(), name);
        let found = host.device_by_id(&id).filter(|device| goes(device, way));
        found.filter(|_| id.to_string() != CLOCKLESS)
    };
    if let Some((host, name)) = id.split_once(':')
        && let Ok(host) = HostId::from_str(host)
    {
        cpal::host_from_id(host).map_err(|e| refused(id, e))?;
        let jack = host.name().eq_ignore_ascii_case("jack");
        return of(host, name).ok_or_else(|| match jack && ["input", "output"].contains(&name) {
            true => Error::Unavailable { what: id.into(), why: "its server is not running".into() },
            false => unknown(id, way),
        });
    }
    hosts.into_iter().find_map(|host| of(host, id)).ok_or_else(|| unknown(id, way))
}

/// A device that isn't there, and those that are.
fn unknown(id: &str, way: Way) -> Error {
    let there: Vec<String> = cpal::available_hosts()
        .into_iter()
        .flat_map(|id| host(id).devices)
        .filter(|entry| if way == Way::In { entry.input.is_some() } else { entry.output.is_some() })
        .map(|entry| entry.id)
        .collect();
    let what = if way == Way::In { "input" } else { "output" };
    let there =
        if there.is_empty() { "none is there".into() } else { format!("one of {}", there.join(", ")) };
    Error::input(what, format!("{there}, file:PATH or null"), id)
}

fn refused(name: &str, error: cpal::Error) -> Error {
    let help = match error.kind() {
        ErrorKind::DeviceBusy => {
            "; another program has it: if that is a sound server, its own device (alsa:pulse, alsa:pipewire) shares it"
        }
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
