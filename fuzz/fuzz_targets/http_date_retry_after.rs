#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lbaudit::fuzzing::run("http_date_retry_after", bytes));
