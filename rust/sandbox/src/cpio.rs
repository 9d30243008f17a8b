//! Reader of uncompressed `newc` cpio archives, strict: it yields what may be made, or refuses.
//!
//! It decides by names alone and touches no file system. An entry's folder must be a folder entry
//! that came before it, so nothing can be written through a symbolic link; absolute names, `..`,
//! repeated names, device nodes, pipes and sockets are refused by name. Ownership is passed on as it
//! is: who may own what is decided in [`crate::unpack`].
//!
//! The format is that of the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::collections::HashMap;

use thiserror::Error;

/// Longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 4096;
/// Most entries of all archives together.
pub const MAX_ENTRIES: usize = 1 << 20;

const HEADER_BYTES: usize = 110;
const TRAILER: &[u8] = b"TRAILER!!!";
const BLOCK_BYTES: usize = 512;

/// Why an archive was refused.
#[non_exhaustive]
#[derive(Debug, PartialEq, Eq, Error)]
pub enum CpioError {
    /// An entry that may not be.
    #[error("ramdisk entry `{name}` {problem}")]
    Entry {
        /// Its name, made printable.
        name: String,
        /// What is wrong with it, as a verb phrase.
        problem: &'static str,
    },
    /// Not the format.
    #[error("ramdisk {0}")]
    Malformed(&'static str),
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content<'a> {
    /// A folder.
    Directory,
    /// A regular file, with its bytes.
    File(&'a [u8]),
    /// Another name for a file that was made before; bytes when they come with this name.
    Link {
        /// The first name.
        to: &'a [u8],
        /// The bytes, when the earlier names came without any.
        bytes: &'a [u8],
    },
    /// A symbolic link, with its target.
    Symlink(&'a [u8]),
}

/// One entry to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Relative name, without `.` and `..`, without a slash at either end.
    pub name: &'a [u8],
    /// Permission bits, set-id and sticky bits included.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What it is.
    pub content: Content<'a>,
}

/// Reads archives that are unpacked one after the other into one tree.
#[derive(Debug, Default)]
pub struct Reader<'a> {
    /// Every name, and whether it is a folder.
    seen: HashMap<&'a [u8], bool>,
}

impl<'a> Reader<'a> {
    /// All entries of `archive`, checked, in order.
    ///
    /// # Errors
    ///
    /// [`CpioError`] of the first entry that may not be; what came before it is not returned.
    pub fn entries(&mut self, archive: &'a [u8]) -> Result<Vec<Entry<'a>>, CpioError> {
        let mut entries = Vec::new();
        let mut links: HashMap<Inode, &'a [u8]> = HashMap::new();
        let mut rest = archive;
        loop {
            let (header, name, bytes, after) = record(rest, archive.len())?;
            rest = after;
            if name == TRAILER {
                break;
            }
            if self.seen.len() >= MAX_ENTRIES {
                return Err(CpioError::Malformed("has too many entries"));
            }
            if let Some(entry) = self.entry(&header, name, bytes, &mut links)? {
                entries.push(entry);
            }
        }
        if rest.len() >= BLOCK_BYTES || rest.iter().any(|&byte| byte != 0) {
            return Err(CpioError::Malformed("has bytes after its trailer"));
        }
        Ok(entries)
    }

    fn entry(
        &mut self,
        header: &Header,
        name: &'a [u8],
        bytes: &'a [u8],
        links: &mut HashMap<Inode, &'a [u8]>,
    ) -> Result<Option<Entry<'a>>, CpioError> {
        let refuse = |problem| {
            Err(CpioError::Entry {
                name: name.escape_ascii().to_string(),
                problem,
            })
        };
        let kind = header.mode & 0o170_000;
        if name == b"." && kind == DIRECTORY {
            return Ok(None); // The root itself; its mode is ours.
        }
        if let Some(problem) = problem_of(name) {
            return refuse(problem);
        }
        if let Some(slash) = name.iter().rposition(|&byte| byte == b'/') {
            match self.seen.get(name.get(..slash).unwrap_or_default()) {
                Some(true) => {}
                Some(false) => return refuse("lies in something that is not a folder"),
                None => return refuse("comes before its folder"),
            }
        }
        match self.seen.insert(name, kind == DIRECTORY) {
            None => {}
            Some(_) => return refuse("is there twice"),
        }
        let content = match kind {
            DIRECTORY if bytes.is_empty() => Content::Directory,
            DIRECTORY => return refuse("is a folder with contents"),
            FILE if header.links > 1 => {
                if let Some(to) = links.get(&header.inode) {
                    Content::Link { to, bytes }
                } else {
                    links.insert(header.inode, name);
                    Content::File(bytes)
                }
            }
            FILE => Content::File(bytes),
            SYMLINK if bytes.is_empty() || bytes.len() > MAX_NAME_BYTES || bytes.contains(&0) => {
                return refuse("is a symbolic link without a proper target");
            }
            SYMLINK => Content::Symlink(bytes),
            _ => return refuse("is a device node, pipe or socket, which an image may not have"),
        };
        Ok(Some(Entry {
            name,
            mode: header.mode & 0o7777,
            uid: header.uid,
            gid: header.gid,
            content,
        }))
    }
}

/// Device and number: what makes two names one file.
type Inode = (u32, u32, u32);

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

fn problem_of(name: &[u8]) -> Option<&'static str> {
    if name.is_empty() {
        return Some("has no name");
    }
    if name.starts_with(b"/") {
        return Some("has an absolute name");
    }
    name.split(|&byte| byte == b'/')
        .find_map(|part| match part {
            b"" => Some("has an empty part in its name"),
            b"." | b".." => Some("has `.` or `..` in its name"),
            _ if part.len() > 255 => Some("has a part of more than 255 bytes in its name"),
            _ if part.contains(&0) => Some("has a zero byte in its name"),
            _ => None,
        })
}

