//! The SIMD executor against the f64 reference; cuts, streams and instruction sets bit for bit.
#![cfg_attr(target_arch = "aarch64", allow(unused_imports, dead_code, reason = "NEON runs itself there"))]

use super::lanes::{Lanes, Math};
use super::neon::Neon;
use super::portable::Portable;
use super::program::{Kernel, Step};
use super::{Cpu, Isa};
use crate::Result;
use crate::exec::reference::Reference;
use crate::exec::testing::{
    Case, Signal, built, flat, max_norm, random_cuts, run, single_ops, tiered, within,
};
use crate::exec::{Executor, Feed, Limits, Rows, State, TINY};
use crate::plan::{Draws, Input};

pub(super) const LIMITS: Limits = Limits { max_rows: 64, max_streams: 1 };

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

pub(super) fn same(a: &(Vec<f32>, State), b: &(Vec<f32>, State)) -> bool {
    let slots = a.1.slots.iter().zip(&b.1.slots).all(|(a, b)| bits(a) == bits(b));
    bits(&a.0) == bits(&b.0) && slots && a.1.position == b.1.position
}

pub(super) fn models() -> Result<Vec<Case>> {
    Ok(built()?.into_iter().chain([tiered()?, flat()?]).collect())
}

/// Output and final state of a case against f64.
fn parity(case: &Case, rows: usize, bound: f64) -> Result<()> {
    let signal = case.signal(rows, rows as u64);
    let mut reference = Reference::<f64>::open(&case.plan, &case.weights, LIMITS);
    let expected = reference.advance_one(0, rows, signal.rows(0, rows));
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let mut cpu = Cpu::open_with(&case.plan, &case.weights, LIMITS, isa);
        let (y, state) = run(&mut cpu, &signal, &[rows])?;
        within(&format!("{} {isa:?} {rows} rows", case.name), max_norm(&y, &expected), bound)?;
        for (slot, expected) in state.slots.iter().zip(reference.slots(0)) {
            within(&format!("{} {isa:?} {rows} rows, state", case.name), max_norm(slot, expected), bound)?;
        }
    }
    Ok(())
}

#[test]
fn every_op_is_within_1e_5_of_f64() -> Result<()> {
    for case in single_ops()? {
        for rows in [1, 33, 4097] {
            parity(&case, rows, 1e-5)?;
        }
    }
    Ok(())
}

#[test]
fn whole_models_follow_f64() -> Result<()> {
    for case in models()? {
        parity(&case, 301, 1e-4)?;
    }
    Ok(())
}

#[test]
fn two_hundred_random_cuts_change_no_bit() -> Result<()> {
    for case in models()? {
        let signal = case.signal(700, 3);
        let mut cpu = Cpu::open(&case.plan, &case.weights, LIMITS);
        let whole = run(&mut cpu, &signal, &[700])?;
        let mut draws = Draws::new(5, 5);
        for i in 0..200 {
            let cuts = random_cuts(700, 1 + draws.below(200), &mut draws);
            assert!(same(&run(&mut cpu, &signal, &cuts)?, &whole), "{} cut {i}: {cuts:?}", case.name);
        }
        assert!(same(&run(&mut cpu, &signal, &[1; 700])?, &whole), "{} row by row", case.name);
        let mut wide = Cpu::open(&case.plan, &case.weights, Limits { max_rows: 1024, max_streams: 1 });
        assert!(same(&run(&mut wide, &signal, &[700])?, &whole), "{} in one pass", case.name);
    }
    for case in single_ops()? {
        let signal = case.signal(97, 4);
        let mut cpu = Cpu::open(&case.plan, &case.weights, LIMITS);
        let whole = run(&mut cpu, &signal, &[97])?;
        assert!(same(&run(&mut cpu, &signal, &[1; 97])?, &whole), "{}", case.name);
        assert!(same(&run(&mut cpu, &signal, &[5, 31, 2, 58, 1])?, &whole), "{}", case.name);
    }
    Ok(())
}

