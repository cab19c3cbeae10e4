//! The `cascabel` command.
fn main() {}
