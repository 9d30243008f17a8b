//! Messages on a stream: `u32` length in network order, then so many bytes of CBOR.
//!
//! `/dev/nsm` keeps message borders by itself; the Unix socket that stands for it in the sandbox does
//! not. [`split`] is for a reader with a buffer of its own (the launcher's event loop), [`read`] and
//! [`write()`] are for a blocking stream.

use std::io::{self, Read, Write};

use crate::protocol::MAX_RESPONSE_BYTES;

/// One message with its length in front; `None` when it is longer than [`MAX_RESPONSE_BYTES`].
pub fn encode(message: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(message.len()).ok()?;
    if message.len() > MAX_RESPONSE_BYTES {
        return None;
    }
    let mut out = length.to_be_bytes().to_vec();
    out.extend_from_slice(message);
    Some(out)
}

/// The first message in `buffer` and how many bytes it took with its length, or `None` when it is
/// not complete yet.
///
/// # Errors
///
/// [`TooLong`]: no complete message will ever come.
pub fn split(buffer: &[u8]) -> Result<Option<(&[u8], usize)>, TooLong> {
    let Some((length, rest)) = buffer.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| TooLong)?;
    if length > MAX_RESPONSE_BYTES {
        return Err(TooLong);
    }
    Ok(rest
        .get(..length)
        .map(|message| (message, length.saturating_add(4))))
}

/// Reads one message; `None` when the stream ends before its first byte.
///
/// # Errors
///
/// What the stream says; `InvalidData` for a message longer than [`MAX_RESPONSE_BYTES`].
pub fn read(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    loop {
        match stream.read(&mut length[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.read_exact(&mut length[1..])?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_RESPONSE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "message longer than 12 KiB",
        ));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message)?;
    Ok(Some(message))
}

/// Writes one message.
///
/// # Errors
///
/// What the stream says; `InvalidInput` for a message longer than [`MAX_RESPONSE_BYTES`].
pub fn write(stream: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let framed = encode(message)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "message longer than 12 KiB"))?;
    stream.write_all(&framed)?;
    stream.flush()
}

/// A message longer than any is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message is longer than 12 KiB")]
pub struct TooLong;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_split_off_when_it_is_complete() {
        let framed = encode(b"abc").unwrap();
        for cut in 0..framed.len() {
            assert_eq!(split(&framed[..cut]), Ok(None));
        }
        let mut two = framed.clone();
        two.extend_from_slice(&framed);
        assert_eq!(split(&two), Ok(Some((&b"abc"[..], 7))));
        assert_eq!(split(&[0, 0, 0, 0]), Ok(Some((&b""[..], 4))));
    }

    /// The length is refused before anything is kept for it.
    #[test]
    fn a_long_message_is_refused_by_its_length() {
        assert_eq!(split(&[0, 0, 0x30, 0]), Ok(None));
        assert_eq!(split(&[0, 0, 0x30, 1]), Err(TooLong));
        assert_eq!(split(&[0xff; 4]), Err(TooLong));
        assert_eq!(
            read(&mut &[0xff_u8; 8][..]).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert!(encode(&vec![0; 0x3001]).is_none());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut stream = Vec::new();
        write(&mut stream, b"one").unwrap();
        write(&mut stream, b"").unwrap();
        let mut reader = stream.as_slice();
        assert_eq!(read(&mut reader).unwrap(), Some(b"one".to_vec()));
        assert_eq!(read(&mut reader).unwrap(), Some(vec![]));
        assert_eq!(read(&mut reader).unwrap(), None);
        assert_eq!(
            read(&mut &stream[..5]).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
