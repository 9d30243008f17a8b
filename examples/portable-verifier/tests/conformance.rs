//! Every case of `tests/conformance/attestation`, asked of the program: the verifier needs no C.

#![expect(
    clippy::tests_outside_test_module,
    reason = "integration tests are their own crate"
)]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking, on files that are in the repository"
)]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// What the program answers to all cases of a file, beside what it must.
fn answers(file: &Path) -> Vec<(Value, Value)> {
    let text = fs::read_to_string(file).expect("a case file");
    let Value::Array(cases) = serde_json::from_str::<Value>(&text).expect("JSON")["cases"].take()
    else {
        panic!("no cases");
    };
    let mut lines = String::new();
    for case in &cases {
        let mut input = case["input"].clone();
        input["id"] = case["id"].clone();
        lines.push_str(&input.to_string());
        lines.push('\n');
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_portable-verifier"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("the program ends");
    writer.join().expect("no panic").expect("all was read");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let found: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(found.len(), cases.len());
    cases.into_iter().zip(found).collect()
}

#[test]
fn every_case_of_the_suite_comes_out_as_it_must() {
    let folder =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance/attestation/cases");
    let (mut accepted, mut refused) = (0, 0);
    for entry in fs::read_dir(folder).expect("the cases") {
        for (case, found) in answers(&entry.expect("an entry").path()) {
            let expected = &case["expected"];
            assert_eq!(found["id"], case["id"]);
            assert_eq!(found["verdict"], expected["verdict"], "{}", case["id"]);
            assert_eq!(
                found.get("claims"),
                expected.get("claims"),
                "{}",
                case["id"]
            );
            assert_eq!(found.get("code"), expected.get("code"), "{}", case["id"]);
            if expected["verdict"] == "accept" {
                accepted += 1;
            } else {
                refused += 1;
            }
        }
    }
    assert!(accepted > 100 && refused > 300, "{accepted} and {refused}");
}
