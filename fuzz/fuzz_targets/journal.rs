#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lbaudit::fuzzing::run("journal", bytes));
