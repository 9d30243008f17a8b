//! Any bytes as an image: as the container, as a ramdisk in it, and as its signature section.

#![no_main]

use cloister_sandbox::cpio::{Content, Reader};
use cloister_sandbox::eif::{Eif, HEADER_BYTES};
use cloister_sandbox::{measure, signature};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut image = data.to_vec();
    if image.len() >= HEADER_BYTES {
        // A right checksum, or nothing behind it is ever reached.
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&image[..544]);
        hasher.update(&image[HEADER_BYTES..]);
        image[544..HEADER_BYTES].copy_from_slice(&hasher.finalize().to_be_bytes());
    }
    if let Ok(eif) = Eif::parse(&image) {
        let parts = [eif.kernel, eif.cmdline, eif.metadata, eif.signature];
        let count = parts.iter().flatten().count() + eif.ramdisks.len();
        let bytes: usize = parts.iter().flatten().map(|part| part.len()).sum::<usize>()
            + eif.ramdisks.iter().map(|part| part.len()).sum::<usize>();
        // Nothing lies between, before or after the sections.
        assert_eq!(image.len(), HEADER_BYTES + 12 * count + bytes);
        let _ = measure::Pcrs::of(&eif);
        for ramdisk in eif.ramdisks {
            unpack(ramdisk);
        }
    }
    unpack(data);
    let _ = signature::verify(data, &[0; 48]);
});

fn unpack(archive: &[u8]) {
    let Ok(entries) = Reader::default().entries(archive) else {
        return;
    };
    let mut folders = std::collections::HashSet::from([&b""[..]]);
    for entry in entries {
        let parent = entry.name.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        assert!(folders.contains(&entry.name[..parent]));
        assert!(entry.name.split(|&byte| byte == b'/').all(|part| !matches!(part, b"" | b"." | b"..")));
        if entry.content == Content::Directory {
            folders.insert(entry.name);
        }
    }
}
