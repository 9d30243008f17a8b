//! What the engine counts, with the closed sets of names that it is counted by.
//!
//! A name is a label of `/metrics`: nothing that a peer sent is ever one.

/// An enum whose variants are counted apart, with the name of each.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident => $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum $name {
            $($(#[$about])* $variant,)+
        }

        impl $name {
            /// Names, in the order of the variants.
            pub const NAMES: [&'static str; [$(Self::$variant),+].len()] = [$($label),+];

            /// Its place among the names.
            #[expect(clippy::as_conversions, reason = "the number of a variant")]
            pub const fn number(self) -> usize {
                self as usize
            }
        }
    };
}

labels! {
    /// Why the data plane itself answered a request.
    Reason {
        /// A nonce that is none, or too many attestation documents at once.
        Attestation => "attestation",
        /// A ciphertext that cannot be opened.
        Ciphertext => "ciphertext",
        /// A valid API key of something else.
        Forbidden => "forbidden",
        /// Over a limit of the head.
        HeadTooLarge => "head_too_large",
        /// Not HTTP as it is accepted here.
        Malformed => "malformed",
        /// A method that is not answered.
        Method => "method",
        /// No bundle is in use.
        NotReady => "not_ready",
        /// Opening takes its share of the processor, or held bodies their memory.
        Overloaded => "overloaded",
        /// The request did not arrive in time.
        SlowRequest => "slow_request",
        /// Over the limit of the body.
        TooLarge => "too_large",
        /// No API key, or none that is valid.
        Unauthorized => "unauthorized",
        /// The user process; [`UpstreamError`] says how.
        Upstream => "upstream",
    }
}

labels! {
    /// What went wrong with the user process.
    UpstreamError {
        /// It closed the connection instead of answering.
        Closed => "closed",
        /// It does not accept connections.
        Connect => "connect",
        /// It did not accept in time.
        ConnectTimeout => "connect_timeout",
        /// Its answer broke off, or was wrong behind its head.
        Incomplete => "incomplete",
        /// What it sent is not an answer.
        Protocol => "protocol",
        /// It did not answer, or read, in time.
        Timeout => "timeout",
    }
}

labels! {
    /// Where a connection to the user process came from.
    UpstreamUse {
        /// It was made.
        New => "new",
        /// It was used before.
        Reused => "reused",
        /// It was used before, had been closed meanwhile, and the request was sent again.
        Stale => "stale",
    }
}

labels! {
    /// Handshakes that ended well.
    Handshake {
        /// TLS 1.2, with a signature.
        FullV12 => "full,1.2",
        /// TLS 1.3, with a signature.
        FullV13 => "full,1.3",
        /// TLS 1.2, by a ticket.
        ResumedV12 => "resumed,1.2",
        /// TLS 1.3, by a ticket.
        ResumedV13 => "resumed,1.3",
    }
}

labels! {
    /// Handshakes that did not.
    HandshakeFailure {
        /// The client closed before its end.
        Closed => "closed",
        /// The system gave an error.
        Io => "io",
        /// No PROXY header, or a wrong one.
        Proxy => "proxy",
        /// It took too long.
        Timeout => "timeout",
        /// Not TLS, or nothing in common.
        Tls => "tls",
    }
}

labels! {
    /// Groups of status codes.
    StatusGroup {
        /// 101, which begins a session.
        Switched => "1xx",
        /// 2xx.
        Good => "2xx",
        /// 3xx.
        Elsewhere => "3xx",
        /// 4xx.
        ClientError => "4xx",
        /// 5xx.
        ServerError => "5xx",
        /// The client got no answer.
        None => "none",
    }
}

impl StatusGroup {
    /// The group of a status; 0 stands for no answer.
    pub const fn of(status: u16) -> Self {
        match status / 100 {
            1 => Self::Switched,
            2 => Self::Good,
            3 => Self::Elsewhere,
            4 => Self::ClientError,
            5 => Self::ServerError,
            _ => Self::None,
        }
    }
}

/// Upper ends of the buckets of [`TrafficStats::latency`], microseconds; one more has no end.
pub const LATENCY_MICROS: [u64; 17] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// Counters of the traffic since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrafficStats {
    /// Connections accepted.
    pub connections: u64,
    /// Connections open.
    pub active_connections: u64,
    /// Connections that have not sent a whole `ClientHello`.
    pub waiting: u64,
    /// Handshakes that ended well, by [`Handshake`].
    pub handshakes: [u64; Handshake::NAMES.len()],
    /// Handshakes that failed or took too long.
    pub failed_handshakes: u64,
    /// The same, by [`HandshakeFailure`].
    pub handshake_failures: [u64; HandshakeFailure::NAMES.len()],
    /// Connections shed because there were too many.
    pub shed: u64,
    /// Requests begun.
    pub requests: u64,
    /// Requests in flight.
    pub active_requests: u64,
    /// Requests answered, by [`StatusGroup`].
    pub responses: [u64; StatusGroup::NAMES.len()],
    /// Requests answered, by the time from the end of their head to the end of the answer; see
    /// [`LATENCY_MICROS`].
    pub latency: [u64; LATENCY_MICROS.len() + 1],
    /// That time, added up, microseconds.
    pub latency_micros: u64,
    /// WebSocket sessions begun; each is a request too.
    pub websockets: u64,
    /// WebSocket sessions open.
    pub active_websockets: u64,
    /// Raw sessions begun: TCP inside TLS, or connections whose TLS is the user process's.
    pub sessions: u64,
    /// Raw sessions open.
    pub active_sessions: u64,
    /// Connections closed for want of a good PROXY header.
    pub refused_headers: u64,
    /// Requests the data plane itself answered with an error, and raw sessions it closed at once.
    pub refused: u64,
    /// The same, by [`Reason`].
    pub refusals: [u64; Reason::NAMES.len()],
    /// By [`UpstreamError`].
    pub upstream_errors: [u64; UpstreamError::NAMES.len()],
    /// By [`UpstreamUse`].
    pub upstream_uses: [u64; UpstreamUse::NAMES.len()],
    /// Fields that were opened.
    pub fields_opened: u64,
    /// Ciphertexts whose keys were at hand.
    pub key_hits: u64,
    /// Keys that were derived: one ECDH each.
    pub keys_derived: u64,
    /// Derived keys that are kept.
    pub keys_kept: u64,
    /// Bytes from clients, after TLS where it ends here.
    pub bytes_in: u64,
    /// Bytes to clients, before TLS where it ends here.
    pub bytes_out: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_has_the_place_of_its_name() {
        assert_eq!(Reason::NAMES[Reason::Upstream.number()], "upstream");
        assert_eq!(Reason::NAMES[Reason::Attestation.number()], "attestation");
        assert_eq!(
            Handshake::NAMES[Handshake::ResumedV12.number()],
            "resumed,1.2"
        );
    }

    #[test]
    fn buckets_rise_and_groups_are_of_their_hundred() {
        assert!(LATENCY_MICROS.is_sorted());
        for (status, name) in [
            (0, "none"),
            (101, "1xx"),
            (204, "2xx"),
            (404, "4xx"),
            (503, "5xx"),
        ] {
            assert_eq!(StatusGroup::NAMES[StatusGroup::of(status).number()], name);
        }
    }
}