#[test]
fn instruction_sets_agree_bit_for_bit() -> Result<()> {
    for case in single_ops()?.into_iter().chain(models()?) {
        let signal = case.signal(61, 8);
        let mut plain = Cpu::open_with(&case.plan, &case.weights, LIMITS, Isa::Portable);
        let expected = run(&mut plain, &signal, &[61])?;
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let mut cpu = Cpu::open_with(&case.plan, &case.weights, LIMITS, isa);
            assert!(same(&run(&mut cpu, &signal, &[61])?, &expected), "{} {isa:?}", case.name);
        }
    }
    Ok(())
}

/// In f16 alone where there are few rows, in either form where there are many: the plain code has f32.
#[test]
fn weights_in_f16_change_no_bit() -> Result<()> {
    let in_f16_alone = |step: &Step| matches!(step.kernel, Kernel::Linear(packed) if packed.wide.is_none());
    let mut alone = 0;
    for mut case in single_ops()?.into_iter().chain(models()?) {
        case.weights.round_to_f16();
        let signal = case.signal(61, 9);
        let mut plain = Cpu::open_with(&case.plan, &case.weights, LIMITS, Isa::Portable);
        let expected = run(&mut plain, &signal, &[61])?;
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            for max_rows in [1, 6, 7, 64] {
                let limits = Limits { max_rows, max_streams: 1 };
                let mut cpu = Cpu::open_with(&case.plan, &case.weights, limits, isa);
                alone += cpu.program.steps.iter().filter(|step| in_f16_alone(step)).count();
                for cuts in [&[61][..], &[1; 61], &[5, 31, 2, 22, 1]] {
                    cpu.reset(0);
                    let got = run(&mut cpu, &signal, cuts)?;
                    assert!(same(&got, &expected), "{} {isa:?} {max_rows}: {cuts:?}", case.name);
                }
            }
        }
    }
    assert!(alone > 0 || Isa::best().most_rows() == 0, "all have f32 too");
    Ok(())
}

/// Feeds each stream the rows that come next of its signal, and adds what it gives to its outputs.
pub(super) fn together_on(
    cpu: &mut Cpu,
    signals: &[Signal],
    outputs: &mut [Vec<f32>],
    feeds: &[Feed],
) -> Result<()> {
    let width = cpu.plan().value(cpu.plan().output).width;
    let (mut samples, mut tokens) = (Vec::new(), Vec::new());
    for f in feeds {
        let at = outputs[f.stream].len() / width;
        match signals[f.stream].rows(at, at + f.rows) {
            Rows::Samples(x) => samples.extend_from_slice(x),
            Rows::Tokens(x) => tokens.extend_from_slice(x),
        }
    }
    let input = match cpu.plan().input {
        Input::Samples(_) => Rows::Samples(&samples),
        Input::Tokens(_) => Rows::Tokens(&tokens),
    };
    let mut y = vec![f32::NAN; feeds.iter().map(|f| f.rows).sum::<usize>() * width];
    cpu.advance(feeds, input, &mut y)?;
    let mut rest = y.as_slice();
    for f in feeds {
        let (now, later) = rest.split_at(f.rows * width);
        outputs[f.stream].extend_from_slice(now);
        rest = later;
    }
    Ok(())
}

/// Each stream has the outputs and the state that it has alone.
pub(super) fn as_alone(cpu: &mut Cpu, case: &Case, signals: &[Signal], outputs: &[Vec<f32>]) -> Result<()> {
    let width = case.plan.value(case.plan.output).width;
    for (stream, (signal, output)) in signals.iter().zip(outputs).enumerate() {
        let mut alone = Cpu::open(&case.plan, &case.weights, LIMITS);
        let expected = run(&mut alone, signal, &[output.len() / width])?;
        assert!(same(&(output.clone(), cpu.save(stream)), &expected), "{} stream {stream}", case.name);
    }
    Ok(())
}

