//! Any bytes as a batch of log records.

#![no_main]

use cloister_hostplane::agent::intake::Batch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let boot = "0123456789abcdef0123456789abcdef";
    for announced in ["1", "4", "9"] {
        let body = data.to_vec().into();
        if let Ok(batch) = Batch::check(Some(boot), Some(announced), body) {
            // What is written is a tail of what came, in whole lines.
            for line in &batch.lines {
                let (bytes, count) = batch.after(line.sequence);
                assert!(data.ends_with(bytes));
                let feeds = bytes.iter().filter(|byte| **byte == b'\n').count();
                assert_eq!(u64::try_from(feeds), Ok(count));
            }
            assert_eq!(batch.after(0).0, data);
        }
    }
});
