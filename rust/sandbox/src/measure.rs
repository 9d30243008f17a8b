//! Platform configuration registers of an image, as the Nitro hypervisor computes them.
//!
//! `SHA384(00×48 ‖ SHA384(x))`, payloads only: PCR0 over kernel, command line and all ramdisks, PCR1
//! over kernel, command line and the boot ramdisk, PCR2 over the application ramdisks, PCR8 over the
//! signing certificate. An absent section is nothing at all. Checked against QEMU's NSM.

use aws_lc_rs::digest;

use crate::eif::Eif;
use crate::signature::{self, SignatureError};

/// One SHA-384 value.
pub type Pcr = [u8; 48];

/// The registers that an image decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pcrs {
    /// The whole image.
    pub pcr0: Pcr,
    /// Kernel and boot.
    pub pcr1: Pcr,
    /// The application.
    pub pcr2: Pcr,
    /// The signing certificate; zero when the image is not signed.
    pub pcr8: Pcr,
}

impl Pcrs {
    /// Measures `eif`, and checks its signature when it has one.
    ///
    /// # Errors
    ///
    /// [`SignatureError`]: it is signed, and not rightly so.
    pub fn of(eif: &Eif<'_>) -> Result<Self, SignatureError> {
        let base = [
            eif.kernel.unwrap_or_default(),
            eif.cmdline.unwrap_or_default(),
        ];
        let (boot, application) = eif.ramdisks.split_at(1.min(eif.ramdisks.len()));
        let pcr0 = register(base.iter().chain(&eif.ramdisks));
        let pcr8 = match eif.signature {
            Some(section) => register([&signature::verify(section, &pcr0)?.as_slice()]),
            None => ZERO,
        };
        Ok(Self {
            pcr0,
            pcr1: register(base.iter().chain(boot)),
            pcr2: register(application),
            pcr8,
        })
    }

    /// What a debug enclave shows: PCR0, PCR1 and PCR2 are zero.
    #[must_use]
    pub fn debug(self) -> Self {
        Self {
            pcr0: ZERO,
            pcr1: ZERO,
            pcr2: ZERO,
            ..self
        }
    }

    /// Index and value of each register.
    pub fn numbered(&self) -> [(u16, Pcr); 4] {
        [
            (0, self.pcr0),
            (1, self.pcr1),
            (2, self.pcr2),
            (8, self.pcr8),
        ]
    }
}

fn register<'a>(parts: impl IntoIterator<Item = &'a &'a [u8]>) -> Pcr {
    let mut inner = digest::Context::new(&digest::SHA384);
    for part in parts {
        inner.update(part);
    }
    let mut outer = digest::Context::new(&digest::SHA384);
    outer.update(&ZERO);
    outer.update(inner.finish().as_ref());
    let mut value = ZERO;
    value.copy_from_slice(outer.finish().as_ref());
    value
}

const ZERO: Pcr = [0; 48];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eif::tests::image;

    /// `SHA384(00×48 ‖ SHA384("kcr1r2"))` and so on, by `sha384sum`.
    #[test]
    fn the_registers_cover_what_they_should() {
        let file = image(
            &[(1, b"k"), (2, b"c"), (5, b"{}"), (3, b"r1"), (3, b"r2")],
            |_| (),
        );
        let pcrs = Pcrs::of(&Eif::parse(&file).unwrap()).unwrap();
        let by_hand = |text: &[u8]| {
            let inner = digest::digest(&digest::SHA384, text);
            let outer = digest::digest(&digest::SHA384, &[&[0; 48], inner.as_ref()].concat());
            Pcr::try_from(outer.as_ref()).unwrap()
        };
        assert_eq!(pcrs.pcr0, by_hand(b"kcr1r2"));
        assert_eq!(pcrs.pcr1, by_hand(b"kcr1"));
        assert_eq!(pcrs.pcr2, by_hand(b"r2"));
        assert_eq!(pcrs.pcr8, ZERO);
        assert_eq!(pcrs.debug().pcr0, ZERO);
    }

    /// Metadata is in no register: it may say what it likes.
    #[test]
    fn metadata_is_not_measured() {
        let one = image(&[(5, b"{}"), (3, b"r")], |_| ());
        let two = image(&[(5, b"{\"a\":1}"), (3, b"r")], |_| ());
        assert_eq!(
            Pcrs::of(&Eif::parse(&one).unwrap()).unwrap(),
            Pcrs::of(&Eif::parse(&two).unwrap()).unwrap()
        );
    }
}