#[test]
fn streams_of_different_phases_run_together_as_alone() -> Result<()> {
    for case in models()? {
        let limits = Limits { max_rows: 16, max_streams: 16 };
        let mut together = Cpu::open(&case.plan, &case.weights, limits);
        let width = case.plan.value(case.plan.output).width;
        let signals: Vec<_> = (0..16).map(|s| case.signal(400, 100 + s)).collect();
        let mut outputs: Vec<Vec<f32>> = vec![Vec::new(); 16];
        // Every phase modulo 16 is reached by its own first feed; then random feeds of random subsets.
        let mut draws = Draws::new(1, 1);
        for call in 0..40 {
            let feeds: Vec<Feed> = (0..16)
                .filter_map(|stream| {
                    let at = outputs[stream].len() / width;
                    let rows = if call == 0 { stream } else { draws.below(25) };
                    let rows = rows.min(400 - at);
                    (call == 0 || draws.below(3) > 0).then_some(Feed { stream, rows })
                })
                .collect();
            together_on(&mut together, &signals, &mut outputs, &feeds)?;
        }
        as_alone(&mut together, &case, &signals, &outputs)?;
    }
    Ok(())
}

/// Whatever streams are fed, in whatever phase, the rows of every tier fit the room that was made for them.
#[test]
fn the_rows_of_every_tier_fit_their_room_however_many_streams_are_fed() -> Result<()> {
    let case = tiered()?;
    let (period, limits) = (case.plan.period(), Limits { max_rows: 100_000, max_streams: 64 });
    let mut cpu = Cpu::open(&case.plan, &case.weights, limits);
    for fed in 1..=64 {
        for phase in 0..period as u64 {
            let rows = cpu.rows_a_pass(fed);
            cpu.levels[0].table.fill((0..fed).map(|stream| (stream, phase, rows)));
            for (id, value) in case.plan.values.iter().enumerate() {
                let (got, room) =
                    (cpu.levels[0].table.total(crate::plan::ValueId(id)), value.tier.max_rows(cpu.tile) * 64);
                assert!(
                    got <= room,
                    "{fed} streams from phase {phase}: {got} rows of value {id}, room for {room}"
                );
            }
        }
    }
    Ok(())
}

/// 2^x of each number.
struct Powers(Vec<f32>);

impl super::probes::Probe for Powers {
    #[inline(always)]
    unsafe fn run<V: Lanes>(&mut self) {
        for x in self.0.chunks_exact_mut(16) {
            // SAFETY: sixteen numbers.
            unsafe { V::load(x.as_ptr()).exp2().store(x.as_mut_ptr()) }
        }
    }
}

#[test]
fn powers_of_two_have_the_same_bits_over_the_whole_range() {
    let mut x: Vec<f32> = (-140_000..140_000).map(|i| i as f32 * 1e-3).collect();
    x.extend([
        127.5, 127.7, 127.999_99, 128.0, 3e38, -3e38, -126.5, -127.5, 1e-30, -1e-30, 0.0, -0.0, 0.5, -0.5,
        1.5, 2.5,
    ]);
    let mode = super::float_mode::FlushDenormals::on();
    let all: Vec<Vec<f32>> = Isa::ALL
        .into_iter()
        .filter(|isa| isa.is_available())
        .map(|isa| {
            let mut powers = Powers(x.clone());
            isa.probe(&mut powers);
            powers.0
        })
        .collect();
    drop(mode);
    for (i, x) in x.iter().enumerate() {
        assert!(
            all.iter().all(|y| y[i].to_bits() == all[0][i].to_bits()),
            "2^{x}: {:?}",
            all.iter().map(|y| y[i]).collect::<Vec<_>>()
        );
        let exact = f64::from(*x).exp2();
        if exact < 3.4e38 && exact > 1.2e-38 {
            assert!((f64::from(all[0][i]) / exact - 1.0).abs() < 4e-7, "2^{x}: {}", all[0][i]);
        }
    }
}

