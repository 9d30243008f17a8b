//! Header lines: ranges into the head, and which of them mean something to a proxy.

use crate::error::HeadError;
use crate::lines::{is_token, line};

/// A range of bytes in the buffer that a head was parsed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        let narrow = |at| u32::try_from(at).unwrap_or(u32::MAX);
        Self {
            start: narrow(start),
            end: narrow(end),
        }
    }

    /// The bytes, out of the buffer that the head was parsed from.
    pub fn of<'b>(&self, buffer: &'b [u8]) -> &'b [u8] {
        let widen = |at| usize::try_from(at).unwrap_or(usize::MAX);
        buffer
            .get(widen(self.start)..widen(self.end))
            .unwrap_or_default()
    }
}

/// Headers that a proxy acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// `api-key`.
    ApiKey,
    /// `connection`.
    Connection,
    /// `content-length`.
    ContentLength,
    /// `content-type`.
    ContentType,
    /// `content-encoding`.
    ContentEncoding,
    /// `x-evervault-ctx`.
    Context,
    /// `expect`.
    Expect,
    /// `forwarded`.
    Forwarded,
    /// `host`.
    Host,
    /// `keep-alive`, `proxy-connection`, `proxy-authenticate`, `proxy-authorization`, `te`: for this
    /// connection only.
    HopByHop,
    /// Anything else.
    Other,
    /// `trailer`.
    Trailer,
    /// `transfer-encoding`.
    TransferEncoding,
    /// `upgrade`: for this connection only.
    Upgrade,
    /// `user-agent`.
    UserAgent,
    /// `x-forwarded-for`.
    XForwardedFor,
    /// `x-forwarded-proto`.
    XForwardedProto,
}

impl Known {
    /// What a header of this name means, in any letter case.
    pub fn of(name: &[u8]) -> Self {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is(b"te") => Self::HopByHop,
            4 if is(b"host") => Self::Host,
            6 if is(b"expect") => Self::Expect,
            7 if is(b"api-key") => Self::ApiKey,
            7 if is(b"trailer") => Self::Trailer,
            7 if is(b"upgrade") => Self::Upgrade,
            9 if is(b"forwarded") => Self::Forwarded,
            10 if is(b"connection") => Self::Connection,
            10 if is(b"keep-alive") => Self::HopByHop,
            10 if is(b"user-agent") => Self::UserAgent,
            12 if is(b"content-type") => Self::ContentType,
            14 if is(b"content-length") => Self::ContentLength,
            15 if is(b"x-evervault-ctx") => Self::Context,
            15 if is(b"x-forwarded-for") => Self::XForwardedFor,
            16 if is(b"content-encoding") => Self::ContentEncoding,
            16 if is(b"proxy-connection") => Self::HopByHop,
            17 if is(b"transfer-encoding") => Self::TransferEncoding,
            17 if is(b"x-forwarded-proto") => Self::XForwardedProto,
            18 if is(b"proxy-authenticate") => Self::HopByHop,
            19 if is(b"proxy-authorization") => Self::HopByHop,
            _ => Self::Other,
        }
    }
}

/// One header line.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name, in the letter case it came in.
    pub name: Span,
    /// Its value, without the white space around it.
    pub value: Span,
    /// What it means to a proxy.
    pub known: Known,
}

/// The header lines of one head, in order. The memory is kept from head to head.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    list: Vec<Field>,
}

impl Fields {
    /// The lines, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Field> {
        self.list.iter()
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The first line of this meaning.
    pub fn first(&self, known: Known) -> Option<&Field> {
        self.list.iter().find(|field| field.known == known)
    }

    /// Reads the lines from `at` to the empty line.
    pub(crate) fn read(&mut self, head: &[u8], mut at: usize) -> Result<(), HeadError> {
        self.list.clear();
        loop {
            let (content, next) = line(head, at).ok_or(HeadError::BareLineBreak)?;
            if content.is_empty() {
                return Ok(());
            }
            self.list.push(field(content, at)?);
            at = next;
        }
    }
}

/// Reads one line that begins at `at` (RFC 9112 §5).
fn field(content: &[u8], at: usize) -> Result<Field, HeadError> {
    if matches!(content.first(), Some(b' ' | b'\t')) {
        return Err(HeadError::Folded);
    }
    let colon = content.iter().position(|byte| !is_token(*byte));
    let (name, rest) = content
        .split_at_checked(colon.unwrap_or(0))
        .unwrap_or_default();
    let (Some((b':', value)), false) = (rest.split_first(), name.is_empty()) else {
        return Err(HeadError::HeaderName);
    };
    // Without an early end the compiler looks at many bytes at a time.
    if !value.iter().fold(true, |all, byte| all & is_value(*byte)) {
        let first = value.iter().find(|byte| !is_value(**byte));
        return Err(match first {
            Some(b'\r') => HeadError::BareLineBreak,
            _ => HeadError::ControlInValue,
        });
    }
    let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t');
    let before = value.iter().take_while(is_space).count();
    let trimmed = value.get(before..).unwrap_or_default();
    let after = trimmed.iter().rev().take_while(is_space).count();
    let start = at
        .saturating_add(name.len())
        .saturating_add(1)
        .saturating_add(before);
    let end = start.saturating_add(trimmed.len()).saturating_sub(after);
    Ok(Field {
        name: Span::new(at, at.saturating_add(name.len())),
        value: Span::new(start, end),
        known: Known::of(name),
    })
}

/// Field values: visible characters, space, tab, and bytes above ASCII (RFC 9110 §5.5).
fn is_value(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// What the framing headers of a head say, each looked at once.
#[derive(Debug, Default)]
pub(crate) struct FramingFields {
    pub(crate) length: Option<u64>,
    pub(crate) is_chunked: bool,
    pub(crate) is_close: bool,
    pub(crate) is_keep_alive: bool,
    pub(crate) has_upgrade_option: bool,
}

impl FramingFields {
    pub(crate) fn read(head: &[u8], fields: &Fields) -> Result<Self, HeadError> {
        let mut found = Self::default();
        for field in fields.iter() {
            let value = field.value.of(head);
            match field.known {
                Known::ContentLength => {
                    let length = decimal(value).ok_or(HeadError::ContentLength)?;
                    if found.length.is_some_and(|earlier| earlier != length) {
                        return Err(HeadError::ContentLength);
                    }
                    found.length = Some(length);
                }
                Known::TransferEncoding => {
                    if found.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(HeadError::TransferEncoding);
                    }
                    found.is_chunked = true;
                }
                Known::Connection => {
                    for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                        found.is_close |= option.eq_ignore_ascii_case(b"close");
                        found.is_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                        found.has_upgrade_option |= option.eq_ignore_ascii_case(b"upgrade");
                    }
                }
                _ => {}
            }
        }
        if found.is_chunked && found.length.is_some() {
            return Err(HeadError::BothFramings);
        }
        Ok(found)
    }
}

/// A decimal number without sign, of at most 18 digits, so that no sum of two overflows.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| byte.wrapping_sub(b'0'))?;
        Some(value.saturating_mul(10).saturating_add(u64::from(digit)))
    })
}
