//! ARP packets made from any bytes, read back and cut.
#![no_main]

use leadline_fuzz::wire::property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::arp(data));
