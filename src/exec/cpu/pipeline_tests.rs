//! What is computed late, in slices, has the bits of what is computed at once.

use super::Cpu;
use super::program::{Kernel, Place, Step};
use super::tests::{LIMITS, as_alone, models, same, together_on};
use crate::Result;
use crate::exec::testing::{Case, Signal, built, run};
use crate::exec::{Executor, Feed, Limits, Rows};
use crate::plan::{Act, Draws, PlanBuilder, Weights};

/// Pipelined tiers, in the middle of whose work streams come and go: single rows of some streams, now and then longer feeds, saves, restores
/// and resets.
#[test]
fn what_is_computed_late_has_the_bits_of_what_is_computed_at_once() -> Result<()> {
    let cases: Vec<Case> = models()?.into_iter().filter(|case| !case.plan.pipelined().is_empty()).collect();
    assert!(cases.iter().any(|case| case.plan.pipelined().len() == 2), "one within another");
    for case in cases {
        let streams = 5;
        let mut together =
            Cpu::open(&case.plan, &case.weights, Limits { max_rows: 32, max_streams: streams });
        let mut signals: Vec<_> = (0..streams as u64).map(|s| case.signal(1200, s)).collect();
        let mut outputs: Vec<Vec<f32>> = vec![Vec::new(); streams];
        let mut draws = Draws::new(3, 8);
        for call in 0..1000 {
            // All in one phase for a while, then each in its own.
            let all = call < 100;
            let longer = !all && draws.below(40) == 0;
            let mut fed: Vec<usize> = (0..streams).filter(|_| all || draws.below(4) > 0).collect();
            if call % 7 == 3 {
                fed.reverse();
            }
            let feeds: Vec<_> = fed
                .into_iter()
                .map(|stream| Feed { stream, rows: if longer { draws.below(9) } else { 1 } })
                .collect();
            together_on(&mut together, &signals, &mut outputs, &feeds)?;
            let stream = draws.below(streams);
            match draws.below(60) {
                0 => {
                    let state = together.save(stream);
                    together.reset(stream);
                    together.restore(stream, &state)?;
                }
                1 => {
                    together.reset(stream);
                    outputs[stream].clear();
                    signals[stream] = case.signal(1200, 100 + call);
                }
                _ => {}
            }
        }
        as_alone(&mut together, &case, &signals, &outputs)?;
    }
    Ok(())
}

/// The parts of a product, run for themselves, have the bits of the whole, with and without gates, whatever is left over.
#[test]
fn a_product_in_parts_has_the_bits_of_the_whole() -> Result<()> {
    for (width, act) in [(200, Act::Silu), (7, Act::None), (150, Act::Glu)] {
        let mut b = PlanBuilder::new();
        let x = b.samples(9);
        let y = b.linear("product", x, width, true, act)?;
        let plan = b.build(y)?;
        let mut weights = Weights::random(&plan, 6);
        weights.round_to_f16();
        let signal = Signal::random(&plan, 13, 2);
        let mut cpu = Cpu::open(&plan, &weights, LIMITS);
        let whole = run(&mut cpu, &signal, &[13])?;
        let step = cpu.program.steps[0];
        let Kernel::Linear(packed) = step.kernel else { unreachable!("a product") };
        for bytes in [0, 5000, 1 << 20] {
            let parts = packed.parts(bytes);
            assert!(bytes > 0 || width == 7 || parts.len() > 2, "{} parts", parts.len());
            let place = |column: usize| Place { at: step.output.at + column, ..step.output };
            let step = |(column, part)| Step { kernel: Kernel::Linear(part), output: place(column), ..step };
            cpu.program.steps = parts.into_iter().map(step).collect();
            cpu.arena.as_mut_slice()[place(0).at..].fill(f32::NAN);
            // In f32, and the last rows in f16. (A single one would run by the levels, which know nothing of parts that came later.)
            for cuts in [&[13][..], &[9, 2, 2]] {
                cpu.reset(0);
                assert!(
                    same(&run(&mut cpu, &signal, cuts)?, &whole),
                    "{width} in parts of {bytes}, {cuts:?}"
                );
            }
        }
    }
    Ok(())
}

/// No single row takes much more of the work than its share.
#[test]
fn a_pipelined_tier_works_in_slices() -> Result<()> {
    let case = built()?.into_iter().find(|case| case.name == "tiered generator");
    let Some(case) = case else { unreachable!("the case is there") };
    let mut cpu = Cpu::open(&case.plan, &case.weights, LIMITS);
    let (steps, mut most, mut y) = (cpu.program.steps.len(), [0; 3], vec![0.0; 32]);
    assert_eq!(cpu.levels.iter().map(|level| level.steps.len()).sum::<usize>(), steps);
    let mut before = [0; 3];
    for call in 0..160 {
        cpu.advance(&[Feed { stream: 0, rows: 1 }], Rows::Tokens(&[call % 32]), &mut y)?;
        for level in 1..3 {
            let done = cpu.levels[level].progress.map_or(0, |(done, _)| done);
            let all = cpu.levels[level].steps.len();
            let now = if done < before[level] { all - before[level] + done } else { done - before[level] };
            most[level] = most[level].max(now);
            before[level] = done;
        }
    }
    // Of 4 rows' and 12 rows' work.
    for (level, most) in cpu.levels.iter().zip(most).skip(1) {
        let all = level.steps.len();
        assert!(most > 0 && 2 * most <= all, "period {}: {most} of {all} steps at once", level.period);
    }
    Ok(())
}
