//! The live screen: meters, scrolling spectrograms of both ends, load, latency, and keys.

mod spectrogram;
mod view;

use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use self::spectrogram::Spectrogram;
use self::view::{Meter, View};
use super::keys::Key;
use super::status::{Reader, Status};
use crate::engine::live::Line;
use crate::{Error, Result};

/// Between two drawings.
const FRAME: Duration = Duration::from_millis(50);

/// How long a complaint is shown.
const NOTICE: Duration = Duration::from_secs(6);

/// A terminal that is drawn on until it is closed or dropped.
pub struct Screen {
    terminal: Option<DefaultTerminal>,
    spectrograms: Vec<Spectrogram>,
    meters: [Meter; 2],
    drawn: Option<Instant>,
    /// What was complained about last, and when.
    notice: Option<(String, Instant)>,
}

impl Screen {
    /// Takes the terminal.
    pub fn open(line: &Line) -> Result<Self> {
        let ends = line.ends();
        let taps = [line.tap_input().zip(Some(ends.rate_in)), line.tap_output().zip(Some(ends.rate_out))];
        let spectrograms = taps.into_iter().flatten().map(|(tapped, rate)| Spectrogram::of(tapped, rate));
        let spectrograms = spectrograms.collect::<Result<_>>()?;
        let terminal = ratatui::try_init().map_err(|e| Error::io("draw on", "the terminal", e))?;
        Ok(Self {
            terminal: Some(terminal),
            spectrograms,
            meters: Default::default(),
            drawn: None,
            notice: None,
        })
    }

    /// Draws if it is time, and waits for a key until the next look.
    pub fn key(
        &mut self,
        status: &Status,
        peaks: [f32; 2],
        reader: &Reader,
        look: Duration,
    ) -> Result<Option<Key>> {
        let failed = |e| Error::io("draw on", "the terminal", e);
        self.meters.iter_mut().zip(peaks).for_each(|(meter, peak)| meter.see(peak));
        self.spectrograms.iter_mut().for_each(Spectrogram::listen);
        if let Some(terminal) = &mut self.terminal
            && self.drawn.is_none_or(|drawn| drawn.elapsed() >= FRAME)
        {
            self.drawn = Some(Instant::now());
            let shown = self.notice.as_ref().filter(|(_, since)| since.elapsed() < NOTICE);
            let notice = shown.map_or("", |(notice, _)| notice.as_str());
            let view = View {
                status,
                mix: reader.mix,
                bypass: reader.bypass,
                swaps: reader.swaps,
                mood: reader.mood,
                model: &reader.model,
                meters: &self.meters,
                spectrograms: &self.spectrograms,
                notice,
            };
            terminal.draw(|frame| view.draw(frame)).map_err(failed)?;
        }
        if !event::poll(look).map_err(failed)? {
            return Ok(None);
        }
        Ok(match event::read().map_err(failed)? {
            Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
                KeyCode::Char(character) => Key::of(character),
                KeyCode::Up => Some(Key::More),
                KeyCode::Down => Some(Key::Less),
                KeyCode::Esc => Some(Key::Quit),
                _ => None,
            },
            _ => None,
        })
    }

    /// Shows a line for a while, in the place of the keys.
    pub fn complain(&mut self, trouble: &str) {
        self.notice = Some((trouble.into(), Instant::now()));
    }

    /// Gives the terminal back.
    pub fn close(&mut self) {
        if self.terminal.take().is_some() {
            ratatui::restore();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}
