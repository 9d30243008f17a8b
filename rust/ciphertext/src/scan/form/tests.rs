use proptest::prelude::*;

use super::super::tests::{POLICY, assert_same_however_cut, keyring, scan, text, token};
use super::super::{ScanLimits, may_need_scan};
use super::*;
use crate::open::OpenSession;
use crate::place::Place;
use crate::version::ValueType;

fn form(body: &str) -> String {
    String::from_utf8(scan(Place::Form, &[body.as_bytes()]).unwrap()).unwrap()
}

/// As browsers and most clients write it.
fn percent(text: &str) -> String {
    let mut out = Vec::new();
    encoded(&Zeroizing::new(text.as_bytes().to_vec()), &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_value_that_is_wholly_a_token_is_replaced_percent_encoded() {
    let made = text("a b&c=d+é\"\\\r\n\0");
    let clear = "a+b%26c%3Dd%2B%C3%A9%22%5C%0D%0A%00";
    for written in [
        percent(&made),
        percent(&made).to_lowercase_escapes(),
        made.clone(),
        every_byte(&made),
    ] {
        assert_eq!(
            form(&format!("x=1&card={written}&y=2")),
            format!("x=1&card={clear}&y=2")
        );
        assert_eq!(form(&format!("card={written}")), format!("card={clear}"));
    }
}

/// Letters too.
fn every_byte(text: &str) -> String {
    let escapes: Vec<String> = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    escapes.concat()
}

trait Escapes {
    fn to_lowercase_escapes(&self) -> String;
}

impl Escapes for String {
    fn to_lowercase_escapes(&self) -> String {
        let mut out = Self::new();
        let mut left = 0_usize;
        for character in self.chars() {
            left = if character == '%' { 3 } else { left };
            let escaped = left > 0;
            left = left.saturating_sub(1);
            out.push(if escaped {
                character.to_ascii_lowercase()
            } else {
                character
            });
        }
        out
    }
}

#[test]
fn numbers_and_booleans_are_their_text() {
    let number = percent(&token(b"-1.50", ValueType::Number));
    let boolean = percent(&token(b"true", ValueType::Boolean));
    assert_eq!(form(&format!("n={number}&b={boolean}")), "n=-1.50&b=true");
}

#[test]
fn a_plus_that_was_not_encoded_is_taken_for_one() {
    let made = (0..200)
        .map(|n| text(&format!("text {n}")))
        .find(|made| made.contains('+'));
    let made = made.unwrap();
    let opened = form(&format!("card={made}"));
    assert!(opened.starts_with("card=text+"), "{opened}");
}

#[test]
fn names_longer_values_and_what_is_no_token_stay() {
    let made = percent(&text("x"));
    for body in [
        format!("{made}=1"),
        made.clone(),
        format!("a={made}x"),
        format!("a=x{made}"),
        format!("a={made}{made}"),
        format!("a={made}%20"),
        format!("a=+{made}"),
        format!("a==%{made}"),
        "a=ev%3A123&b=ev%3&c=%&d=%e&e=%zz&f=ev%3a".to_owned(),
        "&&=&=&ev:".to_owned(),
        String::new(),
    ] {
        assert_eq!(form(&body), body);
    }
    // The twin: right beside them, it is opened.
    assert_eq!(
        form(&format!("{made}={made}&&b={made}")),
        format!("{made}=x&&b=x")
    );
}

#[test]
fn a_token_that_cannot_be_opened_says_where_it_is() {
    let mut made = text("x").into_bytes();
    let last = made.len() - 4;
    made[last] = if made[last] == b'A' { b'B' } else { b'A' };
    let body = format!("a=1&b={}", percent(&String::from_utf8(made).unwrap()));
    let error = scan(Place::Form, &[body.as_bytes()]).unwrap_err();
    assert_eq!(error.offset, 6);
}

#[test]
fn a_token_longer_than_the_limit_is_refused() {
    let body = format!("a={}", percent(&text(&"x".repeat(400))));
    let keyring = keyring();
    for (max_token, is_fine) in [(200, false), (2000, true)] {
        let mut session = OpenSession::new(&keyring, POLICY);
        let limits = ScanLimits {
            max_token,
            ..ScanLimits::default()
        };
        let mut scanner = Scanner::new(Place::Form, limits);
        let mut out = Vec::new();
        let result = scanner.push(body.as_bytes(), &mut out, &mut session);
        assert_eq!(result.is_ok(), is_fine);
        assert!(scanner.held() < 4 * max_token + 1024);
    }
}

#[test]
fn a_form_without_percent_or_token_needs_no_scan() {
    assert!(!may_need_scan(Place::Form, b"a=1&b=2"));
    assert!(may_need_scan(Place::Form, b"a=e%763A"));
    assert!(may_need_scan(Place::Form, b"a=ev:"));
    assert!(!may_need_scan(Place::Text, b"a=%20"));
}

fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("&".to_owned()),
        Just("=".to_owned()),
        Just("ev%3A".to_owned()),
        Just("%".to_owned()),
        Just("%65".to_owned()),
        Just(text("a b")),
        Just(percent(&text("c&d"))),
        Just(percent(&token(b"7", ValueType::Number)).to_lowercase_escapes()),
        "[a-z%=&+]{0,4}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_result_does_not_depend_on_where_a_piece_ends(
        fragments in prop::collection::vec(fragment(), 0..16),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let body = fragments.concat();
        assert_same_however_cut(Place::Form, body.as_bytes(), &cuts);
    }

    /// No clear text can add a field.
    #[test]
    fn t05_a_clear_text_stays_one_value(clear in "[ -~\r\n]{0,20}") {
        let body = format!("a=1&b={}&c=3", percent(&text(&clear)));
        let opened = form(&body);
        prop_assert_eq!(opened.matches('&').count(), 2);
        prop_assert_eq!(opened.matches('=').count(), 3);
        let value = opened.strip_prefix("a=1&b=").and_then(|rest| rest.strip_suffix("&c=3"));
        prop_assert_eq!(value.map(str::to_owned), Some(percent(&clear)));
    }
}
