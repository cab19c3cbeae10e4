//! Exit codes, decided here and nowhere else, and the lines on standard error.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | all done |
//! | 1 | some of many files failed; the rest are done |
//! | 2 | nothing done: bad input, a bad option, an output that cannot be written |
//! | 130 | stopped on request (Ctrl-C); what was finished is kept |

use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::{Error, Result};

/// How many pieces of work a verb finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Finished, now or before.
    pub done: usize,
    /// Failed; each has been complained about.
    pub failed: usize,
}

impl Tally {
    /// One piece of work, done.
    pub const ONE: Self = Self { done: 1, failed: 0 };
}

/// The exit code of a run; complains about its error.
pub fn code(result: Result<Tally>) -> ExitCode {
    match result {
        Ok(Tally { failed: 0, .. }) => ExitCode::SUCCESS,
        Ok(Tally { done: 1.., .. }) => ExitCode::from(1),
        Ok(Tally { done: 0, .. }) => ExitCode::from(2),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(if matches!(error, Error::Stopped(_)) { 130 } else { 2 })
        }
    }
}

/// The exit code of arguments that did not parse: help and version are no mistake.
pub fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A closed pipe is the reader's choice.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let lines: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "expected a command".into(),
        _ => lines.join(" "),
    };
    complain(&format!("{} (see --help)", message.trim_start_matches("error: ")));
    ExitCode::from(2)
}

/// One line on standard error, whatever the message holds.
pub fn complain(message: &str) {
    eprintln!("cascabel: {}", message.split(['\n', '\r']).collect::<Vec<_>>().join(" "));
}
