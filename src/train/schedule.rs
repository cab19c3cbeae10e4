//! The learning rate: a linear warm-up, then half a cosine.
//!
//! ```text
//! step < warm_up    peak·(step + 1)/warm_up
//! else              last + (peak − last)·½(1 + cos πt),   t = (step − warm_up)/(steps − warm_up), at most 1
//! ```
//!
//! Loshchilov & Hutter 2017, "SGDR", eq. 5, without restarts; warm-up, Goyal et al. 2017.
//!
//! ```
//! use cascabel::train::schedule::Schedule;
//! let schedule = Schedule { peak: 1e-3, last: 1e-5, warm_up: 100, steps: 1100 };
//! assert!((schedule.at(99) - 1e-3).abs() < 1e-9 && (schedule.at(2000) - 1e-5).abs() < 1e-9);
//! ```

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The learning rate's course; steps count from 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The highest rate.
    pub peak: f32,
    /// The rate at the end and after it.
    pub last: f32,
    /// Steps of the warm-up.
    pub warm_up: u64,
    /// Steps in all.
    pub steps: u64,
}

impl Schedule {
    /// Says what is wrong with the figures, if anything.
    pub fn check(&self) -> Result<()> {
        if !(self.peak.is_finite() && self.peak > 0.0 && (0.0..=self.peak).contains(&self.last)) {
            let got = format!("peak {}, last {}", self.peak, self.last);
            return Err(Error::input("learning rate", "peak above 0, last from 0 to peak", got));
        }
        if self.steps == 0 || self.warm_up >= self.steps {
            let got = format!("warm_up {}, steps {}", self.warm_up, self.steps);
            return Err(Error::input("schedule", "1 step or more, the warm-up below it", got));
        }
        Ok(())
    }

    /// The rate of `step`.
    pub fn at(&self, step: u64) -> f32 {
        if step < self.warm_up {
            return (f64::from(self.peak) * (step + 1) as f64 / self.warm_up as f64) as f32;
        }
        let (peak, last) = (f64::from(self.peak), f64::from(self.last));
        let length = self.steps.saturating_sub(self.warm_up).max(1) as f64;
        let t = ((step - self.warm_up) as f64 / length).min(1.0);
        (last + (peak - last) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos())) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn climbs_then_falls() {
        let s = Schedule { peak: 2.0, last: 0.5, warm_up: 4, steps: 12 };
        let got: Vec<f32> = [0, 1, 3, 4, 8, 12, 99].iter().map(|step| s.at(*step)).collect();
        assert_eq!(got, [0.5, 1.0, 2.0, 2.0, 1.25, 0.5, 0.5]);
        assert!((0..12).all(|i| (s.at(i) <= s.at(i + 1)) == (i < 4)), "one peak");
        assert_eq!(Schedule { warm_up: 0, ..s }.at(0), 2.0);
    }

    #[test]
    fn nonsense_is_refused() {
        let s = Schedule { peak: 1.0, last: 0.0, warm_up: 1, steps: 2 };
        assert!(s.check().is_ok());
        let bad = [
            Schedule { peak: f32::NAN, ..s.clone() },
            Schedule { last: 2.0, ..s.clone() },
            Schedule { warm_up: 2, ..s.clone() },
            Schedule { warm_up: 0, steps: 0, ..s },
        ];
        assert!(bad.iter().all(|s| s.check().is_err()));
    }
}
