//! Arguments, checked and opened: devices, session, recordings. Nothing runs yet.

use std::path::Path;
use std::sync::atomic::Ordering;

use super::records::Records;
use super::{Args, Mode, pace};
use crate::audio::SampleRate;
use crate::audio::device::{Clocked, Device, FileSink, FileSource, Format, Nothing, Sink, Source};
use crate::cli::{beside, named};
use crate::engine::live::{AnswerOptions, Line, LineOptions, Voice};
use crate::model::Model;
use crate::{Error, Result};

/// Frames a second, and in a call, of what has no say of its own.
const RATE: u32 = 48_000;
const BLOCK: usize = 512;

const MOST_CHANNELS: usize = 26;
/// Seconds in which silence is noticed.
const ANSWER_S: f64 = 0.05;
/// What is run.
pub struct Plan {
    pub line: Line,
    /// The one that is run, and the one that it is swapped for.
    pub voices: Vec<Spoken>,
    pub mix: f32,
    pub records: Records,
    pub seconds: Option<f64>,
    pub json: bool,
}

/// A model by its name, and what it does.
pub struct Spoken {
    pub name: String,
    model: Option<Model>,
    answer: Option<AnswerOptions>,
}

impl Spoken {
    /// Opens a model by its name; none is one too.
    fn open(name: &str, args: &Args) -> Result<Self> {
        let model = if name == "none" { None } else { Some(named::open(name)?.model) };
        let answer = match (&model, args.mode) {
            (Some(model), Mode::Answer) => Some(args.answer(model)?),
            _ => None,
        };
        Ok(Self { name: name.into(), model, answer })
    }

    pub fn voice(&self) -> Voice<'_> {
        match (&self.model, self.answer) {
            (None, _) => Voice::Through,
            (Some(model), None) => Voice::Filter(model),
            (Some(model), Some(options)) => Voice::Answer(model, options),
        }
    }
}

