//! VRRP advertisements of both versions made from any bytes, read back, cut and damaged.
#![no_main]

use leadline_fuzz::wire::property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::vrrp(data));
