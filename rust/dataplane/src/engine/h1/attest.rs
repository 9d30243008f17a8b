//! The attestation endpoint over HTTP/1.

use cloister_http::RequestFraming;

use super::Conversation;
use crate::engine::attest;
use crate::engine::refusal::reason;

impl Conversation<'_> {
    /// Answers the endpoint, and says with which status, and whether the connection goes on.
    pub(super) async fn attest(&mut self, context: &[u8; 32]) -> (u16, bool) {
        let certificate = &self.client.certificate;
        let answer =
            match attest::answer(self.site, certificate, &self.head, &self.head_bytes).await {
                Ok(answer) => answer,
                Err(refusal) => {
                    let is_kept = self.refuse(&refusal, context).await;
                    return (refusal.status, is_kept);
                }
            };
        let is_kept = self.head.is_persistent
            && self.head.framing == RequestFraming::None
            && !self.site.is_draining();
        let out = &mut self.out;
        out.clear();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(itoa::Buffer::new().format(answer.status).as_bytes());
        out.push(b' ');
        out.extend_from_slice(reason(answer.status).as_bytes());
        out.extend_from_slice(b"\r\nx-evervault-ctx: ");
        out.extend_from_slice(context);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&answer.lines);
        if let Some(body) = &answer.body {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if !is_kept {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if self.head.method.of(&self.head_bytes) != b"HEAD" {
            out.extend_from_slice(answer.body.as_deref().unwrap_or_default());
        }
        (answer.status, self.send().await && is_kept)
    }
}
