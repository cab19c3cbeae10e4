//! The command line: arguments are parsed, checked into the plan of a run, and the plan is run.
//!
//! ```text
//! argv ─► one verb's Args ─► its plan ─► run ─► Tally ─► exit code
//! ```
//!
//! Each verb is one module. `exit` decides every exit code and prints every complaint, one line each. `--json` output is one
//! document with a `schema` number, raised when a field changes its meaning or goes.

mod bench;
mod beside;
mod completions;
#[cfg(feature = "devices")]
mod devices;
mod eval;
mod exit;
mod generate;
mod import;
mod info;
mod live;
mod named;
pub mod picture;
mod print;
mod process;
mod stop;
mod tokens;
#[cfg(feature = "train")]
mod train;

use clap::Parser;

use crate::Result;
use crate::guard::is_guarded;
use exit::Tally;

/// The version of every `--json` document.
const SCHEMA: u32 = 1;

/// Real-time audio models: clean recordings, make sound, evaluate, train.
#[derive(Parser)]
#[command(name = "cascabel", version, about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    Process(process::Args),
    Live(live::Args),
    #[cfg(feature = "devices")]
    Devices(devices::Args),
    Generate(generate::Args),
    Eval(eval::Args),
    Info(info::Args),
    Import(import::Args),
    Bench(bench::Args),
    #[cfg(feature = "train")]
    Train(train::Args),
    Completions(completions::Args),
}

/// Runs the program with the process's arguments. A panic that will be told as an error is not told twice.
pub fn main() -> std::process::ExitCode {
    let former = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !is_guarded() {
            former(panic)
        }
    }));
    match Arguments::try_parse() {
        Ok(arguments) => exit::code(run(arguments.verb)),
        Err(error) => exit::usage(&error),
    }
}

fn run(verb: Verb) -> Result<Tally> {
    match verb {
        Verb::Process(args) => process::run(args),
        Verb::Live(args) => live::run(&args),
        #[cfg(feature = "devices")]
        Verb::Devices(args) => devices::run(&args),
        Verb::Generate(args) => generate::run(&args),
        Verb::Eval(args) => eval::run(&args),
        Verb::Info(args) => info::run(&args),
        Verb::Import(args) => import::run(&args),
        Verb::Bench(args) => bench::run(&args),
        #[cfg(feature = "train")]
        Verb::Train(args) => train::run(args),
        Verb::Completions(args) => completions::run(&args),
    }
}
