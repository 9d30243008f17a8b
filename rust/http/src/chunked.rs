//! Chunked bodies (RFC 9112 §7.1), decoded strictly and written again.
//!
//! The decoder hands out slices of its input, so no byte is copied, and its result does not depend
//! on where the input is cut. Chunk extensions are read and dropped; trailers are kept, within a
//! limit, for whoever forwards them.

use thiserror::Error;

use crate::fields::Fields;
use crate::forward::may_forward_trailer;
use crate::lines::HeadSearch;
use crate::{HeadError, HeadLimits};

/// Most digits of a chunk size: 60 bits.
const MAX_SIZE_DIGITS: u8 = 15;

/// What a chunked body may have besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLimits {
    /// Longest extension of a chunk, in bytes.
    pub extension: usize,
    /// Longest trailer section, in bytes.
    pub trailers: usize,
    /// Most trailer lines.
    pub trailer_lines: usize,
}

impl Default for ChunkLimits {
    /// 1 KiB; 16 KiB, 128 lines.
    fn default() -> Self {
        Self {
            extension: 1024,
            trailers: 16 * 1024,
            trailer_lines: 128,
        }
    }
}

/// Why a chunked body was refused.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ChunkError {
    /// A chunk extension over its limit.
    #[error("a chunk extension is longer than {limit} bytes")]
    ExtensionTooLong {
        /// The limit.
        limit: usize,
    },
    /// A byte that no extension may have.
    #[error("a chunk extension has a control character")]
    Extension,
    /// CR LF is missing where it must be.
    #[error("a chunk does not end in a carriage return and a line feed")]
    LineBreak,
    /// No digits, too many, or something else.
    #[error("a chunk size is not a hexadecimal number of at most 15 digits")]
    Size,
    /// The trailer section is malformed or over its limits.
    #[error("trailers: {0}")]
    Trailer(#[from] HeadError),
}

/// What the decoder found.
#[derive(Debug, PartialEq, Eq)]
pub enum ChunkEvent<'b> {
    /// Bytes of the body.
    Data(&'b [u8]),
    /// The body has ended; the input after what was consumed is the next message.
    End,
    /// More input is needed.
    More,
}

/// Decodes one chunked body.
#[derive(Debug, Default)]
pub struct ChunkDecoder {
    limits: ChunkLimits,
    state: State,
    size: u64,
    digits: u8,
    extension: usize,
    trailer: Vec<u8>,
    search: HeadSearch,
    fields: Fields,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    End,
}

impl ChunkDecoder {
    /// A decoder at the start of a body.
    pub fn new(limits: ChunkLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Reads from the start of `input`: how many bytes were consumed, and what they were.
    ///
    /// # Errors
    ///
    /// [`ChunkError`]; the connection cannot be used after one.
    pub fn next<'b>(&mut self, input: &'b [u8]) -> Result<(usize, ChunkEvent<'b>), ChunkError> {
        let mut at = 0_usize;
        while let Some(byte) = input.get(at).copied() {
            match self.state {
                State::Data => {
                    let rest = input.get(at..).unwrap_or_default();
                    let wanted = usize::try_from(self.size).unwrap_or(usize::MAX);
                    let data = rest.get(..wanted.min(rest.len())).unwrap_or_default();
                    let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                    self.size = self.size.saturating_sub(length);
                    if self.size == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok((at.saturating_add(data.len()), ChunkEvent::Data(data)));
                }
                State::Trailer => return self.trailer(input, at),
                State::End => break,
                _ => self.byte(byte)?,
            }
            at = at.saturating_add(1);
        }
        let event = if self.state == State::End {
            ChunkEvent::End
        } else {
            ChunkEvent::More
        };
        Ok((at, event))
    }

    /// Trailer lines that may be forwarded, once the body has ended: `name: value`, CR LF each.
    ///
    /// Fields that frame, route or authenticate a message are not among them: see
    /// [`may_forward_trailer`].
    pub fn trailers(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for field in self.fields.iter() {
            let name = field.name.of(&self.trailer);
            if may_forward_trailer(name) {
                out.extend_from_slice(name);
                out.extend_from_slice(b": ");
                out.extend_from_slice(field.value.of(&self.trailer));
                out.extend_from_slice(b"\r\n");
            }
        }
        out
    }

