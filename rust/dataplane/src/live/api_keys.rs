//! API keys of the app, as the bundle brought them, and whether a presented one is good.
//!
//! A key is `ck_<id>_<43 base64url characters>`: 256 random bits. It is looked up by its id and its
//! SHA-256, over the whole key as presented, is compared in constant time. A plain hash is right
//! only because the key is random. A value of another form (imported from elsewhere, at least 128
//! random bits) is looked up by its hash.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use subtle::ConstantTimeEq;
use thiserror::Error;
use uuid::Uuid;

/// Public name of an API key, as it is logged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ApiKeyId(Arc<str>);

impl ApiKeyId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ApiKeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What is known of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its public name.
    pub id: String,
    /// SHA-256 of the whole key as it is presented.
    pub sha256: [u8; 32],
    /// What it opens: `app`, or `enclave:<uuid>`. Without one it opens nothing.
    pub scopes: Vec<String>,
    /// End of its validity, milliseconds since the Unix epoch.
    pub not_after_ms: Option<u64>,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AuthFailure {
    /// A good key that does not open this enclave: 403.
    #[error("the api key lacks permission for this enclave")]
    Forbidden,
    /// No such key, or one that has ended: 401.
    #[error("Invalid api key provided")]
    Invalid,
    /// No key: 401.
    #[error("No api-key header present on request")]
    Missing,
}

/// Every key of the app: a key for another enclave must be known, to be told from no key at all.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys {
    by_id: HashMap<ApiKeyId, Entry>,
    by_hash: HashMap<[u8; 32], ApiKeyId>,
}

#[derive(Clone, Debug)]
struct Entry {
    id: ApiKeyId,
    sha256: [u8; 32],
    scopes: Scopes,
    not_after_ms: Option<u64>,
}

#[derive(Clone, Debug)]
struct Scopes {
    app: bool,
    enclaves: Vec<Uuid>,
}

impl ApiKeys {
    /// The given keys. Of two with one id the later one counts.
    pub fn new(keys: impl IntoIterator<Item = ApiKey>) -> Self {
        let mut known = Self::default();
        for key in keys {
            let id = ApiKeyId(key.id.into());
            known.by_hash.insert(key.sha256, id.clone());
            known.by_id.insert(
                id.clone(),
                Entry {
                    id,
                    sha256: key.sha256,
                    scopes: Scopes::read(&key.scopes),
                    not_after_ms: key.not_after_ms,
                },
            );
        }
        known
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none, so that nobody is let in.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Whether `presented`, the value of the `api-key` header, opens `enclave` at `now_ms`
    /// (milliseconds since the Unix epoch).
    ///
    /// # Errors
    ///
    /// In this order: [`AuthFailure::Missing`] for an empty value, [`AuthFailure::Invalid`] for an
    /// unknown or ended key, [`AuthFailure::Forbidden`] for one of another enclave.
    pub fn check(
        &self,
        presented: &[u8],
        enclave: Uuid,
        now_ms: u64,
    ) -> Result<&ApiKeyId, AuthFailure> {
        if presented.is_empty() {
            return Err(AuthFailure::Missing);
        }
        if presented.len() > MAX_KEY_BYTES {
            return Err(AuthFailure::Invalid);
        }
        let hash = digest(&SHA256, presented);
        let entry = self.find(presented, hash.as_ref());
        // An unknown id costs the same comparison as a known one.
        let expected = entry.map_or(&NOBODY, |entry| &entry.sha256);
        let is_same: bool = expected[..].ct_eq(hash.as_ref()).into();
        let Some(entry) = entry.filter(|_| is_same) else {
            return Err(AuthFailure::Invalid);
        };
        if entry.not_after_ms.is_some_and(|end| now_ms >= end) {
            return Err(AuthFailure::Invalid);
        }
        if !entry.scopes.open(enclave) {
            return Err(AuthFailure::Forbidden);
        }
        Ok(&entry.id)
    }

    fn find(&self, presented: &[u8], hash: &[u8]) -> Option<&Entry> {
        match id_of(presented) {
            Some(id) => self.by_id.get(id),
            None => self.by_id.get(self.by_hash.get(hash)?),
        }
    }
}

impl Scopes {
    /// A scope that is not known opens nothing.
    fn read(scopes: &[String]) -> Self {
        let enclave = |scope: &String| Uuid::parse_str(scope.strip_prefix("enclave:")?).ok();
        Self {
            app: scopes.iter().any(|scope| scope == "app"),
            enclaves: scopes.iter().filter_map(enclave).collect(),
        }
    }

