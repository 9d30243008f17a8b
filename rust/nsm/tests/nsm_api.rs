//! Our codec beside AWS's own (`aws-nitro-enclaves-nsm-api` with `serde_cbor`, as its driver uses
//! them): the same bytes for every message, and each reads what the other wrote.

#![expect(
    clippy::tests_outside_test_module,
    reason = "integration tests are their own crate"
)]

use aws_nitro_enclaves_nsm_api::api;
use cloister_nsm::protocol::{
    MAX_PUBLIC_KEY_BYTES, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, MAX_USER_DATA_BYTES, Request,
    Response,
};
use cloister_nsm::{Description, DocumentRequest, ErrorCode, Pcr};
use proptest::option;
use proptest::prelude::*;

fn requests() -> impl Strategy<Value = Request> {
    let bytes = |limit| option::of(prop::collection::vec(any::<u8>(), 0..limit));
    prop_oneof![
        Just(Request::DescribeNsm),
        Just(Request::GetRandom),
        any::<u16>().prop_map(|index| Request::DescribePcr { index }),
        any::<u16>().prop_map(|index| Request::LockPcr { index }),
        any::<u16>().prop_map(|range| Request::LockPcrs { range }),
        (any::<u16>(), prop::collection::vec(any::<u8>(), 0..600))
            .prop_map(|(index, data)| Request::ExtendPcr { index, data }),
        (
            bytes(MAX_USER_DATA_BYTES),
            bytes(MAX_USER_DATA_BYTES),
            bytes(MAX_PUBLIC_KEY_BYTES)
        )
            .prop_map(|(user_data, nonce, public_key)| Request::Attestation(
                DocumentRequest {
                    user_data,
                    nonce,
                    public_key,
                }
            )),
    ]
}

fn responses() -> impl Strategy<Value = Response> {
    let bytes = |limit| prop::collection::vec(any::<u8>(), 0..limit);
    let codes = prop::sample::select(&CODES[..]);
    prop_oneof![
        Just(Response::LockPcr),
        Just(Response::LockPcrs),
        codes.prop_map(|(ours, _)| Response::Error(ours)),
        (any::<bool>(), bytes(64))
            .prop_map(|(is_locked, value)| Response::DescribePcr(Pcr { is_locked, value })),
        bytes(64).prop_map(|data| Response::ExtendPcr { data }),
        bytes(300).prop_map(|random| Response::GetRandom { random }),
        bytes(9000).prop_map(|document| Response::Attestation { document }),
        (
            any::<(u16, u16, u16)>(),
            "[a-z0-9-]{0,64}",
            any::<u16>(),
            prop::collection::btree_set(0_u16..300, 0..32)
        )
            .prop_map(|(version, module_id, max_pcrs, locked)| {
                Response::DescribeNsm(Description {
                    version,
                    module_id,
                    max_pcrs,
                    locked_pcrs: locked.into_iter().collect(),
                    digest: "SHA384".to_owned(),
                })
            }),
    ]
}

proptest! {
    #[test]
    fn a_request_has_the_bytes_of_theirs(request in requests()) {
        let bytes = request.encode().expect("within the limit");
        let theirs = serde_cbor::to_vec(&as_theirs(&request)).expect("encodes");
        prop_assert_eq!(&bytes, &theirs);
        prop_assert_eq!(Request::decode(&theirs), Ok(request));
    }

    #[test]
    fn an_answer_has_the_bytes_of_theirs(response in responses()) {
        let bytes = response.encode();
        let theirs: api::Response = serde_cbor::from_slice(&bytes).expect("theirs reads ours");
        prop_assert_eq!(&serde_cbor::to_vec(&theirs).expect("encodes"), &bytes);
        prop_assert_eq!(Response::decode(&bytes).expect("ours"), response);
    }

    /// What theirs reads as a request and ours does not, or the other way round, would be a difference
    /// that nobody chose. Theirs also takes maps with a length of their own and text for bytes.
    #[test]
    fn a_changed_request_is_read_alike(
        request in requests(), at: prop::sample::Index, byte: u8
    ) {
        let mut bytes = request.encode().expect("within the limit");
        let position = at.index(bytes.len());
        bytes[position] = byte;
        if let Ok(ours) = Request::decode(&bytes) {
            let theirs: api::Request = serde_cbor::from_slice(&bytes).expect("ours reads no more");
            prop_assert_eq!(
                serde_cbor::to_vec(&theirs).expect("encodes"),
                ours.encode().expect("within the limit")
            );
        }
    }
}

