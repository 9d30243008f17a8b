//! The development root: a key pair on this machine's disk under which simulated NSMs sign.
//!
//! Made on first use. The key file is for its owner alone (0600); both files are written aside and
//! renamed, under a lock, so that two processes that start together get one root and a crash leaves
//! none or a whole one.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cloister_attestation::{AnchorError, TrustAnchor, UnixMillis};
use fs_err as fs;
use thiserror::Error;

use crate::certificate::{AUTHORITY_USAGE, Certificate, Role, SigningKey};
use crate::error::SimulatorError;
use crate::pem;

/// A root for simulated documents. Nobody believes it who was not told to by a name with `dangerous`
/// in it.
#[derive(Debug, Clone)]
pub struct DevelopmentRoot {
    pub(crate) authority: Arc<Authority>,
    is_kept: bool,
}

/// A key with the certificate over it.
#[derive(Debug)]
pub(crate) struct Authority {
    pub(crate) key: SigningKey,
    pub(crate) certificate: Vec<u8>,
    pub(crate) subject: String,
    pub(crate) not_before: UnixMillis,
    pub(crate) not_after: UnixMillis,
}

impl DevelopmentRoot {
    /// A root that is kept nowhere.
    ///
    /// # Errors
    ///
    /// [`RootError::Crypto`].
    pub fn generate(now: UnixMillis) -> Result<Self, RootError> {
        Self::certify(SigningKey::generate()?, now)
    }

    /// The root of the folder `dir`, made there when there is none.
    ///
    /// # Errors
    ///
    /// - [`RootError::Io`]: a file cannot be read or written;
    /// - [`RootError::Exposed`]: others may read the key;
    /// - [`RootError::NoKey`], [`RootError::Unreadable`], [`RootError::Unrelated`]: the files there
    ///   are not a root; nothing is overwritten.
    pub fn load_or_create(dir: &Path, now: UnixMillis) -> Result<Self, RootError> {
        let io = |source| RootError::Io { source };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| RootError::Io {
                source: io::Error::new(source.kind(), format!("`{}`: {source}", dir.display())),
            })?;
        let lock = open_private(&dir.join(LOCK_FILE), false).map_err(io)?;
        lock.file().lock().map_err(io)?;
        let (key_path, certificate_path) = (dir.join(KEY_FILE), dir.join(CERTIFICATE_FILE));
        let root = match (exists(&key_path)?, exists(&certificate_path)?) {
            (true, true) => Self::load(&key_path, &certificate_path)?,
            (false, true) => return Err(RootError::NoKey { path: key_path }),
            (true, false) => {
                // The crash came between the two files: the certificate can be made again.
                let root = Self::certify(read_key(&key_path)?, now)?;
                write_private(dir, &certificate_path, &root.certificate_pem()).map_err(io)?;
                root
            }
            (false, false) => {
                let root = Self::generate(now)?;
                let key = pem::encode(KEY_LABEL, &root.authority.key.to_pkcs8()?);
                write_private(dir, &key_path, &key).map_err(io)?;
                write_private(dir, &certificate_path, &root.certificate_pem()).map_err(io)?;
                root
            }
        };
        Ok(Self {
            is_kept: true,
            ..root
        })
    }

    /// Whether its key is in a folder, where other processes and later ones find it. A root that is
    /// not kept signs nothing after it was dropped.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// The certificate in DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.authority.certificate
    }

    /// The certificate in PEM.
    pub fn certificate_pem(&self) -> String {
        pem::encode(CERTIFICATE_LABEL, &self.authority.certificate)
    }

    /// The trust anchor that believes this root.
    ///
    /// # Errors
    ///
    /// [`RootError::Anchor`]: the certificate cannot be one.
    pub fn dangerous_anchor(&self) -> Result<TrustAnchor, RootError> {
        Ok(TrustAnchor::dangerous_root(self.certificate_der())?)
    }

    fn certify(key: SigningKey, now: UnixMillis) -> Result<Self, RootError> {
        let not_before = UnixMillis::from_seconds(now.0 / 1000).minus(BACKDATED);
        let not_after = not_before.plus(LIFE);
        let certificate = Certificate {
            subject: SUBJECT,
            issuer: SUBJECT,
            public_key: key.public(),
            issuer_public_key: key.public(),
            not_before,
            not_after,
            role: Role::Authority(None),
            key_usage: AUTHORITY_USAGE,
            extra: &[],
        }
        .sign(&key)?;
        let subject = SUBJECT.to_owned();
        Ok(Self {
            authority: Arc::new(Authority {
                key,
                certificate,
                subject,
                not_before,
                not_after,
            }),
            is_kept: false,
        })
    }

    fn load(key_path: &Path, certificate_path: &Path) -> Result<Self, RootError> {
        let key = read_key(key_path)?;
        let unreadable = || RootError::Unreadable {
            path: certificate_path.to_owned(),
        };
        let text =
            fs::read_to_string(certificate_path).map_err(|source| RootError::Io { source })?;
        let certificate = pem::decode(CERTIFICATE_LABEL, &text).ok_or_else(unreadable)?;
        TrustAnchor::dangerous_root(&certificate)?;
        let public = key.public();
        if !certificate
            .windows(public.len())
            .any(|window| window == public)
        {
            return Err(RootError::Unrelated {
                path: certificate_path.to_owned(),
            });
        }
        Ok(Self {
            authority: Arc::new(Authority {
                key,
                certificate,
                subject: SUBJECT.to_owned(),
                not_before: UnixMillis(0),
                not_after: UnixMillis(u64::MAX),
            }),
            is_kept: true,
        })
    }
}

