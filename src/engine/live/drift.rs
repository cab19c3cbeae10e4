//! Two clocks that are not quite what they say, held together by how much is in hand.
//!
//! ```text
//! e    frames in hand beyond what is wanted, the mean of half a second           ė = r · (d − u) · 1e-6      d: drift, u: what is followed
//! i    ← i + ω² · e · 1e6 / r      u = i + 2ω · e · 1e6 / r                 both in parts in a million, r in frames a second
//! ```
//!
//! A loop of the second order, critically damped, settled in some 5/ω = 30 s: i becomes the drift and e becomes 0. An e of more than 5 ms, as before
//! anything is known of a device's calls, is not followed but made good at once.

/// Radians a second.
const OMEGA: f64 = 0.15;
/// Seconds of a mean.
const WINDOW_S: f64 = 0.5;
/// Seconds of e that are made good at once.
const JUMP_S: f64 = 0.005;
/// The most that is followed, in parts in a million: two cents. Devices differ by some tens.
const MOST: f64 = 1_000.0;

/// What is to be done from here on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Course {
    /// Leave out so many frames, or say so many again.
    Jump(i64),
    /// Follow so many parts in a million.
    Follow(f64),
}

/// Follows one clock by another.
pub(super) struct Follower {
    rate: f64,
    sum: f64,
    calls: u32,
    passed: usize,
    drift: f64,
}

impl Follower {
    pub(super) fn new(rate: u32) -> Self {
        Self { rate: f64::from(rate), sum: 0.0, calls: 0, passed: 0, drift: 0.0 }
    }

    /// What is beyond before a call for so many frames; twice a second, what is to be done about it.
    pub(super) fn see(&mut self, beyond: f64, wanted: usize) -> Option<Course> {
        self.sum += beyond;
        self.calls += 1;
        self.passed += wanted;
        let seconds = self.passed as f64 / self.rate;
        if seconds < WINDOW_S {
            return None;
        }
        let frames = self.sum / f64::from(self.calls);
        self.forget();
        if frames.abs() > JUMP_S * self.rate {
            return Some(Course::Jump(frames as i64));
        }
        let e = frames * 1e6 / self.rate;
        self.drift = (self.drift + OMEGA * OMEGA * e * seconds).clamp(-MOST, MOST);
        Some(Course::Follow((self.drift + 2.0 * OMEGA * e).clamp(-MOST, MOST)))
    }

    /// Something was lost or left out: what was seen of this second says nothing.
    pub(super) fn forget(&mut self) {
        (self.sum, self.calls, self.passed) = (0.0, 0, 0);
    }

    /// The drift as far as it is known.
    pub(super) fn drift(&self) -> f64 {
        self.drift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is beyond after so many seconds, with a drift and jitter of ±`jitter` frames; and the follower.
    fn after(seconds: usize, drift: f64, begin: f64, jitter: f64) -> (f64, Follower) {
        let (mut follower, mut beyond, mut followed) = (Follower::new(48_000), begin, 0.0);
        let mut noise = 1u32;
        for _ in 0..seconds * 100 {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let seen = beyond + jitter * (f64::from(noise) / f64::from(u32::MAX) * 2.0 - 1.0);
            match follower.see(seen, 480) {
                Some(Course::Jump(frames)) => beyond -= frames as f64,
                Some(Course::Follow(parts)) => followed = parts,
                None => {}
            }
            beyond += 480.0 * 1e-6 * (drift - followed);
        }
        (beyond, follower)
    }

    #[test]
    fn a_drift_is_found_and_nothing_is_left_in_hand() {
        for (drift, begin) in
            [(0.0, 100.0), (50.0, 0.0), (-300.0, -200.0), (900.0, 0.0), (100.0, 3_000.0), (-100.0, -3_000.0)]
        {
            let (beyond, follower) = after(90, drift, begin, 0.0);
            assert!(beyond.abs() < 1.0, "{drift}: {beyond} beyond");
            assert!((follower.drift() - drift).abs() < 3.0, "{drift}: {}", follower.drift());
            let (beyond, follower) = after(90, drift, begin, 100.0);
            assert!(beyond.abs() < 15.0, "{drift}: {beyond} beyond");
            assert!((follower.drift() - drift).abs() < 30.0, "{drift}: {}", follower.drift());
        }
    }
}
