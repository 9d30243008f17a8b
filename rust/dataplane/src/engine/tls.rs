//! TLS of client connections: versions, key exchange, tickets, and the certificate in use.
//!
//! A configuration belongs to one certificate. When the certificate changes, the next handshake
//! makes a new configuration with new ticket keys, so that no session of the old key is resumed.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use cloister_wire::config::{EnclaveConfig, Protocol, TlsVersion};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ServerConfig, SupportedProtocolVersion};

use crate::certificate::{Certificates, Current};

/// A certificate and the configuration that shows it.
pub(super) struct TlsConfig {
    pub(super) certificate: Arc<Current>,
    pub(super) server: Arc<ServerConfig>,
}

/// The configuration of the certificate in use.
pub(super) struct TlsConfigs {
    certificates: Arc<Certificates>,
    provider: Arc<CryptoProvider>,
    versions: Vec<&'static SupportedProtocolVersion>,
    alpn: Vec<Vec<u8>>,
    current: ArcSwap<TlsConfig>,
    /// Held while a new one is made: once in the life of a certificate.
    making: Mutex<()>,
}

impl TlsConfigs {
    pub(super) fn new(certificates: Arc<Certificates>, config: &EnclaveConfig) -> io::Result<Self> {
        // X25519MLKEM768 first, then X25519, P-256 (data-plane.md §2).
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
        ];
        let provider = Arc::new(provider);
        let versions = match config.tls.min_version {
            TlsVersion::V1_2 => vec![&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::V1_3 => vec![&rustls::version::TLS13],
        };
        let alpn = alpn(config.service.protocol);
        let first = make(&provider, &versions, &alpn, certificates.current())?;
        Ok(Self {
            certificates,
            provider,
            versions,
            alpn,
            current: ArcSwap::from_pointee(first),
            making: Mutex::new(()),
        })
    }

    /// The configuration for a new handshake.
    pub(super) fn current(&self) -> io::Result<Arc<TlsConfig>> {
        let certificate = self.certificates.current();
        let config = self.current.load_full();
        if config.certificate.generation == certificate.generation {
            return Ok(config);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let config = self.current.load_full();
        if config.certificate.generation >= certificate.generation {
            return Ok(config);
        }
        let config = Arc::new(make(
            &self.provider,
            &self.versions,
            &self.alpn,
            certificate,
        )?);
        self.current.store(Arc::clone(&config));
        Ok(config)
    }
}

impl fmt::Debug for TlsConfigs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfigs").finish_non_exhaustive()
    }
}

/// What is agreed on in the handshake (RFC 7301). With `tcp` nothing is: what the bytes are only the
/// user process knows, and a server that agrees on nothing refuses no offer (§3.2).
fn alpn(protocol: Protocol) -> Vec<Vec<u8>> {
    match protocol {
        Protocol::Tcp => Vec::new(),
        // Some clients of HTTP/1.0 offer nothing else, curl among them.
        Protocol::H2c | Protocol::Http1 => [&b"h2"[..], b"http/1.1", b"http/1.0"]
            .map(<[u8]>::to_vec)
            .into(),
    }
}

fn make(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[Vec<u8>],
    certificate: Arc<Current>,
) -> io::Result<TlsConfig> {
    let resolver = Arc::clone(&certificate);
    let mut server = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    server.alpn_protocols = alpn.to_vec();
    server.ticketer = aws_lc_rs::Ticketer::new().map_err(io::Error::other)?;
    server.send_tls13_tickets = 1;
    server.max_early_data_size = 0;
    Ok(TlsConfig {
        certificate,
        server: Arc::new(server),
    })
}
