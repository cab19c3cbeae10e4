//! Bytes as a model file.
//!
//! The mutator keeps the header's length true, so that mutations get past the first eight bytes.
#![no_main]

#[path = "../../tests/fuzzed/checks.rs"]
mod checks;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|data: &[u8]| checks::model_file(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let header = data.first_chunk().map_or(u64::MAX, |length| u64::from_le_bytes(*length));
    let end = usize::try_from(header).ok().and_then(|length| length.checked_add(8));
    let Some(end) = end.filter(|end| *end <= size && !seed.is_multiple_of(8)) else {
        return fuzzer_mutate(data, size, max_size);
    };
    // Half of the time the header alone, otherwise the numbers alone; what was behind the part moves with its end.
    let (from, to) = if seed.is_multiple_of(2) { (8, end) } else { (end, size) };
    let behind = data[to..size].to_vec();
    let room = max_size.saturating_sub(behind.len());
    if room <= to {
        return fuzzer_mutate(data, size, max_size);
    }
    let length = fuzzer_mutate(&mut data[from..room], to - from, room - from);
    data[from + length..from + length + behind.len()].copy_from_slice(&behind);
    if from == 8 {
        data[..8].copy_from_slice(&(length as u64).to_le_bytes());
    }
    from + length + behind.len()
});
