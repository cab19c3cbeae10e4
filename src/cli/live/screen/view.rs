//! What the screen shows, drawn into a frame.

use std::time::{Duration, Instant};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::spectrogram::{ROWS, Spectrogram};
use crate::cli::live::status::{FLOOR_DB, Status, decibels, told};
use crate::cli::picture::colour;
use crate::engine::live::Mood;

/// The levels that a meter and a spectrogram show, in dB of full scale.
const METER_DB: [f32; 2] = [-60.0, 0.0];
const PICTURE_DB: [f32; 2] = [-90.0, -10.0];
/// How long a peak is held, and how fast a meter falls, in dB a second.
const HOLD: Duration = Duration::from_millis(1_500);
const FALL: f32 = 24.0;
/// A level from which on a meter is red.
const RED_DB: f32 = -1.0;

/// A level that rises at once and falls slowly, and its peak.
pub struct Meter {
    level: f32,
    peak: f32,
    since: Instant,
    seen: Instant,
}

impl Default for Meter {
    fn default() -> Self {
        Self { level: FLOOR_DB, peak: FLOOR_DB, since: Instant::now(), seen: Instant::now() }
    }
}

impl Meter {
    /// The greatest size since the last look.
    pub fn see(&mut self, size: f32) {
        let fallen = self.level - FALL * self.seen.elapsed().as_secs_f32();
        self.seen = Instant::now();
        self.level = decibels(size).max(fallen).max(FLOOR_DB);
        if self.level >= self.peak || self.since.elapsed() > HOLD {
            (self.peak, self.since) = (self.level, Instant::now());
        }
    }

    fn line(&self, name: &str, width: u16) -> Line<'static> {
        let bar = usize::from(width).saturating_sub(24).max(4);
        let [low, high] = METER_DB;
        let at = |db: f32| (((db - low) / (high - low)).clamp(0.0, 1.0) * bar as f32).round() as usize;
        let (filled, peak) = (at(self.level), at(self.peak).min(bar - 1));
        let cell = |n: usize| match n {
            _ if n == peak && self.peak > low => Span::raw("│").bold(),
            _ if n < filled => Span::raw("█"),
            _ => Span::raw("·").dark_gray(),
        };
        let colour = |n: usize| {
            if low + (high - low) * n as f32 / bar as f32 > -12.0 { Color::Yellow } else { Color::Green }
        };
        let mut spans = vec![Span::raw(format!(" {name:<4}"))];
        spans.extend((0..bar).map(|n| cell(n).fg(if self.peak > RED_DB { Color::Red } else { colour(n) })));
        spans.push(Span::raw(format!(" {:>6.1} ↑{:>6.1} dB", self.level, self.peak)));
        Line::from(spans)
    }
}

/// Everything that is shown.
pub struct View<'a> {
    pub status: &'a Status,
    pub mix: f32,
    pub bypass: bool,
    pub swaps: bool,
    pub mood: Option<Mood>,
    pub model: &'a str,
    pub meters: &'a [Meter; 2],
    pub spectrograms: &'a [Spectrogram],
    pub notice: &'a str,
}

impl View<'_> {
    pub fn draw(&self, frame: &mut Frame) {
        let area = frame.area();
        let [head, meters, pictures, facts, keys] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(2),
            Constraint::Min(2),
            Constraint::Length(5),
            Constraint::Length(1),
        ])
        .areas(area);
        let bypass = if self.bypass { "  BYPASS" } else { "" };
        let mood = self.mood.map_or(String::new(), |mood| format!("  {}", told(mood)));
        let head_text = format!(" cascabel  {}{mood}  mix {:.2}{bypass}", self.model, self.mix);
        frame.render_widget(Paragraph::new(head_text).bold(), head);
        let [input, output] = self.meters;
        let lines = vec![input.line("in", meters.width), output.line("out", meters.width)];
        frame.render_widget(Paragraph::new(lines), meters);
        let halves = Layout::vertical([Constraint::Ratio(1, 2), Constraint::Ratio(1, 2)]).split(pictures);
        for ((spectrogram, area), name) in self.spectrograms.iter().zip(halves.iter()).zip([" in ", " out "])
        {
            picture(frame, *area, spectrogram);
            let width = area.width.min(name.len() as u16);
            frame.render_widget(
                Paragraph::new(name).reversed(),
                Rect { width, height: area.height.min(1), ..*area },
            );
        }
        frame.render_widget(Paragraph::new(self.facts()), facts);
        let swap = if self.swaps { "   s swap" } else { "" };
        let last = match self.notice {
            "" => Paragraph::new(format!(" b bypass   + - mix   r reset{swap}   q quit")).dark_gray(),
            notice => Paragraph::new(format!(" {notice}")).red(),
        };
        frame.render_widget(last, keys);
    }

    fn facts(&self) -> Vec<Line<'static>> {
        let status = self.status;
        let (load, late) = (&status.load, &status.latency_ms);
        let percent = |share: f64| format!("{:.1}%", share * 100.0);
        let shares = [("mean", load.mean), ("99%", load.p99), ("worst", load.worst)];
        let shares: Vec<String> =
            shares.iter().map(|(name, share)| format!("{name} {}", percent(*share))).collect();
        let state = match &status.trouble {
            Some(trouble) => Line::from(format!(" LOST     {trouble}; looking for it"))
                .style(Style::new().fg(Color::Red).bold()),
            None => Line::from(format!(
                " {:<8} {:.0} s, in {} Hz × {}, out {} Hz × {}",
                status.state,
                status.seconds,
                status.input.rate,
                status.input.channels,
                status.output.rate,
                status.output.channels
            )),
        };
        vec![
            state,
            Line::from(format!(" load     {} of a block's time", shares.join(", "))),
            Line::from(format!(
                " latency  {:.1} ms: to the model's rate {:.1}, model {:.1}, back {:.1}, in hand {:.1}; devices {:.1} + {:.1}",
                late.total,
                late.to_model,
                late.model,
                late.from_model,
                late.margin,
                late.input_device,
                late.output_device
            )),
            Line::from(format!(
                " frames   {} missing, {} left out, {} lost, {} not recorded; {} xruns",
                status.missing, status.dropped, status.lost, status.unrecorded, status.xruns
            )),
            Line::from(format!(
                " ring     {} of {}; clocks {:+.0} ppm apart",
                status.ring.found, status.ring.room, status.drift_ppm
            )),
        ]
    }
}

