//! The content of a bundle, and its one CBOR encoding.
//!
//! Decoding is strict where a mistake could be used (types, lengths, duplicate keys, bytes after the
//! end) and open where a newer platform may say more: an unknown key is passed over.

use std::collections::BTreeMap;
use std::fmt;

use cloister_attestation::cbor::{CborError, Reader, Writer};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::error::{BundleError, SealingError};
use crate::object::SealingSecret;

mod decode;

/// Protocol version of a bundle, its `v`.
pub const VERSION: u64 = 1;
/// Most app keys: four a curve.
pub const MAX_APP_KEYS: usize = 8;
/// Most API keys.
pub const MAX_API_KEYS: usize = 4096;
/// Most scopes of one API key.
pub const MAX_SCOPES: usize = 64;
/// Most variables.
pub const MAX_ENV: usize = 1024;
/// Longest value of a variable, in bytes: Linux takes 128 KiB for one string (`MAX_ARG_STRLEN`),
/// name, `=` and the final zero included.
pub const MAX_ENV_VALUE_BYTES: usize = 128 * 1024 - 1024;
/// Most object heads, and most settings.
pub const MAX_ENTRIES: usize = 256;
/// Longest name, id, scope or setting, in bytes.
pub const MAX_TEXT_BYTES: usize = 512;

/// What the platform tells one boot of one enclave. Times are milliseconds since the Unix epoch.
#[derive(Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Protocol version, [`VERSION`].
    pub v: u64,
    /// Which enclave it is for.
    pub enclave: Uuid,
    /// Which deployment of it.
    pub deployment: String,
    /// Grows with every change of the enclave's bundle.
    pub version: u64,
    /// The challenge of the boot it is for.
    pub challenge: [u8; 32],
    /// SHA-256 of the boot's X25519 public key.
    pub recipient: [u8; 32],
    /// PCR0 of the image it is for.
    pub pcr0: [u8; 48],
    /// When it was made.
    pub issued_at: u64,
    /// When it ends.
    pub not_after: u64,
    /// Keys that open ciphertexts, oldest first.
    pub app_keys: Vec<AppKey>,
    /// Every API key of the app, so that 403 can be told from 401.
    pub api_keys: Vec<ApiKeyRecord>,
    /// Variables of the user process.
    pub env: Vec<EnvVar>,
    /// Heads of sealed objects: version and SHA-256.
    pub objects: BTreeMap<String, (u64, [u8; 32])>,
    /// Settings that may change without a new image.
    pub settings: BTreeMap<String, String>,
    /// Names for logs.
    pub identity: Identity,
    /// What the keys of sealed objects are made from. A platform that keeps none sends none.
    pub sealing_secret: Option<SealingSecret>,
}

/// The private half of an app key. Wiped when dropped, not printed.
#[derive(PartialEq, Eq)]
pub struct AppKey {
    /// Its id.
    pub id: String,
    /// Its curve.
    pub curve: Curve,
    /// The scalar, big-endian.
    pub private: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Curve of an app key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// NIST P-256.
    P256,
    /// secp256k1.
    Secp256k1,
}

impl Curve {
    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::Secp256k1 => "secp256k1",
        }
    }
}

/// What an enclave needs to check one API key; the key itself is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// The `<id>` of `ck_<id>_<secret>`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// SHA-256 of the whole key.
    pub sha256: [u8; 32],
    /// `app`, or `enclave:<uuid>`.
    pub scopes: Vec<String>,
    /// When it ends, if it does.
    pub not_after: Option<u64>,
}

/// A variable of the user process. The value is wiped when dropped and not printed.
#[derive(PartialEq, Eq)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value, any bytes but zero.
    pub value: Zeroizing<Vec<u8>>,
    /// Whether it is a secret.
    pub secret: bool,
}

impl fmt::Debug for EnvVar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvVar")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Names for logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Uuid or name of the team.
    pub team: String,
    /// Uuid or name of the app.
    pub app: String,
    /// Name of the enclave.
    pub name: String,
}

