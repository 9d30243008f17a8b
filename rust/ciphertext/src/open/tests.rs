use super::*;
use crate::kdf;
use crate::keys::{AppPrivateKey, Secp256k1PrivateKey};
use aws_lc_rs::aead::{AES_256_GCM, UnboundKey};
use base64::Engine as _;
use serde_json::Value;

const POLICY: OpenPolicy = OpenPolicy {
    dangerous_accept_debug: false,
    distinct_keys: 3,
};

fn vectors() -> Value {
    let text = include_str!("../../../../tests/vectors/ciphertext/vectors.json");
    serde_json::from_str(text).unwrap()
}

fn keyring() -> Keyring {
    let p256 = [0x33, 0x11, 0x44].map(|byte| AppPrivateKey::from_bytes(&[byte; 32]).unwrap());
    let secp256k1 =
        [0x33, 0x11, 0x44].map(|byte| Secp256k1PrivateKey::from_bytes(&[byte; 32]).unwrap());
    Keyring::with_secp256k1(p256.into(), secp256k1.into()).unwrap()
}

fn open(text: &str) -> Result<Opened, OpenError> {
    let keyring = keyring();
    let token = Token::parse(text.as_bytes()).unwrap();
    OpenSession::new(&keyring, POLICY).open(text.as_bytes(), &token)
}

#[test]
fn known_answers_open_whichever_key_of_the_app_made_them() {
    let mut opened = 0;
    for vector in vectors()["strings"].as_array().unwrap() {
        let text = vector["token"].as_str().unwrap();
        let plain = match &vector["plain"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        assert_eq!(
            open(text).unwrap().clear.as_slice(),
            plain.as_bytes(),
            "{text}"
        );
        opened += 1;
    }
    assert_eq!(opened, 24);
}

/// The memory that a session opens tokens in keeps nothing of them, whether they open or not.
#[test]
fn t19_what_a_session_opened_is_wiped_before_it_opens_the_next() {
    let keyring = keyring();
    let mut session = OpenSession::new(
        &keyring,
        OpenPolicy {
            distinct_keys: 99,
            ..POLICY
        },
    );
    let (mut seen, mut opened) = (0, 0);
    for vector in vectors()["strings"].as_array().unwrap() {
        let good = vector["token"].as_str().unwrap();
        for text in [
            good.to_owned(),
            good.replace(":$", "A:$"),
            good.replace(":$", "AAA:$"),
        ] {
            let token = Token::parse(text.as_bytes()).unwrap();
            let done = session.open_with(text.as_bytes(), &token, |_, clear| {
                seen += clear.len();
            });
            opened += usize::from(done.is_ok());
            let room = session.room.as_mut().unwrap();
            assert!(room.of(4096).iter().all(|byte| *byte == 0), "{text}");
            room.wipe();
        }
    }
    assert_eq!(opened, 24);
    assert!(seen > 0);
}

/// A version that is not written means RFVC, whose type is anybody's word.
#[test]
fn a_token_without_a_version_is_the_oldest_on_secp256k1() {
    let text = "ev:RFVC:AAECAwQFBgcICQoL:AkZtf8rlY+XLCaDRhwu1gDRIBGF4eaFJSc8iKF8brj8n:IMG3MCpSmRFsC2GP7RB37fNRDJaxZbqyYEy+:$";
    let bare = text.replace("RFVC:", "");
    assert_eq!(open(&bare).unwrap().clear.as_slice(), b"hello world");
    let typed = text.replace("RFVC:", "RFVC:number:");
    assert_eq!(open(&typed), Err(OpenError::CannotOpen));
    // Another version on the same curve has another key.
    let other = text.replace("RFVC:", "S0lS:");
    assert_eq!(open(&other), Err(OpenError::CannotOpen));
}

#[test]
fn a_curve_without_a_key_opens_nothing() {
    let p256 = Keyring::new(vec![AppPrivateKey::from_bytes(&[0x11; 32]).unwrap()]).unwrap();
    let vectors = vectors();
    let mut seen = [0, 0];
    for vector in vectors["strings"].as_array().unwrap() {
        let text = vector["token"].as_str().unwrap().as_bytes();
        let mut session = OpenSession::new(&p256, POLICY);
        let opened = session.open(text, &Token::parse(text).unwrap());
        let is_p256 = vector["curve"] == "SECP256R1";
        assert_eq!(opened.is_ok(), is_p256);
        seen[usize::from(is_p256)] += 1;
    }
    assert_eq!(seen, [12, 12]);
}

/// Without a KDF and without additional data the type is anybody's word.
#[test]
fn a_swapped_type_is_refused_with_the_words_of_every_refusal() {
    let text = "ev:Tk9D:AAECAwQFBgcICQoL:A9Zak5d8qj0bCBhS/1ennkZfFmBXcwS66tUF3TpIWJzz:ye0W7ZzhtSI6hgogEw1itJWVkTBDSJ3730Af:$";
    assert_eq!(open(text).unwrap().kind, ValueType::String);
    let swapped = text.replace("Tk9D:", "Tk9D:number:");
    assert_eq!(open(&swapped), Err(OpenError::CannotOpen));
}

#[test]
fn every_changed_character_is_refused() {
    let text = "ev:QkTC:AAECAwQFBgcICQoL:A9Zak5d8qj0bCBhS/1ennkZfFmBXcwS66tUF3TpIWJzz:u4j5I5ezaywkhgG0EosdAYhOR+Re08tSdCsTMrxUwE+c+crXDvCWSd3DoYnIRreTuh+/a8THrQ:$";
    open(text).unwrap();
    for at in 8..text.len() - 3 {
        let mut changed = text.as_bytes().to_vec();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        if let Some(token) = Token::parse(changed.as_bytes()) {
            let keyring = keyring();
            let mut session = OpenSession::new(&keyring, POLICY);
            // The last character carries two bits that decode to nothing.
            if at != text.len() - 4 {
                let refused = session.open(changed.as_bytes(), &token);
                assert_eq!(refused, Err(OpenError::CannotOpen), "{at}");
            }
        }
    }
}

#[test]
fn a_debug_token_is_refused_unless_the_policy_says_otherwise() {
    let text = "ev:debug:QkTC:AAECAwQFBgcICQoL:A9Zak5d8qj0bCBhS/1ennkZfFmBXcwS66tUF3TpIWJzz:u4j5I5ezaywkhgG0EosdAYhOR+Re08tSdCsTMrxUwE:$";
    assert_eq!(open(text), Err(OpenError::Debug));
}

/// Built from the primitives, because nothing here writes debug tokens.
#[test]
fn a_debug_token_opens_where_the_policy_says_so() {
    use base64::engine::general_purpose::STANDARD_NO_PAD;

    let ours = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
    let ephemeral = AppPrivateKey::from_bytes(&[0x22; 32]).unwrap();
    let shared = ephemeral.agree(ours.public().uncompressed()).unwrap();
    let key = kdf::derive(
        Curve::P256,
        shared.as_slice(),
        ephemeral.public().uncompressed(),
    );
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_slice()).unwrap());
    let token = |head: u8| {
        let (point, app) = (ephemeral.public().compressed(), ours.public().compressed());
        let aad = [&[head], point.as_slice(), app.as_slice()].concat();
        let mut data = b"\x01\x00\x80clear".to_vec();
        let nonce = Nonce::assume_unique_for_key([3; 12]);
        key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut data)
            .unwrap();
        let [iv, point, data] = [&[3; 12], point.as_slice(), data.as_slice()]
            .map(|bytes| STANDARD_NO_PAD.encode(bytes));
        format!("ev:debug:QkTC:{iv}:{point}:{data}:$")
    };
    let keyring = keyring();
    let policy = OpenPolicy {
        dangerous_accept_debug: true,
        ..POLICY
    };
    let mut session = OpenSession::new(&keyring, policy);
    let mut open = |text: &str| {
        let token = Token::parse(text.as_bytes()).unwrap();
        session.open(text.as_bytes(), &token)
    };
    assert_eq!(open(&token(0x80)).unwrap().clear.as_slice(), b"clear");
    // An ordinary token does not become one of debug mode by its head, nor the reverse.
    assert_eq!(open(&token(0x01)), Err(OpenError::CannotOpen));
    let plain = token(0x01).replace("debug:", "");
    assert_eq!(open(&plain).unwrap().clear.as_slice(), b"clear");
    let stripped = token(0x80).replace("debug:", "");
    assert_eq!(open(&stripped), Err(OpenError::CannotOpen));
}

