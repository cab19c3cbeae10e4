//! What is said where nothing is known: the last 10 ms backwards, fading out; then silence; and into what comes after it, a fade of 5 ms.
//!
//! Played backwards from its last frame, a sound goes on without a step, at its own pitch.

const BACK_S: f64 = 0.01;
const RETURN_S: f64 = 0.005;

/// The last frames that were said, and the gap that they are to fill.
pub(super) struct Gap {
    /// Twice as many frames as are said backwards, in turns.
    said: Vec<f32>,
    channels: usize,
    /// The frame of `said` that is written next.
    at: usize,
    back: usize,
    rise: usize,
    /// A gap: the place at which it began, the frames since, and how many of known sound have come after it.
    open: Option<Open>,
}

struct Open {
    from: usize,
    since: usize,
    risen: usize,
}

impl Gap {
    pub(super) fn new(rate: u32, channels: usize) -> Self {
        let frames = |seconds: f64| (seconds * f64::from(rate)) as usize + 1;
        let (back, rise) = (frames(BACK_S), frames(RETURN_S));
        Self { said: vec![0.0; 2 * (back + rise) * channels], channels, at: 0, back, rise, open: None }
    }

    /// Begins a gap of no length: what comes next fades in from what would have been said.
    pub(super) fn cut(&mut self) {
        self.open = Some(Open { from: self.at, since: 0, risen: 0 });
    }

    /// Fills frames of which nothing is known.
    pub(super) fn bridge(&mut self, frames: &mut [f32]) {
        if frames.is_empty() {
            return;
        }
        // A gap in a return begins anew, from what was said last.
        if self.open.as_ref().is_none_or(|open| open.risen > 0) {
            self.cut();
        }
        for frame in frames.chunks_mut(self.channels) {
            self.one(frame, None);
        }
    }

    /// Joins frames that are known to what went before.
    pub(super) fn join(&mut self, frames: &mut [f32]) {
        for frame in frames.chunks_mut(self.channels) {
            match &mut self.open {
                Some(open) if open.risen < self.rise => {
                    open.risen += 1;
                    let share = open.risen as f32 / self.rise as f32;
                    self.one(frame, Some(share));
                }
                _ => {
                    self.open = None;
                    self.keep(frame);
                }
            }
        }
    }

    /// One frame of the gap; of what is in it already, the given share.
    fn one(&mut self, frame: &mut [f32], known: Option<f32>) {
        let Some(open) = &mut self.open else { return };
        open.since += 1;
        let fade = 1.0 - open.since.min(self.back) as f32 / self.back as f32;
        let all = self.said.len() / self.channels;
        let past = (open.from + all - open.since.min(self.back)) % all * self.channels;
        let share = known.unwrap_or(0.0);
        for (c, y) in frame.iter_mut().enumerate() {
            let before = self.said.get(past + c).copied().unwrap_or(0.0);
            *y = if known.is_some() { share * *y } else { 0.0 } + (1.0 - share) * fade * before;
        }
        self.keep(frame);
    }

    fn keep(&mut self, frame: &[f32]) {
        let place = self.said.get_mut(self.at * self.channels..(self.at + 1) * self.channels);
        place.into_iter().for_each(|place| place.copy_from_slice(frame));
        self.at = (self.at + 1) % (self.said.len() / self.channels);
    }
}
