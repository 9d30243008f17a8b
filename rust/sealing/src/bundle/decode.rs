//! Reading a bundle's CBOR.

use std::collections::BTreeMap;

use cloister_attestation::cbor::{CborError, Reader};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    ApiKeyRecord, AppKey, Bundle, Curve, EnvVar, Identity, MAX_API_KEYS, MAX_APP_KEYS, MAX_ENTRIES,
    MAX_ENV, MAX_ENV_VALUE_BYTES, MAX_SCOPES, VERSION, text, wrong,
};
use crate::error::BundleError;
use crate::object::SealingSecret;

/// Most keys of any map with fixed keys: today's and as many from a newer platform.
const MAX_KEYS: usize = 64;
/// How deep an unknown value may nest.
const MAX_UNKNOWN_DEPTH: usize = 8;

#[derive(Default)]
struct Draft {
    v: Option<u64>,
    enclave: Option<Uuid>,
    deployment: Option<String>,
    version: Option<u64>,
    challenge: Option<[u8; 32]>,
    recipient: Option<[u8; 32]>,
    pcr0: Option<[u8; 48]>,
    issued_at: Option<u64>,
    not_after: Option<u64>,
    app_keys: Option<Vec<AppKey>>,
    api_keys: Option<Vec<ApiKeyRecord>>,
    env: Option<Vec<EnvVar>>,
    objects: Option<BTreeMap<String, (u64, [u8; 32])>>,
    settings: Option<BTreeMap<String, String>>,
    identity: Option<Identity>,
    sealing_secret: Option<SealingSecret>,
}

pub(super) fn bundle(payload: &[u8]) -> Result<Bundle, BundleError> {
    let mut input = Reader::new(payload);
    let mut draft = Draft::default();
    let mut pairs = input.map(MAX_KEYS).map_err(wrong("bundle"))?;
    let mut unknown = Vec::new();
    while input.has_next(&mut pairs).map_err(wrong("bundle"))? {
        let key = input.text(MAX_KEYS).map_err(wrong("bundle"))?;
        if !read(&mut input, key, &mut draft)? {
            skip(&mut input, key, &mut unknown).map_err(wrong("bundle"))?;
        }
    }
    input.finish().map_err(wrong("bundle"))?;
    draft.finish()
}

