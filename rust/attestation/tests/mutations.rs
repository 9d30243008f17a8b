//! Every genuine document, changed in one place: refused, each of them, beside the document as it is.
//!
//! On each commit bytes are sampled; `make conformance` changes all of them (the ignored test). What is
//! changed behind the signature is refused by the first rule that sees it; the same changes signed by
//! the right key, so that only the one rule can refuse them, are in `hostile.rs`.

#![expect(
    clippy::tests_outside_test_module,
    reason = "integration tests are their own crate"
)]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "tests fail by panicking, on facts of files that are in the repository"
)]

use std::time::Duration;

use cloister_attestation::cbor::Writer;
use cloister_attestation::{
    AwsLc, ChainError, Link, Remembering, SignatureVerifier, UnixMillis, VerifyError,
    decode_unverified, verify, verify_with,
};
use cloister_nsm_sim::DevelopmentRoot;

#[path = "support/documents.rs"]
#[expect(dead_code, reason = "shared with the other tests of documents")]
mod documents;

use documents::{Genuine, Taken, all, any, any_policy, envelope, good, under, window};

/// Changes `document` at `position` to `byte`, which is refused; the verifier may remember.
fn refuse_byte(
    document: &Genuine,
    changed: &mut [u8],
    position: usize,
    byte: u8,
    verifier: &impl SignatureVerifier,
) {
    let right = changed[position];
    changed[position] = byte;
    let answer = verify_with(changed, &any_policy(), document.at, verifier);
    assert!(
        answer.is_err(),
        "{} byte {position}: {answer:?}",
        document.name
    );
    changed[position] = right;
}

/// A prime step, and another start in each document, so that the kinds of places are all met.
#[test]
fn a_changed_byte_of_any_genuine_document_is_refused() {
    const STEP: usize = 61;
    for (number, document) in good().iter().enumerate() {
        let mut changed = document.bytes.clone();
        for position in (number..changed.len()).step_by(STEP) {
            let byte = changed[position] ^ (1 << (position % 8));
            refuse_byte(document, &mut changed, position, byte, &AwsLc);
        }
        verify(&changed, &any_policy(), document.at).expect("restored");
    }
}

/// Each bit of each byte, and each byte zero and all ones: some 700 000 documents. What is good of the
/// chain is remembered, which changes no answer (`what_is_remembered_changes_no_answer`).
#[test]
#[ignore = "takes minutes; `make conformance`"]
fn every_changed_byte_of_every_genuine_document_is_refused() {
    for document in good() {
        let verifier = Remembering::new(AwsLc);
        let mut changed = document.bytes.clone();
        verify_with(&changed, &any_policy(), document.at, &verifier).expect("the unchanged twin");
        for position in 0..changed.len() {
            let right = changed[position];
            let bits = (0..8).map(|bit| right ^ (1 << bit));
            for byte in bits.chain([0, 0xff]).filter(|byte| *byte != right) {
                refuse_byte(&document, &mut changed, position, byte, &verifier);
            }
        }
        verify(&changed, &any_policy(), document.at).expect("restored");
    }
}

#[test]
fn a_document_cut_at_any_length_is_refused() {
    for document in good() {
        for length in 0..document.bytes.len() {
            let cut = &document.bytes[..length];
            assert!(
                matches!(
                    verify(cut, &any_policy(), document.at),
                    Err(VerifyError::Malformed { .. })
                ),
                "{} at {length}",
                document.name
            );
            decode_unverified(cut).expect_err("and is not decoded");
        }
        verify(&document.bytes, &any_policy(), document.at).expect("the whole");
    }
}

/// The one with the bad signature, at its own time and at others, under whatever policy.
#[test]
fn the_tampered_document_is_refused_always() {
    let documents = all();
    let tampered = documents
        .iter()
        .find(|document| document.kind == "badsig")
        .expect("there is one");
    let (begin, end) = window(&tampered.bytes);
    let inside = [tampered.at, begin, UnixMillis(end.0 - 1)];
    let lasting = any()
        .max_age(Duration::from_secs(1 << 30))
        .leeway(Duration::from_secs(3600));
    for policy in [any_policy(), lasting.build().expect("a policy")] {
        for now in inside {
            assert_eq!(
                verify(&tampered.bytes, &policy, now),
                Err(VerifyError::BadSignature)
            );
        }
        for now in [0, begin.0 - 3_601_000, end.0 + 3_600_000, u64::MAX] {
            verify(&tampered.bytes, &policy, UnixMillis(now)).expect_err("out of its time");
        }
    }
}

