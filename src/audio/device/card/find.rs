//! The device that an ID names, and the default ones.

use std::str::FromStr;

use cpal::HostId;
use cpal::traits::HostTrait;

use super::list::{goes, host};
use super::{Way, refused};
use crate::{Error, Result};

/// ALSA's device of nothing. It has no clock: its calls come as fast as they are answered.
pub(super) fn is_clockless(id: &cpal::DeviceId) -> bool {
    id.to_string() == "alsa:null"
}

/// The default devices, the one to try first first: a host may name one that cannot be opened.
pub(super) fn defaults(way: Way) -> Vec<cpal::Device> {
    // PulseAudio's own host loses frames that ALSA's plug-in for it does not.
    let rank = |id: &HostId| match id.name().to_lowercase().as_str() {
        "pipewire" => 0,
        "jack" => 2,
        "pulseaudio" => 3,
        _ => 1,
    };
    let mut hosts = cpal::available_hosts();
    hosts.sort_by_key(rank);
    hosts.into_iter().filter_map(|id| default(&cpal::host_from_id(id).ok()?, way)).collect()
}

pub(super) fn default(host: &cpal::Host, way: Way) -> Option<cpal::Device> {
    match way {
        Way::In => host.default_input_device(),
        Way::Out => host.default_output_device(),
    }
}

/// The device of an ID, if it is there.
pub(super) fn find(id: &str, way: Way) -> Result<Option<cpal::Device>> {
    if let Ok(host) = HostId::from_str(id) {
        let host = cpal::host_from_id(host).map_err(|e| refused(id, e))?;
        let found = default(&host, way);
        return there(found, host.id(), id);
    }
    let of = |host: HostId, name: &str| {
        let host = cpal::host_from_id(host).ok()?;
        let id = cpal::DeviceId::new(host.id(), name);
        let found = host.device_by_id(&id).filter(|device| goes(device, way));
        found.filter(|_| !is_clockless(&id))
    };
    if let Some((host, name)) = id.split_once(':')
        && let Ok(host) = HostId::from_str(host)
    {
        cpal::host_from_id(host).map_err(|e| refused(id, e))?;
        return there(of(host, name), host, id);
    }
    Ok(cpal::available_hosts().into_iter().find_map(|host| of(host, id)))
}

/// Without its server JACK has no device at all.
fn there(found: Option<cpal::Device>, host: HostId, id: &str) -> Result<Option<cpal::Device>> {
    let is_jack = host.name().eq_ignore_ascii_case("jack");
    let runs = || cpal::host_from_id(host).is_ok_and(|host| default(&host, Way::Out).is_some());
    match found.is_none() && is_jack && !runs() {
        true => Err(Error::Unavailable { what: id.into(), why: "its server is not running".into() }),
        false => Ok(found),
    }
}

/// A device that isn't there, and those that are.
pub(super) fn unknown(id: &str, way: Way) -> Error {
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
