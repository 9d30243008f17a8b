//! Reader of Enclave Image Files (EIF), version 4: the container, not what is in it.
//!
//! Strict: the offset table and the physical order must agree, nothing may lie between, before or
//! after the sections, and the checksum must be right. Nothing is allocated from a number in the
//! file; sections are slices of it. What the sections measure to is decided in [`crate::measure`].
//!
//! The layout is that of [aws-nitro-enclaves-image-format] (`src/defs/mod.rs`); all integers are
//! big-endian.
//!
//! [aws-nitro-enclaves-image-format]: https://github.com/aws/aws-nitro-enclaves-image-format

use thiserror::Error;

/// Length of the header, in bytes.
pub const HEADER_BYTES: usize = 548;
/// Most sections a header has room for.
pub const MAX_SECTIONS: usize = 32;
/// Largest image read, in bytes.
pub const MAX_EIF_BYTES: u64 = 4 << 30;
/// Version of the format.
pub const VERSION: u16 = 4;

const SECTION_HEADER_BYTES: usize = 12;
const OFFSETS_AT: usize = 28;
const SIZES_AT: usize = 284;
const CRC_AT: usize = 544;

/// Why an image was refused.
#[non_exhaustive]
#[derive(Debug, PartialEq, Eq, Error)]
pub enum EifError {
    /// The checksum differs: the file was damaged.
    #[error("the image is damaged: its checksum is {found:08x}, its header says {expected:08x}")]
    Checksum {
        /// As the header says.
        expected: u32,
        /// As computed.
        found: u32,
    },
    /// A field of the header has another value than the format allows.
    #[error("EIF header field `{field}` {problem}")]
    Header {
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it, as a verb phrase.
        problem: &'static str,
    },
    /// A section lies elsewhere than it should, or is not what it should be.
    #[error("EIF section {index} {problem}")]
    Section {
        /// Its index.
        index: usize,
        /// What is wrong with it, as a verb phrase.
        problem: &'static str,
    },
    /// Sections are missing, repeated, or not in order.
    #[error("EIF {0}")]
    Sections(&'static str),
    /// Shorter than its header says.
    #[error("the image ends early")]
    Truncated,
}

/// An image, as slices of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eif<'a> {
    /// The kernel, absent from images for the sandbox alone.
    pub kernel: Option<&'a [u8]>,
    /// The kernel's command line.
    pub cmdline: Option<&'a [u8]>,
    /// JSON.
    pub metadata: Option<&'a [u8]>,
    /// Ramdisks: boot first, then application.
    pub ramdisks: Vec<&'a [u8]>,
    /// CBOR.
    pub signature: Option<&'a [u8]>,
}

impl<'a> Eif<'a> {
    /// Reads an image.
    ///
    /// # Errors
    ///
    /// [`EifError`], in the order: header fields, checksum, sections one after the other, and what
    /// lies after the last.
    pub fn parse(file: &'a [u8]) -> Result<Self, EifError> {
        let count = check_header(file)?;
        check_checksum(file)?;
        let mut eif = Self {
            kernel: None,
            cmdline: None,
            metadata: None,
            ramdisks: Vec::new(),
            signature: None,
        };
        let mut rank = 0;
        let mut rest = file.get(HEADER_BYTES..).ok_or(EifError::Truncated)?;
        for index in 0..count {
            let at = file.len().saturating_sub(rest.len());
            let (section, payload, after) = read_section(file, rest, index, at)?;
            rest = after;
            let twice = || EifError::Section {
                index,
                problem: "is of a kind that may be there only once",
            };
            let slot = match section {
                Kind::Kernel => Some(&mut eif.kernel),
                Kind::Cmdline => Some(&mut eif.cmdline),
                Kind::Metadata => Some(&mut eif.metadata),
                Kind::Signature => Some(&mut eif.signature),
                Kind::Ramdisk => None,
            };
            match slot {
                Some(slot) if slot.is_some() => return Err(twice()),
                Some(slot) => *slot = Some(payload),
                None => eif.ramdisks.push(payload),
            }
            // Metadata is in no PCR, so where it stands among the others does not matter.
            if section != Kind::Metadata {
                if section.rank() < rank {
                    return Err(EifError::Sections(
                        "sections are not in the order kernel, cmdline, ramdisks, signature",
                    ));
                }
                rank = section.rank();
            }
        }
        if !rest.is_empty() {
            return Err(EifError::Sections("has bytes after its last section"));
        }
        if eif.ramdisks.is_empty() {
            return Err(EifError::Sections("has no ramdisk"));
        }
        Ok(eif)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kernel,
    Cmdline,
    Ramdisk,
    Signature,
    Metadata,
}

impl Kind {
    fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Kernel),
            2 => Some(Self::Cmdline),
            3 => Some(Self::Ramdisk),
            4 => Some(Self::Signature),
            5 => Some(Self::Metadata),
            _ => None,
        }
    }

    fn rank(self) -> u8 {
        match self {
            Self::Kernel => 1,
            Self::Cmdline => 2,
            Self::Metadata | Self::Ramdisk => 3,
            Self::Signature => 4,
        }
    }
}

