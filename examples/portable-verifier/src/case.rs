//! One case of the conformance suite: from JSON to the verifier's types, and its answer back.
//!
//! What is not as the contract says ends the program: the suite's mistake is no verdict.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloister_attestation::{
    Claims, Measurements, PCR_BYTES, PcrIndex, Policy, SignatureVerifier, TrustAnchor, UnixMillis,
    hex, verify_with,
};
use serde_json::{Map, Value, json};

/// The verdict on the case in `line`, as a line.
///
/// # Errors
///
/// The line is no case.
pub(crate) fn verdict(line: &str, verifier: &impl SignatureVerifier) -> io::Result<Value> {
    let case: Value = serde_json::from_str(line)?;
    let id = field(&case, "id")?;
    let document = bytes(field(&case, "document")?)?;
    let now = UnixMillis(number(field(&case, "time_ms")?)?);
    let Some(policy) = policy(&case)? else {
        return Ok(json!({"id": id, "verdict": "refuse", "code": "PolicyError"}));
    };
    Ok(match verify_with(&document, &policy, now, verifier) {
        Ok(claims) => json!({"id": id, "verdict": "accept", "claims": written(&claims)}),
        Err(error) => json!({"id": id, "verdict": "refuse", "code": error.code()}),
    })
}

/// The policy; `None` when it cannot be meant.
fn policy(case: &Value) -> io::Result<Option<Policy>> {
    let wanted = field(case, "policy")?;
    let root = bytes(field(case, "root")?)?;
    let root = TrustAnchor::dangerous_root(&root).map_err(io::Error::other)?;
    let mut builder = Policy::builder()
        .anchor(root)
        .max_age(Duration::from_millis(number(field(wanted, "max_age_ms")?)?))
        .leeway(Duration::from_millis(number(field(wanted, "leeway_ms")?)?));
    match field(wanted, "measurements")? {
        Value::Array(sets) => {
            for set in sets {
                let Some(set) = measurements(set)? else {
                    return Ok(None);
                };
                builder = builder.accept(set);
            }
        }
        _ => builder = builder.dangerous_any_measurement(),
    }
    if field(wanted, "accept_debug")? == &Value::Bool(true) {
        builder = builder.dangerous_accept_debug();
    }
    let Ok(mut policy) = builder.build() else {
        return Ok(None);
    };
    if let nonce @ Value::String(_) = field(wanted, "nonce")? {
        policy = policy.with_nonce(bytes(nonce)?);
    }
    if let data @ Value::String(_) = field(wanted, "user_data")? {
        policy = policy.with_user_data(bytes(data)?);
    }
    Ok(Some(policy))
}

fn measurements(set: &Value) -> io::Result<Option<Measurements>> {
    let registers = set.as_object().ok_or_else(|| wrong("a set"))?;
    let read: Option<Vec<(PcrIndex, [u8; PCR_BYTES])>> = registers
        .iter()
        .map(|(index, value)| {
            let index = PcrIndex::new(index.parse().ok()?)?;
            let digits = value.as_str()?.as_bytes();
            let (pairs, rest) = digits.as_chunks::<2>();
            let read: Option<Vec<u8>> = pairs
                .iter()
                .map(|pair| {
                    let text = std::str::from_utf8(pair).ok()?;
                    u8::from_str_radix(text, 16).ok()
                })
                .collect();
            let value = read.filter(|_| rest.is_empty())?.try_into().ok()?;
            Some((index, value))
        })
        .collect();
    Ok(read.and_then(|registers| Measurements::new(registers).ok()))
}

fn written(claims: &Claims) -> Value {
    let registers = claims.pcrs.iter();
    let pcrs: Map<String, Value> = registers
        .map(|(index, value)| (index.number().to_string(), Value::from(hex(value))))
        .collect();
    let text = |value: &Option<Vec<u8>>| value.as_ref().map(|bytes| STANDARD.encode(bytes));
    json!({
        "module_id": claims.module_id,
        "timestamp_ms": claims.timestamp.0,
        "is_debug": claims.is_debug,
        "pcrs": pcrs,
        "public_key": text(&claims.public_key),
        "user_data": text(&claims.user_data),
        "nonce": text(&claims.nonce),
    })
}

fn field<'a>(value: &'a Value, name: &'static str) -> io::Result<&'a Value> {
    value.get(name).ok_or_else(|| wrong(name))
}

fn bytes(value: &Value) -> io::Result<Vec<u8>> {
    let text = value.as_str().ok_or_else(|| wrong("base64"))?;
    STANDARD.decode(text).map_err(io::Error::other)
}

fn number(value: &Value) -> io::Result<u64> {
    value.as_u64().ok_or_else(|| wrong("a number"))
}

fn wrong(what: &str) -> io::Error {
    io::Error::other(format!(
        "not a case of the suite: {what} is missing or wrong"
    ))
}
