//! What a token held.

use std::fmt;

use zeroize::Zeroizing;

use crate::room::wipe;
use crate::version::ValueType;

/// A value that was opened.
#[derive(PartialEq, Eq)]
pub struct Opened {
    /// Its type.
    pub kind: ValueType,
    /// Its clear text, wiped when dropped.
    pub clear: Zeroizing<Vec<u8>>,
}

impl Opened {
    /// The clear text alone.
    pub fn into_clear(mut self) -> Zeroizing<Vec<u8>> {
        std::mem::take(&mut self.clear)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        wipe(&mut self.clear);
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}
