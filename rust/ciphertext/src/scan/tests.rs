use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::key_cache::{KEY_LIFE, KeyCache};
use crate::keys::{AppPrivateKey, Keyring};
use crate::open::OpenPolicy;
use crate::seal::seal;
use crate::seal::tests::{Counting, OPTIONS};
use crate::version::ValueType;

pub(super) const POLICY: OpenPolicy = OpenPolicy {
    dangerous_accept_debug: false,
    distinct_keys: 1000,
};

pub(super) fn keyring() -> Keyring {
    Keyring::new(vec![AppPrivateKey::from_bytes(&[0x11; 32]).unwrap()]).unwrap()
}

pub(super) fn token(clear: &[u8], kind: ValueType) -> String {
    let app = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
    // Another clear text has another ephemeral key.
    let seed = clear
        .iter()
        .fold(5_u32, |seed, byte| (seed << 1) ^ u32::from(*byte));
    seal(clear, kind, app.public(), &OPTIONS, &mut Counting(seed)).unwrap()
}

pub(super) fn text(clear: &str) -> String {
    token(clear.as_bytes(), ValueType::String)
}

/// Scans a body in the given pieces.
pub(super) fn scan(place: Place, pieces: &[&[u8]]) -> Result<Vec<u8>, ScanError> {
    let keyring = keyring();
    let mut session = OpenSession::new(&keyring, POLICY);
    let mut scanner = Scanner::new(place, ScanLimits::default());
    let mut out = Vec::new();
    for piece in pieces {
        scanner.push(piece, &mut out, &mut session)?;
    }
    scanner.finish(&mut out, &mut session)?;
    Ok(out)
}

/// Opens a JSON document that lies in memory whole.
fn splice(document: &[u8]) -> Result<Vec<u8>, ScanError> {
    let keyring = keyring();
    let mut session = OpenSession::new(&keyring, POLICY);
    let spliced = open_json(document, ScanLimits::default(), &mut session)?;
    let mut out = vec![0xAA; spliced.len()];
    spliced.write(&mut out);
    assert_eq!(out, spliced.parts().collect::<Vec<_>>().concat());
    assert_eq!(spliced.is_empty(), out.is_empty());
    Ok(out)
}

/// As [`scan`], and paused before every key: nothing that was derived lasts until the next pause.
pub(super) fn scan_paused(place: Place, pieces: &[&[u8]]) -> Result<(Vec<u8>, u32), ScanError> {
    let cache = KeyCache::new(Arc::new(keyring()));
    let mut session = OpenSession::shared(&cache, POLICY);
    let mut scanner = Scanner::new(place, ScanLimits::default());
    let (mut out, mut pauses) = (Vec::new(), 0_u32);
    let mut grant = |session: &mut OpenSession<'_>| {
        pauses = pauses.saturating_add(1);
        cache.expire(KEY_LIFE.saturating_mul(pauses));
        session.grant(1);
    };
    for piece in pieces {
        scanner.push(piece, &mut out, &mut session)?;
        while session.is_paused() {
            grant(&mut session);
            scanner.resume(&mut out, &mut session)?;
        }
    }
    scanner.finish(&mut out, &mut session)?;
    while session.is_paused() {
        grant(&mut session);
        scanner.finish(&mut out, &mut session)?;
    }
    Ok((out, pauses))
}

/// Whole, cut at some places, byte by byte, and paused: the result is the same.
pub(super) fn assert_same_however_cut(place: Place, body: &[u8], cuts: &[prop::sample::Index]) {
    let mut at: Vec<usize> = cuts
        .iter()
        .map(|cut| cut.index(body.len().max(1)))
        .collect();
    at.extend([0, body.len()]);
    at.sort_unstable();
    let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
    let singles: Vec<&[u8]> = body.chunks(1).collect();
    let whole = scan(place, &[body]);
    assert_eq!(scan(place, &pieces), whole);
    assert_eq!(scan(place, &singles), whole);
    for pieces in [&[body], pieces.as_slice(), singles.as_slice()] {
        let paused = scan_paused(place, pieces).map(|(out, _)| out);
        assert_eq!(paused, whole, "paused");
    }
    if place == Place::Json {
        assert_eq!(splice(body), whole, "spliced");
    }
}

