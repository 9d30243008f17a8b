//! Memory of clear text: room to grow in, and wiping it.

use zeroize::{Zeroize as _, Zeroizing};

/// How much of a document is best pushed at once, bytes: [`make_room`] asks for six times as much, and
/// all of that is wiped in the end.
pub const PIECE_BYTES: usize = 8 * 1024;
/// Most bytes that JSON writes for one of a clear text: `\u0000`.
const MOST_ESCAPED: usize = 6;

/// Room for the clear text of a document that does not become longer by being opened.
pub fn room_for(document: &[u8]) -> Zeroizing<Vec<u8>> {
    let spare = PIECE_BYTES.saturating_mul(MOST_ESCAPED);
    Zeroizing::new(Vec::with_capacity(document.len().saturating_add(spare)))
}

/// Makes room for the clear text of `sealed` more bytes of a document, whatever is in them: a vector
/// that grows by itself leaves what it held where it was.
pub fn make_room(clear: &mut Zeroizing<Vec<u8>>, sealed: usize) {
    let more = sealed.saturating_mul(MOST_ESCAPED);
    grow(clear, clear.len().saturating_add(more));
}

/// Makes room for `needed` bytes in all. What was written is copied and wiped where it lay.
pub fn grow(clear: &mut Zeroizing<Vec<u8>>, needed: usize) {
    if needed > clear.capacity() {
        let room = needed.max(clear.capacity().saturating_mul(2));
        let mut larger = Zeroizing::new(Vec::with_capacity(room));
        larger.extend_from_slice(clear);
        wipe(clear);
        *clear = larger;
    }
}

/// Wipes and empties. What [`Zeroizing`] does when it is dropped, many bytes at a time instead of one
/// by one; it wipes what lay behind them then.
pub fn wipe(clear: &mut Vec<u8>) {
    clear.as_mut_slice().zeroize();
    clear.clear();
}

/// Memory for a clear text that is read at once, and then for the next one. It is all zero, except
/// between [`Room::of`] and [`Room::wipe`] or its end.
#[derive(Default)]
pub(crate) struct Room {
    blocks: Zeroizing<Vec<[u8; BLOCK_BYTES]>>,
    used: usize,
}

impl Room {
    /// At least so many bytes.
    pub(crate) fn of(&mut self, bytes: usize) -> &mut [u8] {
        self.used = bytes.div_ceil(BLOCK_BYTES);
        if self.blocks.len() < self.used {
            self.blocks.resize(self.used, [0; BLOCK_BYTES]);
        }
        let used = self.blocks.get_mut(..self.used);
        used.unwrap_or_default().as_flattened_mut()
    }

    /// Wipes what was used, whole blocks of it: for one or two that is a few stores. Much memory is
    /// given back.
    pub(crate) fn wipe(&mut self) {
        for block in self.blocks.iter_mut().take(self.used) {
            block.as_mut_slice().zeroize();
        }
        if self.used > MOST_KEPT_BLOCKS {
            self.blocks = Zeroizing::default();
        }
        self.used = 0;
    }
}

const BLOCK_BYTES: usize = 64;
/// Most memory that is kept for the next clear text: 16 KiB.
const MOST_KEPT_BLOCKS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t19_room_is_zero_again_once_it_is_wiped_and_given_back_when_it_is_much() {
        let mut room = Room::default();
        for bytes in [0, 1, 64, 65, 200, 3, BLOCK_BYTES * MOST_KEPT_BLOCKS] {
            let memory = room.of(bytes);
            assert!(memory.len() >= bytes && memory.iter().all(|byte| *byte == 0));
            memory.fill(0xAA);
            assert!(room.blocks.as_flattened().contains(&0xAA) || bytes == 0);
            room.wipe();
            assert!(room.blocks.as_flattened().iter().all(|byte| *byte == 0));
        }
        assert_eq!(room.blocks.len(), MOST_KEPT_BLOCKS);
        room.of(BLOCK_BYTES * MOST_KEPT_BLOCKS + 1);
        room.wipe();
        assert_eq!(room.blocks.capacity(), 0);
    }

    #[test]
    fn room_is_made_once_and_what_was_there_stays() {
        let mut clear = Zeroizing::new(b"clear".to_vec());
        make_room(&mut clear, 200);
        assert_eq!(*clear, b"clear");
        assert!(clear.capacity() >= 1_205);
        let before = clear.as_ptr();
        make_room(&mut clear, 200);
        assert_eq!(clear.as_ptr(), before, "there is room already");
    }
}