    fn byte(&mut self, byte: u8) -> Result<(), ChunkError> {
        self.state = match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => State::SizeLf,
            (State::Size, b';') if self.digits > 0 => State::Extension,
            (State::Size, digit) => {
                let value = char::from(digit).to_digit(16).ok_or(ChunkError::Size)?;
                self.digits = self.digits.saturating_add(1);
                if self.digits > MAX_SIZE_DIGITS {
                    return Err(ChunkError::Size);
                }
                self.size = (self.size << 4) | u64::from(value);
                State::Size
            }
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..=0xFF) => {
                self.extension = self.extension.saturating_add(1);
                let limit = self.limits.extension;
                if self.extension > limit {
                    return Err(ChunkError::ExtensionTooLong { limit });
                }
                State::Extension
            }
            (State::Extension, _) => return Err(ChunkError::Extension),
            (State::SizeLf, b'\n') => {
                self.digits = 0;
                self.extension = 0;
                if self.size == 0 {
                    self.search = HeadSearch::of_section();
                    State::Trailer
                } else {
                    State::Data
                }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            _ => return Err(ChunkError::LineBreak),
        };
        Ok(())
    }

    /// The trailer section is a head without a first line.
    fn trailer<'b>(
        &mut self,
        input: &'b [u8],
        at: usize,
    ) -> Result<(usize, ChunkEvent<'b>), ChunkError> {
        const FIRST: &[u8] = b"\r\n";
        let limits = HeadLimits {
            head: self.limits.trailers,
            headers: self.limits.trailer_lines,
            target: 0,
        };
        let before = self.trailer.len();
        let rest = input.get(at..).unwrap_or_default();
        let room = limits.head.saturating_add(1).saturating_sub(before);
        self.trailer
            .extend_from_slice(rest.get(..room.min(rest.len())).unwrap_or_default());
        // Most bodies have no trailers: the section is one empty line.
        let length = if self.trailer.starts_with(FIRST) {
            Some(FIRST.len())
        } else {
            self.search.advance(&self.trailer, &limits)?
        };
        let Some(length) = length else {
            return Ok((input.len(), ChunkEvent::More));
        };
        self.trailer.truncate(length);
        self.fields.read(&self.trailer, 0)?;
        self.state = State::End;
        let consumed = at.saturating_add(length).saturating_sub(before);
        Ok((consumed, ChunkEvent::End))
    }
}

/// Appends the line before a chunk of `length` bytes, which must not be 0.
pub fn write_size(length: usize, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 16];
    let mut at = digits.len();
    let mut rest = length;
    while rest > 0 {
        at = at.saturating_sub(1);
        let digit = HEX.get(rest & 0xF).copied().unwrap_or(b'0');
        if let Some(slot) = digits.get_mut(at) {
            *slot = digit;
        }
        rest >>= 4;
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
    out.extend_from_slice(b"\r\n");
}

