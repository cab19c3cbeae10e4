//! `cascabel devices`: what `live` can hear and play to.

use serde::Serialize;

use super::exit::Tally;
use super::{SCHEMA, print};
use crate::Result;
use crate::audio::device::card::{self, Host, Offer};

/// List hosts, their devices, rates and defaults: what live's --input and --output can be
#[derive(clap::Args)]
pub struct Args {
    /// Write one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    hosts: &'a [Host],
}

pub fn run(args: &Args) -> Result<Tally> {
    let hosts = card::list();
    if args.json {
        print::json(&Document { schema: SCHEMA, hosts: &hosts })?;
    } else {
        print::text(&hosts.iter().map(told).collect::<String>())?;
    }
    Ok(Tally::ONE)
}

fn told(host: &Host) -> String {
    let mut text =
        format!("{}{}\n", host.name, host.trouble.as_ref().map_or(String::new(), |why| format!(": {why}")));
    if host.devices.is_empty() && host.trouble.is_none() {
        text += "  no device\n";
    }
    for device in &host.devices {
        text += &format!("  {}  {}\n", device.id, device.description);
        for (way, offer) in [("in", &device.input), ("out", &device.output)] {
            if let Some(offer) = offer {
                text += &format!("    {way:<4}{}\n", offered(offer));
            }
        }
    }
    text
}

fn offered(offer: &Offer) -> String {
    let default = if offer.default { "default; " } else { "" };
    if offer.rates.is_empty() {
        return format!("{default}cannot be opened now");
    }
    let rates: Vec<String> = offer.rates.iter().map(u32::to_string).collect();
    let blocks = offer.blocks.map_or(String::new(), |[least, most]| match least == most {
        true => format!("; blocks of {least}"),
        false => format!("; blocks of {least} to {most}"),
    });
    format!("{default}{} Hz; up to {} channels{blocks}", rates.join(", "), offer.channels)
}
