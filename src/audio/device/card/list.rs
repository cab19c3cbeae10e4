//! Hosts, their devices, and what those have.

use cpal::traits::{DeviceTrait, HostTrait};
use cpal::{HostId, SupportedBufferSize, SupportedStreamConfigRange};
use serde::Serialize;

use super::super::quiet::quietly;
use super::find::{default, is_clockless};
use super::{Way, one_line};

/// Rates that devices have, as a rule; of those are told that lie within what it says.
const RATES: [u32; 10] = [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000];

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

pub(super) fn host(id: HostId) -> Host {
    let name = id.name().to_lowercase();
    let found = cpal::host_from_id(id).and_then(|host| {
        let defaults = [Way::In, Way::Out].map(|way| default(&host, way).and_then(|device| device.id().ok()));
        Ok(host.devices()?.filter_map(|device| entry(&device, &defaults)).collect())
    });
    match found {
        Ok(devices) => Host { name, trouble: None, devices },
        Err(error) => Host { name, trouble: Some(one_line(error)), devices: Vec::new() },
    }
}

fn entry(device: &cpal::Device, defaults: &[Option<cpal::DeviceId>; 2]) -> Option<Entry> {
    let id = device.id().ok().filter(|id| !is_clockless(id))?;
    let [input, output] = [Way::In, Way::Out].map(|way| {
        let default = &defaults[usize::from(way == Way::Out)];
        goes(device, way).then(|| offer(device, way, default.as_ref() == Some(&id)))
    });
    let description = device.description().map_or_else(|_| String::new(), |of| of.name().to_string());
    (input.is_some() || output.is_some()).then(|| Entry { id: id.to_string(), description, input, output })
}

/// Whether frames go this way, as far as the device says without being opened.
pub(super) fn goes(device: &cpal::Device, way: Way) -> bool {
    use cpal::DeviceDirection::{Duplex, Input, Output, Unknown};
    let direction = device.description().map_or(Unknown, |of| of.direction());
    matches!((direction, way), (Duplex | Unknown, _) | (Input, Way::In) | (Output, Way::Out))
}

fn offer(device: &cpal::Device, way: Way, default: bool) -> Offer {
    let ranges = ranges(device, way).unwrap_or_default();
    let blocks = ranges.iter().filter_map(|range| match range.buffer_size() {
        SupportedBufferSize::Range { min, max } => Some([*min as usize, *max as usize]),
        SupportedBufferSize::Unknown => None,
    });
    Offer {
        default,
        rates: rates(&ranges),
        channels: ranges.iter().map(|range| usize::from(range.channels())).max().unwrap_or(0),
        blocks: blocks.reduce(|[a, b], [c, d]| [a.min(c), b.max(d)]),
    }
}

/// Rates of the usual ones, or the highest, if there is none of those.
pub(super) fn rates(ranges: &[SupportedStreamConfigRange]) -> Vec<u32> {
    let has = |rate: &u32| ranges.iter().any(|range| range.contains_rate(*rate));
    let mut rates: Vec<u32> = RATES.into_iter().filter(has).collect();
    if rates.is_empty() {
        rates.extend(ranges.iter().map(SupportedStreamConfigRange::max_sample_rate).max());
    }
    rates
}

pub(super) fn ranges(
    device: &cpal::Device,
    way: Way,
) -> std::result::Result<Vec<SupportedStreamConfigRange>, cpal::Error> {
    match way {
        Way::In => device.supported_input_configs().map(Iterator::collect),
        Way::Out => device.supported_output_configs().map(Iterator::collect),
    }
}
