//! STAMP packets of both modes made from any bytes, read back and answered; and any bytes taken for such packets.
#![no_main]

use leadline_fuzz::wire::property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::stamp(data));