/// After its input a state dies away. Where f32 on the reference says 0, the processor's own flush has made it 0.
#[test]
fn states_end_at_zero_where_the_definition_says() -> Result<()> {
    for complex in [false, true] {
        let mut b = crate::plan::PlanBuilder::new();
        let x = b.samples(20);
        let y = b.invariant_scan("", x, 3, complex, crate::plan::Rule::Zoh)?;
        let plan = b.build(y)?;
        let weights = crate::plan::Weights::random(&plan, 4);
        let mut reference = Reference::<f32>::open(&plan, &weights, LIMITS);
        let mut all: Vec<Cpu> = Isa::ALL
            .into_iter()
            .filter(|isa| isa.is_available())
            .map(|isa| Cpu::open_with(&plan, &weights, LIMITS, isa))
            .collect();
        let (mut ended, mut living, mut input) = (0, 0, [1.0; 20 * 50]);
        for _ in 0..60 {
            reference.advance_one(0, 50, Rows::Samples(&input));
            let states: Vec<State> = all
                .iter_mut()
                .map(|cpu| {
                    let feed = [Feed { stream: 0, rows: 50 }];
                    cpu.advance(&feed, Rows::Samples(&input), &mut [0.0; 20 * 50])?;
                    Ok(cpu.save(0))
                })
                .collect::<Result<_>>()?;
            input.fill(0.0);
            for (state, expected) in
                states.iter().flat_map(|s| &s.slots).zip(std::iter::repeat(reference.slots(0)))
            {
                for (got, expected) in state.iter().zip(&expected[0]) {
                    // A rounding apart at the edge itself, they die a row or two apart.
                    let (got, expected) = (got.abs(), expected.abs());
                    assert!(got == 0.0 || got >= TINY, "{got:e} is carried");
                    assert!(
                        (got == 0.0) == (expected == 0.0) || got.max(expected) < 2.0 * TINY,
                        "{got:e} for {expected:e}"
                    );
                    ended += usize::from(got == 0.0);
                    living += usize::from(got != 0.0);
                }
            }
            assert!(
                states.iter().all(|s| s.slots.iter().zip(&states[0].slots).all(|(a, b)| bits(a) == bits(b)))
            );
        }
        assert!(ended > 100 && living > 100, "{ended} ended, {living} live");
    }
    Ok(())
}

#[test]
fn a_saved_state_continues_where_it_was() -> Result<()> {
    let case = tiered()?;
    let signal = case.signal(300, 3);
    let mut cpu = Cpu::open(&case.plan, &case.weights, LIMITS);
    let (whole, end) = run(&mut cpu, &signal, &[300])?;
    let (_, middle) = run(&mut cpu, &signal, &[131])?;
    let middle = State::from_bytes(&case.plan, &middle.to_bytes(&case.plan)?)?;
    let continued = |executor: &mut dyn Executor| -> Result<(Vec<f32>, State)> {
        executor.restore(0, &middle)?;
        let mut rest = vec![0.0; 169];
        executor.advance(&[Feed { stream: 0, rows: 169 }], signal.rows(131, 300), &mut rest)?;
        Ok((rest, executor.save(0)))
    };
    let whole = (whole[131..].to_vec(), end);
    assert!(same(&continued(&mut Cpu::open(&case.plan, &case.weights, LIMITS))?, &whole));
    // Another executor rounds otherwise.
    let (rest, state) = continued(&mut Reference::<f32>::open(&case.plan, &case.weights, LIMITS))?;
    let exact: Vec<f64> = whole.0.iter().map(|x| f64::from(*x)).collect();
    within("restored", max_norm(&rest, &exact), 1e-4)?;
    assert!(state.distance(&whole.1) < 1e-4);
    Ok(())
}

#[test]
fn misuse_is_refused_and_moves_nothing() -> Result<()> {
    let case = tiered()?;
    let mut cpu = Cpu::open(&case.plan, &case.weights, LIMITS);
    let before = cpu.save(0);
    let feed = [Feed { stream: 0, rows: 4 }];
    let mut y = [0.0; 4];
    assert!(cpu.advance(&feed, Rows::Samples(&[0.0; 3]), &mut y).is_err());
    assert!(cpu.advance(&feed, Rows::Samples(&[0.0; 4]), &mut y[..2]).is_err());
    assert!(cpu.advance(&feed, Rows::Tokens(&[0; 4]), &mut y).is_err());
    let other = [Feed { stream: 1, rows: 4 }];
    assert!(cpu.advance(&other, Rows::Samples(&[0.0; 4]), &mut y).is_err());
    let twice = [Feed { stream: 0, rows: 2 }, Feed { stream: 0, rows: 2 }];
    assert!(cpu.advance(&twice, Rows::Samples(&[0.0; 4]), &mut y).is_err());
    assert_eq!(cpu.save(0), before);
    Ok(())
}

