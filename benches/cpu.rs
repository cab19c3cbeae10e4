//! `cargo bench`: what `cascabel bench` measures, with its options: `cargo bench --bench cpu -- --large --json`.

fn main() -> std::process::ExitCode {
    let (cargo, options): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|arg| arg == "--bench");
    if cargo.is_empty() {
        // `cargo test --all-targets` runs it too, and wants no figures.
        return std::process::ExitCode::SUCCESS;
    }
    let ran = std::process::Command::new(env!("CARGO_BIN_EXE_cascabel")).arg("bench").args(options).status();
    if ran.is_ok_and(|status| status.success()) { 0.into() } else { 1.into() }
}
