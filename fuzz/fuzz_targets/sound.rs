//! Bytes as a sound file, of any format.
#![no_main]

#[path = "../../tests/fuzzed/checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(
    init: {
        // The reader turns a decoder's panic into an error; the fuzzer's own hook would end the program before that. A panic
        // that gets out of the reader still does.
        std::panic::set_hook(Box::new(|_| {}));
    },
    |data: &[u8]| checks::sound(data)
);