/// Stores the value of a key; false when it is not one of ours.
fn read(input: &mut Reader<'_>, key: &str, draft: &mut Draft) -> Result<bool, BundleError> {
    match key {
        "v" => {
            let v = set(&mut draft.v, "v", input.unsigned())?;
            if v != VERSION {
                return Err(BundleError::Malformed {
                    field: "v",
                    problem: "is another protocol version; this enclave reads version 1",
                });
            }
        }
        "enclave" => {
            let uuid = fixed::<16>(input).map(Uuid::from_bytes);
            set(&mut draft.enclave, "enclave", uuid)?;
        }
        "deployment" => drop(set(&mut draft.deployment, "deployment", text(input))?),
        "version" => drop(set(&mut draft.version, "version", input.unsigned())?),
        "challenge" => drop(set(&mut draft.challenge, "challenge", fixed(input))?),
        "recipient" => drop(set(&mut draft.recipient, "recipient", fixed(input))?),
        "pcr0" => drop(set(&mut draft.pcr0, "pcr0", fixed(input))?),
        "issued_at" => drop(set(&mut draft.issued_at, "issued_at", input.unsigned())?),
        "not_after" => drop(set(&mut draft.not_after, "not_after", input.unsigned())?),
        "app_keys" => once(
            &mut draft.app_keys,
            "app_keys",
            list(input, MAX_APP_KEYS, app_key),
        )?,
        "api_keys" => once(
            &mut draft.api_keys,
            "api_keys",
            list(input, MAX_API_KEYS, api_key),
        )?,
        "env" => once(&mut draft.env, "env", list(input, MAX_ENV, variable))?,
        "objects" => once(&mut draft.objects, "objects", table(input, object))?,
        "settings" => once(&mut draft.settings, "settings", table(input, text))?,
        "identity" => once(&mut draft.identity, "identity", identity(input))?,
        "sealing_secret" => once(
            &mut draft.sealing_secret,
            "sealing_secret",
            borrowed(input).map(SealingSecret::from_bytes),
        )?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Passes over the value of a key that only a newer platform knows; even that comes once.
fn skip<'b>(
    input: &mut Reader<'b>,
    key: &'b str,
    unknown: &mut Vec<&'b str>,
) -> Result<(), CborError> {
    if unknown.contains(&key) {
        return Err(CborError("has a key twice"));
    }
    unknown.push(key);
    input.skip(MAX_UNKNOWN_DEPTH)
}

impl Draft {
    fn finish(self) -> Result<Bundle, BundleError> {
        Ok(Bundle {
            v: present(self.v, "v")?,
            enclave: present(self.enclave, "enclave")?,
            deployment: present(self.deployment, "deployment")?,
            version: present(self.version, "version")?,
            challenge: present(self.challenge, "challenge")?,
            recipient: present(self.recipient, "recipient")?,
            pcr0: present(self.pcr0, "pcr0")?,
            issued_at: present(self.issued_at, "issued_at")?,
            not_after: present(self.not_after, "not_after")?,
            app_keys: present(self.app_keys, "app_keys")?,
            api_keys: present(self.api_keys, "api_keys")?,
            env: present(self.env, "env")?,
            objects: present(self.objects, "objects")?,
            settings: present(self.settings, "settings")?,
            identity: present(self.identity, "identity")?,
            sealing_secret: self.sealing_secret,
        })
    }
}

fn present<T>(value: Option<T>, field: &'static str) -> Result<T, BundleError> {
    value.ok_or(BundleError::Malformed {
        field,
        problem: "is missing",
    })
}

/// Stores a value that may come once.
fn once<T>(
    slot: &mut Option<T>,
    field: &'static str,
    value: Result<T, CborError>,
) -> Result<(), BundleError> {
    if slot.is_some() {
        return Err(BundleError::Malformed {
            field,
            problem: "comes twice",
        });
    }
    *slot = Some(value.map_err(wrong(field))?);
    Ok(())
}

/// [`once`], and a copy of what was stored.
fn set<T: Clone>(
    slot: &mut Option<T>,
    field: &'static str,
    value: Result<T, CborError>,
) -> Result<T, BundleError> {
    let value = value.map_err(wrong(field))?;
    once(slot, field, Ok(value.clone()))?;
    Ok(value)
}

fn fixed<const N: usize>(input: &mut Reader<'_>) -> Result<[u8; N], CborError> {
    borrowed(input).copied()
}

/// [`fixed`] where it lies: no copy is made on the way to where it is kept.
fn borrowed<'b, const N: usize>(input: &mut Reader<'b>) -> Result<&'b [u8; N], CborError> {
    input
        .bytes(N)?
        .try_into()
        .map_err(|_| CborError("has another length than expected"))
}

