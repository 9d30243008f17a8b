use proptest::prelude::*;

use super::super::ScanLimits;
use super::super::tests::{
    POLICY, assert_same_however_cut, keyring, scan, scan_paused, text, token,
};
use super::*;
use crate::keys::AppPrivateKey;
use crate::open::OpenSession;
use crate::place::place_for;
use crate::scan::multipart::delimiter::MAX_PADDING;
use crate::seal::tests::Counting;
use crate::seal_file::seal_file;
use crate::version::ValueType;

const TYPE: &[u8] = b"multipart/form-data; boundary=XyZ";

fn place() -> Place {
    place_for(Some(TYPE)).unwrap()
}

fn parts(body: &str) -> String {
    let whole = scan(place(), &[body.as_bytes()]);
    let singles: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
    assert_eq!(scan(place(), &singles), whole);
    for pieces in [&[body.as_bytes()], singles.as_slice()] {
        let paused = scan_paused(place(), pieces).map(|(out, _)| out);
        assert_eq!(paused, whole, "paused");
    }
    String::from_utf8(whole.unwrap()).unwrap()
}

/// A part with head lines and content.
fn part(head: &str, content: &str) -> String {
    let head = head.replace('\n', "\r\n");
    format!("--XyZ\r\nContent-Disposition: form-data; name=\"f\"\r\n{head}\r\n{content}\r\n")
}

fn body(parts: &[(&str, &str)]) -> String {
    let parts: String = parts
        .iter()
        .map(|(head, content)| part(head, content))
        .collect();
    format!("{parts}--XyZ--\r\n")
}

fn sealed_file(clear: &[u8]) -> Vec<u8> {
    let app = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
    seal_file(clear, app.public(), &mut Counting(9)).unwrap()
}

#[test]
fn each_part_is_scanned_as_what_it_is() {
    let made = text("a \"b\"\\\nc&d");
    let number = token(b"7", ValueType::Number);
    let json = format!("{{\"k\":\"{made}\",\"n\":\"{number}\"}}");
    let form = format!("v={made}");
    let plain = format!("pre {made} post");
    let given = body(&[
        ("Content-Type: text/plain\n", &plain),
        ("content-type: application/json; charset=utf-8\n", &json),
        ("Content-Type: application/x-www-form-urlencoded\n", &form),
        ("", &made),
        ("", &json),
        ("Content-Type: application/octet-stream\n", &made),
        ("Content-Type: image/png\n", &plain),
        ("Content-Transfer-Encoding: 8bit\n", &made),
        ("Content-Transfer-Encoding: base64\n", &made),
        ("Content-Type: text/plain\nContent-Type: text/html\n", &made),
        ("Content-Type: text/plain;\n x=y\n", &made),
        ("Content-Type: multipart/mixed; boundary=in\n", &made),
    ]);
    let opened_json = r#"{"k":"a \"b\"\\\nc&d","n":7}"#;
    let expected = body(&[
        ("Content-Type: text/plain\n", "pre a \"b\"\\\nc&d post"),
        (
            "content-type: application/json; charset=utf-8\n",
            opened_json,
        ),
        (
            "Content-Type: application/x-www-form-urlencoded\n",
            "v=a+%22b%22%5C%0Ac%26d",
        ),
        ("", "a \"b\"\\\nc&d"),
        ("", opened_json),
        ("Content-Type: application/octet-stream\n", &made),
        ("Content-Type: image/png\n", &plain),
        ("Content-Transfer-Encoding: 8bit\n", "a \"b\"\\\nc&d"),
        ("Content-Transfer-Encoding: base64\n", &made),
        ("Content-Type: text/plain\nContent-Type: text/html\n", &made),
        ("Content-Type: text/plain;\n x=y\n", &made),
        ("Content-Type: multipart/mixed; boundary=in\n", &made),
    ]);
    assert_eq!(parts(&given), expected);
}

#[test]
fn everything_around_the_parts_passes() {
    let made = text("x");
    for given in [
        format!("preamble {made}\r\n{}epilogue {made}", body(&[("", "v")])),
        body(&[]),
        body(&[("", "")]),
        "--XyZ".to_owned(),
        "--XyZ--".to_owned(),
        "--XyZ\r\n\r\n\r\n--XyZ--".to_owned(),
        format!("--XyZ\r\nno end of a head {made}"),
        format!("no delimiter {made}"),
        String::new(),
        "\r\n--Xy".to_owned(),
    ] {
        assert_eq!(parts(&given), given);
    }
    let given = format!("--XyZ\r\nname: {made}\r\n\r\n{made}\r\n--XyZ--{made}");
    assert_eq!(
        parts(&given),
        given.replacen(&format!("\r\n\r\n{made}"), "\r\n\r\nx", 1)
    );
}

