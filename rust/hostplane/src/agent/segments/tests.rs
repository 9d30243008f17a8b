use super::*;

use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;

/// A folder of this test's own, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cl-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        Self(path)
    }

    fn open(&self, limits: SegmentLimits) -> SegmentedLog {
        SegmentedLog::open(&self.0, "enclave", limits).unwrap()
    }

    /// Sequence numbers of all records, in the order of the files.
    fn sequences(&self) -> Vec<u64> {
        let mut found = Vec::new();
        for number in numbers(&self.0).unwrap() {
            let text = std::fs::read_to_string(path_of(&self.0, number)).unwrap();
            found.extend(
                text.lines()
                    .skip(1)
                    .filter_map(|line| sequence_of(line.as_bytes())),
            );
        }
        found
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn batch(boot: char, sequences: &[u64]) -> Batch {
    let last = sequences.last().unwrap().to_string();
    let lines = sequences
        .iter()
        .map(|sequence| format!("{{\"sequence\":{sequence}}}\n"));
    Batch::check(
        Some(&boot.to_string().repeat(32)),
        Some(&last),
        Bytes::from(lines.collect::<String>()),
    )
    .unwrap()
}

#[test]
fn a_record_is_written_once_however_often_it_is_sent() {
    let folder = Folder::new("once");
    let mut log = folder.open(SegmentLimits::default());
    assert_eq!(log.append(&batch('a', &[1, 2])).unwrap().new, 2);
    let again = log.append(&batch('a', &[1, 2])).unwrap();
    assert_eq!((again.new, again.acked), (0, 2));
    let overlapping = log.append(&batch('a', &[2, 3, 5])).unwrap();
    assert_eq!((overlapping.new, overlapping.acked), (2, 5));
    assert_eq!(folder.sequences(), [1, 2, 3, 5]);
}

/// Sequence numbers start again with each boot: its records are not duplicates.
#[test]
fn another_boot_starts_its_own_segment() {
    let folder = Folder::new("boot");
    let mut log = folder.open(SegmentLimits::default());
    log.append(&batch('a', &[1, 2])).unwrap();
    assert_eq!(log.append(&batch('b', &[1])).unwrap().new, 1);
    assert_eq!(folder.sequences(), [1, 2, 1]);
    assert_eq!(numbers(&folder.0).unwrap(), [1, 2]);
}

#[test]
fn a_torn_line_is_cut_off_and_what_was_whole_is_not_taken_twice() {
    let folder = Folder::new("torn");
    let mut log = folder.open(SegmentLimits::default());
    log.append(&batch('a', &[1, 2])).unwrap();
    drop(log);
    let path = path_of(&folder.0, 1);
    let whole = std::fs::read(&path).unwrap();
    for cut in 1..=b"{\"sequence\":3}".len() {
        let mut torn = whole.clone();
        torn.extend_from_slice(&b"{\"sequence\":3}"[..cut]);
        std::fs::write(&path, torn).unwrap();
        let log = folder.open(SegmentLimits::default());
        assert_eq!(log.last_sequence(), 2);
        assert_eq!(std::fs::read(&path).unwrap(), whole);
    }
    let mut log = folder.open(SegmentLimits::default());
    assert_eq!(log.append(&batch('a', &[2, 3])).unwrap().new, 1);
    assert_eq!(folder.sequences(), [1, 2, 3]);
}

#[test]
fn a_segment_torn_in_its_first_line_is_followed_by_the_next() {
    let folder = Folder::new("head");
    std::fs::create_dir_all(&folder.0).unwrap();
    std::fs::write(path_of(&folder.0, 7), "{\"segment\":7,").unwrap();
    let mut log = folder.open(SegmentLimits::default());
    log.append(&batch('a', &[1])).unwrap();
    assert_eq!(numbers(&folder.0).unwrap(), [7, 8]);
}

#[test]
fn segments_stay_under_their_size_and_number() {
    let folder = Folder::new("rotate");
    let limits = SegmentLimits {
        max_bytes: 400,
        max_segments: 3,
    };
    let mut log = folder.open(limits);
    for sequence in 1..=100 {
        log.append(&batch('a', &[sequence])).unwrap();
    }
    let kept = numbers(&folder.0).unwrap();
    assert_eq!(kept.len(), 3);
    for number in kept {
        let size = std::fs::metadata(path_of(&folder.0, number)).unwrap().len();
        assert!(size <= limits.max_bytes);
    }
    let sequences = folder.sequences();
    assert_eq!(sequences.last(), Some(&100));
    assert!(sequences.windows(2).all(|pair| pair[0] < pair[1]));
    // A new segment knows where the one before it ended.
    drop(log);
    let mut log = folder.open(limits);
    assert_eq!(log.append(&batch('a', &[100])).unwrap().new, 0);
}

#[test]
fn the_folder_is_private_and_has_one_writer() {
    let folder = Folder::new("private");
    let mut log = folder.open(SegmentLimits::default());
    log.append(&batch('a', &[1])).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder.0), 0o700);
    assert_eq!(mode(&path_of(&folder.0, 1)), 0o600);
    let second = SegmentedLog::open(&folder.0, "enclave", SegmentLimits::default());
    assert_eq!(second.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    drop(log);
    folder.open(SegmentLimits::default());
}