/// Every code that theirs has, but for `Success`, which is no refusal.
#[test]
fn the_error_codes_have_the_names_of_theirs() {
    for (ours, theirs) in CODES {
        let bytes = serde_cbor::to_vec(&api::Response::Error(theirs())).expect("encodes");
        assert_eq!(Response::Error(ours).encode(), bytes);
        assert_eq!(
            Response::decode(&bytes).expect("ours"),
            Response::Error(ours)
        );
        assert_eq!(ErrorCode::from_name(ours.name()), Some(ours));
    }
    let success = serde_cbor::to_vec(&api::Response::Error(api::ErrorCode::Success));
    Response::decode(&success.expect("encodes")).expect_err("not a refusal, and not an answer");
}

/// A digest that no NSM uses yet is read; whoever needs SHA-384 looks.
#[test]
fn a_description_with_another_digest_is_read() {
    let theirs = api::Response::DescribeNSM {
        version_major: 1,
        version_minor: 0,
        version_patch: 0,
        module_id: "i-1-enc2".to_owned(),
        max_pcrs: 32,
        locked_pcrs: [16, 0, 3].into_iter().collect(),
        digest: api::Digest::SHA512,
    };
    let bytes = serde_cbor::to_vec(&theirs).expect("encodes");
    let Response::DescribeNsm(description) = Response::decode(&bytes).expect("ours") else {
        panic!("a description");
    };
    assert_eq!(description.digest, "SHA512");
    assert_eq!(description.locked_pcrs, [0, 3, 16]);
}

/// The largest attestation request that the limits allow fits into the driver's buffer, and the
/// buffers are the driver's (`include/uapi/linux/nsm.h`, `NSM_REQUEST_MAX_SIZE`, `NSM_RESPONSE_MAX_SIZE`).
#[test]
fn the_limits_of_the_fields_fit_into_those_of_the_driver() {
    assert_eq!((MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES), (0x1000, 0x3000));
    let largest = Request::Attestation(DocumentRequest {
        user_data: Some(vec![0; MAX_USER_DATA_BYTES]),
        nonce: Some(vec![0; MAX_USER_DATA_BYTES]),
        public_key: Some(vec![0; MAX_PUBLIC_KEY_BYTES]),
    });
    assert!(largest.encode().expect("fits").len() <= MAX_REQUEST_BYTES);
}

fn as_theirs(request: &Request) -> api::Request {
    match request.clone() {
        Request::Attestation(fields) => api::Request::Attestation {
            user_data: fields.user_data.map(Into::into),
            nonce: fields.nonce.map(Into::into),
            public_key: fields.public_key.map(Into::into),
        },
        Request::DescribeNsm => api::Request::DescribeNSM,
        Request::DescribePcr { index } => api::Request::DescribePCR { index },
        Request::ExtendPcr { index, data } => api::Request::ExtendPCR { index, data },
        Request::GetRandom => api::Request::GetRandom,
        Request::LockPcr { index } => api::Request::LockPCR { index },
        Request::LockPcrs { range } => api::Request::LockPCRs { range },
    }
}

/// Theirs cannot be copied, so it is made anew each time.
type Theirs = fn() -> api::ErrorCode;

const CODES: [(ErrorCode, Theirs); 8] = [
    (ErrorCode::BufferTooSmall, || api::ErrorCode::BufferTooSmall),
    (ErrorCode::InputTooLarge, || api::ErrorCode::InputTooLarge),
    (ErrorCode::InternalError, || api::ErrorCode::InternalError),
    (ErrorCode::InvalidArgument, || {
        api::ErrorCode::InvalidArgument
    }),
    (ErrorCode::InvalidIndex, || api::ErrorCode::InvalidIndex),
    (ErrorCode::InvalidOperation, || {
        api::ErrorCode::InvalidOperation
    }),
    (ErrorCode::InvalidResponse, || {
        api::ErrorCode::InvalidResponse
    }),
    (ErrorCode::ReadOnlyIndex, || api::ErrorCode::ReadOnlyIndex),
];