fn read_key(path: &Path) -> Result<SigningKey, RootError> {
    let io = |source| RootError::Io { source };
    let mode = fs::metadata(path).map_err(io)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(RootError::Exposed {
            path: path.to_owned(),
            mode: mode & 0o777,
        });
    }
    let text = fs::read_to_string(path).map_err(io)?;
    let unreadable = || RootError::Unreadable {
        path: path.to_owned(),
    };
    let der = pem::decode(KEY_LABEL, &text).ok_or_else(unreadable)?;
    SigningKey::from_pkcs8(&der).map_err(|_| unreadable())
}

fn exists(path: &Path) -> Result<bool, RootError> {
    path.try_exists().map_err(|source| RootError::Io { source })
}

fn open_private(path: &Path, is_new: bool) -> io::Result<fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options
        .write(true)
        .mode(0o600)
        .create(!is_new)
        .create_new(is_new);
    fs::OpenOptions::from_options(options).open(path)
}

/// Writes aside, to the disk, and into place.
fn write_private(dir: &Path, path: &Path, text: &str) -> io::Result<()> {
    let aside = path.with_extension("new");
    // Left by a crash; the lock is ours, so nobody is writing it.
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = open_private(&aside, true)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    fs::File::open(dir)?.sync_all()
}

/// Why there is no development root.
#[non_exhaustive]
#[derive(Debug, Error)]
pub enum RootError {
    /// The certificate cannot be a trust anchor.
    #[error("the development root cannot be a trust anchor: {0}")]
    Anchor(#[from] AnchorError),
    /// The cryptographic library failed.
    #[error(transparent)]
    Crypto(#[from] SimulatorError),
    /// Others than the owner may read the key.
    #[error("`{}` has mode {mode:o}, expected 600: others may have read the key", path.display())]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file cannot be read or written.
    #[error("the development root cannot be read or written: {source}")]
    Io {
        /// What the system says, with the path.
        source: io::Error,
    },
    /// The certificate is there and its key is not.
    #[error("`{}` is missing while its certificate is there; remove both to make new ones", path.display())]
    NoKey {
        /// The key file.
        path: PathBuf,
    },
    /// A file is not what its name says.
    #[error("`{}` is not a PEM file of the expected kind", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
    },
    /// Key and certificate do not belong together.
    #[error("`{}` is not the certificate of the key beside it", path.display())]
    Unrelated {
        /// The certificate file.
        path: PathBuf,
    },
}

/// Name of the key file: PKCS#8 in PEM, mode 0600.
pub const KEY_FILE: &str = "nsm-root.key";
/// Name of the certificate file: PEM.
pub const CERTIFICATE_FILE: &str = "nsm-root.pem";

const LOCK_FILE: &str = "nsm-root.lock";
const KEY_LABEL: &str = "PRIVATE KEY";
const CERTIFICATE_LABEL: &str = "CERTIFICATE";
const SUBJECT: &str = "simulated-nsm-root.development.invalid";
/// Ten years: longer than anybody keeps a development folder.
const LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const BACKDATED: Duration = Duration::from_secs(24 * 3600);
