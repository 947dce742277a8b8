//! Any bytes taken for a packet of a tunnel: disco, a handshake of `WireGuard`, or either through a relay.
#![no_main]

use leadline_fuzz::wire::property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::tunnel(data));
