//! Text as a recipe, and the model that it describes.
#![no_main]

#[path = "../../tests/fuzzed/checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::recipe(data));
