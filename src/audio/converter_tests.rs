//! Against the sine itself, at the places where outputs lie.

use std::f64::consts::TAU;

use proptest::prelude::*;

use super::*;

fn rate(hz: u32) -> SampleRate {
    SampleRate::new(hz).unwrap()
}

fn sine(hz: f64, at: u32, frames: usize) -> Vec<f32> {
    (0..frames).map(|n| (TAU * hz * n as f64 / f64::from(at)).sin() as f32).collect()
}

const PAIRS: [(u32, u32); 9] = [
    (48_000, 16_000),
    (16_000, 48_000),
    (44_100, 16_000),
    (16_000, 44_100),
    (192_000, 16_000),
    (16_000, 192_000),
    (8_000, 16_000),
    (96_000, 44_100),
    (48_000, 48_000),
];

fn converted(from: u32, to: u32, input: &[f32]) -> Vec<f32> {
    let mut converter = Converter::drifting(rate(from), rate(to), 0, input.len());
    converter.push(input);
    let mut out = vec![0.0; converter.ready()];
    assert_eq!(converter.pull(&mut out), out.len());
    assert_eq!((converter.ready(), converter.pull(&mut [0.0])), (0, 0));
    out
}

#[test]
fn a_sine_is_itself_at_the_new_places() {
    for (from, to) in PAIRS {
        for share in [0.01, 0.3, 0.7, 0.85] {
            let hz = share * f64::from(from.min(to)) / 2.0;
            let out = converted(from, to, &sine(hz, from, from as usize / 10));
            let edge = 2 * HALF * to.max(from) as usize / from as usize;
            let off =
                (edge..out.len()).map(|j| f64::from(out[j]) - (TAU * hz * j as f64 / f64::from(to)).sin());
            let db = 20.0 * off.map(f64::abs).fold(0.0, f64::max).log10();
            assert!(db < -85.0, "{from} -> {to} at {share} of Nyquist: {db:.1} dB");
        }
    }
}

#[test]
fn what_lies_above_the_new_nyquist_rate_is_gone() {
    for hz in [8_420.0, 9_000.0, 15_000.0, 23_000.0] {
        let out = converted(48_000, 16_000, &sine(hz, 48_000, 9_600));
        let db = 20.0 * out[2 * HALF..].iter().fold(0.0f32, |most, y| most.max(y.abs())).log10();
        assert!(db < -85.0, "{hz} Hz: {db:.1} dB");
    }
}

#[test]
fn a_beginning_elsewhere_shifts_by_exactly_so_much() {
    let (from, to) = (rate(44_100), rate(16_000));
    let input = sine(1_000.0, 44_100, 4_000);
    let plain = converted(44_100, 16_000, &input);
    // 7 outputs later: 7·441 parts of 1/160 frame.
    let mut late = Converter::new(from, to, -7 * 441, input.len());
    late.push(&input);
    let mut out = vec![1.0; plain.len() + 7];
    assert_eq!(late.pull(&mut out), plain.len() + 7);
    assert_eq!(out[7..], plain);
    // Equal rates pass all on, so many frames late.
    let mut same = Converter::new(from, from, -5, 100);
    same.push(&input[..100]);
    assert_eq!(same.pull(&mut out), 105);
    assert_eq!((&out[..5], &out[5..105]), (&[0.0; 5][..], &input[..100]));
}

#[test]
fn a_drift_is_followed() {
    // A clock 300 parts in a million fast takes more frames for as much sound.
    let (hz, drift) = (1_234.0, 300.0);
    let true_rate = 48_000.0 * (1.0 + drift * 1e-6);
    let input: Vec<f32> = (0..96_000).map(|n| (TAU * hz * f64::from(n) / true_rate).sin() as f32).collect();
    let mut converter = Converter::drifting(rate(48_000), rate(16_000), 0, input.len());
    converter.set_drift(drift);
    converter.push(&input);
    let mut out = vec![0.0; converter.ready()];
    converter.pull(&mut out);
    let off = (100..out.len()).map(|j| f64::from(out[j]) - (TAU * hz * j as f64 / 16_000.0).sin());
    let worst = off.map(f64::abs).fold(0.0, f64::max);
    assert!(worst < 2e-4, "{worst}");
}

#[test]
fn outputs_left_out_and_samples_pushed_out_leave_places_as_they_were() {
    let input = sine(1_000.0, 48_000, 48_000);
    let plain = converted(48_000, 16_000, &input);
    let mut converter = Converter::new(rate(48_000), rate(16_000), 0, 480);
    // Nobody pulls for 0.7 s, far more than there is room for; then all of that is left out, and again 5 outputs taken back.
    input.chunks(480).take(70).for_each(|block| converter.push(block));
    converter.advance(69 * 160 + 5);
    converter.advance(-5);
    converter.push(&input[70 * 480..71 * 480]);
    let mut out = vec![0.0; 400];
    let made = converter.pull(&mut out);
    assert_eq!((made, &out[..made]), (288, &plain[69 * 160..69 * 160 + 288]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn pieces_change_no_bit(pair in 0..PAIRS.len(), pieces in prop::collection::vec(1usize..400, 1..12)) {
        let (from, to) = PAIRS[pair];
        let input = sine(700.0, from, pieces.iter().sum());
        let expected = converted(from, to, &input);
        let mut converter = Converter::drifting(rate(from), rate(to), 0, 400);
        let (mut out, mut at) = (Vec::new(), 0);
        for piece in pieces {
            converter.push(&input[at..at + piece]);
            at += piece;
            let mut fresh = vec![0.0; converter.ready()];
            prop_assert_eq!(converter.pull(&mut fresh), fresh.len());
            out.extend(fresh);
        }
        prop_assert_eq!(out, expected);
    }
}
