//! Sealed objects as the enclave keeps them at its host (wire.md §2 and §3).
//!
//! Whoever implements [`ObjectStore`] is not believed: what comes out is opened with a key that the
//! host does not have, and compared with the head that the platform recorded. Conditions on writes
//! are what enclaves without a leader agree by; a host that breaks them can keep enclaves from
//! agreeing, and learns nothing. The first user is [`crate::certificate::shared`]; it has no part in
//! what an object holds.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::header::HeaderValue;

use cloister_sealing::{Sealer, Sharing};

use crate::agent::AgentFuture;

/// Where objects are, and who records their heads. Each call ends by itself: it has a deadline.
pub trait ObjectStore: Send + Sync + 'static {
    /// An object as it is stored; `None` when there is none of this name.
    fn read(&self, name: &str) -> AgentFuture<'_, Option<StoredObject>>;

    /// Replaces an object whole; false when the condition does not hold and nothing was changed.
    fn write(&self, name: &str, body: Vec<u8>, only: Only) -> AgentFuture<'_, bool>;

    /// Has the platform record a head; false when it knows another one that is as new or newer.
    fn record(&self, name: &str, head: Head) -> AgentFuture<'_, bool>;
}

/// An object as the store gave it. It may be anything.
#[derive(Clone, Debug)]
pub struct StoredObject {
    /// Its bytes.
    pub body: Vec<u8>,
    /// What a write that must replace exactly this object says.
    pub tag: EntityTag,
}

/// Entity tag of a stored object (RFC 9110 §8.8.3), as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityTag(pub HeaderValue);

/// When a write is to happen.
#[derive(Clone, Debug)]
pub enum Only {
    /// The object is still this one.
    If(EntityTag),
    /// There is no object of the name.
    IfAbsent,
}

/// Which object is the current one of its name.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Version it was sealed as.
    pub version: u64,
    /// SHA-256 of it, sealed.
    pub sha256: [u8; 32],
    /// Shows the platform that an enclave of the image says so.
    pub proof: [u8; 32],
}

/// What a bundle says about sealed objects.
#[derive(Debug)]
pub struct Grant {
    /// Seals and opens them; `None` when the platform keeps none.
    pub sealer: Option<Sealer>,
    /// Version and SHA-256 of the current object of each name.
    pub heads: BTreeMap<String, (u64, [u8; 32])>,
}

/// What became of objects and of their heads, for `/metrics`: what nobody but the enclave can judge.
#[derive(Debug, Default)]
pub struct ObjectStats {
    /// Newer than what the platform had recorded, of this image: recorded and used.
    pub finished: AtomicU64,
    /// The platform has recorded one, and the store had none.
    pub missing: AtomicU64,
    /// In the place of the recorded one, or of none, was something else: older, altered or foreign.
    pub refused: AtomicU64,
    /// The recorded one, put in use.
    pub used: AtomicU64,
    /// Written by this enclave, which took the place of whatever was there.
    pub written: AtomicU64,
    /// Heads that the platform could not be told of.
    pub heads_failed: AtomicU64,
    /// Heads that were not recorded: another was as new or newer.
    pub heads_overtaken: AtomicU64,
    /// Heads that the platform recorded.
    pub heads_recorded: AtomicU64,
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What the measured configuration says about sharing with other images.
pub fn sharing(dangerous_share_across_deployments: bool) -> Sharing {
    if dangerous_share_across_deployments {
        Sharing::DangerousAcrossDeployments
    } else {
        Sharing::SameImage
    }
}