fn check_header(file: &[u8]) -> Result<usize, EifError> {
    let field = |field, problem| EifError::Header { field, problem };
    if file.get(..4) != Some(b".eif".as_slice()) {
        return Err(field("magic", "is not `.eif`"));
    }
    if u16_at(file, 4)? != VERSION {
        return Err(field("version", "is not 4"));
    }
    if u16_at(file, 6)? & !1 != 0 {
        return Err(field("flags", "has unknown bits"));
    }
    if u16_at(file, 24)? != 0 || u32_at(file, 540)? != 0 {
        return Err(field("reserved", "is not zero"));
    }
    let count = usize::from(u16_at(file, 26)?);
    if count == 0 || count > MAX_SECTIONS {
        return Err(field("section count", "is not from 1 to 32"));
    }
    for index in count..MAX_SECTIONS {
        let table = |at: usize| u64_at(file, at.saturating_add(index.saturating_mul(8)));
        if table(OFFSETS_AT)? != 0 || table(SIZES_AT)? != 0 {
            return Err(field("section table", "has entries after the last section"));
        }
    }
    Ok(count)
}

fn check_checksum(file: &[u8]) -> Result<(), EifError> {
    let expected = u32_at(file, CRC_AT)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(file.get(..CRC_AT).ok_or(EifError::Truncated)?);
    hasher.update(file.get(HEADER_BYTES..).ok_or(EifError::Truncated)?);
    let found = hasher.finalize();
    if found == expected {
        Ok(())
    } else {
        Err(EifError::Checksum { expected, found })
    }
}