fn list<T>(
    input: &mut Reader<'_>,
    limit: usize,
    item: impl Fn(&mut Reader<'_>) -> Result<T, CborError>,
) -> Result<Vec<T>, CborError> {
    let mut items = input.array(limit)?;
    // Room for all app keys: a list that grows leaves what was in it behind.
    let mut out = Vec::with_capacity(limit.min(MAX_APP_KEYS));
    while input.has_next(&mut items)? {
        out.push(item(input)?);
    }
    Ok(out)
}

fn table<T>(
    input: &mut Reader<'_>,
    value: impl Fn(&mut Reader<'_>) -> Result<T, CborError>,
) -> Result<BTreeMap<String, T>, CborError> {
    let mut pairs = input.map(MAX_ENTRIES)?;
    let mut out = BTreeMap::new();
    while input.has_next(&mut pairs)? {
        let name = text(input)?;
        if out.insert(name, value(input)?).is_some() {
            return Err(CborError("has a key twice"));
        }
    }
    Ok(out)
}

/// A map with fixed keys: `field` is called for each and says whether it knows it.
fn record<'b>(
    input: &mut Reader<'b>,
    mut field: impl FnMut(&mut Reader<'b>, &str) -> Result<bool, CborError>,
) -> Result<(), CborError> {
    let mut pairs = input.map(MAX_KEYS)?;
    let mut unknown = Vec::new();
    while input.has_next(&mut pairs)? {
        let key = input.text(MAX_KEYS)?;
        if !field(input, key)? {
            skip(input, key, &mut unknown)?;
        }
    }
    Ok(())
}

/// Stores a field of a record that may come once.
fn put<T>(slot: &mut Option<T>, value: T) -> Result<bool, CborError> {
    if slot.replace(value).is_some() {
        return Err(CborError("has a key twice"));
    }
    Ok(true)
}

const INCOMPLETE: CborError = CborError("has an entry with a missing key");

fn app_key(input: &mut Reader<'_>) -> Result<AppKey, CborError> {
    let (mut id, mut curve, mut private) = (None, None, None);
    record(input, |input, key| match key {
        "id" => put(&mut id, text(input)?),
        "curve" => put(
            &mut curve,
            match input.text(MAX_KEYS)? {
                "P-256" => Curve::P256,
                "secp256k1" => Curve::Secp256k1,
                _ => return Err(CborError("names an unknown curve")),
            },
        ),
        "private" => put(&mut private, Zeroizing::new(fixed::<32>(input)?)),
        _ => Ok(false),
    })?;
    Ok(AppKey {
        id: id.ok_or(INCOMPLETE)?,
        curve: curve.ok_or(INCOMPLETE)?,
        private: private.ok_or(INCOMPLETE)?,
    })
}

fn api_key(input: &mut Reader<'_>) -> Result<ApiKeyRecord, CborError> {
    let (mut id, mut name, mut sha256) = (None, None, None);
    let (mut scopes, mut not_after) = (None, None);
    record(input, |input, key| match key {
        "id" => put(&mut id, text(input)?),
        "name" => put(&mut name, text(input)?),
        "sha256" => put(&mut sha256, fixed::<32>(input)?),
        "scopes" => put(&mut scopes, list(input, MAX_SCOPES, text)?),
        "not_after" => put(&mut not_after, moment_or_null(input)?),
        _ => Ok(false),
    })?;
    Ok(ApiKeyRecord {
        id: id.ok_or(INCOMPLETE)?,
        name: name.ok_or(INCOMPLETE)?,
        sha256: sha256.ok_or(INCOMPLETE)?,
        scopes: scopes.ok_or(INCOMPLETE)?,
        not_after: not_after.ok_or(INCOMPLETE)?,
    })
}

fn moment_or_null(input: &mut Reader<'_>) -> Result<Option<u64>, CborError> {
    // A copy of the reader looks ahead: null is the only other thing that may come.
    if input.clone().bytes_or_null(0) == Ok(None) {
        input.bytes_or_null(0)?;
        return Ok(None);
    }
    input.unsigned().map(Some)
}

fn variable(input: &mut Reader<'_>) -> Result<EnvVar, CborError> {
    let mut items = input.array(3)?;
    let mut next = |input: &mut Reader<'_>| {
        if input.has_next(&mut items)? {
            Ok(())
        } else {
            Err(INCOMPLETE)
        }
    };
    next(input)?;
    let name = text(input)?;
    next(input)?;
    let value = Zeroizing::new(input.bytes(MAX_ENV_VALUE_BYTES)?.to_vec());
    next(input)?;
    let secret = input.boolean()?;
    if next(input).is_ok() {
        return Err(CborError("has an entry that is too long"));
    }
    if name.is_empty() || name.contains(['=', '\0']) || value.contains(&0) {
        return Err(CborError(
            "has a name or value that no environment can hold",
        ));
    }
    Ok(EnvVar {
        name,
        value,
        secret,
    })
}

fn object(input: &mut Reader<'_>) -> Result<(u64, [u8; 32]), CborError> {
    let mut items = input.array(2)?;
    let mut next = |input: &mut Reader<'_>| input.has_next(&mut items);
    if !next(input)? {
        return Err(INCOMPLETE);
    }
    let version = input.unsigned()?;
    if !next(input)? {
        return Err(INCOMPLETE);
    }
    let digest = fixed(input)?;
    if next(input)? {
        return Err(CborError("has an entry that is too long"));
    }
    Ok((version, digest))
}

fn identity(input: &mut Reader<'_>) -> Result<Identity, CborError> {
    let (mut team, mut app, mut name) = (None, None, None);
    record(input, |input, key| match key {
        "team" => put(&mut team, text(input)?),
        "app" => put(&mut app, text(input)?),
        "name" => put(&mut name, text(input)?),
        _ => Ok(false),
    })?;
    Ok(Identity {
        team: team.ok_or(INCOMPLETE)?,
        app: app.ok_or(INCOMPLETE)?,
        name: name.ok_or(INCOMPLETE)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloister_attestation::cbor::Writer;

    fn whole() -> Bundle {
        Bundle {
            v: 1,
            enclave: Uuid::nil(),
            deployment: String::new(),
            version: 1,
            challenge: [1; 32],
            recipient: [2; 32],
            pcr0: [3; 48],
            issued_at: 0,
            not_after: 1,
            app_keys: vec![],
            api_keys: vec![],
            env: vec![],
            objects: BTreeMap::new(),
            settings: BTreeMap::new(),
            identity: Identity::default(),
            sealing_secret: None,
        }
    }

    fn problem(payload: &[u8]) -> String {
        bundle(payload).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_of_a_newer_platform_is_passed_over() {
        let mut bytes = whole().encode().unwrap();
        bytes[0] += 1;
        let mut more = Writer::new();
        more.text("later").array(2).unsigned(1).text("x");
        bytes.extend(more.into_bytes());
        assert_eq!(bundle(&bytes).unwrap(), whole());
    }

    /// A platform without sealed objects sends what it always sent.
    #[test]
    fn a_bundle_with_or_without_a_sealing_secret_comes_back_as_it_was() {
        let mut made = whole();
        assert_eq!(bundle(&made.encode().unwrap()).unwrap(), made);
        made.sealing_secret = Some(SealingSecret::from_bytes(&[5; 32]));
        assert_eq!(bundle(&made.encode().unwrap()).unwrap(), made);
        let mut bytes = whole().encode().unwrap();
        bytes[0] += 1;
        let mut short = Writer::new();
        short.text("sealing_secret").bytes(&[5; 31]);
        bytes.extend(short.into_bytes());
        assert!(problem(&bytes).contains("`sealing_secret`"));
    }

    #[test]
    fn a_key_that_comes_twice_is_refused() {
        let mut bytes = whole().encode().unwrap();
        bytes[0] += 1;
        let mut more = Writer::new();
        more.text("version").unsigned(9);
        bytes.extend(more.into_bytes());
        assert!(problem(&bytes).contains("`version` comes twice"));
    }

    #[test]
    fn an_unknown_key_that_comes_twice_is_refused() {
        for (times, is_read) in [(1, true), (2, false)] {
            let mut bytes = whole().encode().unwrap();
            bytes[0] += times;
            for _ in 0..times {
                let mut more = Writer::new();
                more.text("later").unsigned(9);
                bytes.extend(more.into_bytes());
            }
            assert_eq!(bundle(&bytes).is_ok(), is_read);
        }
    }

    #[test]
    fn a_missing_key_is_named() {
        let mut bytes = Writer::new();
        bytes.map(1).text("v").unsigned(1);
        assert!(problem(&bytes.into_bytes()).contains("`enclave` is missing"));
    }

    #[test]
    fn bytes_after_the_end_are_refused() {
        let mut bytes = whole().encode().unwrap();
        bytes.push(0);
        bundle(&bytes).unwrap_err();
    }

    /// A list that says it is long must not be believed before its items are there.
    #[test]
    fn a_count_over_the_limit_is_refused_before_anything_is_stored() {
        let mut bytes = Writer::new();
        bytes.map(1).text("env").array(u64::MAX);
        assert!(problem(&bytes.into_bytes()).contains("`env`"));
    }

    #[test]
    fn a_variable_that_no_environment_can_hold_is_refused() {
        for (name, value) in [("A=B", &b"x"[..]), ("", b"x"), ("A", b"a\0b")] {
            let mut made = whole();
            let value = Zeroizing::new(value.to_vec());
            made.env.push(EnvVar {
                name: name.to_owned(),
                value,
                secret: false,
            });
            assert!(problem(&made.encode().unwrap()).contains("`env`"), "{name}");
        }
    }
}