/// Sixteen numbers as they came in, of each operation and function in turn.
fn lanes<V: Lanes>(x: &[f32; 16], y: &[f32; 16], z: &[f32; 16]) -> Vec<u32> {
    // SAFETY: sixteen numbers each; the tests use implementations that this CPU has.
    unsafe {
        let (a, b, c) = (V::load(x.as_ptr()), V::load(y.as_ptr()), V::load(z.as_ptr()));
        let (turn, near) = (a.turn(b, c), a.bounded());
        let vectors = [
            a.add(b),
            a.sub(b),
            a.mul(b),
            a.div(b),
            a.fma(b, c),
            a.fnma(b, c),
            a.min(b),
            a.max(b),
            a.abs(),
            a.less_nearest(),
            a.where_below(b, c, V::splat(1.5)),
            V::splat(1.25).scale(near.sub(near.less_nearest())),
            a.exp2(),
            a.sigmoid(),
            a.silu(),
            a.tanh(),
            a.softplus(),
            a.gelu(),
            a.mul(V::splat(1e-30)).mul(V::splat(1e-8)).normal(),
            turn.0,
            turn.1,
        ];
        let mut all = vec![a.sum().to_bits()];
        for v in vectors {
            let mut out = [0.0; 16];
            v.store(out.as_mut_ptr());
            all.extend(bits(&out));
        }
        all
    }
}

#[cfg(not(target_arch = "aarch64"))]
#[test]
fn neon_on_the_model_of_its_intrinsics_has_the_bits_of_the_plain_code() {
    let mut draws = Draws::new(9, 1);
    let special = [0.0, -0.0, 1.0, -126.0, 127.0, 20.0, 1e-38, -3e38];
    for round in 0..2000 {
        let mut vector = || {
            std::array::from_fn(|i| match draws.below(8) {
                0 => special[(i + round) % special.len()],
                _ => (draws.normal() * 10f64.powi(draws.below(5) as i32 - 2)) as f32,
            })
        };
        let (x, y, z) = (vector(), vector(), vector());
        assert_eq!(lanes::<Neon>(&x, &y, &z), lanes::<Portable>(&x, &y, &z), "{x:?} {y:?} {z:?}");
    }
    let x: [f32; 16] = std::array::from_fn(|i| if i % 3 == 0 { f32::NAN } else { i as f32 });
    // SAFETY: plain code.
    let pick = |smaller: bool| unsafe {
        let (mut a, mut b) = ([0.0; 16], [0.0; 16]);
        let (n, p) = (Neon::load(x.as_ptr()), Portable::load(x.as_ptr()));
        let (zero, plain) = (Neon::splat(3.0), Portable::splat(3.0));
        if smaller { n.min(zero) } else { n.max(zero) }.store(a.as_mut_ptr());
        if smaller { p.min(plain) } else { p.max(plain) }.store(b.as_mut_ptr());
        (bits(&a), bits(&b))
    };
    for (neon, plain) in [pick(true), pick(false)] {
        assert_eq!(neon, plain, "a NaN gives the second");
    }
}

/// A small file can name a hundred thousand ops; opening them must not take their square.
#[test]
fn a_plan_of_very_many_ops_opens_at_once() -> Result<()> {
    let mut b = crate::plan::PlanBuilder::new();
    let mut x = b.samples(1);
    for _ in 0..60_000 {
        x = b.delay("held", x, 1)?;
        x = b.activate("bent", x, crate::plan::Act::Tanh)?;
    }
    let plan = b.build(x)?;
    let begun = std::time::Instant::now();
    let mut cpu =
        Cpu::open(&plan, &crate::plan::Weights::random(&plan, 1), Limits { max_rows: 1, max_streams: 1 });
    let mut y = [1.0];
    cpu.advance(&[Feed { stream: 0, rows: 1 }], Rows::Samples(&[1.0]), &mut y)?;
    assert!(y == [0.0] && begun.elapsed().as_secs_f64() < 5.0, "{:?}", begun.elapsed());
    Ok(())
}