/// Two levels a cell, the upper half of it in its ink and the lower in its ground.
fn picture(frame: &mut Frame, area: Rect, spectrogram: &Spectrogram) {
    let [low, high] = PICTURE_DB;
    let ink = |db: f32| {
        let [r, g, b] = colour((db - low) / (high - low));
        Color::Rgb(r, g, b)
    };
    let levels = usize::from(area.height) * 2;
    let buffer = frame.buffer_mut();
    for (column, x) in spectrogram.last(area.width.into()).rev().zip((area.left()..area.right()).rev()) {
        // The loudest of those that share half a cell.
        let level = |n: usize| {
            let (from, to) = (n * ROWS / levels, ((n + 1) * ROWS / levels).max(n * ROWS / levels + 1));
            column[from..to.min(ROWS)].iter().copied().fold(FLOOR_DB, f32::max)
        };
        for (row, y) in (area.top()..area.bottom()).enumerate() {
            let upper = levels - 1 - 2 * row;
            buffer[(x, y)].set_symbol("▀").set_fg(ink(level(upper))).set_bg(ink(level(upper - 1)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::SampleRate;
    use crate::audio::device::{Clocked, Format, Nothing};
    use crate::cli::live::status::Reader;
    use crate::engine::live::{Doing, Line, LineOptions, Voice};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    /// The rows of the screen as text.
    fn drawn(width: u16, height: u16, notice: &str, doing: &Doing) -> Vec<String> {
        let format = Format { rate: SampleRate::new(48_000).unwrap(), channels: 1, block: 64 };
        let (source, sink) = (Box::new(Nothing::lasting(format, 48_000)), Box::new(Nothing::of(format)));
        let device = Clocked::new("null", Some(source), Some(sink), false);
        let mut line = Line::open(Voice::Through, vec![Box::new(device)], LineOptions::default()).unwrap();
        let mut spectrograms: Vec<Spectrogram> = [line.tap_input(), line.tap_output()]
            .into_iter()
            .map(|tapped| Spectrogram::of(tapped.unwrap(), format.rate).unwrap())
            .collect();
        line.start().unwrap();
        while line.tend() == Doing::Running {
            std::thread::sleep(Duration::from_millis(1));
        }
        spectrograms.iter_mut().for_each(Spectrogram::listen);
        let mut reader = Reader::new("denoise".into(), 0.8, true);
        let status = reader.status(&line, Some(doing), 0);
        let mut meters: [Meter; 2] = Default::default();
        meters[0].see(0.5);
        let view = View {
            status: &status,
            mix: 0.8,
            bypass: true,
            swaps: true,
            mood: Some(Mood::Answering),
            model: "denoise",
            meters: &meters,
            spectrograms: &spectrograms,
            notice,
        };
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        (0..height).map(|y| (0..width).map(|x| buffer[(x, y)].symbol().to_string()).collect()).collect()
    }

    #[test]
    fn everything_is_on_the_screen() {
        let rows = drawn(100, 30, "", &Doing::Running);
        for (row, parts) in [
            (0, &["denoise", "answering", "mix 0.80", "BYPASS"][..]),
            (1, &[" in ", "█", "│", "-6.0 ↑  -6.0 dB"]),
            (2, &[" out ", "-100.0 dB"]),
            (3, &[" in ", "▀▀▀"]),
            (24, &["running", "48000 Hz × 1"]),
            (25, &["load", "mean", "99%", "worst"]),
            (26, &["latency", "model 0.0", "in hand"]),
            (27, &["0 missing, 0 left out, 0 lost, 0 not recorded; 0 xruns"]),
            (28, &["ring", "ppm"]),
            (29, &["b bypass", "s swap", "q quit"]),
        ] {
            parts.iter().for_each(|part| assert!(rows[row].contains(part), "no {part:?} in {:?}", rows[row]));
        }
        let lost = drawn(100, 30, "the disk is full", &Doing::Lost("jack:input: gone".into()));
        assert!(
            lost[24].contains("LOST     jack:input: gone; looking for it")
                && lost[29].contains("the disk is full")
        );
        // However small it is, it is drawn.
        for (width, height) in [(1, 1), (20, 5), (30, 9), (300, 100)] {
            drawn(width, height, "", &Doing::Running);
        }
    }
}
