//! The `cascabel` command.

fn main() -> std::process::ExitCode {
    cascabel::cli::main()
}
