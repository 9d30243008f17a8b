//! Where a scan puts what it decided.

/// Takes what was decided of a body, from its start to its end.
pub(super) trait Sink {
    /// These bytes of the body stay.
    fn pass(&mut self, bytes: &[u8]);
    /// So many bytes of the body go.
    fn skip(&mut self, count: usize);
    /// These bytes come, for those that went last or were put last.
    fn put(&mut self, bytes: &[u8]);
}

/// The body as it becomes.
impl Sink for Vec<u8> {
    fn pass(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn skip(&mut self, _count: usize) {}

    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}
