//! Cleans what the default microphone hears and plays it: `cargo run --release --example live -- [INPUT OUTPUT]`, until Enter.
use cascabel::audio::device::Device;
use cascabel::audio::device::card::{Card, Wanted, Way};
use cascabel::engine::bundled;
use cascabel::engine::live::{Doing, Line, LineOptions};
use std::{io, sync::mpsc, thread, time::Duration};

fn run() -> cascabel::Result<()> {
    let ids: Vec<String> = std::env::args().skip(1).collect();
    let (input, output) = (ids.first().map(String::as_str), ids.get(1).map(String::as_str));
    let open = |id, way| Card::open(id, way, Wanted { channels: Some(1), ..Wanted::default() });
    let devices: Vec<Box<dyn Device>> =
        vec![Box::new(open(input, Way::In)?), Box::new(open(output, Way::Out)?)];

    // Everything is allocated and its latency known before the first frame comes.
    let model = bundled::open(bundled::DEFAULT)?;
    let mut line = Line::open(&model, devices, LineOptions::default())?;
    println!("{} frames late at {}; Enter ends", line.latency().total, line.ends().rate_out);
    line.start()?;

    let (enter, pressed) = mpsc::channel();
    thread::spawn(move || enter.send(io::stdin().read_line(&mut String::new())));
    while pressed.recv_timeout(Duration::from_millis(200)).is_err() {
        match line.tend() {
            Doing::Lost(what) => println!("lost: {what}"),
            _ => {
                let (input, output) = line.remote.counts().take_peaks();
                let load = 100.0 * line.gauges.load.take().mean;
                println!("in {input:.3}  out {output:.3}  load {load:.0}%");
            }
        }
    }
    Ok(())
}

fn main() -> Result<(), String> {
    run().map_err(|error| error.to_string())
}
