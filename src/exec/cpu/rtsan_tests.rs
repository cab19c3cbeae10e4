//! Under the real-time sanitizer (`make rtsan`) these stop at an allocation, a lock or a system call inside `advance` or
//! `reset`; without it they only run them.

use super::Cpu;
use crate::Result;
use crate::exec::testing::{Case, Signal, built, flat, run, single_ops, tiered};
use crate::exec::{Executor, Feed, Limits};

fn advance_and_reset(case: &Case) -> Result<()> {
    let signal = case.signal(150, 1);
    let mut cpu = Cpu::open(&case.plan, &case.weights, Limits { max_rows: 64, max_streams: 3 });
    let (whole, settled) = run(&mut cpu, &signal, &[150])?;
    let (cut, _) = run(&mut cpu, &signal, &[1, 2, 140, 7])?;
    assert_eq!(whole, cut, "{}", case.name);
    // Streams beside each other, from a state other than zeros, each in a phase of its own.
    cpu.set_initial(&settled)?;
    let first = several(&mut cpu, &signal)?;
    assert!((0..3).all(|stream| cpu.position(stream) != settled.position));
    (0..3).for_each(|stream| cpu.reset(stream));
    assert!((0..3).all(|stream| cpu.save(stream) == settled), "{}", case.name);
    assert_eq!(several(&mut cpu, &signal)?, first, "{}", case.name);
    single_rows(&mut cpu, &signal)
}

/// Row by row, in phases of their own, where pipelined tiers compute late; one is reset in the middle of that.
fn single_rows(cpu: &mut Cpu, signal: &Signal) -> Result<()> {
    let mut y = vec![0.0; 3 * cpu.plan().value(cpu.plan().output).width];
    for call in 0..60 {
        let fed = if call % 5 == 0 { 2 } else { 3 };
        let feeds = [0, 1, 2].map(|stream| Feed { stream, rows: 1 });
        let out = y.len() / 3 * fed;
        cpu.advance(&feeds[..fed], signal.rows(call, call + fed), &mut y[..out])?;
        if call == 37 {
            cpu.reset(1);
        }
    }
    Ok(())
}

/// Two calls with rows of three streams; what they gave.
fn several(cpu: &mut Cpu, signal: &Signal) -> Result<Vec<f32>> {
    let width = cpu.plan().value(cpu.plan().output).width;
    let mut out = Vec::new();
    for rows in [[5, 70, 1], [40, 0, 33]] {
        let feeds = [0, 1, 2].map(|stream| Feed { stream: 2 - stream, rows: rows[stream] });
        let total = rows.iter().sum();
        let mut y = vec![f32::NAN; total * width];
        cpu.advance(&feeds, signal.rows(0, total), &mut y)?;
        out.extend(y);
    }
    Ok(out)
}

#[test]
fn rtsan_every_op() -> Result<()> {
    single_ops()?.iter().try_for_each(advance_and_reset)
}

#[test]
fn rtsan_whole_models() -> Result<()> {
    built()?.iter().chain(&[tiered()?, flat()?]).try_for_each(advance_and_reset)
}

#[test]
fn rtsan_misuse() -> Result<()> {
    let case = tiered()?;
    let mut cpu = Cpu::open(&case.plan, &case.weights, Limits { max_rows: 4, max_streams: 1 });
    let feed = [Feed { stream: 3, rows: 1 }];
    assert!(cpu.advance(&feed, crate::exec::Rows::Samples(&[0.0]), &mut [0.0]).is_err());
    Ok(())
}

#[rtsan_standalone::nonblocking]
fn allocates() -> usize {
    std::hint::black_box(vec![1u8; 64]).len()
}

/// The sanitizer itself is judged: this test, run again as a child that allocates where it must not, is ended.
#[test]
#[ignore = "needs the sanitizer: make rtsan"]
fn rtsan_ends_a_program_that_allocates() -> std::io::Result<()> {
    const CHILD: &str = "CASCABEL_RTSAN_CHILD";
    if std::env::var_os(CHILD).is_some() {
        assert_eq!(allocates(), 64);
        return Ok(());
    }
    let name = concat!(module_path!(), "::rtsan_ends_a_program_that_allocates");
    let name = name.split_once("::").map_or(name, |(_, name)| name);
    let mut child = std::process::Command::new(std::env::current_exe()?);
    let child = child.args(["--exact", name, "--include-ignored", "--nocapture"]).env(CHILD, "1").output()?;
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(!child.status.success() && said.contains("RealtimeSanitizer: unsafe-library-call"), "{said}");
    Ok(())
}