#[test]
fn t05_distinct_keys_are_bounded_and_one_key_counts_once() {
    let keyring = keyring();
    let mut session = OpenSession::new(&keyring, POLICY);
    let mut counter = crate::seal::tests::Counting(1);
    let app = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
    let mut seal = || {
        crate::seal::seal(
            b"x",
            ValueType::String,
            app.public(),
            &crate::seal::tests::OPTIONS,
            &mut counter,
        )
        .unwrap()
    };
    let first = seal();
    for text in [&first, &first, &seal(), &seal()] {
        session
            .open(text.as_bytes(), &Token::parse(text.as_bytes()).unwrap())
            .unwrap();
    }
    let fourth = seal();
    let refused = session.open(fourth.as_bytes(), &Token::parse(fourth.as_bytes()).unwrap());
    assert_eq!(refused, Err(OpenError::TooManyKeys { limit: 3 }));
    assert_eq!(session.opened(), 4);
}

#[test]
fn a_header_is_opened_only_when_it_is_one_token() {
    let keyring = keyring();
    let mut session = OpenSession::new(&keyring, POLICY);
    let mut counter = crate::seal::tests::Counting(1);
    let app = AppPrivateKey::from_bytes(&[0x11; 32]).unwrap();
    let mut seal = |clear: &[u8]| {
        crate::seal::seal(
            clear,
            ValueType::String,
            app.public(),
            &crate::seal::tests::OPTIONS,
            &mut counter,
        )
        .unwrap()
    };
    let good = seal(b"secret");
    let opened = open_header_value(good.as_bytes(), &mut session)
        .unwrap()
        .unwrap();
    assert_eq!(opened.as_slice(), b"secret");
    let padded = format!("{good} ");
    assert_eq!(open_header_value(padded.as_bytes(), &mut session), Ok(None));
    assert_eq!(open_header_value(b"ev:123", &mut session), Ok(None));
    let evil = seal(b"a\r\nx-admin: 1");
    assert_eq!(
        open_header_value(evil.as_bytes(), &mut session),
        Err(OpenError::CannotStand)
    );
}
