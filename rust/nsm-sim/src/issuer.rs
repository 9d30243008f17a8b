//! The chain under the development root, renewed before any part of it expires.
//!
//! Regional (20 days, path length 2) → zonal (6 days, 1) → instance (24 hours, 0) → leaf (3 hours):
//! the lives of the hypervisor's own.

use std::sync::Arc;
use std::time::Duration;

use cloister_attestation::UnixMillis;

use crate::certificate::{
    AUTHORITY_USAGE, Certificate, INSTANCE_USAGE, LEAF_USAGE, Role, SigningKey,
};
use crate::error::SimulatorError;
use crate::root::Authority;

/// The chain of one simulated instance.
#[derive(Debug)]
pub(crate) struct Chain {
    root: Arc<Authority>,
    /// Regional, zonal, instance, leaf.
    links: Vec<Authority>,
    module_id: String,
}

struct Level {
    name: &'static str,
    life: Duration,
    /// Renewed when less than this is left.
    margin: Duration,
    role: Role,
    key_usage: u8,
}

impl Chain {
    pub(crate) fn issue(
        root: Arc<Authority>,
        module_id: &str,
        now: UnixMillis,
    ) -> Result<Self, SimulatorError> {
        let mut chain = Self {
            root,
            links: Vec::new(),
            module_id: module_id.to_owned(),
        };
        chain.renew(now)?;
        Ok(chain)
    }

    /// Issues anew what is about to expire or not yet valid, and everything below it.
    pub(crate) fn renew(&mut self, now: UnixMillis) -> Result<(), SimulatorError> {
        let good = LEVELS
            .iter()
            .zip(&self.links)
            .take_while(|(level, link)| {
                link.not_before <= now && now.plus(level.margin) < link.not_after
            })
            .count();
        self.links.truncate(good);
        for level in LEVELS.iter().skip(good) {
            let issuer = self.links.last().unwrap_or(&self.root);
            let issued = level.issue(issuer, &self.module_id, now)?;
            self.links.push(issued);
        }
        Ok(())
    }

    /// The key that signs documents, and its certificate; `None` before the first [`Chain::renew`].
    pub(crate) fn leaf(&self) -> Option<&Authority> {
        self.links.last()
    }

    /// The other certificates, root first.
    pub(crate) fn bundle(&self) -> Vec<&[u8]> {
        let authorities = self.links.split_last().map_or(&[][..], |(_, above)| above);
        std::iter::once(&*self.root)
            .chain(authorities)
            .map(|authority| authority.certificate.as_slice())
            .collect()
    }
}

impl Level {
    fn issue(
        &self,
        issuer: &Authority,
        module_id: &str,
        now: UnixMillis,
    ) -> Result<Authority, SimulatorError> {
        let key = SigningKey::generate()?;
        let subject = if self.role == Role::Leaf {
            // A common name has at most 64 characters (RFC 5280, appendix A.1, ub-common-name).
            format!("{module_id}.development.invalid")
                .chars()
                .take(64)
                .collect()
        } else {
            format!("{}.simulated-nsm.development.invalid", self.name)
        };
        let not_before = UnixMillis::from_seconds(now.0 / 1000);
        let not_after = not_before.plus(self.life);
        let certificate = Certificate {
            subject: &subject,
            issuer: &issuer.subject,
            public_key: key.public(),
            issuer_public_key: issuer.key.public(),
            not_before,
            not_after,
            role: self.role,
            key_usage: self.key_usage,
            extra: &[],
        }
        .sign(&issuer.key)?;
        Ok(Authority {
            key,
            certificate,
            subject,
            not_before,
            not_after,
        })
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

const LEVELS: [Level; 4] = [
    Level {
        name: "regional",
        life: Duration::from_secs(20 * 24 * 3600),
        margin: DAY,
        role: Role::Authority(Some(2)),
        key_usage: AUTHORITY_USAGE,
    },
    Level {
        name: "zonal",
        life: Duration::from_secs(6 * 24 * 3600),
        margin: DAY,
        role: Role::Authority(Some(1)),
        key_usage: AUTHORITY_USAGE,
    },
    Level {
        name: "instance",
        life: DAY,
        margin: Duration::from_secs(4 * 3600),
        role: Role::Authority(Some(0)),
        key_usage: INSTANCE_USAGE,
    },
    Level {
        name: "leaf",
        life: Duration::from_secs(3 * 3600),
        margin: HOUR,
        role: Role::Leaf,
        key_usage: LEAF_USAGE,
    },
];
