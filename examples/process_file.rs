//! Cleans a sound file: `cargo run --example process_file -- noisy.wav clean.wav`
use cascabel::audio::{WavDepth, read_path, write_path};
use cascabel::engine::{ProcessOptions, Processor, bundled};

fn main() -> cascabel::Result<()> {
    let paths: Vec<_> = std::env::args_os().skip(1).collect();
    let [noisy, clean] = paths.as_slice() else {
        return Err(cascabel::Error::input("process_file", "two paths", paths.len().to_string()));
    };
    let model = bundled::open(bundled::DEFAULT)?;
    let sound = Processor::open(&model, ProcessOptions::default())?.process(&read_path(noisy.as_ref())?)?;
    write_path(clean.as_ref(), &sound, WavDepth::Int16)?;
    Ok(())
}