/// What an ID names.
#[derive(Clone, Copy)]
enum End<'a> {
    File(&'a Path),
    Null,
    Card(Option<&'a str>),
}

impl<'a> End<'a> {
    fn of(id: &'a Option<String>) -> Self {
        match id.as_deref() {
            Some("null") => Self::Null,
            Some(id) => {
                id.strip_prefix("file:").map_or(Self::Card(Some(id)), |path| Self::File(path.as_ref()))
            }
            None => Self::Card(None),
        }
    }

    fn is_card(self) -> bool {
        matches!(self, Self::Card(_))
    }
}

/// What has no clock, or what has one.
enum Opened<T: ?Sized> {
    Free(Box<T>),
    Card(Box<dyn Device>),
}

impl Plan {
    pub fn new(args: &Args) -> Result<Self> {
        let rate = check(args)?;
        let (from, to) = (End::of(&args.input), End::of(&args.output));
        let paced = args.realtime || from.is_card() || to.is_card() || matches!(from, End::Null);
        for (name, given) in
            [("--record", args.record.is_some()), ("--record-input", args.record_input.is_some())]
        {
            if !paced && given {
                let expected = "a device or --realtime: between files, the files are the record";
                return Err(Error::input(name, expected, "files, as fast as they go"));
            }
        }
        if !paced && args.worker {
            let expected = "a device or --realtime: between files nothing waits";
            return Err(Error::input("--worker", expected, "files, as fast as they go"));
        }
        let first = Spoken::open(&args.model, args)?;
        let (source, sink) = devices(args, from, to, rate)?;
        let options = LineOptions { mix: args.mix, margin: args.margin, worker: args.worker };
        let (line, tail) = open(first.voice(), source, sink, paced, options)?;
        let latency = line.latency().total;
        if let Some(tail) = tail {
            let ends = line.ends();
            // Without a sink of its own, it is counted in the source's frames.
            // A file that ends is one that stops: there is time for an answer.
            let answer = first.answer.map_or(0.0, |answer| answer.pause_s + answer.longest_s + ANSWER_S);
            let frames = latency + (answer * f64::from(ends.rate_out.hz())) as usize;
            let frames = if to.is_card() { ends.rate_out.frames_at(ends.rate_in, frames) } else { frames };
            tail.store(frames, Ordering::Relaxed);
        }
        let mut voices = vec![first];
        if let Some(name) = &args.swap {
            voices.push(Spoken::open(name, args)?);
        }
        for spoken in &voices {
            // Opened at least: a swap finds no other kind of model.
            pace::check(spoken.voice(), &line, &spoken.name, paced)?;
        }
        let records = Records::begin(args, &line)?;
        Ok(Self { line, voices, mix: args.mix, records, seconds: args.seconds, json: args.json })
    }
}

/// Refuses numbers out of range before anything is opened; the rate, if one is given.
fn check(args: &Args) -> Result<Option<SampleRate>> {
    if !(0.0..=1.0).contains(&args.mix) {
        return Err(Error::input("--mix", "a share of 0 to 1", args.mix.to_string()));
    }
    for (name, value, range) in [
        ("--block", args.block, 1..=1 << 16),
        ("--channels", args.channels, 1..=MOST_CHANNELS),
        ("--margin", args.margin, 0..=1 << 20),
    ] {
        if let Some(value) = value.filter(|value| !range.contains(value)) {
            let expected = format!("{} to {}", range.start(), range.end());
            return Err(Error::input(name, expected, value.to_string()));
        }
    }
    if let Some((name, _)) = args.of_answers().iter().find(|(_, given)| *given && args.mode != Mode::Answer) {
        return Err(Error::input(*name, "--mode answer beside it", "--mode filter"));
    }
    if args.mode == Mode::Answer && args.model == "none" {
        return Err(Error::input("--mode answer", "a generator of sound", "--model none"));
    }
    if let Some(seconds) = args.seconds.filter(|seconds| !(*seconds > 0.0 && seconds.is_finite())) {
        return Err(Error::input("--seconds", "more than 0", seconds.to_string()));
    }
    for (name, path) in [("--record", &args.record), ("--record-input", &args.record_input)] {
        if path.as_deref() == Some(Path::new("-")) {
            return Err(Error::input(name, "a file: standard output tells how it goes", "-"));
        }
    }
    for (name, id) in [("--input", &args.input), ("--output", &args.output)] {
        if matches!(End::of(id), End::File(path) if path.as_os_str().is_empty()) {
            return Err(Error::input(name, "file:PATH", "file: without a path"));
        }
    }
    let file = |id| if let End::File(path) = End::of(id) { Some(path) } else { None };
    let own = file(&args.output).map(Path::to_path_buf);
    let heard: Vec<&Path> = file(&args.input).into_iter().collect();
    beside::check(&heard, &[("--output", &own)])?;
    let taken: Vec<&Path> = heard.into_iter().chain(own.as_deref()).collect();
    beside::check(&taken, &[("--record", &args.record), ("--record-input", &args.record_input)])?;
    args.rate.map(|hz| SampleRate::of("--rate", hz)).transpose()
}

/// What has no say of its own has what the arguments say.
fn format(args: &Args, rate: Option<SampleRate>) -> Result<Format> {
    let rate = rate.map_or_else(|| SampleRate::new(RATE), Ok)?;
    Ok(Format { rate, channels: args.channels.unwrap_or(1), block: args.block.unwrap_or(BLOCK) })
}

/// Both ends. A card has its own say, and what has none is like what is at the other end, but for what the arguments say.
fn devices(
    args: &Args,
    from: End,
    to: End,
    rate: Option<SampleRate>,
) -> Result<(Opened<dyn Source>, Opened<dyn Sink>)> {
    let open = |end, input| match end {
        End::Card(id) => card(args, id, input, rate).map(Some),
        End::File(_) | End::Null => Ok(None),
    };
    let [microphone, loudspeaker] = [open(from, true)?, open(to, false)?];
    let spoken = loudspeaker.as_ref().and_then(|card| card.output());
    let own = format(args, rate)?;
    let source = match (microphone, from) {
        (Some(card), _) => Opened::Card(card),
        (None, End::File(path)) => {
            let block = spoken.map_or(own.block, |format| format.block);
            Opened::Free(Box::new(FileSource::open(path, block)?) as Box<dyn Source>)
        }
        (None, _) => Opened::Free(Box::new(Nothing::of(spoken.unwrap_or(own))) as Box<dyn Source>),
    };
    let heard = match &source {
        Opened::Free(source) => source.format(),
        Opened::Card(card) => card.input().unwrap_or(own),
    };
    let like = Format {
        rate: rate.unwrap_or(heard.rate),
        channels: args.channels.unwrap_or(heard.channels),
        ..heard
    };
    let sink = match (loudspeaker, to) {
        (Some(card), _) => Opened::Card(card),
        (None, End::File(path)) => {
            let sink = FileSink::begin(path, like.rate, like.channels, like.block, args.depth.into())?;
            Opened::Free(Box::new(sink) as Box<dyn Sink>)
        }
        (None, _) => Opened::Free(Box::new(Nothing::of(like)) as Box<dyn Sink>),
    };
    Ok((source, sink))
}

#[cfg(feature = "devices")]
fn card(args: &Args, id: Option<&str>, input: bool, rate: Option<SampleRate>) -> Result<Box<dyn Device>> {
    use crate::audio::device::card::{Card, Wanted, Way};
    let wanted = Wanted { rate, channels: args.channels, block: args.block };
    Ok(Box::new(Card::open(id, if input { Way::In } else { Way::Out }, wanted)?))
}

#[cfg(not(feature = "devices"))]
fn card(_: &Args, id: Option<&str>, _: bool, _: Option<SampleRate>) -> Result<Box<dyn Device>> {
    let why = "this build has none (feature devices); file:PATH and null are there".into();
    Err(Error::Unavailable { what: id.unwrap_or("a sound device").into(), why })
}

type Tail = std::sync::Arc<std::sync::atomic::AtomicUsize>;

/// The line between two ends; what has no clock becomes one device. And where its tail is to be set.
fn open(
    voice: Voice<'_>,
    source: Opened<dyn Source>,
    sink: Opened<dyn Sink>,
    paced: bool,
    options: LineOptions,
) -> Result<(Line, Option<Tail>)> {
    let (mut devices, mut free) = (Vec::new(), (None, None));
    match source {
        Opened::Free(source) => free.0 = Some(source),
        Opened::Card(card) => devices.push(card),
    }
    match sink {
        Opened::Free(sink) => free.1 = Some(sink),
        Opened::Card(card) => devices.push(card),
    }
    let mut tail = None;
    if free.0.is_some() || free.1.is_some() {
        let clocked = Clocked::new("file", free.0, free.1, paced);
        tail = Some(clocked.tail());
        devices.push(Box::new(clocked));
    }
    Ok((Line::open(voice, devices, options)?, tail))
}
