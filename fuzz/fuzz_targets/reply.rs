//! Feeds bytes to `mplane_testbed::fuzz::reply`, which says what must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| mplane_testbed::fuzz::reply(input));