fn map_of(entries: &[(u64, Vec<u8>)], is_indefinite: bool) -> Vec<u8> {
    let mut out = Writer::new();
    if is_indefinite {
        out.indefinite_map();
    } else {
        out.map(entries.len() as u64);
    }
    for (index, value) in entries {
        out.unsigned(*index).bytes(value);
    }
    if is_indefinite {
        out.end();
    }
    out.into_bytes()
}

fn registers(document: &[u8]) -> Registers {
    let decoded = decode_unverified(document).expect("decodes");
    let pairs = decoded.pcrs.iter();
    pairs
        .map(|(index, value)| (u64::from(index.number()), value.to_vec()))
        .collect()
}

/// Inside the signature another spelling of the same values is another message. Both spellings are
/// read: the signature is what refuses.
#[test]
fn a_payload_in_another_spelling_is_not_what_was_signed() {
    let mut seen = [false; 2];
    for document in good() {
        let taken = Taken::apart(&document.bytes);
        seen[usize::from(taken.is_indefinite)] = true;
        let mut outer = taken.clone();
        outer.is_indefinite = !taken.is_indefinite;
        let mut pcrs = taken.clone();
        pcrs.set("pcrs", map_of(&registers(&document.bytes), true));
        let mut bundle = taken.clone();
        let list = [&[0x9f][..], &taken.value("cabundle")[1..], &[0xff]].concat();
        bundle.set("cabundle", list);
        for changed in [outer, pcrs, bundle] {
            let changed = changed.together();
            assert_ne!(changed, document.bytes);
            assert_eq!(
                decode_unverified(&changed).expect("read").pcrs,
                decode_unverified(&document.bytes).expect("read").pcrs
            );
            assert_eq!(
                verify(&changed, &any_policy(), document.at),
                Err(VerifyError::BadSignature),
                "{}",
                document.name
            );
        }
        // Strings in pieces are not read at all.
        let mut pieces = taken.clone();
        let id = taken.value("module_id");
        pieces.set("module_id", [&[0x7f][..], id, &[0xff]].concat());
        assert!(matches!(
            verify(&pieces.together(), &any_policy(), document.at),
            Err(VerifyError::Malformed {
                field: "module_id",
                ..
            })
        ));
    }
    assert_eq!(seen, [true; 2], "genuine documents have both spellings");
}

/// Around the signature nothing is signed but the protected header: tag or none, and both spellings of
/// array and empty map are the same document; everything else is refused.
#[test]
fn the_envelope_has_eight_spellings_and_no_ninth() {
    for document in good() {
        let taken = Taken::apart(&document.bytes);
        let policy = any_policy();
        let expected = verify(&document.bytes, &policy, document.at).expect("as it is");
        let with = |start: &[u8], unprotected: &[u8], end: &[u8]| {
            let changed = envelope(
                start,
                &taken.protected,
                unprotected,
                &taken.payload(),
                &taken.signature,
                end,
            );
            verify(&changed, &policy, document.at)
        };
        for tag in [&[][..], &[0xd2]] {
            for unprotected in [&[0xa0][..], &[0xbf, 0xff]] {
                let definite = [tag, &[0x84]].concat();
                assert_eq!(with(&definite, unprotected, &[]).as_ref(), Ok(&expected));
                let indefinite = [tag, &[0x9f]].concat();
                assert_eq!(
                    with(&indefinite, unprotected, &[0xff]).as_ref(),
                    Ok(&expected)
                );
            }
        }
        for (start, unprotected, end) in [
            // Another tag, two tags, a tag in a longer form, the self-description of CBOR.
            (&[0xd1, 0x84][..], &[0xa0][..], &[][..]),
            (&[0xd2, 0xd2, 0x84], &[0xa0], &[]),
            (&[0xd8, 0x12, 0x84], &[0xa0], &[]),
            (&[0xd9, 0xd9, 0xf7, 0x84], &[0xa0], &[]),
            // Three and five parts, lengths in a longer form, an array that does not end.
            (&[0x83], &[0xa0], &[]),
            (&[0x85], &[0xa0], &[0xf6]),
            (&[0x98, 4], &[0xa0], &[]),
            (&[0x9f], &[0xa0], &[]),
            (&[0x9f], &[0xa0], &[0xf6, 0xff]),
            // Headers that nobody signed.
            (&[0x84], &[0xa1, 0x04, 0x41, 0x31], &[]),
            (&[0x84], &[0xa1, 0x01, 0x38, 0x22], &[]),
            (&[0x84], &[0xf6], &[]),
            (&[0x84], &[0xb8, 0], &[]),
            // Bytes behind the end.
            (&[0x84], &[0xa0], &[0]),
            (&[0x84], &[0xa0], &[0xff]),
        ] {
            assert!(
                matches!(
                    with(start, unprotected, end),
                    Err(VerifyError::Malformed { .. })
                ),
                "{start:02x?} {unprotected:02x?} {end:02x?}"
            );
        }
    }
}

