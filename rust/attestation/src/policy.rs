//! What a verifier insists on. A policy that would accept anything cannot be made.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::anchor::TrustAnchor;
use crate::measurements::{Measurements, PcrIndex};

/// What a document must prove to be accepted by [`crate::verify()`].
///
/// Made by [`Policy::builder`]. [`Policy::with_nonce`] and [`Policy::with_user_data`] add what
/// differs from one document to the next; a clone to add it to shares the measurements.
#[derive(Debug, Clone)]
pub struct Policy {
    pub(crate) anchor: TrustAnchor,
    /// `None`: any measurement, which only [`PolicyBuilder::dangerous_any_measurement`] sets.
    pub(crate) accepted: Option<Arc<[Measurements]>>,
    pub(crate) max_age: Duration,
    pub(crate) leeway: Duration,
    pub(crate) accepts_debug: bool,
    pub(crate) nonce: Option<Vec<u8>>,
    pub(crate) user_data: Option<Vec<u8>>,
}

impl Policy {
    /// A policy to be: the AWS Nitro root, no measurements yet, [`DEFAULT_MAX_AGE`] and
    /// [`DEFAULT_LEEWAY`].
    pub fn builder() -> PolicyBuilder {
        PolicyBuilder {
            anchor: TrustAnchor::aws_nitro(),
            accepted: Vec::new(),
            accepts_any: false,
            max_age: DEFAULT_MAX_AGE,
            leeway: DEFAULT_LEEWAY,
            accepts_debug: false,
        }
    }

    /// The same policy for a document that must carry exactly this nonce.
    #[must_use]
    pub fn with_nonce(mut self, nonce: impl Into<Vec<u8>>) -> Self {
        self.nonce = Some(nonce.into());
        self
    }

    /// The same policy for a document whose `user_data` must be exactly these bytes: the DER
    /// `SubjectPublicKeyInfo` of a TLS key, or the caller's own.
    #[must_use]
    pub fn with_user_data(mut self, user_data: impl Into<Vec<u8>>) -> Self {
        self.user_data = Some(user_data.into());
        self
    }

    /// The trust anchor.
    pub fn anchor(&self) -> &TrustAnchor {
        &self.anchor
    }
}

/// Makes a [`Policy`]; see [`Policy::builder`].
#[derive(Debug, Clone)]
pub struct PolicyBuilder {
    anchor: TrustAnchor,
    accepted: Vec<Measurements>,
    accepts_any: bool,
    max_age: Duration,
    leeway: Duration,
    accepts_debug: bool,
}

impl PolicyBuilder {
    /// Accepts one more set of measurements; a document has to match one of the sets.
    #[must_use]
    pub fn accept(mut self, measurements: Measurements) -> Self {
        self.accepted.push(measurements);
        self
    }

    /// The root that the certificate chain must lead to.
    #[must_use]
    pub fn anchor(mut self, anchor: TrustAnchor) -> Self {
        self.anchor = anchor;
        self
    }

