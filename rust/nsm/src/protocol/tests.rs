//! Tests of the codec: both directions against each other, and against bytes of the real protocol.

use proptest::prelude::*;

use super::*;

fn requests() -> Vec<Request> {
    vec![
        Request::DescribeNsm,
        Request::GetRandom,
        Request::DescribePcr { index: 3 },
        Request::LockPcr { index: 300 },
        Request::LockPcrs { range: 16 },
        Request::ExtendPcr {
            index: 16,
            data: vec![7; 40],
        },
        Request::Attestation(DocumentRequest::default()),
        Request::Attestation(DocumentRequest {
            user_data: Some(vec![]),
            nonce: Some(vec![1; 512]),
            public_key: Some(vec![2; 1024]),
        }),
    ]
}

fn responses() -> Vec<Response> {
    vec![
        Response::LockPcr,
        Response::LockPcrs,
        Response::Error(ErrorCode::BufferTooSmall),
        Response::DescribePcr(Pcr {
            is_locked: true,
            value: vec![1; 48],
        }),
        Response::ExtendPcr { data: vec![1; 48] },
        Response::GetRandom {
            random: vec![1; 256],
        },
        Response::Attestation {
            document: vec![1; 5000],
        },
        Response::DescribeNsm(Description {
            version: (1, 0, 2),
            module_id: "i-1-enc2".to_owned(),
            max_pcrs: 32,
            locked_pcrs: vec![0, 1, 31],
            digest: "SHA384".to_owned(),
        }),
    ]
}

#[test]
fn what_is_written_is_read_back() {
    for request in requests() {
        assert_eq!(Request::decode(&request.encode().unwrap()), Ok(request));
    }
    for response in responses() {
        assert_eq!(Response::decode(&response.encode()).unwrap(), response);
    }
}

/// The bytes that the driver of AWS sends: serde's externally tagged form.
#[test]
fn requests_have_the_bytes_of_the_real_protocol() {
    assert_eq!(Request::DescribeNsm.encode().unwrap(), b"\x6bDescribeNSM");
    assert_eq!(
        Request::DescribePcr { index: 2 }.encode().unwrap(),
        b"\xa1\x6bDescribePCR\xa1\x65index\x02"
    );
    assert_eq!(
        Request::Attestation(DocumentRequest {
            nonce: Some(vec![9]),
            ..Default::default()
        })
        .encode()
        .unwrap(),
        b"\xa1\x6bAttestation\xa3\x69user_data\xf6\x65nonce\x41\x09\x6apublic_key\xf6"
    );
}

/// AWS's module and QEMU's write the fields in different orders, and a later one may add some.
#[test]
fn answers_are_read_in_any_order_with_unknown_fields() {
    let bytes = b"\xa1\x6bDescribePCR\xa3\x64data\x42\x01\x02\x63new\x82\x01\xf6\x64lock\xf5";
    assert_eq!(
        Response::decode(bytes).unwrap(),
        Response::DescribePcr(Pcr {
            is_locked: true,
            value: vec![1, 2]
        })
    );
}

#[test]
fn malformed_answers_are_refused() {
    for (bytes, problem) in [
        (&b"\xa1\x65Error\x63Odd"[..], "has an unknown error code"),
        (b"\xa1\x6bDescribePCR\xa1\x64lock\xf5", "lacks a field"),
        (
            b"\xa1\x6bDescribePCR\xa2\x64lock\xf5\x64lock\xf5",
            "has one field twice",
        ),
        (b"\x67LockPCR\x00", "has bytes after its end"),
        (b"\x63Odd", "is of an unknown kind"),
        (b"", "is cut short"),
    ] {
        match Response::decode(bytes) {
            Err(NsmError::Protocol { problem: found }) => {
                assert!(found == problem || bytes.is_empty(), "{found}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(
        Response::decode(&vec![0; MAX_RESPONSE_BYTES + 1]),
        Err(NsmError::Protocol { .. })
    ));
}

#[test]
fn requests_are_bounded_on_both_sides() {
    let huge = Request::ExtendPcr {
        index: 0,
        data: vec![0; MAX_REQUEST_BYTES],
    };
    assert!(matches!(
        huge.encode(),
        Err(NsmError::RequestTooLarge { .. })
    ));
    assert_eq!(
        Request::decode(&vec![0; MAX_REQUEST_BYTES + 1]),
        Err(ErrorCode::InputTooLarge)
    );
    assert_eq!(
        Request::decode(b"\x66Reboot"),
        Err(ErrorCode::InvalidOperation)
    );
    assert_eq!(
        Request::decode(b"\xa1\x67LockPCR\xa0"),
        Err(ErrorCode::InvalidOperation)
    );
}

proptest! {
    /// Neither side panics on bytes of the other's choice.
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let _ = Request::decode(&bytes);
        let _ = Response::decode(&bytes);
    }

    /// One byte changed in a real message is read or refused, and never panics.
    #[test]
    fn a_changed_byte_is_read_or_refused(which in 0_usize..8, at: prop::sample::Index, byte: u8) {
        let mut request = requests()[which].encode().unwrap();
        let position = at.index(request.len());
        request[position] = byte;
        let _ = Request::decode(&request);
        let mut response = responses()[which].encode();
        let position = at.index(response.len());
        response[position] = byte;
        let _ = Response::decode(&response);
    }
}
