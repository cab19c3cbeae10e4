//! Rings, a worker and two clocks.

use super::*;

#[test]
fn rtsan_wire() {
    let (session, remote) = Session::open(&model(1, 3), ends(48_000, 2), 1.0).unwrap();
    let (mut capture, mut playback, gauges) = wire(session);
    let mut said = vec![1.0; 128];
    playback.fill(&mut said);
    assert!(said == [0.0; 128], "silence before the first frame");
    // Nobody plays until the ring is full: a burst.
    (0..300).for_each(|_| capture.push(&[0.25; 128]));
    let lost = gauges.lost.load(Relaxed);
    assert_eq!(lost, 300 * 64 - 4_096);
    for _ in 0..1_500 {
        playback.fill(&mut said);
        capture.push(&[0.25; 128]);
    }
    assert!(said.iter().all(|y| (y - 0.25).abs() < 0.05), "{said:?}");
    assert_eq!(gauges.load.take().blocks, 1_500);
    // The first frame out is placed where the first call needs it: nothing of the burst is late.
    assert_eq!((remote.counts().dropped.load(Relaxed), remote.counts().missing.load(Relaxed)), (0, 0));
}

#[test]
fn a_worker_gives_the_same_so_much_later_and_catches_up() {
    let (model, input) = (model(1, 3), noise(16_000, 20_000));
    let direct = run(&mut Session::open(&model, ends(16_000, 1), 1.0).unwrap().0, &input, &[64]);
    let (session, remote) = Session::open(&model, ends(16_000, 1), 1.0).unwrap();
    let (mut capture, playback, _) = wire(session);
    let (mut worker, mut relay) = relay(playback, 64, 2);
    let mut tapped = relay.tap();
    let mut out = Vec::new();
    for (n, block) in input.chunks_exact(64).enumerate() {
        capture.push(block);
        // Held up for ten blocks.
        if !(100..110).contains(&n) {
            while worker.turn() {}
        }
        let mut said = vec![0.0; 64];
        relay.fill(&mut said);
        out.extend(said);
    }
    let counts = remote.counts();
    let of = |count: &AtomicU64| count.load(Relaxed);
    // One of the ten was made beforehand.
    assert_eq!((of(&counts.missing), of(&counts.late), of(&counts.dropped)), (576, 9, 576));
    // Two blocks ahead; here its turn comes right before the loudspeaker's call, not right after it.
    let late = (0..400).find(|late| out[late + 1_000..late + 4_000] == direct[1_000..4_000]).unwrap();
    assert!((64..=128).contains(&late), "{late}");
    assert!(out[9_000..] == direct[9_000 - late..out.len() - late], "as late as before");
    let mut all = vec![0.0; out.len() + 1];
    assert!(tapped.take(&mut all) == &out[..]);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "between calls")]
fn rtsan_worker() {
    let (session, _remote) = Session::open(&model(1, 3), ends(48_000, 2), 1.0).unwrap();
    let (mut capture, playback, _) = wire(session);
    let (mut worker, mut relay) = relay(playback, 64, 2);
    let (_heard, _said) = (capture.tap(), relay.tap());
    for n in 0..500 {
        // A device that was away for a moment: the first call after it tells of the silence.
        if n == 250 {
            capture.away(false);
            relay.away(false);
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        capture.push(&[0.25; 128]);
        if n % 50 > 4 {
            worker.turn();
        }
        relay.fill(&mut [0.0; 128]);
    }
}

/// What comes in is its own place, so what goes out tells how old it is, to a part of a frame.
#[test]
fn two_clocks_stay_together_within_a_block() {
    const UNIT: f64 = 1e-6;
    for (from, to, drift, block) in [
        (48_000, 48_000, 200.0, 64),
        (48_000, 48_000, -80.0, 512),
        (44_100, 48_000, -150.0, 100),
        (16_000, 96_000, 60.0, 64),
    ] {
        let between = Ends {
            rate_out: SampleRate::new(to).unwrap(),
            two_clocks: true,
            margin: block * to as usize / from as usize + block,
            ..ends(from, 1)
        };
        let (session, remote) = Session::open(Voice::Through, between, 1.0).unwrap();
        let (mut capture, mut playback, gauges) = wire(session);
        // The microphone's clock is fast by the drift; threads are up to a millisecond late.
        let rates = [f64::from(from) * (1.0 + drift * 1e-6), f64::from(to)];
        let (mut counts, mut state) = ([0usize; 2], 1u32);
        let mut jitter = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            1e-3 * f64::from(state) / f64::from(u32::MAX)
        };
        let (mut ages, mut said) = (Vec::new(), vec![0.0; block]);
        let mut due = [jitter(), jitter()];
        while counts[1] < 90 * to as usize {
            let end = usize::from(due[1] < due[0]);
            let now = due[end];
            if end == 0 {
                let frames: Vec<f32> =
                    (counts[0]..counts[0] + block).map(|n| (n as f64 * UNIT) as f32).collect();
                capture.push_at(&frames, now);
            } else {
                playback.fill_at(&mut said, now);
                // Half a minute is given to find the drift.
                if counts[1] > 30 * to as usize {
                    let heard = f64::from(said[0]) / UNIT / rates[0];
                    ages.push((counts[1] as f64 / rates[1] - heard) * rates[1]);
                }
            }
            counts[end] += block;
            due[end] = (counts[end] as f64 / rates[end]).max(now) + jitter();
        }
        let (least, most) = ages.iter().fold((f64::MAX, f64::MIN), |(l, m), age| (l.min(*age), m.max(*age)));
        let reported = remote.latency().total as f64;
        println!(
            "{from} to {to} Hz, {drift} ppm, blocks of {block}: {least:.1} to {most:.1} frames, reported {reported}; {:.1} ppm",
            gauges.drift()
        );
        // A call of the loudspeaker's is there beforehand.
        let (late, block) = (reported + block as f64, block as f64);
        assert!((least - late).abs() < block && (most - late).abs() < block);
        assert!(most - least < 0.25e-3 * f64::from(to), "it wanders from {least} to {most}");
        assert!((gauges.drift() - drift).abs() < 10.0, "{} for {drift}", gauges.drift());
        assert_eq!(remote.counts().missing.load(Relaxed), 0);
    }
}