/// Appends a whole chunk; nothing when it is empty, because an empty chunk ends the body.
pub fn write_chunk(data: &[u8], out: &mut Vec<u8>) {
    if data.is_empty() {
        return;
    }
    write_size(data.len(), out);
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk, with trailer lines as [`ChunkDecoder::trailers`] gives them.
pub fn write_end(trailers: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Decoded = Result<(Vec<u8>, Vec<u8>, Vec<u8>), ChunkError>;

    /// Decodes input given in pieces: body, trailers, and what was left after the end.
    fn decode(pieces: &[&[u8]]) -> Decoded {
        let mut decoder = ChunkDecoder::default();
        let (mut body, mut left, mut is_over) = (Vec::new(), Vec::new(), false);
        for piece in pieces {
            let mut input = *piece;
            while !is_over {
                let (consumed, event) = decoder.next(input)?;
                input = &input[consumed..];
                match event {
                    ChunkEvent::Data(data) => body.extend_from_slice(data),
                    ChunkEvent::End => is_over = true,
                    ChunkEvent::More => break,
                }
            }
            left.extend_from_slice(if is_over { input } else { b"" });
        }
        assert!(is_over, "the body has not ended");
        Ok((body, decoder.trailers(), left))
    }

    fn whole(text: &str) -> Decoded {
        decode(&[text.as_bytes()])
    }

    #[test]
    fn bytes_after_the_end_are_left() {
        let (body, trailers, left) =
            whole("3\r\nabc\r\nA;x=\"y\" \r\n0123456789\r\n0\r\n\r\nGET /").unwrap();
        assert_eq!(body, b"abc0123456789");
        assert_eq!((trailers, left), (vec![], b"GET /".to_vec()));
    }

    #[test]
    fn trailers_are_kept_unless_they_frame_route_or_authenticate() {
        let text = "1\r\na\r\n0\r\ngrpc-status: 0\r\nContent-Length: 5\r\nhost: x\r\napi-key: k\r\n\
            Authorization: x\r\nCookie: x\r\nset-cookie: x\r\nWWW-Authenticate: x\r\n\
            Content-Range: x\r\nCache-Control: x\r\nMax-Forwards: x\r\nB:2\r\n\r\nX";
        let (_, trailers, left) = whole(text).unwrap();
        assert_eq!(
            String::from_utf8(trailers).unwrap(),
            "grpc-status: 0\r\nB: 2\r\n"
        );
        assert_eq!(left, b"X");
    }

    #[test]
    fn t01_what_is_not_exactly_chunked_is_refused() {
        whole("1\r\na\r\n0\r\n\r\n").unwrap();
        for bad in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "0x1\r\na\r\n0\r\n\r\n",
            "1\na\r\n",
            "1\r\na\n0\r\n\r\n",
            "1\r\nab\r\n",
            "1\r\n\r\n\r\n",
            " 1\r\na\r\n",
            "1000000000000000\r\n",
            "1\ra",
            "1;\0\r\n",
            "1;a\nb\r\n",
            "0\r\n x: folded\r\n\r\n",
            "0\r\nbad name: x\r\n\r\n",
            "0\r\nx: y\n\r\n",
            "+1\r\na\r\n",
            "1_\r\n",
            "0\r\nx\r\n\r\n",
        ] {
            let mut decoder = ChunkDecoder::default();
            let mut input = bad.as_bytes();
            let result = loop {
                match decoder.next(input) {
                    Ok((consumed, ChunkEvent::Data(_))) => input = &input[consumed..],
                    Ok((_, event)) => break Ok(format!("{event:?}")),
                    Err(error) => break Err(error),
                }
            };
            assert!(result.is_err(), "{bad:?} gave {result:?}");
        }
    }

    #[test]
    fn an_extension_and_a_trailer_section_have_limits() {
        let limits = ChunkLimits {
            extension: 7,
            trailers: 60,
            trailer_lines: 3,
        };
        let judge = |text: String| {
            let mut decoder = ChunkDecoder::new(limits);
            let mut input = text.as_bytes();
            loop {
                match decoder.next(input)? {
                    (consumed, ChunkEvent::Data(_)) => input = &input[consumed..],
                    (_, event) => break Ok(event == ChunkEvent::End),
                }
            }
        };
        let extension = |length| format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(length));
        assert_eq!(judge(extension(7)), Ok(true));
        let limit = 7;
        let long = judge(extension(8));
        assert_eq!(long, Err(ChunkError::ExtensionTooLong { limit }));
        let trailer = |length| format!("0\r\nx: {}\r\n\r\n", "y".repeat(length));
        assert_eq!(judge(trailer(50)), Ok(true));
        assert!(matches!(judge(trailer(60)), Err(ChunkError::Trailer(_))));
        let lines = |count| format!("0\r\n{}\r\n", "x: y\r\n".repeat(count));
        assert_eq!(judge(lines(3)), Ok(true));
        assert!(matches!(judge(lines(4)), Err(ChunkError::Trailer(_))));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_wherever_it_is_cut(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
            has_trailer in any::<bool>(),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                write_chunk(chunk, &mut wire);
            }
            let trailers: &[u8] = if has_trailer { b"a: b\r\n" } else { b"" };
            write_end(trailers, &mut wire);
            wire.extend_from_slice(b"next");
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
            at.extend([0, wire.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &wire[pair[0]..pair[1]]).collect();
            let (body, kept, left) = decode(&pieces).unwrap();
            prop_assert_eq!(body, chunks.concat());
            prop_assert_eq!(kept, trailers);
            prop_assert_eq!(left, b"next");
        }

        #[test]
        fn any_bytes_are_judged_alike_whole_and_byte_by_byte(
            bytes in prop::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'1'), Just(b';'), any::<u8>()],
                0..60,
            ),
        ) {
            let run = |pieces: Vec<&[u8]>| {
                let mut decoder = ChunkDecoder::default();
                let mut body = Vec::new();
                for piece in pieces {
                    let mut input = piece;
                    loop {
                        match decoder.next(input) {
                            Ok((consumed, ChunkEvent::Data(data))) => {
                                body.extend_from_slice(data);
                                input = &input[consumed..];
                            }
                            Ok((_, ChunkEvent::More)) => break,
                            Ok((_, ChunkEvent::End)) => return Ok((body, true)),
                            Err(_) => return Err(()),
                        }
                    }
                }
                Ok((body, false))
            };
            prop_assert_eq!(run(vec![&bytes]), run(bytes.chunks(1).collect()));
        }
    }
}
