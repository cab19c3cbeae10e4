//! `cascabel completions`: a shell's completion script on standard output.

use clap::CommandFactory;

use super::Arguments;
use super::exit::Tally;
use super::print;
use crate::Result;

/// Print a completion script for a shell
///
/// For bash: cascabel completions bash > ~/.local/share/bash-completion/completions/cascabel
#[derive(clap::Args)]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub fn run(args: &Args) -> Result<Tally> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), "cascabel", &mut script);
    print::text(&String::from_utf8_lossy(&script))?;
    Ok(Tally::ONE)
}
