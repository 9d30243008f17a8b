//! The one function that believes a document.

use std::sync::Arc;

use crate::chain::verify_chain;
use crate::claims::Claims;
use crate::document::{Document, Fields, malformed};
use crate::error::VerifyError;
use crate::policy::Policy;
use crate::signature::{SignatureForm, SignatureVerifier};
use crate::time::UnixMillis;
use crate::x509::Certificate;

/// Verifies an attestation document and returns what it proves.
///
/// `document` is the `COSE_Sign1` as the NSM returned it, at most
/// [`crate::document::MAX_DOCUMENT_BYTES`] long. `now` is the verifier's clock, passed in so that a
/// test or a replay needs no fake time. `verifier` does the cryptography.
///
/// The result is all of the claims or one error; there is no part of a result. The rules, in this
/// order and with their sources, are in `docs/spec/attestation.md`.
///
/// The payload has to be decoded to find the certificate chain; nothing else in it is acted on
/// before the signature is known to be good.
///
/// # Errors
///
/// In this order, which is that of [NSM-AP] §3.2:
/// - [`VerifyError::Malformed`]: not a `COSE_Sign1`, or a field breaks a limit;
/// - [`VerifyError::UntrustedChain`]: the chain does not lead to the policy's root at `now`;
/// - [`VerifyError::BadSignature`]: not signed by the leaf;
/// - [`VerifyError::FromTheFuture`], [`VerifyError::Stale`], [`VerifyError::NonceMismatch`];
/// - [`VerifyError::DebugEnclave`], [`VerifyError::MeasurementMismatch`];
/// - [`VerifyError::BindingMismatch`].
///
/// [NSM-AP]: https://github.com/aws/aws-nitro-enclaves-nsm-api/blob/main/docs/attestation_process.md
pub fn verify_with(
    document: &[u8],
    policy: &Policy,
    now: UnixMillis,
    verifier: &impl SignatureVerifier,
) -> Result<Claims, VerifyError> {
    // 1, 2: form.
    let document = Document::parse(document)?;
    let leaf = Certificate::parse(document.fields.certificate)
        .map_err(|problem| malformed("certificate", problem.0))?;
    let mut bundle = Vec::with_capacity(document.fields.cabundle.len());
    for der in &document.fields.cabundle {
        let certificate =
            Certificate::parse(der).map_err(|problem| malformed("cabundle", problem.0))?;
        bundle.push((*der, certificate));
    }
    // 3: chain.
    let leaf = verify_chain(&leaf, &bundle, &policy.anchor, now, policy.leeway, verifier)
        .map_err(VerifyError::UntrustedChain)?;
    // 4: signature.
    verifier
        .verify_es384(
            &leaf.key,
            SignatureForm::Fixed,
            &document.signed_bytes(),
            document.signature,
        )
        .map_err(|_| VerifyError::BadSignature)?;
    // 5–7: what the policy asks for.
    check_freshness(&document.fields, policy, now)?;
    check_measurements(&document.fields, policy)?;
    check_binding(&document.fields, policy, verifier)?;
    let fields = document.fields;
    Ok(Claims {
        module_id: fields.module_id.to_owned(),
        timestamp: fields.timestamp,
        is_debug: fields.pcrs.is_debug(),
        pcrs: fields.pcrs,
        public_key: fields.public_key.map(<[u8]>::to_vec),
        user_data: fields.user_data.map(<[u8]>::to_vec),
        nonce: fields.nonce.map(<[u8]>::to_vec),
        certificate_not_after: leaf.not_after,
    })
}

fn check_freshness(
    fields: &Fields<'_>,
    policy: &Policy,
    now: UnixMillis,
) -> Result<(), VerifyError> {
    let timestamp = fields.timestamp;
    let (leeway, max_age) = (policy.leeway, policy.max_age);
    if timestamp > now.plus(leeway) {
        return Err(VerifyError::FromTheFuture {
            timestamp,
            now,
            leeway,
        });
    }
    let age = now.since(timestamp);
    if age > max_age {
        return Err(VerifyError::Stale {
            timestamp,
            age,
            max_age,
        });
    }
    match &policy.nonce {
        Some(expected) if fields.nonce != Some(expected.as_slice()) => {
            Err(VerifyError::NonceMismatch {
                expected: expected.clone(),
                received: fields.nonce.map(<[u8]>::to_vec),
            })
        }
        _ => Ok(()),
    }
}

fn check_measurements(fields: &Fields<'_>, policy: &Policy) -> Result<(), VerifyError> {
    if fields.pcrs.is_debug() && !policy.accepts_debug {
        return Err(VerifyError::DebugEnclave);
    }
    match &policy.accepted {
        Some(sets) if !sets.iter().any(|set| set.match_all(&fields.pcrs)) => {
            Err(VerifyError::MeasurementMismatch {
                expected: Arc::clone(sets),
                received: fields.pcrs.clone(),
            })
        }
        _ => Ok(()),
    }
}

fn check_binding(
    fields: &Fields<'_>,
    policy: &Policy,
    verifier: &impl SignatureVerifier,
) -> Result<(), VerifyError> {
    let sha384 = |bytes: &[u8]| verifier.sha384(&[bytes]);
    match &policy.user_data {
        Some(expected) if fields.user_data != Some(expected.as_slice()) => {
            Err(VerifyError::BindingMismatch {
                expected_bytes: expected.len(),
                expected_digest: sha384(expected),
                received: fields.user_data.map(|data| (data.len(), sha384(data))),
            })
        }
        _ => Ok(()),
    }
}