/// ECDSA has two signatures for one message, `s` and `n − s`; ES384 forbids neither (RFC 9053 §2.1),
/// and half of the genuine documents have the higher. So a document is no name of itself.
#[test]
fn the_other_s_of_a_signature_is_good_as_well() {
    for document in good() {
        let mut taken = Taken::apart(&document.bytes);
        let expected = verify(&document.bytes, &any_policy(), document.at).expect("as it is");
        negate(&mut taken.signature[48..]);
        let twin = taken.together();
        assert_ne!(twin, document.bytes);
        assert_eq!(verify(&twin, &any_policy(), document.at), Ok(expected));
        // Zero, the order itself and r ‖ s the wrong way round are no signatures.
        for change in [
            |signature: &mut Vec<u8>| signature[48..].fill(0),
            |signature: &mut Vec<u8>| signature[..48].fill(0),
            |signature: &mut Vec<u8>| signature[48..].copy_from_slice(&ORDER),
            |signature: &mut Vec<u8>| signature.rotate_left(48),
        ] {
            let mut wrong = taken.clone();
            change(&mut wrong.signature);
            assert_eq!(
                verify(&wrong.together(), &any_policy(), document.at),
                Err(VerifyError::BadSignature)
            );
        }
    }
}

/// `n − s`, big-endian.
fn negate(s: &mut [u8]) {
    let mut borrow = 0;
    for (digit, order) in s.iter_mut().rev().zip(ORDER.iter().rev()) {
        let difference = i16::from(*order) - i16::from(*digit) - borrow;
        borrow = i16::from(difference < 0);
        *digit = u8::try_from(difference.rem_euclid(256)).expect("a byte");
    }
    assert_eq!(borrow, 0, "s is below the order");
}

/// Order of P-384's base point (FIPS 186-4, D.1.2.4).
const ORDER: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf,
    0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];

#[test]
fn a_key_twice_is_refused_wherever_it_stands() {
    for document in good() {
        let taken = Taken::apart(&document.bytes);
        for position in 0..9 {
            let again = taken.fields[position].clone();
            let name = again.0.clone();
            let mut changed = taken.clone();
            // In addition to all nine, and in place of another one.
            changed.fields.push(again.clone());
            let mut instead = taken.clone();
            instead.fields[(position + 1) % 9] = again;
            for changed in [changed, instead] {
                let VerifyError::Malformed { .. } =
                    verify(&changed.together(), &any_policy(), document.at).expect_err(&name)
                else {
                    panic!("{} {name}", document.name);
                };
            }
            let mut dropped = taken.clone();
            dropped.fields.remove(position);
            assert!(matches!(
                verify(&dropped.together(), &any_policy(), document.at),
                Err(VerifyError::Malformed { field, problem: "is missing" }) if field == name
            ));
        }
        let mut twice = registers(&document.bytes);
        twice.push(twice[0].clone());
        let mut changed = taken.clone();
        changed.set("pcrs", map_of(&twice, false));
        assert!(matches!(
            verify(&changed.together(), &any_policy(), document.at),
            Err(VerifyError::Malformed { field: "pcrs", .. })
        ));
    }
}

type Registers = Vec<(u64, Vec<u8>)>;

