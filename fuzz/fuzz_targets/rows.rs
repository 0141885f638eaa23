#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bpp_flow::fuzzing::rows(data));
