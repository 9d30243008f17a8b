use super::*;
use proptest::prelude::*;

fn sample(v6: bool) -> Header {
    let (source, destination) = if v6 {
        ("[2001:db8::7]:4000", "[::1]:443")
    } else {
        ("192.0.2.7:4000", "127.0.0.1:443")
    };
    Header::Tcp {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

fn encoded(header: &Header) -> Vec<u8> {
    let mut out = Vec::new();
    encode(header, &mut out);
    out
}

/// A header of these parts.
fn made(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, body].concat()
}

fn complete(header: Header, bytes: &[u8]) -> Parsed {
    let consumed = bytes.len();
    Parsed::Complete { header, consumed }
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let size = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[kind], &size[..], value].concat()
}

const ADDRESSES: [u8; 12] = [192, 0, 2, 7, 127, 0, 0, 1, 0x0F, 0xA0, 0x01, 0xBB];

#[test]
fn what_was_written_is_read_at_every_length() {
    for header in [
        Header::Local,
        Header::Unspecified,
        sample(false),
        sample(true),
    ] {
        let mut bytes = encoded(&header);
        let consumed = bytes.len();
        for short in 0..consumed {
            assert_eq!(parse(&bytes[..short]), Ok(Parsed::Incomplete), "{short}");
        }
        bytes.extend(b"\x16\x03\x01");
        assert_eq!(parse(&bytes), Ok(Parsed::Complete { header, consumed }));
    }
}

/// What `HAProxy` 2.6 sent with `send-proxy-v2 proxy-v2-options …` for a client that named
/// `example.org` (tests/vectors/SOURCES.md).
const HAPROXY: &[u8] = include_bytes!("../../../../tests/vectors/proxy/haproxy-tlvs");
/// What `HAProxy` 2.6 sent for a check of its own, with the same options.
const HAPROXY_CHECK: &[u8] = include_bytes!("../../../../tests/vectors/proxy/haproxy-check");

#[test]
fn a_header_of_haproxy_with_its_tlvs_is_read() {
    let Ok(Parsed::Complete { header, consumed }) = parse(HAPROXY) else {
        panic!("{:?}", parse(HAPROXY));
    };
    assert_eq!(consumed, HAPROXY.len());
    let Header::Tcp { source, .. } = header else {
        panic!("{header:?}");
    };
    assert_eq!(source.ip().to_string(), "127.0.0.1");
    assert_eq!(
        parse(HAPROXY_CHECK),
        Ok(complete(Header::Local, HAPROXY_CHECK))
    );
}

/// Each byte of a header with a checksum is one that the checksum notices.
#[test]
fn a_header_of_haproxy_with_a_flipped_bit_is_not_believed() {
    for position in 0..HAPROXY.len() {
        let mut bytes = HAPROXY.to_vec();
        bytes[position] ^= 1;
        let judged = parse(&bytes);
        // LOCAL (byte 12) says nothing that could be wrong, a length that grew waits for more, and
        // with another type (byte 28) the checksum is none.
        let is_harmless = match (position, judged) {
            (12, Ok(Parsed::Complete { header, .. })) => header == Header::Local,
            (_, Ok(Parsed::Incomplete)) => position == 15 || position == 14,
            (28, judged) => judged == parse(HAPROXY),
            (_, judged) => judged.is_err(),
        };
        assert!(is_harmless, "byte {position}: {judged:?}");
    }
}

#[test]
fn tlvs_are_passed_over_within_the_limit() {
    let body = [&ADDRESSES[..], &tlv(4, &[1, 1]), &tlv(0xE0, &[])].concat();
    let bytes = made(0x21, 0x11, &body);
    assert_eq!(parse(&bytes), Ok(complete(sample(false), &bytes)));

    let room = MAX_HEADER_BYTES - 16 - 12 - 3;
    let bytes = made(
        0x21,
        0x11,
        &[&ADDRESSES[..], &tlv(4, &vec![0; room])].concat(),
    );
    assert_eq!(parse(&bytes), Ok(complete(sample(false), &bytes)));
    let bytes = made(
        0x21,
        0x11,
        &[&ADDRESSES[..], &tlv(4, &vec![0; room + 1])].concat(),
    );
    // It is known by the length alone: nothing of it is waited for.
    let length = MAX_HEADER_BYTES + 1;
    assert_eq!(parse(&bytes[..16]), Err(ProxyError::TooLong { length }));
}

#[test]
fn a_tlv_that_does_not_fit_is_refused() {
    for (bad, kind) in [
        (vec![4], 4),
        (vec![4, 0], 4),
        (vec![4, 0, 3, 1, 1], 4),
        (tlv(CRC32C, &[1, 2, 3]), CRC32C),
        ([tlv(4, &[]), vec![0x20, 0xFF, 0xFF]].concat(), 0x20),
    ] {
        let bytes = made(0x21, 0x11, &[&ADDRESSES[..], &bad].concat());
        assert_eq!(parse(&bytes), Err(ProxyError::Tlv { kind }), "{bad:?}");
    }
}