/// Header, name, contents, what follows.
type Record<'a> = (Header, &'a [u8], &'a [u8], &'a [u8]);

struct Header {
    inode: Inode,
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
}

/// The record at the start of `rest`: header, name, contents, what follows. Names and contents are
/// padded to four bytes, counted from the start of the archive of `total` bytes.
fn record(rest: &[u8], total: usize) -> Result<Record<'_>, CpioError> {
    let short = CpioError::Malformed("ends before its trailer");
    let Some((header, after)) = rest.split_at_checked(HEADER_BYTES) else {
        return Err(short);
    };
    let Some(fields) = header.strip_prefix(b"070701") else {
        return Err(CpioError::Malformed(
            "is not an uncompressed `newc` archive",
        ));
    };
    let mut numbers = [0_u32; 13];
    for (number, digits) in numbers.iter_mut().zip(fields.chunks_exact(8)) {
        *number =
            hexadecimal(digits).ok_or(CpioError::Malformed("has a bad number in a header"))?;
    }
    let [
        inode,
        mode,
        uid,
        gid,
        links,
        _time,
        size,
        major,
        minor,
        _,
        _,
        name_size,
        _check,
    ] = numbers;
    let (Ok(name_size), Ok(size)) = (usize::try_from(name_size), usize::try_from(size)) else {
        return Err(short);
    };
    if name_size == 0 || name_size > MAX_NAME_BYTES {
        return Err(CpioError::Malformed("has a name of a bad length"));
    }
    let Some((name, after)) = after.split_at_checked(name_size) else {
        return Err(short);
    };
    let Some(name) = name.strip_suffix(&[0]) else {
        return Err(CpioError::Malformed("has a name without an end"));
    };
    let Some((bytes, after)) = padding(after, total).and_then(|rest| rest.split_at_checked(size))
    else {
        return Err(short);
    };
    let Some(after) = padding(after, total) else {
        return Err(short);
    };
    let header = Header {
        inode: (major, minor, inode),
        mode,
        uid,
        gid,
        links,
    };
    Ok((header, name, bytes, after))
}

