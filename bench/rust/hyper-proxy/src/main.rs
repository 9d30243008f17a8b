//! `hyper-proxy LISTEN UPSTREAM CERT KEY`: HTTP/1.1 and HTTP/2 over TLS in, HTTP/1.1 to one upstream,
//! one thread.
//!
//! No authentication, no log, no scanning: the cheapest honest proxy that hyper makes. It is a
//! competitor in the benchmarks and nothing else.

use std::{env, error::Error, sync::Arc};

use hyper::{
    Request, Response, Uri, Version,
    body::Incoming,
    header::{CONNECTION, HeaderName, TRANSFER_ENCODING},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let [listen, upstream, certificate, key] = arguments()?;
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // As the others: a ticket for whoever asks for one.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    let upstream: Arc<str> = upstream.into();
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, client, upstream) = (acceptor.clone(), client.clone(), upstream.clone());
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(stream).await else {
                return;
            };
            let is_h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            let service =
                service_fn(move |request| forward(request, client.clone(), upstream.clone()));
            if is_h2 {
                let _ = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(tls), service)
                    .await;
            } else {
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(tls), service)
                    .await;
            }
        });
    }
}

async fn forward(
    mut request: Request<Incoming>,
    client: Client<HttpConnector, Incoming>,
    upstream: Arc<str>,
) -> Result<Response<Incoming>, Fault> {
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    *request.uri_mut() = format!("http://{upstream}{path}").parse::<Uri>()?;
    let is_h2 = request.version() == Version::HTTP_2;
    *request.version_mut() = Version::HTTP_11;
    let mut response = client.request(request).await?;
    if is_h2 {
        // What belongs to one HTTP/1.1 connection has no place in HTTP/2 (RFC 9113 §8.2.2).
        let headers = response.headers_mut();
        for name in [CONNECTION, TRANSFER_ENCODING, KEEP_ALIVE] {
            headers.remove(name);
        }
    }
    Ok(response)
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

type Fault = Box<dyn Error + Send + Sync>;

fn arguments() -> Result<[String; 4], String> {
    let words: Vec<String> = env::args().skip(1).collect();
    words
        .try_into()
        .map_err(|_| "usage: hyper-proxy LISTEN UPSTREAM CERT KEY".to_owned())
}
