//! How loud something is, and whether that is sound or silence.

/// Seconds over which the level is taken.
const LEVEL_S: f64 = 0.02;
/// What is quieter than the threshold by so much is silence, in dB.
const HYSTERESIS_DB: f32 = 6.0;

/// The mean square of the last 20 ms, between two thresholds.
pub(super) struct Level {
    squares: Vec<f32>,
    at: usize,
    /// Of all of them: a sum of floats of which each is taken out as it was put in, exact to some 10⁻¹⁶ of the greatest.
    sum: f64,
    above: f64,
    below: f64,
}

impl Level {
    /// At a rate in Hz; loud above a level in dB of full scale, silent below one that is 6 dB less.
    pub(super) fn new(rate: f64, above_db: f32) -> Self {
        let power = |db: f32| 10f64.powf(f64::from(db) / 10.0);
        let squares = vec![0.0; (LEVEL_S * rate) as usize + 1];
        Self { squares, at: 0, sum: 0.0, above: power(above_db), below: power(above_db - HYSTERESIS_DB) }
    }

    /// The next sample.
    pub(super) fn see(&mut self, x: f32) {
        // Beyond full scale nothing is louder, and a square is a number.
        let x = x.clamp(-1.0, 1.0);
        let count = self.squares.len();
        if let Some(place) = self.squares.get_mut(self.at) {
            let former = std::mem::replace(place, x * x);
            self.sum += f64::from(*place) - f64::from(former);
        }
        self.at = (self.at + 1) % count;
    }

    fn mean(&self) -> f64 {
        self.sum / self.squares.len() as f64
    }

    pub(super) fn is_loud(&self) -> bool {
        self.mean() > self.above
    }

    pub(super) fn is_silent(&self) -> bool {
        self.mean() < self.below
    }
}

/// When an answer is over: it has been loud, and then silent for a pause. It is judged whenever it is a whole number of levels long, so that it does not
/// depend on how it is cut.
pub(super) struct Ending {
    level: Level,
    pause: usize,
    /// Samples since it was silent, once it has been loud.
    silent: Option<usize>,
}

impl Ending {
    /// With a pause of so many samples.
    pub(super) fn new(level: Level, pause: usize) -> Self {
        Self { level, pause, silent: None }
    }

    /// Of a new answer nothing has been said.
    pub(super) fn begin(&mut self) {
        self.silent = None;
    }

    pub(super) fn see(&mut self, y: f32) {
        self.level.see(y);
    }

    /// Whether an answer of so many samples is to be judged.
    pub(super) fn is_due(&self, said: usize) -> bool {
        said.is_multiple_of(self.level.squares.len())
    }

    /// Whether it is over; after so many samples as are a whole number of levels.
    pub(super) fn is_over(&mut self) -> bool {
        // Silence lasts until it is loud again, as with whoever is heard.
        let begun = self.level.is_silent() || self.silent.is_some_and(|silent| silent > 0);
        self.silent = match self.silent {
            _ if self.level.is_loud() => Some(0),
            Some(silent) if begun => Some(silent + self.level.squares.len()),
            other => other,
        };
        self.silent.is_some_and(|silent| silent >= self.pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many samples at 8 kHz an answer is over, of parts of so many samples at a level in dB; silence above −40 dB is none, and the pause is 0.1 s.
    fn over(parts: &[(usize, f32)]) -> Option<usize> {
        let mut ending = Ending::new(Level::new(8_000.0, -40.0), 800);
        ending.begin();
        let sizes = parts.iter().flat_map(|(count, db)| std::iter::repeat_n(10f32.powf(db / 20.0), *count));
        sizes.enumerate().find_map(|(n, size)| {
            ending.see(if n % 2 == 0 { size } else { -size });
            (ending.is_due(n + 1) && ending.is_over()).then_some(n + 1)
        })
    }

    #[test]
    fn an_answer_is_over_when_it_falls_silent() {
        // Within a level of the pause's end, judged at whole levels of 161 samples.
        let end = over(&[(4_000, -20.0), (8_000, -60.0)]).unwrap();
        assert!((4_800..=4_800 + 2 * 161).contains(&end), "{end}");
        // What was never loud is not over, nor is what goes on.
        assert_eq!(over(&[(8_000, -60.0)]), None);
        assert_eq!(over(&[(8_000, -20.0)]), None);
        // Silence is interrupted by what is loud, not by what lies between.
        assert_eq!(over(&[(4_000, -20.0), (600, -60.0), (600, -20.0), (600, -60.0), (600, -20.0)]), None);
        let end = over(&[(4_000, -20.0), (400, -60.0), (8_000, -43.0)]).unwrap();
        assert!((4_800..=4_800 + 2 * 161).contains(&end), "{end}");
        // Never silent, between the two.
        assert_eq!(over(&[(4_000, -20.0), (8_000, -43.0)]), None);
    }
}