    /// Oldest document accepted, by the document's own timestamp.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = max_age;
        self
    }

    /// How far the verifier's clock may be off, in either direction.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// Accepts an enclave in debug mode. Its PCR0 is zero, so this proves nothing about its code.
    #[must_use]
    pub fn dangerous_accept_debug(mut self) -> Self {
        self.accepts_debug = true;
        self
    }

    /// Accepts any measurement: proves that some enclave signed, and nothing about its code.
    #[must_use]
    pub fn dangerous_any_measurement(mut self) -> Self {
        self.accepts_any = true;
        self
    }

    /// The policy.
    ///
    /// # Errors
    ///
    /// In this order:
    /// - [`PolicyError::NoMeasurements`]: no set was given, and any measurement was not asked for;
    /// - [`PolicyError::Contradiction`]: a set was given, and any measurement was asked for;
    /// - [`PolicyError::TooManySets`]: more than [`MAX_SETS`];
    /// - [`PolicyError::MaxAge`], when it is zero;
    /// - [`PolicyError::Leeway`], when it is more than [`MAX_LEEWAY`].
    pub fn build(self) -> Result<Policy, PolicyError> {
        let accepted = match (self.accepted.len(), self.accepts_any) {
            (0, false) => return Err(PolicyError::NoMeasurements),
            (0, true) => None,
            (_, true) => return Err(PolicyError::Contradiction),
            (count, false) if count > MAX_SETS => return Err(PolicyError::TooManySets { count }),
            (_, false) => Some(Arc::from(self.accepted)),
        };
        if self.max_age.is_zero() {
            return Err(PolicyError::MaxAge);
        }
        if self.leeway > MAX_LEEWAY {
            return Err(PolicyError::Leeway);
        }
        Ok(Policy {
            anchor: self.anchor,
            accepted,
            max_age: self.max_age,
            leeway: self.leeway,
            accepts_debug: self.accepts_debug,
            nonce: None,
            user_data: None,
        })
    }
}

/// Why a policy cannot be made.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// Sets of measurements and "any measurement" exclude each other.
    #[error("a policy with measurements cannot accept any measurement as well")]
    Contradiction,
    /// One register, two values.
    #[error("{index} is given twice in one set of measurements")]
    DuplicatePcr {
        /// The register.
        index: PcrIndex,
    },
    /// A leeway of hours would accept what expired.
    #[error("`leeway` must be at most {} s", MAX_LEEWAY.as_secs())]
    Leeway,
    /// No document is zero seconds old.
    #[error("`max_age` must be positive")]
    MaxAge,
    /// An empty policy would accept anything.
    #[error("no measurements: a policy must name what it accepts")]
    NoMeasurements,
    /// None of the registers that identify code.
    #[error("a set of measurements must name at least one of PCR0, PCR1, PCR2 and PCR8")]
    NothingMeasured,
    /// More sets than anyone has deployments.
    #[error("{count} sets of measurements, expected at most {MAX_SETS}")]
    TooManySets {
        /// How many were given.
        count: usize,
    },
}

/// Oldest document accepted unless the policy says otherwise: the life of the NSM's leaf certificate.
pub const DEFAULT_MAX_AGE: Duration = Duration::from_secs(3 * 3600);
/// How far clocks may differ unless the policy says otherwise.
pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(60);
/// Largest leeway: beyond an hour a clock is wrong, not late.
pub const MAX_LEEWAY: Duration = Duration::from_secs(3600);
/// Most sets of measurements in one policy.
pub const MAX_SETS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> Measurements {
        Measurements::new([(PcrIndex::IMAGE, [1; 48])]).unwrap()
    }

    /// The empty policy is the mistake that matters most: it must not mean "accept all".
    #[test]
    fn a_policy_without_measurements_cannot_be_made() {
        assert_eq!(
            Policy::builder().build().unwrap_err(),
            PolicyError::NoMeasurements
        );
        Policy::builder().accept(set()).build().unwrap();
        let any = Policy::builder().dangerous_any_measurement();
        assert!(any.clone().build().unwrap().accepted.is_none());
        assert_eq!(
            any.accept(set()).build().unwrap_err(),
            PolicyError::Contradiction
        );
    }

    #[test]
    fn limits_are_checked_when_the_policy_is_made() {
        let policy = Policy::builder().accept(set());
        let zero = policy.clone().max_age(Duration::ZERO);
        assert_eq!(zero.build().unwrap_err(), PolicyError::MaxAge);
        let wide = policy.clone().leeway(Duration::from_secs(3601));
        assert_eq!(wide.build().unwrap_err(), PolicyError::Leeway);
        let many = (0..MAX_SETS).fold(policy, |policy, _| policy.accept(set()));
        assert!(matches!(
            many.build(),
            Err(PolicyError::TooManySets { count: 1025 })
        ));
    }
}