impl Bundle {
    /// The one encoding: a definite map, keys in the order of the specification.
    ///
    /// # Errors
    ///
    /// [`SealingError::OverLimit`] with the field that an enclave would refuse.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, SealingError> {
        self.check_limits()?;
        let mut out = Writer::with_capacity(self.size_bound());
        let keys = if self.sealing_secret.is_some() {
            16
        } else {
            15
        };
        out.map(keys).text("v").unsigned(self.v);
        out.text("enclave").bytes(self.enclave.as_bytes());
        out.text("deployment").text(&self.deployment);
        out.text("version").unsigned(self.version);
        out.text("challenge").bytes(&self.challenge);
        out.text("recipient").bytes(&self.recipient);
        out.text("pcr0").bytes(&self.pcr0);
        out.text("issued_at").unsigned(self.issued_at);
        out.text("not_after").unsigned(self.not_after);
        out.text("app_keys").array(count(&self.app_keys));
        for key in &self.app_keys {
            out.map(3).text("id").text(&key.id);
            out.text("curve").text(key.curve.name());
            out.text("private").bytes(key.private.as_slice());
        }
        out.text("api_keys").array(count(&self.api_keys));
        for key in &self.api_keys {
            out.map(5)
                .text("id")
                .text(&key.id)
                .text("name")
                .text(&key.name);
            out.text("sha256").bytes(&key.sha256);
            out.text("scopes").array(count(&key.scopes));
            for scope in &key.scopes {
                out.text(scope);
            }
            out.text("not_after");
            match key.not_after {
                Some(moment) => out.unsigned(moment),
                None => out.null(),
            };
        }
        out.text("env").array(count(&self.env));
        for variable in &self.env {
            out.array(3)
                .text(&variable.name)
                .bytes(&variable.value)
                .boolean(variable.secret);
        }
        out.text("objects")
            .map(u64::try_from(self.objects.len()).unwrap_or(u64::MAX));
        for (name, (version, digest)) in &self.objects {
            out.text(name).array(2).unsigned(*version).bytes(digest);
        }
        out.text("settings")
            .map(u64::try_from(self.settings.len()).unwrap_or(u64::MAX));
        for (name, value) in &self.settings {
            out.text(name).text(value);
        }
        let Identity { team, app, name } = &self.identity;
        out.text("identity").map(3);
        out.text("team")
            .text(team)
            .text("app")
            .text(app)
            .text("name")
            .text(name);
        if let Some(secret) = &self.sealing_secret {
            out.text("sealing_secret").bytes(secret.as_bytes());
        }
        Ok(out.into_bytes())
    }

    /// At least as many bytes as the encoding has, so that no secret is moved while it is written.
    fn size_bound(&self) -> usize {
        /// More than the keys, heads and values of fixed length of any entry, and of the whole.
        const ENTRY: usize = 128;
        const FIXED: usize = 1024;
        let app_keys = self.app_keys.iter().map(|key| key.id.len());
        let api_keys = self.api_keys.iter().map(|key| {
            let scopes = key.scopes.iter().map(|scope| scope.len().saturating_add(9));
            add([key.id.len(), key.name.len()].into_iter().chain(scopes))
        });
        let env = self
            .env
            .iter()
            .map(|var| add([var.name.len(), var.value.len()]));
        let objects = self.objects.keys().map(String::len);
        let settings = self
            .settings
            .iter()
            .map(|(name, value)| add([name.len(), value.len()]));
        let entries = app_keys
            .chain(api_keys)
            .chain(env)
            .chain(objects)
            .chain(settings);
        let Identity { team, app, name } = &self.identity;
        let texts = [
            FIXED,
            self.deployment.len(),
            team.len(),
            app.len(),
            name.len(),
        ];
        add(entries
            .map(|bytes| bytes.saturating_add(ENTRY))
            .chain(texts))
    }

    /// Reads one encoding.
    pub(crate) fn decode(payload: &[u8]) -> Result<Self, BundleError> {
        decode::bundle(payload)
    }

    /// The limits that [`Bundle::decode`] enforces, so that a platform hears of them first.
    fn check_limits(&self) -> Result<(), SealingError> {
        let over = |field| Err(SealingError::OverLimit { field });
        let is_long = |text: &String| text.len() > MAX_TEXT_BYTES;
        if self.app_keys.len() > MAX_APP_KEYS || self.app_keys.iter().any(|key| is_long(&key.id)) {
            return over("app_keys");
        }
        let api_key = |key: &ApiKeyRecord| {
            is_long(&key.id)
                || is_long(&key.name)
                || key.scopes.len() > MAX_SCOPES
                || key.scopes.iter().any(is_long)
        };
        if self.api_keys.len() > MAX_API_KEYS || self.api_keys.iter().any(api_key) {
            return over("api_keys");
        }
        let variable = |var: &EnvVar| is_long(&var.name) || var.value.len() > MAX_ENV_VALUE_BYTES;
        if self.env.len() > MAX_ENV || self.env.iter().any(variable) {
            return over("env");
        }
        if self.objects.len() > MAX_ENTRIES || self.objects.keys().any(is_long) {
            return over("objects");
        }
        let setting = |(name, value): (&String, &String)| is_long(name) || is_long(value);
        if self.settings.len() > MAX_ENTRIES || self.settings.iter().any(setting) {
            return over("settings");
        }
        let Identity { team, app, name } = &self.identity;
        if [&self.deployment, team, app, name].into_iter().any(is_long) {
            return over("identity");
        }
        Ok(())
    }
}

fn add(sizes: impl IntoIterator<Item = usize>) -> usize {
    sizes.into_iter().fold(0, usize::saturating_add)
}

fn count<T>(list: &[T]) -> u64 {
    u64::try_from(list.len()).unwrap_or(u64::MAX)
}

/// Names the field in which the CBOR went wrong.
fn wrong(field: &'static str) -> impl Fn(CborError) -> BundleError {
    move |problem| BundleError::Malformed {
        field,
        problem: problem.0,
    }
}

/// Text of at most [`MAX_TEXT_BYTES`].
fn text(input: &mut Reader<'_>) -> Result<String, CborError> {
    input.text(MAX_TEXT_BYTES).map(str::to_owned)
}
