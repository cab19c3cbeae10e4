//! Under the real-time sanitizer (`make rtsan`) these stop at an allocation, a lock or a system call inside `advance` or
//! `reset`; without it they only run them.

use super::Cpu;
use crate::Result;
use crate::exec::testing::{Case, flat, run, single_ops, tiered};
use crate::exec::{Executor, Limits};

fn advance_and_reset(case: &Case) -> Result<()> {
    let signal = case.signal(150, 1);
    let mut cpu = Cpu::open(&case.plan, &case.weights, Limits { max_rows: 64, max_streams: 2 });
    let (whole, _) = run(&mut cpu, &signal, &[150])?;
    let (cut, _) = run(&mut cpu, &signal, &[1, 2, 140, 7])?;
    assert_eq!(whole, cut, "{}", case.name);
    cpu.reset(1);
    Ok(())
}

#[test]
fn rtsan_every_op() -> Result<()> {
    single_ops()?.iter().try_for_each(advance_and_reset)
}

#[test]
fn rtsan_whole_models() -> Result<()> {
    [tiered()?, flat()?].iter().try_for_each(advance_and_reset)
}

#[test]
fn rtsan_misuse() -> Result<()> {
    let case = tiered()?;
    let mut cpu = Cpu::open(&case.plan, &case.weights, Limits { max_rows: 4, max_streams: 1 });
    let feed = [crate::exec::Feed { stream: 3, rows: 1 }];
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
