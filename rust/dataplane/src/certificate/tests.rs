//! Which certificates are used, and that a swap keeps certificate and key together.

use rcgen::{CertificateParams, IsCa, Issuer, KeyPair};

use super::*;

const NOW_MS: u64 = 1_767_225_600_000;

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// A certificate for `subject`'s key and these names, signed by a CA that nobody knows.
fn signed(subject: &TlsKey, names: &[String], years: (i32, i32)) -> Vec<u8> {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = Issuer::new(ca, ca_key);
    let mut leaf = CertificateParams::new(names).unwrap();
    leaf.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    leaf.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    let public = rcgen::SubjectPublicKeyInfo::from_der(&subject.spki()).unwrap();
    leaf.signed_by(&public, &issuer).unwrap().pem().into_bytes()
}

fn fresh() -> (TlsKey, Certificates) {
    let key = TlsKey::generate().unwrap();
    let certificates = Certificates::self_signed(&key, &names(&["localhost"]), NOW_MS).unwrap();
    (key, certificates)
}

#[test]
fn a_self_signed_certificate_stands_in_until_one_is_ordered() {
    let (key, certificates) = fresh();
    assert_eq!(certificates.current().origin, Origin::SelfSigned);
    assert_eq!(certificates.current().spki, key.spki());
    assert!(certificates.current().not_after > 1_767_225_600);

    let domains = names(&["a.example"]);
    let chain = signed(&key, &domains, (2025, 2030));
    let current = certificates
        .install(&chain, &key, &domains, NOW_MS)
        .unwrap();
    assert_eq!(current.origin, Origin::Ordered);
    assert_eq!(current.generation, 1);
    assert_eq!(certificates.current().spki, key.spki());
}

/// The host chooses what chain it returns: one for a key that is not ours, or for other names, would
/// break every client or serve somebody else.
#[test]
fn a_chain_that_is_not_ours_is_refused_and_the_one_in_use_stays() {
    let (key, certificates) = fresh();
    let domains = names(&["a.example", "b.example"]);
    let before = certificates.current();
    let refused = |chain: &[u8]| {
        let refused = certificates.install(chain, &key, &domains, NOW_MS);
        assert!(Arc::ptr_eq(&before, &certificates.current()));
        refused.unwrap_err()
    };

    let other = TlsKey::generate().unwrap();
    let another_key = signed(&other, &domains, (2025, 2030));
    assert!(matches!(
        refused(&another_key),
        CertificateError::AnotherKey
    ));
    let one_name = signed(&key, &domains[..1], (2025, 2030));
    assert!(matches!(
        refused(&one_name),
        CertificateError::AnotherName { name } if name == "b.example"
    ));
    let ended = signed(&key, &domains, (2020, 2026));
    assert!(matches!(refused(&ended), CertificateError::NotNow { .. }));
    let not_begun = signed(&key, &domains, (2027, 2030));
    assert!(matches!(
        refused(&not_begun),
        CertificateError::NotNow { .. }
    ));
    assert!(matches!(refused(b"hello"), CertificateError::Malformed(_)));
    let many = signed(&key, &domains, (2025, 2030)).repeat(chain::MAX_CHAIN + 1);
    assert!(matches!(refused(&many), CertificateError::Malformed(_)));

    let good = signed(&key, &domains, (2025, 2030));
    certificates.install(&good, &key, &domains, NOW_MS).unwrap();
}

/// What a handshake took stays whole: certificate, key and what the document binds.
#[test]
fn a_swap_does_not_change_what_a_connection_took() {
    let (key, certificates) = fresh();
    let taken = certificates.current();
    let next = TlsKey::generate().unwrap();
    let chain = signed(&next, &names(&["localhost"]), (2025, 2030));
    certificates.install(&chain, &next, &[], NOW_MS).unwrap();
    assert_eq!(taken.spki, key.spki());
    assert_eq!(certificates.current().spki, next.spki());
    for current in [&taken, &certificates.current()] {
        current.certified.keys_match().unwrap();
        let public = current.certified.key.public_key().unwrap();
        assert_eq!(public.as_ref(), &*current.spki);
    }
}

#[test]
fn a_given_certificate_must_go_with_its_key() {
    let made = rcgen::generate_simple_self_signed(names(&["localhost"])).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let given = Certificates::given(chain.as_bytes(), key.as_bytes()).unwrap();
    assert_eq!(given.current().origin, Origin::Given);
    let other = KeyPair::generate().unwrap().serialize_pem();
    let refused = Certificates::given(chain.as_bytes(), other.as_bytes());
    assert!(matches!(refused, Err(CertificateError::AnotherKey)));
    Certificates::given(chain.as_bytes(), b"no key").unwrap_err();
}

#[test]
fn a_request_is_signed_and_carries_the_key() {
    let key = TlsKey::generate().unwrap();
    let request = key
        .request(&orders::names(&names(&["a.example"]), false))
        .unwrap();
    let spki = key.spki();
    assert!(request.windows(spki.len()).any(|window| *window == *spki));
    for name in ["localhost", "a.example"] {
        assert!(
            request
                .windows(name.len())
                .any(|window| window == name.as_bytes())
        );
    }
    assert_eq!(orders::names(&names(&["a.example"]), true), ["a.example"]);
}
