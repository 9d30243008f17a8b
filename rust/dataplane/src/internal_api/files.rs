//! `POST /encrypt/file` and `POST /decrypt/file`: any bytes, `%EVENC` files (data-plane.md §5).
//!
//! Either answer begins when the request has ended. For clear text there is no other way: the tag
//! comes last. A file that is made could be sent as it is made, but a client that sends all before it
//! reads anything would then wait for a data plane that waits for it. What is held meanwhile is the
//! ciphertext, and counts against `held_bytes` (ADR 22).

use std::collections::VecDeque;

use bytes::Bytes;
use cloister_ciphertext::{FILE_OVERHEAD_BYTES, FileSealer};
use hyper::StatusCode;
use hyper::body::{Body as _, Incoming};

use super::crypto::unopened_answer;
use super::{InternalApi, unavailable};
use crate::held::Held;
use crate::provision::SystemRandom;
use crate::small_http::{Answer, Pieces, Refused, next_piece, refusal, with_body};

impl InternalApi {
    /// A file for the newest app key.
    pub(super) async fn encrypt_file(&self, body: &mut Incoming) -> Result<Answer, Refused> {
        let limit = self.max_file().saturating_sub(FILE_OVERHEAD_BYTES);
        let length = check_length(body, limit)?;
        let mut room = Room::new(self);
        room.take(length)?;
        let key = self.newest_key()?;
        let mut out = Vec::new();
        let mut sealer = FileSealer::begin(&key, &mut SystemRandom::new(), &mut out)
            .map_err(|error| unavailable(&error.to_string()))?;
        let (mut made, mut taken) = (VecDeque::new(), 0_usize);
        while let Some(clear) = next_piece(body).await? {
            taken = taken.saturating_add(clear.len());
            if taken > limit {
                return Err(too_long(limit));
            }
            if length == 0 {
                room.take(clear.len())?;
            }
            for clear in clear.chunks(PIECE_BYTES) {
                let sealed = sealer.push(clear, &mut out);
                sealed.map_err(|error| unavailable(&error.to_string()))?;
                if out.len() >= PIECE_BYTES {
                    made.push_back(Bytes::from(std::mem::take(&mut out)));
                }
            }
        }
        let ended = sealer.finish(&mut out);
        ended.map_err(|error| unavailable(&error.to_string()))?;
        made.push_back(Bytes::from(out));
        let pieces = Pieces::new(made, room.taken);
        Ok(with_body(StatusCode::OK, BYTES, pieces))
    }

    /// What is in a file, when its tag is right.
    pub(super) async fn decrypt_file(&self, body: &mut Incoming) -> Result<Answer, Refused> {
        let limit = self.max_file();
        let length = check_length(body, limit)?;
        let mut room = Room::new(self);
        room.take(length)?;
        let mut file = Vec::with_capacity(length);
        while let Some(piece) = next_piece(body).await? {
            if file.len().saturating_add(piece.len()) > limit {
                return Err(too_long(limit));
            }
            // Of a length that was not said, twice as much may be there while it grows.
            if length == 0 {
                room.take(piece.len().saturating_mul(2))?;
            }
            file.extend_from_slice(&piece);
        }
        // The clear text lies beside the file until the file is let go.
        let clear_room = self.hold(file.len())?;
        let room = (room.taken, clear_room);
        let opened = self.openings.file(file, room).await;
        let (clear, (file_room, clear_room)) =
            opened.map_err(|unopened| unopened_answer(&unopened))?;
        drop(file_room);
        let pieces = Pieces::secret(clear, vec![clear_room]);
        Ok(with_body(StatusCode::OK, BYTES, pieces))
    }

    fn max_file(&self) -> usize {
        usize::try_from(self.config.limits.max_file).unwrap_or(usize::MAX)
    }
}

/// Room for a file: at once where its length was said, else in steps as it grows.
struct Room<'a> {
    api: &'a InternalApi,
    taken: Vec<Held>,
    left: usize,
}

impl<'a> Room<'a> {
    fn new(api: &'a InternalApi) -> Self {
        Self {
            api,
            taken: Vec::new(),
            left: 0,
        }
    }

    fn take(&mut self, bytes: usize) -> Result<(), Refused> {
        if bytes > self.left {
            let step = bytes.saturating_sub(self.left).max(STEP_BYTES);
            self.taken.push(self.api.hold(step)?);
            self.left = self.left.saturating_add(step);
        }
        self.left = self.left.saturating_sub(bytes);
        Ok(())
    }
}

/// The length that the request says, 0 when it says none.
fn check_length(body: &Incoming, limit: usize) -> Result<usize, Refused> {
    let length = body.size_hint().exact().unwrap_or(0);
    match usize::try_from(length) {
        Ok(length) if length <= limit => Ok(length),
        _ => Err(too_long(limit)),
    }
}

fn too_long(limit: usize) -> Refused {
    let message = format!("the file is longer than {limit} bytes");
    refusal(StatusCode::PAYLOAD_TOO_LARGE, &message).into()
}

const BYTES: &str = "application/octet-stream";
/// Length of the pieces that a file is made in, bytes.
const PIECE_BYTES: usize = 64 * 1024;
/// Room that is asked for at once, bytes.
const STEP_BYTES: usize = 256 * 1024;
