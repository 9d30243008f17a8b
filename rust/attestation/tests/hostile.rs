//! Documents that are wrong in one place, each beside the twin that is right in it.
//!
//! They are made with the simulator's own writer under a development root, so that everything but
//! the one place verifies.

#![expect(
    clippy::tests_outside_test_module,
    reason = "integration tests are their own crate"
)]
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "helpers of tests fail by panicking, on numbers of their own"
)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cloister_attestation::cbor::Writer;
use cloister_attestation::{
    AnchorError, AwsLc, ChainError, Link, Measurements, P384PublicKey, PcrIndex, Policy,
    Remembering, SignatureForm, SignatureRefused, SignatureVerifier, TrustAnchor, UnixMillis,
    VerifyError, verify, verify_with,
};
use cloister_nsm_sim::certificate::{
    AUTHORITY_USAGE, Certificate, INSTANCE_USAGE, LEAF_USAGE, Role, SigningKey,
};
use cloister_nsm_sim::document::{Payload, sign};
use proptest::prelude::*;

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const PCR0: [u8; 48] = [0x5a; 48];

/// What is changed in one certificate of the chain.
#[derive(Clone)]
struct Link4 {
    role: Role,
    key_usage: u8,
    not_before: UnixMillis,
    not_after: UnixMillis,
    issuer: Option<&'static str>,
    signed_by_itself: bool,
    extra: Vec<(Vec<u8>, bool, Vec<u8>)>,
}

/// A chain of root, regional, zonal, instance and leaf, and the leaf's key.
struct Forge {
    root: Vec<u8>,
    bundle: Vec<Vec<u8>>,
    leaf: Vec<u8>,
    leaf_key: SigningKey,
}

fn plan() -> Vec<Link4> {
    let link = |role, key_usage, hours: u64| Link4 {
        role,
        key_usage,
        not_before: NOW.minus(Duration::from_secs(60)),
        not_after: NOW.plus(Duration::from_secs(hours * 3600)),
        issuer: None,
        signed_by_itself: false,
        extra: Vec::new(),
    };
    vec![
        link(Role::Authority(Some(2)), AUTHORITY_USAGE, 480),
        link(Role::Authority(Some(1)), AUTHORITY_USAGE, 144),
        link(Role::Authority(Some(0)), INSTANCE_USAGE, 24),
        link(Role::Leaf, LEAF_USAGE, 3),
    ]
}

fn forge(plan: &[Link4]) -> Forge {
    let mut key = SigningKey::generate().expect("a key");
    let mut name = "root".to_owned();
    let root = Certificate {
        subject: "root",
        issuer: "root",
        public_key: key.public(),
        issuer_public_key: key.public(),
        not_before: NOW.minus(Duration::from_secs(3600)),
        not_after: NOW.plus(Duration::from_secs(1_000_000_000)),
        role: Role::Authority(None),
        key_usage: AUTHORITY_USAGE,
        extra: &[],
    }
    .sign(&key)
    .expect("a root");
    let mut bundle = vec![root.clone()];
    for (position, link) in plan.iter().enumerate() {
        let next = SigningKey::generate().expect("a key");
        let subject = format!("link {position}");
        let extra: Vec<(&[u8], bool, &[u8])> = link
            .extra
            .iter()
            .map(|(oid, critical, value)| (oid.as_slice(), *critical, value.as_slice()))
            .collect();
        let certificate = Certificate {
            subject: &subject,
            issuer: link.issuer.unwrap_or(&name),
            public_key: next.public(),
            issuer_public_key: key.public(),
            not_before: link.not_before,
            not_after: link.not_after,
            role: link.role,
            key_usage: link.key_usage,
            extra: &extra,
        }
        .sign(if link.signed_by_itself { &next } else { &key })
        .expect("a certificate");
        bundle.push(certificate);
        (key, name) = (next, subject);
    }
    let leaf = bundle.pop().expect("a leaf");
    Forge {
        root,
        bundle,
        leaf,
        leaf_key: key,
    }
}

fn cabundle(forge: &Forge) -> Vec<&[u8]> {
    forge.bundle.iter().map(Vec::as_slice).collect()
}

