//! Mu-law: a sample as one of 256 tokens, fine near zero and coarse at full scale.
//!
//! `F(x) = sgn x · ln(1 + 255·|x|) / ln 256` (the curve of ITU-T G.711 in closed form, not its code words), for x between −1 and 1;
//! the token is `⌊(F + 1)/2 · 255 + ½⌋`. A sound is taken as it is: nothing is scaled to a clip's own least and greatest sample, so that bits a
//! sample can be compared between clips, and a stream needs no look ahead. Samples beyond ±1 become the outermost tokens.
//!
//! ```
//! use cascabel::audio::mu_law::{SILENCE, decode, encode};
//! assert_eq!(encode(0.0), SILENCE);
//! assert!((decode(encode(0.25)) - 0.25).abs() < 0.006);
//! ```

/// How many tokens there are.
pub const LEVELS: usize = 256;

/// The token of silence; it decodes to 8.6·10⁻⁵.
pub const SILENCE: u32 = 128;

const MU: f32 = 255.0;

/// The token of a sample.
pub fn encode(x: f32) -> u32 {
    let x = x.clamp(-1.0, 1.0);
    let curve = libm::log1pf(MU * x.abs()) / libm::log1pf(MU);
    ((curve.copysign(x) + 1.0) * 0.5 * MU + 0.5).floor().clamp(0.0, MU) as u32
}

/// The sample in the middle of a token's range; tokens above 255 are taken as 255.
pub fn decode(token: u32) -> f32 {
    let curve = 2.0 * token.min(255) as f32 / MU - 1.0;
    (libm::expm1f(curve.abs() * libm::log1pf(MU)) / MU).copysign(curve)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_comes_back_and_the_curve_is_the_definition() {
        assert!((0..256).all(|token| encode(decode(token)) == token));
        assert!((1..256).all(|token| decode(token) > decode(token - 1)));
        assert_eq!((encode(-1.0), encode(1.0), encode(7.0), encode(f32::NEG_INFINITY)), (0, 255, 255, 0));
        assert_eq!((decode(0), decode(255)), (-1.0, 1.0));
        for x in [-0.9f64, -0.1, -0.003, 0.0001, 0.02, 0.5] {
            let curve = x.signum() * (1.0 + 255.0 * x.abs()).ln() / 256f64.ln();
            assert_eq!(encode(x as f32), ((curve + 1.0) / 2.0 * 255.0 + 0.5).floor() as u32, "{x}");
        }
    }

    #[test]
    fn the_error_is_a_few_percent_of_the_sample_and_never_large() {
        for i in -1_000..=1_000 {
            let x = i as f32 / 1_000.0;
            assert!((decode(encode(x)) - x).abs() <= 0.0225 * x.abs() + 1e-4, "{x}");
        }
    }
}
