//! A piece of a body while it is decided.

use super::sink::Sink;

/// Bytes being decided, and how far.
#[derive(Clone, Copy)]
pub(super) struct Piece<'b> {
    pub(super) bytes: &'b [u8],
    pub(super) at: usize,
    /// What was passed on or left out already. It lags behind, so that much goes at once.
    gone: usize,
    pub(super) is_last: bool,
}

impl<'b> Piece<'b> {
    pub(super) fn new(bytes: &'b [u8], is_last: bool) -> Self {
        Self {
            bytes,
            at: 0,
            gone: 0,
            is_last,
        }
    }

    pub(super) fn rest(&self) -> &'b [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Decides that `count` bytes stay. They are passed on by whatever comes next, or by
    /// [`Piece::flush`].
    pub(super) fn keep(&mut self, count: usize) {
        self.at = self.at.saturating_add(count).min(self.bytes.len());
    }

    /// Passes on what stays.
    pub(super) fn flush(&mut self, out: &mut impl Sink) {
        out.pass(self.bytes.get(self.gone..self.at).unwrap_or_default());
        self.gone = self.at;
    }

    /// Passes `count` bytes on as they are.
    pub(super) fn copy(&mut self, count: usize, out: &mut impl Sink) {
        self.keep(count);
        self.flush(out);
    }

    /// Leaves `count` bytes out, for what is put in their place.
    pub(super) fn skip(&mut self, count: usize, out: &mut impl Sink) {
        self.flush(out);
        self.keep(count);
        out.skip(self.at.saturating_sub(self.gone));
        self.gone = self.at;
    }
}