fn payload<'a>(forge: &'a Forge, cabundle: &'a [&'a [u8]]) -> Payload<'a> {
    Payload {
        module_id: "i-1-enc2",
        timestamp: NOW,
        pcrs: &[(0, &PCR0), (4, &[1; 48])],
        certificate: &forge.leaf,
        cabundle,
        public_key: None,
        user_data: Some(b"spki"),
        nonce: Some(b"nonce"),
    }
}

fn document(forge: &Forge) -> Vec<u8> {
    sign(&payload(forge, &cabundle(forge)).encode(), &forge.leaf_key).expect("a document")
}

fn policy(root: &[u8]) -> Policy {
    let set = Measurements::new([(PcrIndex::IMAGE, PCR0)]).expect("a set");
    Policy::builder()
        .anchor(TrustAnchor::dangerous_root(root).expect("an anchor"))
        .accept(set)
        .build()
        .expect("a policy")
}

/// What the chain of `plan` comes to, beside the unchanged one.
fn chain_error(change: impl FnOnce(&mut Vec<Link4>)) -> ChainError {
    let right = forge(&plan());
    verify(&document(&right), &policy(&right.root), NOW).expect("the unchanged twin");
    let mut changed = plan();
    change(&mut changed);
    let wrong = forge(&changed);
    match verify(&document(&wrong), &policy(&wrong.root), NOW) {
        Err(VerifyError::UntrustedChain(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_root_of_the_same_shape_is_refused() {
    let (one, other) = (forge(&plan()), forge(&plan()));
    let document = document(&one);
    verify(&document, &policy(&one.root), NOW).expect("its own root");
    assert_eq!(
        verify(&document, &policy(&other.root), NOW),
        Err(VerifyError::UntrustedChain(ChainError::Signature {
            link: Link::Bundle(0)
        }))
    );
    let production = Policy::builder()
        .dangerous_any_measurement()
        .build()
        .expect("a policy");
    assert_eq!(
        verify(&document, &production, NOW),
        Err(VerifyError::UntrustedChain(ChainError::Issuer {
            link: Link::Bundle(0)
        }))
    );
}

/// A root that is right but for what is said of it.
fn root(role: Role, key_usage: u8, extra: &[(&[u8], bool, &[u8])]) -> Vec<u8> {
    let key = SigningKey::generate().expect("a key");
    Certificate {
        subject: "root",
        issuer: "root",
        public_key: key.public(),
        issuer_public_key: key.public(),
        not_before: NOW,
        not_after: NOW.plus(Duration::from_secs(3600)),
        role,
        key_usage,
        extra,
    }
    .sign(&key)
    .expect("a root")
}

/// A root that says what it is for is held to it.
#[test]
fn each_rule_of_an_anchor_is_enforced() {
    let authority = Role::Authority(None);
    let right = root(authority, AUTHORITY_USAGE, &[]);
    TrustAnchor::dangerous_root(&right).expect("the twin");
    TrustAnchor::dangerous_root(&root(authority, INSTANCE_USAGE, &[])).expect("keyCertSign alone");
    let unknown = |is_critical| {
        let extra: &[(&[u8], bool, &[u8])] = &[(&[0x55, 0x1d, 0x1e], is_critical, &[0x30, 0])];
        TrustAnchor::dangerous_root(&root(authority, AUTHORITY_USAGE, extra))
    };
    unknown(false).expect("it has no say");
    assert_eq!(unknown(true), Err(AnchorError::CriticalExtension));
    for (role, key_usage) in [(Role::Leaf, AUTHORITY_USAGE), (authority, LEAF_USAGE)] {
        assert_eq!(
            TrustAnchor::dangerous_root(&root(role, key_usage, &[])),
            Err(AnchorError::NotCa)
        );
    }
    // Nobody looks at a root's own signature, so its key may be replaced: secp384r1, 1.3.132.0.34,
    // by secp521r1, 1.3.132.0.35.
    let curve = [0x2b, 0x81, 0x04, 0x00, 0x22];
    let at = right.windows(curve.len()).position(|part| part == curve);
    let mut other = right;
    other[at.expect("the curve") + 4] = 0x23;
    assert_eq!(
        TrustAnchor::dangerous_root(&other),
        Err(AnchorError::NotP384)
    );
}

/// RFC 5280 §6.1.3 and §6.1.4, one rule after the other.
#[test]
fn each_rule_of_the_chain_is_enforced() {
    let hour = Duration::from_secs(3600);
    assert_eq!(
        chain_error(|plan| plan[0].key_usage = LEAF_USAGE),
        ChainError::KeyUsage {
            link: Link::Bundle(1)
        }
    );
    assert_eq!(
        chain_error(|plan| plan[2].role = Role::Leaf),
        ChainError::NotAuthority {
            link: Link::Bundle(3)
        }
    );
    assert_eq!(
        chain_error(|plan| plan[0].role = Role::Authority(Some(0))),
        ChainError::PathLength {
            link: Link::Bundle(2)
        }
    );
    assert_eq!(
        chain_error(|plan| plan[1].role = Role::Authority(Some(0))),
        ChainError::PathLength {
            link: Link::Bundle(3)
        }
    );
    assert_eq!(
        chain_error(|plan| plan[1].issuer = Some("somebody else")),
        ChainError::Issuer {
            link: Link::Bundle(2)
        }
    );
    assert_eq!(
        chain_error(|plan| plan[3].signed_by_itself = true),
        ChainError::Signature { link: Link::Leaf }
    );
    assert_eq!(
        chain_error(|plan| plan[3].role = Role::Authority(None)),
        ChainError::LeafIsAuthority
    );
    assert_eq!(
        chain_error(|plan| plan[3].key_usage = INSTANCE_USAGE),
        ChainError::KeyUsage { link: Link::Leaf }
    );
    let unknown = (vec![0x55, 0x1d, 0x1e], true, vec![0x30, 0]);
    assert_eq!(
        chain_error(|plan| plan[1].extra.push(unknown)),
        ChainError::CriticalExtension {
            link: Link::Bundle(2)
        }
    );
    assert!(matches!(
        chain_error(|plan| {
            plan[3].not_before = NOW.minus(2 * hour);
            plan[3].not_after = NOW.minus(hour);
        }),
        ChainError::Expired {
            link: Link::Leaf,
            ..
        }
    ));
    assert!(matches!(
        chain_error(|plan| plan[1].not_before = NOW.plus(hour)),
        ChainError::NotYetValid {
            link: Link::Bundle(2),
            ..
        }
    ));
}

/// An extension that is not critical has no say; the same one, critical, ends it (above).
#[test]
fn an_unknown_extension_that_is_not_critical_is_passed_over() {
    let mut changed = plan();
    changed[1]
        .extra
        .push((vec![0x55, 0x1d, 0x1f], false, vec![0x30, 0]));
    let forge = forge(&changed);
    verify(&document(&forge), &policy(&forge.root), NOW).expect("accepted");
}

/// The clock of a verifier may be off by the leeway, and not by a second more.
#[test]
fn leeway_is_exact() {
    let forge = forge(&plan());
    let (document, policy) = (document(&forge), policy(&forge.root));
    let second = Duration::from_secs(1);
    let slow = NOW.minus(Duration::from_secs(60));
    verify(&document, &policy, slow).expect("60 s slow");
    assert!(matches!(
        verify(&document, &policy, slow.minus(second)),
        Err(VerifyError::FromTheFuture { .. })
    ));
    let end = NOW.plus(Duration::from_secs(3 * 3600));
    verify(&document, &policy, end).expect("as old as allowed");
    assert!(matches!(
        verify(&document, &policy, end.plus(second)),
        Err(VerifyError::Stale { .. })
    ));
}

#[test]
fn nonce_binding_and_measurement_must_match() {
    let forge = forge(&plan());
    let document = document(&forge);
    let policy = policy(&forge.root);
    let with = |nonce: &[u8], data: &[u8]| {
        verify(
            &document,
            &policy.clone().with_nonce(nonce).with_user_data(data),
            NOW,
        )
    };
    with(b"nonce", b"spki").expect("both right");
    assert!(matches!(
        with(b"nonc3", b"spki"),
        Err(VerifyError::NonceMismatch { .. })
    ));
    assert!(matches!(
        with(b"", b"spki"),
        Err(VerifyError::NonceMismatch { .. })
    ));
    assert!(matches!(
        with(b"nonce", b"spk1"),
        Err(VerifyError::BindingMismatch { .. })
    ));
    assert!(matches!(
        with(b"nonce", b""),
        Err(VerifyError::BindingMismatch { .. })
    ));
}

/// A re-signed document: everything right, by a key that the chain does not name.
#[test]
fn a_document_signed_by_another_key_is_refused() {
    let (one, other) = (forge(&plan()), forge(&plan()));
    let payload = payload(&one, &cabundle(&one)).encode();
    let right = sign(&payload, &one.leaf_key).expect("signed");
    verify(&right, &policy(&one.root), NOW).expect("the twin");
    let wrong = sign(&payload, &other.leaf_key).expect("signed");
    assert_eq!(
        verify(&wrong, &policy(&one.root), NOW),
        Err(VerifyError::BadSignature)
    );
}

/// What a payload with a change comes to: the field that is named.
fn field_of(change: impl FnOnce(&mut Fields)) -> &'static str {
    let forge = forge(&plan());
    let mut fields = Fields::of(&forge);
    let right = sign(&fields.encode(), &forge.leaf_key).expect("signed");
    verify(&right, &policy(&forge.root), NOW).expect("the unchanged twin");
    change(&mut fields);
    let wrong = sign(&fields.encode(), &forge.leaf_key).expect("signed");
    match verify(&wrong, &policy(&forge.root), NOW) {
        Err(VerifyError::Malformed { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

/// The payload as pairs of encoded values, so that any of them can be wrong.
struct Fields(Vec<(&'static str, Vec<u8>)>);

fn item(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    write(&mut writer);
    writer.into_bytes()
}

impl Fields {
    fn of(forge: &Forge) -> Self {
        Self(vec![
            (
                "module_id",
                item(|out| {
                    out.text("i-1");
                }),
            ),
            (
                "digest",
                item(|out| {
                    out.text("SHA384");
                }),
            ),
            (
                "timestamp",
                item(|out| {
                    out.unsigned(NOW.0);
                }),
            ),
            (
                "pcrs",
                item(|out| {
                    out.map(1).unsigned(0).bytes(&PCR0);
                }),
            ),
            (
                "certificate",
                item(|out| {
                    out.bytes(&forge.leaf);
                }),
            ),
            (
                "cabundle",
                item(|out| {
                    out.array(forge.bundle.len() as u64);
                    for certificate in &forge.bundle {
                        out.bytes(certificate);
                    }
                }),
            ),
            ("public_key", vec![0xf6]),
            ("user_data", vec![0xf6]),
            ("nonce", vec![0xf6]),
        ])
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![0xbf];
        for (name, value) in &self.0 {
            out.extend(item(|out| {
                out.text(name);
            }));
            out.extend(value);
        }
        out.push(0xff);
        out
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "reads best where it is called"
    )]
    fn set(&mut self, name: &str, value: Vec<u8>) {
        for (found, slot) in &mut self.0 {
            if *found == name {
                slot.clone_from(&value);
            }
        }
    }
}

fn pcrs(entries: &[(u64, usize)]) -> Vec<u8> {
    item(|out| {
        out.map(entries.len() as u64);
        for (index, length) in entries {
            out.unsigned(*index).bytes(&vec![0x5a; *length]);
        }
    })
}

#[test]
fn each_limit_of_the_structure_is_enforced() {
    let bytes = |length: usize| {
        item(|out| {
            out.bytes(&vec![7; length]);
        })
    };
    let text = |value: &str| {
        item(|out| {
            out.text(value);
        })
    };
    assert_eq!(
        field_of(|fields| fields.set("pcrs", pcrs(&[(0, 48), (32, 48)]))),
        "pcrs"
    );
    assert_eq!(
        field_of(|fields| fields.set("pcrs", pcrs(&[(0, 47)]))),
        "pcrs"
    );
    assert_eq!(
        field_of(|fields| fields.set("pcrs", pcrs(&[(0, 48), (0, 48)]))),
        "pcrs"
    );
    assert_eq!(
        field_of(|fields| fields.set("pcrs", pcrs(&[(1, 48)]))),
        "pcrs"
    );
    assert_eq!(field_of(|fields| fields.set("pcrs", pcrs(&[]))), "pcrs");
    let many: Vec<(u64, usize)> = (0..33).map(|index| (index, 48)).collect();
    assert_eq!(field_of(|fields| fields.set("pcrs", pcrs(&many))), "pcrs");
    assert_eq!(
        field_of(|fields| fields.set("pcrs", vec![0x81; 64])),
        "pcrs"
    );
    assert_eq!(
        field_of(|fields| fields.set("module_id", text(""))),
        "module_id"
    );
    assert_eq!(
        field_of(|fields| fields.set("module_id", text(&"x".repeat(257)))),
        "module_id"
    );
    assert_eq!(
        field_of(|fields| fields.set("module_id", vec![0x62, 0xc3, 0x28])),
        "module_id"
    );
    assert_eq!(
        field_of(|fields| fields.set("digest", text("SHA512"))),
        "digest"
    );
    assert_eq!(
        field_of(|fields| fields.set("digest", text("SHA1"))),
        "digest"
    );
    assert_eq!(
        field_of(|fields| fields.set("timestamp", vec![0])),
        "timestamp"
    );
    assert_eq!(
        field_of(|fields| fields.set("timestamp", vec![0x20])),
        "timestamp"
    );
    assert_eq!(
        field_of(|fields| fields.set("user_data", bytes(1025))),
        "user_data"
    );
    assert_eq!(field_of(|fields| fields.set("nonce", bytes(1025))), "nonce");
    assert_eq!(
        field_of(|fields| fields.set("public_key", bytes(1025))),
        "public_key"
    );
    assert_eq!(
        field_of(|fields| fields.set("nonce", text("text"))),
        "nonce"
    );
    assert_eq!(
        field_of(|fields| fields.set("certificate", bytes(0))),
        "certificate"
    );
    assert_eq!(
        field_of(|fields| fields.set("certificate", bytes(64))),
        "certificate"
    );
    // Nested as deep as the input allows, and a length that no memory has.
    assert_eq!(
        field_of(|fields| fields.set("nonce", vec![0x9f; 4096])),
        "nonce"
    );
    let huge = vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(
        field_of(|fields| fields.set("cabundle", huge.clone())),
        "cabundle"
    );
    assert_eq!(
        field_of(|fields| fields.set("public_key", huge)),
        "public_key"
    );
}

/// A chain that is right but for the size of its certificate at `position` of the plan, which an
/// unknown extension fills: it is signed, so nothing but the length can be wrong with it.
fn grown(position: usize, size: usize) -> Forge {
    let mut filler = 0;
    // A signature has up to three bytes more or less from one try to the next.
    for _ in 0..200 {
        let mut grown = plan();
        let link = grown.get_mut(position).expect("a link");
        link.extra
            .push((vec![0x55, 0x1d, 0x1f], false, vec![0; filler]));
        let forge = forge(&grown);
        // The bundle begins with the root.
        let certificate = forge.bundle.get(position + 1).unwrap_or(&forge.leaf);
        if certificate.len() == size {
            return forge;
        }
        filler = (filler + size).saturating_sub(certificate.len());
    }
    panic!("no certificate of {size} bytes");
}

/// The field for which the document around this chain is refused; `None` when it verifies.
fn refused_for(forge: &Forge, cabundle: &[&[u8]]) -> Option<&'static str> {
    let payload = payload(forge, cabundle).encode();
    let document = sign(&payload, &forge.leaf_key).expect("a document");
    match verify(&document, &policy(&forge.root), NOW) {
        Ok(_) => None,
        Err(VerifyError::Malformed { field, .. }) => Some(field),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_certificate_has_at_most_1024_bytes() {
    for (position, field) in [(2, "cabundle"), (3, "certificate")] {
        for (size, expected) in [(1024, None), (1025, Some(field))] {
            let forge = grown(position, size);
            assert_eq!(refused_for(&forge, &cabundle(&forge)), expected, "{size}");
        }
    }
}

/// Chains of every length are right; the bundle has one to eight of their certificates.
#[test]
fn a_bundle_has_one_to_eight_certificates() {
    for (authorities, expected) in [(0, None), (7, None), (8, Some("cabundle"))] {
        let mut links = vec![plan()[0].clone(); authorities];
        for link in &mut links {
            link.role = Role::Authority(None);
        }
        links.push(plan()[3].clone());
        let forge = forge(&links);
        let all = cabundle(&forge);
        assert_eq!(refused_for(&forge, &all), expected, "{authorities}");
        if authorities == 0 {
            // The copy of the root is not needed, but for there to be one.
            assert_eq!(refused_for(&forge, &[]), Some("cabundle"));
        } else if authorities == 8 {
            assert_eq!(refused_for(&forge, &all[1..]), None);
        }
    }
}

#[test]
fn fields_are_there_once_and_no_others() {
    for (position, name) in [
        (0, "module_id"),
        (3, "pcrs"),
        (6, "public_key"),
        (8, "nonce"),
    ] {
        assert_eq!(field_of(|fields| drop(fields.0.remove(position))), name);
        assert_eq!(
            field_of(|fields| {
                let again = fields.0[position].clone();
                fields.0[if position == 8 { 7 } else { 8 }] = again;
            }),
            name
        );
    }
    assert_eq!(field_of(|fields| fields.0[8].0 = "extra"), "payload");
    assert_eq!(
        field_of(|fields| fields.0.push(("extra", vec![0]))),
        "payload"
    );
    // A NitroTPM document: the same root, other registers.
    assert_eq!(
        field_of(|fields| fields.0[3].0 = "nitrotpm_pcrs"),
        "nitrotpm_pcrs"
    );
}

#[test]
fn the_envelope_is_exact() {
    let forge = forge(&plan());
    let right = document(&forge);
    let policy = policy(&forge.root);
    verify(&right, &policy, NOW).expect("the unchanged twin");
    let refused = |document: &[u8]| match verify(document, &policy, NOW) {
        Err(VerifyError::Malformed { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    // 84 | 44 a1 01 38 22 | a0 | 59 …
    let mut trailing = right.clone();
    trailing.push(0);
    assert_eq!(refused(&trailing), "document");
    let mut three = right.clone();
    three[0] = 0x83;
    assert_eq!(refused(&three), "document");
    let mut es256 = right.clone();
    es256[4] = 0x26;
    assert_eq!(refused(&es256), "protected");
    let mut unprotected = right[..6].to_vec();
    unprotected.extend_from_slice(&[0xa1, 0x01, 0x38, 0x22]);
    unprotected.extend_from_slice(&right[7..]);
    assert_eq!(refused(&unprotected), "unprotected");
    // The algorithm moved from the protected header to the other one.
    let mut moved = vec![0x84, 0x40, 0xa1, 0x01, 0x38, 0x22];
    moved.extend_from_slice(&right[7..]);
    assert_eq!(refused(&moved), "protected");
    let short = &right[..right.len() - 98];
    let mut signature = short.to_vec();
    signature.extend_from_slice(&[0x58, 95]);
    signature.extend_from_slice(&[7; 95]);
    assert_eq!(refused(&signature), "signature");
    assert_eq!(refused(&vec![0; 16_385]), "document");
    assert_eq!(refused(b""), "document");
}

/// The bundle's first certificate is not what is trusted: a chain without the copy of the root is as
/// good, and a self-signed one in its place is not.
#[test]
fn the_root_in_the_bundle_is_never_used() {
    let forge = forge(&plan());
    let all = cabundle(&forge);
    let policy = policy(&forge.root);
    let with = |bundle: &[&[u8]]| {
        let payload = payload(&forge, bundle).encode();
        verify(
            &sign(&payload, &forge.leaf_key).expect("signed"),
            &policy,
            NOW,
        )
    };
    with(&all).expect("with the copy");
    with(&all[1..]).expect("without the copy");
    let other = self::forge(&plan());
    let replaced = [other.root.as_slice(), all[1], all[2], all[3]];
    assert!(matches!(
        with(&replaced),
        Err(VerifyError::UntrustedChain(_))
    ));
    let reversed: Vec<&[u8]> = all.iter().rev().copied().collect();
    assert!(matches!(
        with(&reversed),
        Err(VerifyError::UntrustedChain(_))
    ));
}

/// Counts what gets through to the other verifier, by form.
#[derive(Default)]
struct Counting(AtomicUsize);

impl SignatureVerifier for &Counting {
    fn verify_es384(
        &self,
        key: &P384PublicKey,
        form: SignatureForm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureRefused> {
        self.0.fetch_add(1, Ordering::Relaxed);
        AwsLc.verify_es384(key, form, message, signature)
    }

    fn sha384(&self, parts: &[&[u8]]) -> [u8; 48] {
        AwsLc.sha384(parts)
    }
}

/// Five verifications for a new document, one for another of the same chain, none for a known one.
#[test]
fn what_is_known_is_not_verified_again() {
    let counting = Counting::default();
    let verifier = Remembering::new(&counting);
    let forge = forge(&plan());
    let policy = policy(&forge.root);
    let bundle = cabundle(&forge);
    let count = |nonce: &[u8]| {
        let payload = Payload {
            nonce: Some(nonce),
            ..payload(&forge, &bundle)
        };
        let document = sign(&payload.encode(), &forge.leaf_key).expect("a document");
        let ask = || {
            counting.0.store(0, Ordering::Relaxed);
            verify_with(&document, &policy, NOW, &verifier).expect("a right document");
            counting.0.load(Ordering::Relaxed)
        };
        (ask(), ask())
    };
    assert_eq!(count(b"one"), (5, 0));
    assert_eq!(count(b"two"), (1, 0));
    // A document that is known is not believed for longer than another: its age is not remembered.
    let document = document(&forge);
    for now in [NOW, NOW.plus(Duration::from_secs(3 * 3600 + 1))] {
        let answer = verify_with(&document, &policy, now, &verifier);
        assert_eq!(answer.is_ok(), now == NOW);
    }
}

/// With its memory full of a good chain, the verifier refuses what it refused without.
#[test]
fn what_is_remembered_changes_no_answer() {
    let verifier = Remembering::new(AwsLc);
    let (one, other) = (forge(&plan()), forge(&plan()));
    let (right, policy) = (document(&one), policy(&one.root));
    for _ in 0..2 {
        verify_with(&right, &policy, NOW, &verifier).expect("the chain is good, then remembered");
    }
    let mut changed = right.clone();
    for position in (0..changed.len()).step_by(7) {
        changed[position] ^= 1;
        assert_eq!(
            verify_with(&changed, &policy, NOW, &verifier),
            verify(&changed, &policy, NOW),
            "byte {position}"
        );
        changed[position] ^= 1;
    }
    let foreign = verify_with(&document(&other), &policy, NOW, &verifier);
    assert!(matches!(foreign, Err(VerifyError::UntrustedChain(_))));
    let tomorrow = NOW.plus(Duration::from_secs(24 * 3600 + 61));
    assert!(matches!(
        verify_with(&right, &policy, tomorrow, &verifier),
        Err(VerifyError::UntrustedChain(ChainError::Expired { .. }))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Any byte set to any other value: refused; the unchanged twin: accepted.
    #[test]
    fn a_changed_byte_is_refused(at: prop::sample::Index, byte: u8) {
        use std::sync::OnceLock;
        static RIGHT: OnceLock<(Vec<u8>, Policy)> = OnceLock::new();
        let (right, policy) = RIGHT.get_or_init(|| {
            let forge = forge(&plan());
            let right = document(&forge);
            let policy = policy(&forge.root);
            verify(&right, &policy, NOW).expect("the unchanged twin");
            (right, policy)
        });
        let mut changed = right.clone();
        let position = at.index(changed.len());
        prop_assume!(changed[position] != byte);
        changed[position] = byte;
        prop_assert!(verify(&changed, policy, NOW).is_err());
    }

    #[test]
    fn any_bytes_are_refused(bytes: Vec<u8>) {
        let policy = Policy::builder().dangerous_any_measurement().build().expect("a policy");
        prop_assert!(verify(&bytes, &policy, NOW).is_err());
    }
}
