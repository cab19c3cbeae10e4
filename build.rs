//! Sets `CASCABEL_COMMIT` for the cards of trained models: the checkout's commit, or nothing where there is no checkout of its own.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CASCABEL_COMMIT");
    if std::env::var_os("CASCABEL_COMMIT").is_some() {
        return;
    }
    // A package unpacked inside of someone's repository is not that repository's commit.
    if git(&["rev-parse", "--show-prefix"]).as_deref() != Some("") {
        return;
    }
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return };
    println!("cargo:rustc-env=CASCABEL_COMMIT={commit}");
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    // The branch may stand among the packed ones; the log of HEAD grows with each commit in any case.
    for name in ["HEAD", "logs/HEAD"].into_iter().chain(branch.as_deref()) {
        // A file that is absent would count as changed each time.
        if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
}

/// What git says, if there is a git and it says so in peace.
fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}