/// Who opens a document whole grants the keys first: without them nothing is opened and nothing lost.
#[test]
fn a_document_whose_keys_were_not_granted_is_not_opened() {
    let (a, b) = (text("a"), text("b"));
    let body = format!(r#"["{a}","{b}"]"#);
    let cache = KeyCache::new(Arc::new(keyring()));
    let mut session = OpenSession::shared(&cache, POLICY);
    session.grant(1);
    let refused = open_json(body.as_bytes(), ScanLimits::default(), &mut session).unwrap_err();
    assert_eq!(refused.reason, OpenError::Paused);
    assert_eq!(refused.offset, u64::try_from(a.len() + 4).unwrap());
    session.grant(1);
    let opened = open_json(body.as_bytes(), ScanLimits::default(), &mut session).unwrap();
    let mut room = [0; 9];
    opened.write(&mut room);
    assert_eq!(&room, br#"["a","b"]"#);
    // What does not fit is not written, and nothing is written behind it.
    let mut less = [0; 5];
    opened.write(&mut less);
    assert_eq!(&less, b"[\"a\0\0");
}

/// Pushing more into a paused scanner loses nothing, and a grant lets it go on from where it was.
#[test]
fn a_paused_scan_goes_on_where_it_was() {
    let (a, b) = (text("a"), text("b"));
    let body = format!(r#"{{"a":"{a}","b":["{b}","x {a}"]}}"#);
    let opened = br#"{"a":"a","b":["b","x a"]}"#;
    let (out, pauses) = scan_paused(Place::Json, &[body.as_bytes()]).unwrap();
    assert_eq!((out.as_slice(), pauses), (opened.as_slice(), 3));

    let cache = KeyCache::new(Arc::new(keyring()));
    let mut session = OpenSession::shared(&cache, POLICY);
    let mut scanner = Scanner::new(Place::Json, ScanLimits::default());
    let mut out = Vec::new();
    for byte in body.as_bytes().chunks(1) {
        scanner.push(byte, &mut out, &mut session).unwrap();
    }
    assert!(session.is_paused() && out == br#"{"a":"#, "{out:?}");
    session.grant(1);
    scanner.resume(&mut out, &mut session).unwrap();
    assert!(
        session.is_paused() && out == br#"{"a":"a","b":["#,
        "{out:?}"
    );
    session.grant(9);
    scanner.resume(&mut out, &mut session).unwrap();
    scanner.finish(&mut out, &mut session).unwrap();
    assert_eq!(out, opened);
    let counts = session.counts();
    assert_eq!((counts.derived, counts.hits, counts.opened), (2, 1, 3));
}

fn json(body: &str) -> String {
    String::from_utf8(scan(Place::Json, &[body.as_bytes()]).unwrap()).unwrap()
}

#[test]
fn a_string_is_replaced_inside_its_quotes() {
    let body = format!(r#"{{"a": "{}"}}"#, text("x \"y\" \\ \n\u{1}é"));
    assert_eq!(json(&body), r#"{"a": "x \"y\" \\ \n\u0001é"}"#);
}

#[test]
fn a_number_and_a_boolean_lose_their_quotes() {
    let body = format!(
        r#"["{}","{}"]"#,
        token(b"1.10", ValueType::Number),
        token(b"true", ValueType::Boolean)
    );
    assert_eq!(json(&body), "[1.10,true]");
}

#[test]
fn inside_a_longer_string_the_text_of_a_literal_stands_in_place() {
    let number = token(b"42", ValueType::Number);
    let body = format!(
        r#"["id {number}!", "{number} ", "{}{}"]"#,
        text("a"),
        text("b")
    );
    assert_eq!(json(&body), r#"["id 42!", "42 ", "ab"]"#);
}

#[test]
fn a_solidus_may_be_escaped() {
    let made = text("a clear text that is long enough to have a solidus in it ÿÿÿÿÿÿÿÿÿÿÿÿ");
    assert!(made.contains('/'), "{made}");
    let body = format!(r#"["{}"]"#, made.replace('/', "\\/"));
    assert!(json(&body).starts_with(r#"["a clear text"#));
}

#[test]
fn keys_and_what_is_outside_strings_stay() {
    let made = text("x");
    let body = format!(r#"{{"{made}" : 1, "a {made}" :{{"{made}":"{made}"}}}} {made}"#);
    let expected = format!(r#"{{"{made}" : 1, "a {made}" :{{"{made}":"x"}}}} {made}"#);
    assert_eq!(json(&body), expected);
    let list = format!(r#"[["{made}","{made}"],{{"k":["{made}"],"{made}":0}}]"#);
    let expected = format!(r#"[["x","x"],{{"k":["x"],"{made}":0}}]"#);
    assert_eq!(json(&list), expected);
}

/// One level of escaping would let the clear text end the inner string and add fields.
#[test]
fn t05_a_token_in_json_in_a_string_stays() {
    let made = text("\",\"admin\":true,\"x\":\"");
    for body in [
        format!(r#"{{"a":"{{\"b\":\"{made}\"}}"}}"#),
        format!(r#"{{"a":"{{\"b\":\"some {made} more\"}}"}}"#),
        format!(r#"{{"a":"{{\"b\":\"{{\\\"c\\\":\\\"{made}\\\"}}\"}}"}}"#),
        format!(r#"{{"a":"{{\"b\":\"{{\\\"c\\\":\\\"x {made} y\\\"}}\"}}"}}"#),
    ] {
        assert_eq!(json(&body), body);
    }
    let quoted = format!(r#"{{"a":"he said \"hi\" and {}"}}"#, text("left"));
    assert_eq!(json(&quoted), r#"{"a":"he said \"hi\" and left"}"#);
}

/// `\e` is no escape of JSON; a clear text behind the solidus could make one.
#[test]
fn t05_a_token_behind_a_reverse_solidus_stays() {
    let made = text("\"");
    let body = format!(r#"["\{made}"]"#);
    assert_eq!(json(&body), body);
    let body = format!(r#"["\\{}"]"#, text("x"));
    assert_eq!(json(&body), r#"["\\x"]"#);
}

#[test]
fn what_is_no_token_passes_byte_for_byte() {
    let body = b"{\"a\":\"ev:123\",\"b\":\"ev:ev:\",\xff\xfe,\"e\":\"e\",\"ev\":\"\\u0065v:\"} ]]}}{ \"ev:".as_slice();
    assert_eq!(scan(Place::Json, &[body]).unwrap(), body);
    assert_eq!(scan(Place::Text, &[body]).unwrap(), body);
}

#[test]
fn text_is_replaced_as_it_is() {
    let body = format!("{} and {}", text("a\"b"), token(b"7", ValueType::Number));
    assert_eq!(
        scan(Place::Text, &[body.as_bytes()]).unwrap(),
        b"a\"b and 7"
    );
}

#[test]
fn a_body_without_a_type_is_what_it_starts_like() {
    let made = text("a\"b");
    let body = format!(" \n[\"{made}\"]");
    assert_eq!(
        scan(Place::Detect, &[body.as_bytes()]).unwrap(),
        b" \n[\"a\\\"b\"]"
    );
    let body = format!(" {made}");
    assert_eq!(
        scan(Place::Detect, &[b" ", body.as_bytes()]).unwrap(),
        b"  a\"b"
    );
}

/// Raw clear text behind a byte order mark could add fields to what a reader takes as JSON.
#[test]
fn t05_json_behind_a_byte_order_mark_is_json() {
    let body = format!("\u{FEFF}{{\"a\":\"{}\"}}", text("\",\"admin\":\"1"));
    let expected = "\u{FEFF}{\"a\":\"\\\",\\\"admin\\\":\\\"1\"}";
    for at in 0..8 {
        let (left, right) = body.as_bytes().split_at(at);
        let scanned = scan(Place::Detect, &[left, right]).unwrap();
        assert_eq!(scanned, expected.as_bytes(), "cut at {at}");
    }
}

#[test]
fn a_token_of_another_app_fails_with_its_offset() {
    let other = AppPrivateKey::from_bytes(&[0x55; 32]).unwrap();
    let foreign = seal(
        b"x",
        ValueType::String,
        other.public(),
        &OPTIONS,
        &mut Counting(5),
    )
    .unwrap();
    let body = format!(r#"{{"good":"{}","bad":"{foreign}"}}"#, text("x"));
    let at = u64::try_from(body.find(&foreign).unwrap()).unwrap();
    let expected = Err(ScanError {
        offset: at,
        reason: OpenError::CannotOpen,
    });
    assert_eq!(scan(Place::Json, &[body.as_bytes()]), expected);
    let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
    assert_eq!(scan(Place::Json, &bytes), expected);
}

#[test]
fn t05_a_token_over_the_limit_is_refused_and_not_passed_on() {
    let keyring = keyring();
    let body = format!("[\"{}\"]", text(&"x".repeat(500)));
    for (max_token, is_refused) in [(500, true), (5000, false)] {
        let mut session = OpenSession::new(&keyring, POLICY);
        let mut scanner = Scanner::new(
            Place::Json,
            ScanLimits {
                max_token,
                ..ScanLimits::default()
            },
        );
        let mut out = Vec::new();
        let result = scanner.push(body.as_bytes(), &mut out, &mut session);
        assert_eq!(result.is_err(), is_refused);
        assert!(!is_refused || out.len() <= 2);
    }
}

#[test]
fn nesting_over_the_limit_is_refused() {
    let deep = vec![b'['; (1 << 20) + 1];
    let refused = scan(Place::Json, &[&deep]).unwrap_err();
    assert!(matches!(refused.reason, OpenError::TooDeep { .. }));
    scan(Place::Json, &[&deep[1..]]).unwrap();
}

#[test]
fn the_summary_counts_fields() {
    let keyring = keyring();
    let mut session = OpenSession::new(&keyring, POLICY);
    let mut scanner = Scanner::new(Place::Json, ScanLimits::default());
    let mut out = Vec::new();
    let body = format!("[\"{}\",\"{}\"]", text("a"), text("b"));
    scanner
        .push(body.as_bytes(), &mut out, &mut session)
        .unwrap();
    assert_eq!(
        scanner
            .finish(&mut out, &mut session)
            .unwrap()
            .fields_opened,
        2
    );
}

/// Everything that may stand next to a token, in any order.
fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("\"".to_owned()),
        Just("\\".to_owned()),
        Just("\\\"".to_owned()),
        Just("\\\\\\\"".to_owned()),
        Just("\\u0022".to_owned()),
        Just("\\u005c".to_owned()),
        Just("\\u00".to_owned()),
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just(",".to_owned()),
        Just(":".to_owned()),
        Just(" ".to_owned()),
        Just("e".to_owned()),
        Just("ev:".to_owned()),
        Just("ev:QkTC:".to_owned()),
        Just(text("v\"alue")),
        Just(format!("\"{}\"", token(b"12", ValueType::Number))),
        Just(format!("\"{}\"", text("s"))),
        "[a-z\\PC]{0,6}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_result_does_not_depend_on_where_a_piece_ends(
        fragments in prop::collection::vec(fragment(), 0..24),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        place in prop_oneof![Just(Place::Json), Just(Place::Text), Just(Place::Detect)],
    ) {
        let body = fragments.concat();
        assert_same_however_cut(place, body.as_bytes(), &cuts);
    }

    #[test]
    fn a_body_without_a_token_passes(body in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assume!(!may_contain_token(&body));
        prop_assert_eq!(&scan(Place::Json, &[&body]).unwrap(), &body);
        prop_assert_eq!(&scan(Place::Text, &[&body]).unwrap(), &body);
    }
}

/// Every position, not a sample of them.
#[test]
fn a_document_cut_at_every_position_gives_the_same_result() {
    let number = token(b"-1.5", ValueType::Number);
    let body = format!(
        r#"{{"k":"{}","n":"{number}","l":["pre {} post"]}}"#,
        text("q\"q"),
        text("m")
    );
    let whole = scan(Place::Json, &[body.as_bytes()]).unwrap();
    assert_eq!(whole, br#"{"k":"q\"q","n":-1.5,"l":["pre m post"]}"#);
    for at in 0..=body.len() {
        let (left, right) = body.as_bytes().split_at(at);
        assert_eq!(
            scan(Place::Json, &[left, right]).unwrap(),
            whole,
            "cut at {at}"
        );
    }
}

/// Some writers spell a quote in a string `\u0022` (.NET by default, PHP with `JSON_HEX_QUOT`).
#[test]
fn t05_a_quote_spelled_by_its_number_is_a_quote() {
    let made = text("\",\"admin\":true,\"x\":\"");
    for body in [
        format!(r#"{{"a":"{{\u0022b\u0022:\u0022{made}\u0022}}"}}"#),
        format!(r#"{{"a":"{{\u0022b\u0022:\u0022some {made} more\u0022}}"}}"#),
        format!(r#"{{"a":"{{\"b\":\"\u005c\u005c\",\"c\":\"{made}\"}}"}}"#),
        format!(r#"{{"a":"{{\"b\":\"\u005C\"\",\"c\":\"some {made} more\"}}"}}"#),
    ] {
        assert_eq!(json(&body), body);
    }
    let quoted = format!(r#"{{"a":"\u0022hi\u0022 and {}"}}"#, text("left"));
    assert_eq!(json(&quoted), r#"{"a":"\u0022hi\u0022 and left"}"#);
}

/// Five reverse solidi before a quote are what a writer makes of an inner string that ends in one.
#[test]
fn t05_inner_strings_that_end_in_a_reverse_solidus_end() {
    let made = text("\",\"admin\":true,\"x\":\"");
    let body = format!(r#"{{"a":"{{\"p\":\"C:\\\\\",\"b\":\"{made}\"}}"}}"#);
    assert_eq!(json(&body), body);
    let after = format!(r#"{{"a":"{{\"p\":\"C:\\\\\"}} and {}"}}"#, text("left"));
    assert_eq!(json(&after), r#"{"a":"{\"p\":\"C:\\\\\"} and left"}"#);
}

/// One quote too many before the inner document must not turn inside into outside.
#[test]
fn t05_a_token_between_quotes_of_the_text_stays_whatever_came_before() {
    let made = text("\",\"admin\":true,\"x\":\"");
    for quote in [r#"\""#, r"\u0022"] {
        let body = format!("[\"5{quote} pipe {{{quote}b{quote}:{quote}{made}{quote}}}\"]");
        for at in 0..=body.len() {
            let (left, right) = body.as_bytes().split_at(at);
            assert_eq!(
                scan(Place::Json, &[left, b"", right]).unwrap(),
                body.as_bytes(),
                "cut at {at}"
            );
        }
    }
    let after = format!(r#"["5\" pipe, 6\"{}"]"#, text("left"));
    assert_eq!(json(&after), r#"["5\" pipe, 6\"left"]"#);
}

/// A character of an inner document as some writer puts it into a string.
fn spelled(character: char, style: u8) -> String {
    match (character, style % 3) {
        ('"' | '\\', 1) => format!("\\u{:04x}", u32::from(character)),
        ('"' | '\\', 2) => format!("\\u{:04X}", u32::from(character)),
        ('"' | '\\', _) => format!("\\{character}"),
        ('/', 1) => "\\/".to_owned(),
        _ => character.to_string(),
    }
}

/// Strings of an inner document: quotes, reverse solidi and tokens in any order.
fn inner_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("\"".to_owned()),
        Just("\\".to_owned()),
        Just("/u0022".to_owned()),
        Just("ev:".to_owned()),
        Just(text("\",\"admin\":true,\"x\":\"")),
        "[a-z ]{0,3}",
    ];
    prop::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// However a writer escapes it, a document inside a string keeps its tokens, so no clear text
    /// can change its shape.
    #[test]
    fn t05_a_document_in_a_string_is_never_opened(
        strings in prop::collection::vec((inner_text(), inner_text()), 1..5),
        styles in prop::collection::vec(any::<u8>(), 1..40),
        levels in 1_usize..4,
        left in inner_text(),
    ) {
        let pairs = strings.into_iter().enumerate();
        let inner: serde_json::Map<String, serde_json::Value> =
            pairs.map(|(at, (key, value))| (format!("{at}{key}"), value.into())).collect();
        let mut document = serde_json::Value::Object(inner).to_string();
        for _ in 0..levels {
            let mut styles = styles.iter().cycle().copied();
            let written: String = document
                .chars()
                .map(|character| spelled(character, styles.next().unwrap()))
                .collect();
            document = format!("{{\"inner\":\"{written}\"}}");
        }
        prop_assert_eq!(&json(&document), &document);
        // The twin: beside that document a token is opened.
        let value = serde_json::json!({ "beside": text(&left) }).to_string();
        let both = format!("[{document},{value}]");
        let expected = format!("[{document},{}]", serde_json::json!({ "beside": left }));
        prop_assert_eq!(json(&both), expected);
    }
}
