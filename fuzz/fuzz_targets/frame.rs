//! Any bytes as a captured frame.
#![no_main]

use leadline_fuzz::wire::property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::frame(data));