/// §2.2: a receiver may fall back to UNSPEC for what it does not use, and must accept LOCAL whatever
/// its family says.
#[test]
fn what_has_no_address_of_ip_is_accepted_without_one() {
    for (family, size) in [
        (0x00, 0),
        (0x00, 7),
        (0x12, 12),
        (0x22, 36),
        (0x31, 216),
        (0x32, 216),
    ] {
        let bytes = made(0x21, family, &vec![0xAA; size]);
        assert_eq!(
            parse(&bytes),
            Ok(complete(Header::Unspecified, &bytes)),
            "{family:#04x}"
        );
        let short = made(0x21, family, &vec![0xAA; size.saturating_sub(1)]);
        let expected = if family == 0 {
            Ok(complete(Header::Unspecified, &short))
        } else {
            let length = size - 1;
            Err(ProxyError::TooShort {
                length,
                expected: size,
            })
        };
        assert_eq!(parse(&short), expected, "{family:#04x}");
    }
    for family in 0..=u8::MAX {
        let bytes = made(0x20, family, &[0xAA; 5]);
        assert_eq!(
            parse(&bytes),
            Ok(complete(Header::Local, &bytes)),
            "{family:#04x}"
        );
    }
}

/// §2.2: other values "must be rejected as invalid by receivers".
#[test]
fn a_family_or_protocol_that_does_not_exist_is_refused() {
    let listed = [0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32];
    for family in 0..=u8::MAX {
        let judged = parse(&made(0x21, family, &[0; 216]));
        let is_refused = judged == Err(ProxyError::Family(family));
        assert_eq!(
            is_refused,
            !listed.contains(&family),
            "{family:#04x}: {judged:?}"
        );
    }
}

#[test]
fn what_is_no_header_is_refused_at_once() {
    assert_eq!(parse(b"\x16\x03\x01"), Err(ProxyError::Signature));
    assert_eq!(parse(b"PUT"), Err(ProxyError::Signature));
    let wrong = |at: usize, byte: u8| {
        let mut bytes = encoded(&sample(false));
        bytes[at] = byte;
        parse(&bytes)
    };
    assert_eq!(wrong(12, 0x11), Err(ProxyError::Version(0x11)));
    assert_eq!(wrong(12, 0x22), Err(ProxyError::Version(0x22)));
    let (length, expected) = (11, 12);
    assert_eq!(
        wrong(15, 11),
        Err(ProxyError::TooShort { length, expected })
    );
}

#[test]
fn version_one_is_refused_by_its_name() {
    let line = b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 443\r\n";
    for end in 0..line.len() {
        let expected = if end < 6 {
            Ok(Parsed::Incomplete)
        } else {
            Err(ProxyError::VersionOne)
        };
        assert_eq!(parse(&line[..end]), expected, "{end}");
    }
    assert!(ProxyError::VersionOne.to_string().contains("send-proxy-v2"));
}

fn tlvs() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let one = (
        any::<u8>().prop_filter("a checksum", |kind| *kind != CRC32C),
        prop::collection::vec(any::<u8>(), 0..300),
    );
    prop::collection::vec(one, 0..6)
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut long = SIGNATURE.to_vec();
        long.extend(&bytes);
        for input in [&bytes, &long] {
            if let Ok(Parsed::Complete { consumed, .. }) = parse(input) {
                prop_assert!(consumed <= input.len());
            }
        }
    }

    /// Whatever TLVs stand around it, a right checksum is right and any other is not.
    #[test]
    fn a_checksum_is_checked_wherever_it_stands(
        before in tlvs(),
        after in tlvs(),
        v6 in any::<bool>(),
        wrong in 1_u32..,
    ) {
        let write = |list: &[(u8, Vec<u8>)]| list.iter().flat_map(|(k, v)| tlv(*k, v)).collect::<Vec<_>>();
        let header = sample(v6);
        let plain = encoded(&header);
        let at = [plain.len(), write(&before).len(), 3].into_iter().sum::<usize>();
        let sum_at = at..at.saturating_add(4);
        let body = [&plain[16..], &write(&before), &tlv(CRC32C, &[0; 4]), &write(&after)].concat();
        let mut bytes = made(0x21, plain[13], &body);
        let sum = crc32c::with_zeros(&bytes, 0..0);
        bytes[sum_at.clone()].copy_from_slice(&sum.to_be_bytes());
        prop_assert_eq!(parse(&bytes), Ok(complete(header, &bytes)));
        bytes[sum_at].copy_from_slice(&(sum ^ wrong).to_be_bytes());
        prop_assert_eq!(parse(&bytes), Err(ProxyError::Checksum));
    }

    /// Two bytes of a length may not make this read or wait for more than the limit.
    #[test]
    fn no_length_is_waited_for_beyond_the_limit(length in any::<u16>(), family in any::<u8>()) {
        let mut bytes = made(0x21, family, &[]);
        bytes[14..16].copy_from_slice(&length.to_be_bytes());
        let waits = parse(&bytes) == Ok(Parsed::Incomplete);
        prop_assert!(!waits || usize::from(length) + 16 <= MAX_HEADER_BYTES);
    }
}