#[test]
fn lenient_readers_delimiters_are_delimiters() {
    let made = text("x");
    for end in ["\n--XyZ", "\r\n--XyZ", "\n--XyZ \t", "\r\n--XyZ\r"] {
        let given = format!("--XyZ\n\n{made}{end}\nContent-Type: image/png\n\n{made}\n--XyZ--");
        let expected = format!("--XyZ\n\nx{end}\nContent-Type: image/png\n\n{made}\n--XyZ--");
        assert_eq!(parts(&given), expected);
    }
    // Something that only begins like one is content.
    let given = body(&[(
        "",
        &format!("a\r\n--XyZW\r\nContent-Type: image/png\r\n\r\n{made}"),
    )]);
    assert_eq!(parts(&given), given.replace(&made, "x"));
}

/// A part whose head breaks off at a delimiter, which some readers take for the next part.
#[test]
fn t05_a_head_ends_where_its_part_does() {
    let made = text("x");
    let given = format!(
        "--XyZ\r\nContent-Type: text/plain\r\n--XyZ\r\nContent-Type: image/png\r\n\r\n{made}\r\n--XyZ--"
    );
    assert_eq!(parts(&given), given);
}

#[test]
fn t05_a_clear_text_cannot_begin_a_part() {
    for clear in [
        "\r\n--XyZ\r\nContent-Disposition: form-data; name=\"admin\"\r\n\r\ntrue",
        "\n--XyZ--",
        "--XyZ\r\n",
    ] {
        let given = body(&[("", &text(clear))]);
        let error = scan(place(), &[given.as_bytes()]).unwrap_err();
        assert_eq!(error.reason, OpenError::CannotStand, "{clear}");
        let singles: Vec<&[u8]> = given.as_bytes().chunks(1).collect();
        assert_eq!(
            scan(place(), &singles).unwrap_err().reason,
            OpenError::CannotStand
        );
    }
    // Half of it from the body and half from the clear text.
    let given = body(&[("", &format!("a\r\n--X{}", text("yZ\r\n\r\n")))]);
    assert_eq!(
        scan(place(), &[given.as_bytes()]).unwrap_err().reason,
        OpenError::CannotStand
    );
    // In JSON its line feed is escaped, so it begins nothing.
    let json = format!("{{\"k\":\"{}\"}}", text("\r\n--XyZ--"));
    let given = body(&[("Content-Type: application/json\n", &json)]);
    assert!(parts(&given).contains("\\r\\n--XyZ--"));
    assert!(parts(&body(&[("", &text("--Xy\r\n-XyZ"))])).contains("--Xy\r\n-XyZ"));
}

/// As much white space as is looked past behind a boundary, and one more: whether that is a
/// delimiter, readers may disagree, so nothing behind it is opened.
#[test]
fn t05_padding_behind_a_boundary_has_one_limit_however_it_arrives() {
    let made = text("x");
    for (padding, is_opened) in [(MAX_PADDING, true), (MAX_PADDING + 1, false)] {
        let given = format!("--XyZ\r\n\r\na\n--XyZ{}\n\n{made}", "\r".repeat(padding));
        let expected = if is_opened {
            given.replace(&made, "x")
        } else {
            given.clone()
        };
        assert_eq!(parts(&given), expected);
    }
}

/// Where the look across the seam of two pieces ends, the part does not.
#[test]
fn what_only_begins_like_a_delimiter_may_stand_anywhere_behind_a_token() {
    for padding in 0..2 * MAX_PADDING {
        let content = format!("{}{}\r\n--XyZ-e: x", text("a"), "p".repeat(padding));
        let given = body(&[("", &content)]);
        assert!(parts(&given).contains("p\r\n--XyZ-e") || padding == 0);
    }
}

fn file_part(file: &[u8]) -> Vec<u8> {
    let mut given = b"--XyZ\r\nContent-Disposition: form-data; name=f; filename=a.png\r\n".to_vec();
    given.extend_from_slice(b"Content-Type: image/png\r\n\r\n");
    given.extend_from_slice(file);
    given.extend_from_slice(b"\r\n--XyZ--\r\n");
    given
}

#[test]
fn an_encrypted_file_is_opened_whatever_its_type() {
    for clear in [&b""[..], b"\x00\xff\r\n--Xy", &[7; 10_000]] {
        let given = file_part(&sealed_file(clear));
        let expected = file_part(clear);
        let pieces: Vec<&[u8]> = given.chunks(997).collect();
        assert_eq!(scan(place(), &[&given]).unwrap(), expected);
        assert_eq!(scan(place(), &pieces).unwrap(), expected);
    }
}