#[test]
fn registers_out_of_bounds_are_refused_in_every_document() {
    for document in good() {
        let taken = Taken::apart(&document.bytes);
        let right = registers(&document.bytes);
        let with = |entries: Registers| {
            let mut taken = taken.clone();
            taken.set("pcrs", map_of(&entries, false));
            verify(&taken.together(), &any_policy(), document.at)
        };
        with(right.clone()).expect("the unchanged twin");
        // Some genuine documents have all 32; one more register needs room.
        let and = |index: u64, length: usize| {
            let mut entries: Registers = right.iter().filter(|(at, _)| *at < 16).cloned().collect();
            entries.push((index, vec![1; length]));
            with(entries)
        };
        // Within the bounds it is the signature that refuses.
        for length in [32, 48, 64] {
            assert_eq!(and(31, length), Err(VerifyError::BadSignature));
        }
        for (index, length) in [
            (32, 48),
            (255, 48),
            (256, 48),
            (u64::MAX, 48),
            (31, 47),
            (31, 49),
            (31, 0),
            (31, 65),
        ] {
            assert!(
                matches!(
                    and(index, length),
                    Err(VerifyError::Malformed { field: "pcrs", .. })
                ),
                "PCR{index} of {length} bytes"
            );
        }
        let mut short = right.clone();
        short[0].1.truncate(47);
        assert!(matches!(
            with(short),
            Err(VerifyError::Malformed { field: "pcrs", .. })
        ));
    }
}

/// The chain is checked before the signature, so a bundle that leads to the root fails later than one
/// that does not: without the root it is as good a chain, of another document.
#[test]
fn certificates_in_another_order_or_number_are_refused() {
    for document in good() {
        let taken = Taken::apart(&document.bytes);
        let bundle = taken.bundle();
        assert_eq!(bundle.len(), 4);
        let with = |certificates: &[Vec<u8>]| {
            let mut taken = taken.clone();
            taken.set_bundle(certificates);
            verify(&taken.together(), &any_policy(), document.at)
        };
        with(&bundle).expect("the unchanged twin");
        assert_eq!(with(&bundle[1..]), Err(VerifyError::BadSignature));
        for dropped in 1..4 {
            let mut fewer = bundle.clone();
            fewer.remove(dropped);
            assert!(matches!(with(&fewer), Err(VerifyError::UntrustedChain(_))));
        }
        let mut orders = 0;
        for order in permutations(4) {
            let reordered: Vec<Vec<u8>> = order.iter().map(|at| bundle[*at].clone()).collect();
            if reordered != bundle {
                assert!(
                    matches!(with(&reordered), Err(VerifyError::UntrustedChain(_))),
                    "{order:?}"
                );
                orders += 1;
            }
        }
        assert_eq!(orders, 23);
        // Once more the root, each of them twice, and none at all.
        for at in 0..4 {
            let mut again = bundle.clone();
            again.insert(at, bundle[at].clone());
            assert!(matches!(with(&again), Err(VerifyError::UntrustedChain(_))));
        }
        assert_eq!(
            with(&[&bundle[..1], &bundle].concat()),
            Err(VerifyError::UntrustedChain(ChainError::Repeated {
                link: Link::Bundle(1)
            }))
        );
        assert!(matches!(
            with(&[]),
            Err(VerifyError::Malformed {
                field: "cabundle",
                ..
            })
        ));
    }
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..count {
        all = all
            .iter()
            .flat_map(|head: &Vec<usize>| {
                (0..count)
                    .filter(|next| !head.contains(next))
                    .map(|next| [head.as_slice(), &[next]].concat())
                    .collect::<Vec<_>>()
            })
            .collect();
    }
    all
}

