//! What a request came to.

use cloister_ciphertext::OpenCounts;

use super::counters::{Counters, add};
use super::opening::Overloaded;
use super::refusal::Refusal;

/// What a request came to, for logs and counters.
#[derive(Debug, Default)]
pub(in crate::engine) struct Totals {
    pub(in crate::engine) status: u16,
    pub(in crate::engine) bytes_in: u64,
    pub(in crate::engine) bytes_out: u64,
    pub(in crate::engine) opening: OpenCounts,
}

impl Totals {
    /// Adds what counters have of it.
    pub(in crate::engine) fn count(&self, counters: &Counters) {
        add(&counters.bytes_in, self.bytes_in);
        add(&counters.bytes_out, self.bytes_out);
        add(&counters.fields_opened, self.opening.opened);
        add(&counters.key_hits, self.opening.hits);
        add(&counters.keys_derived, self.opening.derived);
    }
}

/// Why a request has no whole response.
#[derive(Debug)]
pub(in crate::engine) enum Fault {
    /// One side is gone, or the response broke off: the connection is closed.
    Broken,
    /// Nothing of a response was sent: this is.
    Refused(Refusal),
}

impl From<Overloaded> for Fault {
    fn from(overloaded: Overloaded) -> Self {
        Self::Refused(overloaded.into())
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
