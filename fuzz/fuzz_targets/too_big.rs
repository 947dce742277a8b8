//! Any bytes taken for a router's message that a packet was too big, and messages made from them.
#![no_main]

use leadline_fuzz::wire::property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::too_big(data));