#[test]
fn the_leaf_and_the_certificate_above_it_do_not_change_places() {
    for document in good() {
        let taken = Taken::apart(&document.bytes);
        let mut bundle = taken.bundle();
        let leaf = decode_unverified(&document.bytes)
            .expect("decodes")
            .certificate;
        let instance = bundle.pop().expect("the last");
        let with = |bundle: &[Vec<u8>], certificate: &[u8]| {
            let mut taken = taken.clone();
            taken.set_bundle(bundle);
            let mut out = Writer::new();
            out.bytes(certificate);
            taken.set("certificate", out.into_bytes());
            verify(&taken.together(), &any_policy(), document.at)
        };
        let right = [bundle.as_slice(), std::slice::from_ref(&instance)].concat();
        with(&right, &leaf).expect("the unchanged twin");
        let swapped = [bundle.as_slice(), std::slice::from_ref(&leaf)].concat();
        assert!(matches!(
            with(&swapped, &instance),
            Err(VerifyError::UntrustedChain(ChainError::Issuer {
                link: Link::Bundle(3)
            }))
        ));
        // The instance certificate leads to the root; it is an authority and no leaf.
        assert_eq!(
            with(&bundle, &instance),
            Err(VerifyError::UntrustedChain(ChainError::LeafIsAuthority))
        );
        assert!(matches!(
            with(&right, &instance),
            Err(VerifyError::UntrustedChain(ChainError::Issuer {
                link: Link::Leaf
            }))
        ));
    }
}

/// Another root of any kind: one of the simulator, and each certificate of the document's own chain,
/// which are authorities with P-384 keys. Trusting one of those is what the caller then asked for.
#[test]
fn a_foreign_root_is_refused() {
    let foreign = DevelopmentRoot::generate(UnixMillis(1_500_000_000_000)).expect("a root");
    let lasting = DevelopmentRoot::generate(UnixMillis(1_600_000_000_000)).expect("a root");
    for document in good() {
        verify(&document.bytes, &any_policy(), document.at).expect("the pinned root");
        for root in [&foreign, &lasting] {
            let policy = under(root.certificate_der());
            assert!(matches!(
                verify(&document.bytes, &policy, document.at),
                Err(VerifyError::UntrustedChain(_))
            ));
        }
        let bundle = Taken::apart(&document.bytes).bundle();
        verify(&document.bytes, &under(&bundle[0]), document.at)
            .expect("the same root, from a file");
        for middle in &bundle[1..] {
            assert!(matches!(
                verify(&document.bytes, &under(middle), document.at),
                Err(VerifyError::UntrustedChain(_))
            ));
        }
    }
}

/// Each bound of time, with and without leeway: the last moment inside, and a second beyond it.
#[test]
fn each_bound_of_time_is_exact() {
    let second = Duration::from_secs(1);
    let millisecond = Duration::from_millis(1);
    for document in good() {
        let verify = |policy: &cloister_attestation::PolicyBuilder, now: UnixMillis| {
            verify(
                &document.bytes,
                &policy.clone().build().expect("a policy"),
                now,
            )
        };
        let (begin, end) = window(&document.bytes);
        assert!(begin <= document.at && document.at < end);
        for leeway in [
            Duration::ZERO,
            Duration::from_secs(60),
            Duration::from_secs(3600),
        ] {
            let policy = any().leeway(leeway).max_age(Duration::from_secs(1 << 30));
            // The chain ends before the document is too old.
            verify(&policy, end.plus(leeway).minus(millisecond)).expect("the last millisecond");
            assert!(matches!(
                verify(&policy, end.plus(leeway)),
                Err(VerifyError::UntrustedChain(ChainError::Expired { .. }))
            ));
            // The document is too old before the chain ends.
            let age = Duration::from_millis((end.0 - document.at.0) / 2);
            let short = policy.clone().max_age(age);
            verify(&short, document.at.plus(age)).expect("as old as allowed");
            for late in [millisecond, second] {
                assert!(matches!(
                    verify(&short, document.at.plus(age).plus(late)),
                    Err(VerifyError::Stale { .. })
                ));
            }
            // A clock that is slow: the document is from the future, and before that, where the leaf was
            // made not longer ago, its chain is.
            let slow = document.at.minus(leeway);
            verify(&policy, slow).expect("as slow as allowed");
            let before = verify(&policy, slow.minus(second));
            if slow.minus(second).plus(leeway) >= begin {
                assert!(matches!(before, Err(VerifyError::FromTheFuture { .. })));
            } else {
                assert!(matches!(before, Err(VerifyError::UntrustedChain(_))));
            }
            assert!(matches!(
                verify(&policy, begin.minus(leeway).minus(millisecond)),
                Err(VerifyError::UntrustedChain(ChainError::NotYetValid { .. }))
            ));
        }
        for end_of_time in [0, u64::MAX] {
            verify(&any(), UnixMillis(end_of_time)).expect_err("another age of the world");
        }
    }
}