fn padding(rest: &[u8], total: usize) -> Option<&[u8]> {
    let at = total.checked_sub(rest.len())?;
    let skip = at.next_multiple_of(4).checked_sub(at)?;
    let (zeros, rest) = rest.split_at_checked(skip)?;
    zeros.iter().all(|&byte| byte == 0).then_some(rest)
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0_u32, |number, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        number.checked_mul(16)?.checked_add(digit)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    #![expect(
        clippy::arithmetic_side_effects,
        reason = "small numbers of the tests' own"
    )]

    use super::*;
    use proptest::prelude::*;

    /// One record of an archive.
    pub(crate) fn put(archive: &mut Vec<u8>, name: &[u8], mode: u32, inode: u32, bytes: &[u8]) {
        let links = if inode >= 100 { 2 } else { 1 };
        let numbers = [
            inode,
            mode,
            0,
            0,
            links,
            0,
            u32::try_from(bytes.len()).unwrap(),
            0,
            0,
            0,
            0,
            u32::try_from(name.len() + 1).unwrap(),
            0,
        ];
        archive.extend(b"070701");
        for number in numbers {
            archive.extend(format!("{number:08X}").bytes());
        }
        archive.extend(name);
        archive.push(0);
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(bytes);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }

    fn archive(records: &[(&str, u32, u32, &str)]) -> Vec<u8> {
        let mut archive = Vec::new();
        for (name, mode, inode, bytes) in records {
            put(
                &mut archive,
                name.as_bytes(),
                *mode,
                *inode,
                bytes.as_bytes(),
            );
        }
        put(&mut archive, TRAILER, 0, 0, b"");
        archive.resize(archive.len().next_multiple_of(512), 0);
        archive
    }

    const GOOD: &[(&str, u32, u32, &str)] = &[
        ("bin", DIRECTORY | 0o755, 1, ""),
        ("bin/app", FILE | 0o4755, 2, "code"),
        ("bin/link", SYMLINK | 0o777, 3, "/etc/passwd"),
        ("one", FILE | 0o644, 100, ""),
        ("two", FILE | 0o644, 100, "shared"),
    ];

    #[test]
    fn an_archive_is_read() {
        let archive = archive(GOOD);
        let entries = Reader::default().entries(&archive).unwrap();
        assert_eq!(entries[1].content, Content::File(b"code"));
        assert_eq!(entries[1].mode, 0o4755);
        assert_eq!(entries[2].content, Content::Symlink(b"/etc/passwd"));
        let (to, bytes) = (b"one".as_slice(), b"shared".as_slice());
        assert_eq!(entries[4].content, Content::Link { to, bytes });
    }

    #[test]
    fn what_may_not_be_is_refused_by_name() {
        let long = "x".repeat(256);
        for (record, problem) in [
            (("/etc/passwd", FILE, 9, ""), "absolute"),
            (("bin/../../x", FILE, 9, ""), "`..`"),
            (("..", DIRECTORY, 9, ""), "`..`"),
            (("bin/app", FILE, 9, ""), "twice"),
            (("bin/link/x", FILE, 9, ""), "not a folder"),
            (("bin/app/x", FILE, 9, ""), "not a folder"),
            (("no/x", FILE, 9, ""), "before its folder"),
            (("bin//x", FILE, 9, ""), "empty part"),
            (("null", 0o020_666, 9, ""), "device node"),
            (("disk", 0o060_666, 9, ""), "device node"),
            (("pipe", 0o010_666, 9, ""), "device node"),
            (("sock", 0o140_666, 9, ""), "device node"),
            (("folder", DIRECTORY, 9, "x"), "contents"),
            (("empty", SYMLINK, 9, ""), "target"),
            ((long.as_str(), FILE, 9, ""), "255"),
        ] {
            let mut records = GOOD.to_vec();
            records.push(record);
            let archive = archive(&records);
            let error = Reader::default().entries(&archive).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}: {problem}");
        }
        Reader::default().entries(&archive(GOOD)).unwrap();
    }

    /// The second ramdisk must not write through, or over, what the first one made.
    #[test]
    fn a_second_archive_sees_the_first() {
        let first = archive(&[("a", SYMLINK | 0o777, 1, "/"), ("d", DIRECTORY, 2, "")]);
        for (name, fine) in [("a/x", false), ("a", false), ("d/x", true)] {
            let mut reader = Reader::default();
            reader.entries(&first).unwrap();
            let second = archive(&[(name, FILE, 1, "")]);
            // The reader borrows both archives for as long as it lives.
            assert_eq!(reader.entries(&second).is_ok(), fine, "{name}");
        }
    }

    #[test]
    fn bytes_after_the_trailer_are_refused() {
        let mut archive = archive(GOOD);
        Reader::default().entries(&archive).unwrap();
        archive.resize(archive.len() + 512, 0);
        Reader::default().entries(&archive).unwrap_err();
    }

    proptest! {
        #[test]
        fn no_cut_archive_is_read(cut in 0usize..700) {
            let archive = archive(GOOD);
            let trailer = archive.windows(10).position(|window| window == TRAILER).unwrap();
            prop_assert!(Reader::default().entries(&archive[..cut.min(trailer)]).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>, at in 0usize..800, byte: u8) {
            let mut archive = archive(GOOD);
            let at = at % archive.len();
            archive[at] = byte;
            let _ = Reader::default().entries(&archive);
            bytes.splice(0..0, *b"070701");
            let _ = Reader::default().entries(&bytes);
        }
    }
}