    fn open(&self, enclave: Uuid) -> bool {
        self.app || self.enclaves.contains(&enclave)
    }
}

impl std::borrow::Borrow<str> for ApiKeyId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The id in a key of our own form.
fn id_of(presented: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(presented).ok()?;
    let (id, secret) = text.strip_prefix("ck_")?.split_at_checked(
        text.len()
            .checked_sub("ck_".len())?
            .checked_sub(SECRET_CHARACTERS)?,
    )?;
    // Without an early end: it takes as long for a good secret as for another, and less.
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_secret = secret.bytes().fold(true, |all, byte| all & is_part(byte));
    id.strip_suffix('_')
        .filter(|id| is_secret && !id.is_empty())
}

/// Longest value looked at, in bytes.
const MAX_KEY_BYTES: usize = 512;
/// 256 bits in base64url without padding.
const SECRET_CHARACTERS: usize = 43;
/// What the hash of an unknown key is compared with; the result is thrown away.
const NOBODY: [u8; 32] = [0; 32];

#[cfg(test)]
mod tests {
    use super::*;

    const ENCLAVE: Uuid = Uuid::from_u128(7);

    fn presented(id: &str, fill: char) -> String {
        format!("ck_{id}_{}", fill.to_string().repeat(SECRET_CHARACTERS))
    }

    fn key(id: &str, value: &str, scopes: &[&str], not_after_ms: Option<u64>) -> ApiKey {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, value.as_bytes()).as_ref());
        ApiKey {
            id: id.to_owned(),
            sha256,
            scopes: scopes.iter().map(ToString::to_string).collect(),
            not_after_ms,
        }
    }

    #[test]
    fn a_good_key_is_let_in_and_named() {
        let value = presented("one", 'a');
        let keys = ApiKeys::new([key("one", &value, &["app"], None)]);
        let id = keys.check(value.as_bytes(), ENCLAVE, 0).unwrap();
        assert_eq!(id.as_str(), "one");
    }

    #[test]
    fn the_right_id_with_another_secret_is_refused() {
        let value = presented("one", 'a');
        let keys = ApiKeys::new([key("one", &value, &["app"], None)]);
        keys.check(value.as_bytes(), ENCLAVE, 0).unwrap();
        for wrong in [
            presented("one", 'b'),
            presented("two", 'a'),
            "ck_".into(),
            "x".into(),
        ] {
            assert_eq!(
                keys.check(wrong.as_bytes(), ENCLAVE, 0),
                Err(AuthFailure::Invalid)
            );
        }
        assert_eq!(keys.check(b"", ENCLAVE, 0), Err(AuthFailure::Missing));
    }

    /// The bundle carries every key of the app so that these two can be told apart.
    #[test]
    fn a_key_of_another_enclave_is_forbidden_and_an_unknown_one_invalid() {
        let (mine, other) = (presented("mine", 'a'), presented("other", 'b'));
        let this = format!("enclave:{ENCLAVE}");
        let that = format!("enclave:{}", Uuid::from_u128(8));
        let keys = ApiKeys::new([
            key("mine", &mine, &[&this], None),
            key("other", &other, &[&that, "enclave:nonsense", "App"], None),
        ]);
        keys.check(mine.as_bytes(), ENCLAVE, 0).unwrap();
        assert_eq!(
            keys.check(other.as_bytes(), ENCLAVE, 0),
            Err(AuthFailure::Forbidden)
        );
    }

    #[test]
    fn a_key_ends_at_its_end() {
        let value = presented("one", 'a');
        let keys = ApiKeys::new([key("one", &value, &["app"], Some(1_000))]);
        keys.check(value.as_bytes(), ENCLAVE, 999).unwrap();
        assert_eq!(
            keys.check(value.as_bytes(), ENCLAVE, 1_000),
            Err(AuthFailure::Invalid)
        );
    }

    #[test]
    fn an_imported_key_of_another_form_is_found_by_its_hash() {
        let keys = ApiKeys::new([key("old", "ev:key:1:abcdefgh", &["app"], None)]);
        keys.check(b"ev:key:1:abcdefgh", ENCLAVE, 0).unwrap();
        keys.check(b"ev:key:1:abcdefgi", ENCLAVE, 0).unwrap_err();
    }

    #[test]
    fn an_id_may_contain_underscores() {
        let value = presented("key_1_a", '_');
        let keys = ApiKeys::new([key("key_1_a", &value, &["app"], None)]);
        keys.check(value.as_bytes(), ENCLAVE, 0).unwrap();
    }
}
