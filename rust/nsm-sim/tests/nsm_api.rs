//! The simulator as AWS's own client sees it (`aws-nitro-enclaves-nsm-api` with `serde_cbor`): every
//! request of that client, every answer read by it, and documents by its own structure.
//!
//! What is answered to wrong requests follows the description of the codes there, and, where it
//! leaves a choice, QEMU's `hw/virtio/virtio-nsm.c`: the index is looked at before the lock.

#![expect(
    clippy::tests_outside_test_module,
    reason = "integration tests are their own crate"
)]
#![expect(clippy::expect_used, clippy::panic, reason = "tests")]

use aws_nitro_enclaves_nsm_api::api::{AttestationDoc, Digest, ErrorCode, Request, Response};
use cloister_attestation::{UnixMillis, decode_unverified};
use cloister_nsm_sim::{DevelopmentRoot, Simulator};
use serde_bytes::ByteBuf;

const NOW: UnixMillis = UnixMillis(1_790_000_000_123);
const ZERO: [u8; 48] = [0; 48];

struct Client {
    simulator: Simulator,
}

impl Client {
    fn new() -> Self {
        let root = DevelopmentRoot::generate(NOW).expect("a root");
        let pcrs = [(0, [0x11; 48]), (4, [0x44; 48])];
        let simulator = Simulator::new(&root, pcrs, "i-sim-enc1", NOW).expect("a simulator");
        Self { simulator }
    }

    /// As `nsm_process_request` of theirs, with the simulator for the driver.
    fn ask(&mut self, request: &Request) -> Response {
        let bytes = serde_cbor::to_vec(request).expect("encodes");
        let answer = self.simulator.handle(&bytes, NOW);
        serde_cbor::from_slice(&answer).expect("theirs reads ours")
    }

    /// The refusal of a request, by the name of its code.
    fn refusal(&mut self, request: &Request) -> String {
        match self.ask(request) {
            Response::Error(code) => format!("{code:?}"),
            other => panic!("{request:?} was answered: {other:?}"),
        }
    }
}

fn attestation(user_data: usize, nonce: usize, public_key: usize) -> Request {
    let bytes = |length| Some(ByteBuf::from(vec![7; length]));
    Request::Attestation {
        user_data: bytes(user_data),
        nonce: bytes(nonce),
        public_key: bytes(public_key),
    }
}

#[test]
fn their_client_gets_what_it_asks_for() {
    let mut client = Client::new();
    let Response::DescribeNSM {
        version_major,
        module_id,
        max_pcrs,
        locked_pcrs,
        digest,
        ..
    } = client.ask(&Request::DescribeNSM)
    else {
        panic!("a description");
    };
    assert_eq!((version_major, max_pcrs), (1, 32));
    assert_eq!(module_id, "i-sim-enc1");
    assert_eq!(locked_pcrs, (0..16).collect());
    assert_eq!(digest, Digest::SHA384);

    let mut pcr = |request: &Request| match client.ask(request) {
        Response::DescribePCR { lock, data } => (lock, data),
        Response::ExtendPCR { data } => (false, data),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        pcr(&Request::DescribePCR { index: 0 }),
        (true, vec![0x11; 48])
    );
    assert_eq!(
        pcr(&Request::DescribePCR { index: 31 }),
        (false, ZERO.to_vec())
    );
    let data = b"model".to_vec();
    let (_, extended) = pcr(&Request::ExtendPCR { index: 16, data });
    assert_eq!(pcr(&Request::DescribePCR { index: 16 }), (false, extended));

    assert!(matches!(
        client.ask(&Request::LockPCR { index: 16 }),
        Response::LockPCR
    ));
    assert!(matches!(
        client.ask(&Request::LockPCRs { range: 20 }),
        Response::LockPCRs
    ));
    let Response::GetRandom { random } = client.ask(&Request::GetRandom) else {
        panic!("entropy");
    };
    assert_eq!(random.len(), 256);
}

#[test]
fn a_document_is_read_by_their_structure() {
    let mut client = Client::new();
    let Response::Attestation { document } = client.ask(&attestation(512, 512, 1024)) else {
        panic!("a document");
    };
    let ours = decode_unverified(&document).expect("decodes");
    // COSE_Sign1 without its tag: protected, unprotected, payload, signature.
    let parts: (ByteBuf, serde_cbor::Value, ByteBuf, ByteBuf) =
        serde_cbor::from_slice(&document).expect("an array of four");
    assert_eq!(parts.0.as_slice(), b"\xa1\x01\x38\x22");
    assert_eq!(parts.3.len(), 96);
    let theirs = AttestationDoc::from_binary(&parts.2).expect("a payload");
    assert_eq!(theirs.module_id, ours.module_id);
    assert_eq!(theirs.digest, Digest::SHA384);
    assert_eq!(theirs.timestamp, NOW.0);
    assert_eq!(
        theirs.pcrs.keys().copied().collect::<Vec<_>>(),
        (0..16).collect::<Vec<_>>()
    );
    assert_eq!(theirs.pcrs[&4].as_slice(), [0x44; 48]);
    assert_eq!(theirs.cabundle.len(), 4);
    assert_eq!(theirs.certificate.as_slice(), ours.certificate);
    let field = |length| Some(ByteBuf::from(vec![7; length]));
    assert_eq!(theirs.user_data, field(512));
    assert_eq!(theirs.nonce, field(512));
    assert_eq!(theirs.public_key, field(1024));
}

#[test]
fn a_document_without_fields_has_nulls() {
    let mut client = Client::new();
    let nothing = Request::Attestation {
        user_data: None,
        nonce: None,
        public_key: None,
    };
    let Response::Attestation { document } = client.ask(&nothing) else {
        panic!("a document");
    };
    let ours = decode_unverified(&document).expect("decodes");
    assert_eq!(
        (ours.user_data, ours.nonce, ours.public_key),
        (None, None, None)
    );
    // QEMU's takes a map without any field, too.
    let answer = client.simulator.handle(b"\xa1\x6bAttestation\xa0", NOW);
    let answer: Response = serde_cbor::from_slice(&answer).expect("theirs reads ours");
    assert!(matches!(answer, Response::Attestation { .. }));
}

#[test]
fn refusals_have_their_codes() {
    let mut client = Client::new();
    let extend = |index, length| Request::ExtendPCR {
        index,
        data: vec![0; length],
    };
    for (request, code) in [
        (Request::DescribePCR { index: 32 }, ErrorCode::InvalidIndex),
        (
            Request::DescribePCR { index: u16::MAX },
            ErrorCode::InvalidIndex,
        ),
        (extend(32, 1), ErrorCode::InvalidIndex),
        (extend(0, 1), ErrorCode::ReadOnlyIndex),
        (Request::LockPCR { index: 32 }, ErrorCode::InvalidIndex),
        (Request::LockPCR { index: 15 }, ErrorCode::ReadOnlyIndex),
        (Request::LockPCRs { range: 33 }, ErrorCode::InvalidIndex),
        (attestation(513, 0, 0), ErrorCode::InputTooLarge),
        (attestation(0, 513, 0), ErrorCode::InputTooLarge),
        (attestation(0, 0, 1025), ErrorCode::InputTooLarge),
        // Longer than the driver's buffer; their client does not even send it.
        (extend(16, 0x1000), ErrorCode::InputTooLarge),
    ] {
        assert_eq!(client.refusal(&request), format!("{code:?}"), "{request:?}");
    }
    // Nothing of it changed anything.
    assert!(matches!(
        client.ask(&Request::DescribePCR { index: 16 }),
        Response::DescribePCR { lock: false, data } if data == ZERO
    ));
}