/// The section at `rest`, whose first byte is byte `at` of the file: kind, payload, what follows.
fn read_section<'a>(
    file: &'a [u8],
    rest: &'a [u8],
    index: usize,
    at: usize,
) -> Result<(Kind, &'a [u8], &'a [u8]), EifError> {
    let wrong = |problem| EifError::Section { index, problem };
    let table = |table: usize| u64_at(file, table.saturating_add(index.saturating_mul(8)));
    if usize::try_from(table(OFFSETS_AT)?) != Ok(at) {
        return Err(wrong("is not where the one before it ends"));
    }
    let (header, body) = rest
        .split_at_checked(SECTION_HEADER_BYTES)
        .ok_or(EifError::Truncated)?;
    let kind =
        Kind::from_number(u16_at(header, 0)?).ok_or_else(|| wrong("is of an unknown kind"))?;
    if u16_at(header, 2)? != 0 {
        return Err(wrong("has unknown flags"));
    }
    let size = u64_at(header, 4)?;
    if size != table(SIZES_AT)? {
        return Err(wrong("has another size than the header's table says"));
    }
    let size = usize::try_from(size).map_err(|_| EifError::Truncated)?;
    let (payload, after) = body.split_at_checked(size).ok_or(EifError::Truncated)?;
    Ok((kind, payload, after))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], EifError> {
    bytes
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .copied()
        .ok_or(EifError::Truncated)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, EifError> {
    array_at(bytes, at).map(u16::from_be_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, EifError> {
    array_at(bytes, at).map(u32::from_be_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, EifError> {
    array_at(bytes, at).map(u64::from_be_bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    #![expect(
        clippy::arithmetic_side_effects,
        reason = "small numbers of the tests' own"
    )]

    use super::*;
    use proptest::prelude::*;

    /// Writes an image with the given sections; `break_it` may spoil it before the checksum is set.
    pub(crate) fn image(sections: &[(u16, &[u8])], break_it: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut file = vec![0; HEADER_BYTES];
        file[..4].copy_from_slice(b".eif");
        file[5] = 4;
        file[26..28].copy_from_slice(&u16::try_from(sections.len()).unwrap().to_be_bytes());
        for (index, (kind, payload)) in sections.iter().enumerate() {
            let offset = u64::try_from(file.len()).unwrap().to_be_bytes();
            let size = u64::try_from(payload.len()).unwrap().to_be_bytes();
            file[OFFSETS_AT..][index.checked_mul(8).unwrap()..][..8].copy_from_slice(&offset);
            file[SIZES_AT..][index.checked_mul(8).unwrap()..][..8].copy_from_slice(&size);
            file.extend(kind.to_be_bytes());
            file.extend([0, 0]);
            file.extend(size);
            file.extend_from_slice(payload);
        }
        break_it(&mut file);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&file[..CRC_AT]);
        hasher.update(file.get(HEADER_BYTES..).unwrap_or_default());
        file[CRC_AT..HEADER_BYTES].copy_from_slice(&hasher.finalize().to_be_bytes());
        file
    }

    const WHOLE: &[(u16, &[u8])] = &[
        (2, b"console"),
        (5, b"{}"),
        (3, b"boot"),
        (3, b"application"),
    ];

    #[test]
    fn an_image_is_read() {
        let file = image(WHOLE, |_| ());
        let eif = Eif::parse(&file).unwrap();
        assert_eq!(eif.kernel, None);
        assert_eq!(eif.cmdline, Some(b"console".as_slice()));
        assert_eq!(eif.ramdisks, [b"boot".as_slice(), b"application"]);
    }

    /// Each breaks one rule and repairs the checksum, so that the rule itself must notice.
    #[test]
    fn a_broken_header_or_section_is_refused() {
        type Break = fn(&mut Vec<u8>);
        let breaks: [(&str, Break); 10] = [
            ("magic", |file| file[0] = b'x'),
            ("version", |file| file[5] = 3),
            ("flags", |file| file[7] = 2),
            ("reserved", |file| file[25] = 1),
            ("count", |file| file[27] = 33),
            ("table", |file| file[OFFSETS_AT + 8 * 5] = 1),
            ("offset", |file| file[OFFSETS_AT + 7] ^= 1),
            ("size", |file| file[SIZES_AT + 7] ^= 1),
            ("trailing", |file| file.push(0)),
            ("kind", |file| file[HEADER_BYTES + 1] = 9),
        ];
        for (name, break_it) in breaks {
            let file = image(WHOLE, break_it);
            assert!(Eif::parse(&file).is_err(), "{name}");
        }
    }

    #[test]
    fn what_may_be_there_once_is_refused_twice_and_order_is_kept() {
        let twice = image(&[(2, b"a"), (2, b"b"), (3, b"r")], |_| ());
        assert!(matches!(
            Eif::parse(&twice),
            Err(EifError::Section { index: 1, .. })
        ));
        let order = image(&[(3, b"r"), (2, b"a")], |_| ());
        assert!(matches!(Eif::parse(&order), Err(EifError::Sections(_))));
        let none = image(&[(2, b"a")], |_| ());
        assert_eq!(Eif::parse(&none), Err(EifError::Sections("has no ramdisk")));
    }

    proptest! {
        /// The checksum covers every byte, so no flipped bit may pass; and nothing panics.
        #[test]
        fn a_flipped_bit_or_a_cut_is_refused(bit in 0usize..(548 + 70) * 8, cut in 0usize..600) {
            let mut file = image(WHOLE, |_| ());
            prop_assert!(Eif::parse(&file).is_ok());
            prop_assert!(Eif::parse(&file[..cut.min(file.len() - 1)]).is_err());
            let at = (bit / 8) % file.len();
            file[at] ^= 1 << (bit % 8);
            prop_assert!(Eif::parse(&file).is_err());
        }
    }
}