#[test]
fn an_encrypted_file_that_was_changed_is_refused_or_passes_as_it_is() {
    let file = sealed_file(b"clear text");
    // Whole, and of nobody's key: refused.
    let mut foreign = file.clone();
    let middle = 60;
    foreign[middle] ^= 1;
    let covered = foreign.len() - 4;
    let checksum = crc32fast::hash(&foreign[..covered]).to_le_bytes();
    foreign[covered..].copy_from_slice(&checksum);
    let error = scan(place(), &[&file_part(&foreign)]).unwrap_err();
    assert_eq!(error.reason, OpenError::CannotOpen);
    // Damaged, or only starting like one: it is no file of ours.
    let mut damaged = file.clone();
    damaged[middle] ^= 1;
    for other in [
        damaged,
        b"%EVENC".to_vec(),
        b"%EVENCODED text".to_vec(),
        file[..70].to_vec(),
    ] {
        let given = file_part(&other);
        assert_eq!(scan(place(), &[&given]).unwrap(), given);
    }
    // Nothing of it is written before its tag was checked.
    let keyring = keyring();
    let mut session = OpenSession::new(&keyring, POLICY);
    let mut scanner = Scanner::new(place(), ScanLimits::default());
    let given = file_part(&file);
    let mut out = Vec::new();
    scanner
        .push(&given[..given.len() - 20], &mut out, &mut session)
        .unwrap();
    assert!(out.ends_with(b"\r\n\r\n"));
}

#[test]
fn a_file_that_holds_a_delimiter_is_refused() {
    for clear in [&b"x\r\n--XyZ--"[..], b"--XyZ\r\n"] {
        let given = file_part(&sealed_file(clear));
        assert_eq!(
            scan(place(), &[&given]).unwrap_err().reason,
            OpenError::CannotStand
        );
    }
}

#[test]
fn a_file_over_the_limit_is_refused_before_more_of_it_is_held() {
    let keyring = keyring();
    let file = sealed_file(&[0; 4096]);
    for (max_file, is_fine) in [(4096, false), (5000, true)] {
        let mut session = OpenSession::new(&keyring, POLICY);
        let limits = ScanLimits {
            max_file,
            ..ScanLimits::default()
        };
        let mut scanner = Scanner::new(place(), limits);
        let mut out = Vec::new();
        let mut most = 0;
        let pushed = file_part(&file).chunks(64).try_for_each(|piece| {
            let result = scanner.push(piece, &mut out, &mut session);
            most = most.max(scanner.held());
            result
        });
        assert_eq!(pushed.is_ok(), is_fine);
        assert!(most < 3 * max_file, "{most}");
        assert!(most > 4000);
    }
}

#[test]
fn an_error_says_where_in_the_whole_body_it_is() {
    let mut made = text("x").into_bytes();
    let last = made.len() - 4;
    made[last] = if made[last] == b'A' { b'B' } else { b'A' };
    let made = String::from_utf8(made).unwrap();
    let given = body(&[("", "first"), ("", &format!("pre {made}"))]);
    let at = given.find(&made).unwrap();
    for step in [1, 7, given.len()] {
        let pieces: Vec<&[u8]> = given.as_bytes().chunks(step).collect();
        assert_eq!(scan(place(), &pieces).unwrap_err().offset, at as u64);
    }
}

#[test]
fn the_head_of_a_part_is_bounded() {
    let made = text("x");
    let long = format!("X: {}\n", "y".repeat(MAX_HEAD));
    let given = body(&[(&long, &made), ("", &made)]);
    let keyring = keyring();
    let mut session = OpenSession::new(&keyring, POLICY);
    let mut scanner = Scanner::new(place(), ScanLimits::default());
    let mut out = Vec::new();
    for piece in given.as_bytes().chunks(1000) {
        scanner.push(piece, &mut out, &mut session).unwrap();
        assert!(scanner.held() < 4 * MAX_HEAD);
    }
    scanner.finish(&mut out, &mut session).unwrap();
    // The first passes, the second is opened.
    assert_eq!(
        String::from_utf8(out).unwrap(),
        body(&[(&long, &made), ("", "x")])
    );
}

fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("\r\n--XyZ\r\n".to_owned()),
        1 => Just("\n--XyZ".to_owned()),
        1 => Just("--XyZ--".to_owned()),
        1 => Just("\r".to_owned()),
        1 => Just("\n".to_owned()),
        2 => Just("\r\n\r\n".to_owned()),
        1 => Just("Content-Type: application/json\r\n".to_owned()),
        1 => Just("Content-Type: image/png\r\n".to_owned()),
        1 => Just("%EVE".to_owned()),
        1 => Just("--".to_owned()),
        2 => Just(text("a\"b")),
        1 => Just(format!("{{\"k\":\"{}\"}}", text("q\"q"))),
        1 => "[a-zX:% -]{0,4}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_result_does_not_depend_on_where_a_piece_ends(
        fragments in prop::collection::vec(fragment(), 0..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let body = fragments.concat();
        assert_same_however_cut(place(), body.as_bytes(), &cuts);
    }

    #[test]
    fn a_body_without_a_token_passes(body in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assume!(!super::super::may_contain_token(&body));
        prop_assert_eq!(&scan(place(), &[&body]).unwrap(), &body);
    }
}
