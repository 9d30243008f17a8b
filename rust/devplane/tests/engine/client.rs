//! A client that sends any bytes over TLS and reads answers by their framing.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use cloister_devplane::DevPlane;

use crate::plane::{Site, address};

pub(crate) struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
    ahead: Vec<u8>,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a close-notify: the peer meant it.
    Clean,
    /// Without one.
    Cut,
    /// It did not.
    Open,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a header; several are joined.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        header(&self.head, name)
    }

    /// The `message` of an answer that the data plane itself gave; checks what every one must have.
    pub(crate) fn message(&self) -> String {
        assert_eq!(
            self.header("content-type").as_deref(),
            Some("application/json"),
            "{self:?}"
        );
        let id = self.header("x-evervault-ctx").expect("a context id");
        let is_digit = |c: char| c.is_ascii_digit() || ('A'..='F').contains(&c);
        assert!(id.len() == 32 && id.chars().all(is_digit), "{id}");
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        json["message"].as_str().unwrap().to_owned()
    }
}

/// The values of a header in a head, joined.
pub(crate) fn header(head: &str, name: &str) -> Option<String> {
    let values: Vec<_> = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect();
    (!values.is_empty()).then(|| values.join(" | "))
}

impl Client {
    /// Connects; `before` goes before the handshake, as a relay's header does.
    pub(crate) fn connect(site: &Site, before: &[u8]) -> Self {
        Self::to(&site.plane, before, &[])
    }

    /// As [`Self::connect`], offering protocols (RFC 7301).
    pub(crate) fn to(plane: &DevPlane, before: &[u8], alpn: &[&[u8]]) -> Self {
        let mut tcp = TcpStream::connect(address(plane)).unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        tcp.write_all(before).unwrap();
        let mut roots = RootCertStore::empty();
        let pem = plane.ca_pem().unwrap();
        roots
            .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
            .unwrap();
        let mut config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(connection, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        Self {
            stream,
            ahead: Vec::new(),
        }
    }

    /// What the handshake agreed on.
    pub(crate) fn agreed(&self) -> Option<&[u8]> {
        self.stream.conn.alpn_protocol()
    }

    /// DER certificate that the server showed.
    pub(crate) fn certificate(&self) -> Vec<u8> {
        self.stream.conn.peer_certificates().unwrap()[0].to_vec()
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self.stream.flush().unwrap();
    }

    /// Sends what the peer may refuse to read any further.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream
            .write_all(bytes)
            .and_then(|()| self.stream.flush())
            .is_ok()
    }

    pub(crate) fn ask(&mut self, bytes: impl AsRef<[u8]>) -> Answer {
        self.send(bytes);
        self.answer()
    }

    /// The next answer, interim ones included.
    pub(crate) fn answer(&mut self) -> Answer {
        self.read_answer(false).expect("a whole answer")
    }

    /// The next answer, to a HEAD request.
    pub(crate) fn answer_to_head(&mut self) -> Answer {
        self.read_answer(true).expect("a whole answer")
    }

    /// The next answer, or what there was of it when it broke off.
    pub(crate) fn try_answer(&mut self) -> Result<Answer, Vec<u8>> {
        self.read_answer(false)
    }

    fn read_answer(&mut self, to_head: bool) -> Result<Answer, Vec<u8>> {
        let head = loop {
            if let Some(end) = find(&self.ahead, b"\r\n\r\n") {
                break self.take(end + 4);
            }
            if !self.more() {
                return Err(std::mem::take(&mut self.ahead));
            }
        };
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(head.starts_with("HTTP/1.1 "), "{head}");
        let status = head.get(9..12).unwrap().parse().unwrap();
        let mut answer = Answer {
            status,
            head,
            body: Vec::new(),
        };
        if to_head || matches!(status, 100..=199 | 204 | 304) {
            return Ok(answer);
        }
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().unwrap();
            while self.ahead.len() < length {
                if !self.more() {
                    return Err(std::mem::take(&mut self.ahead));
                }
            }
            answer.body = self.take(length);
        } else if answer.header("transfer-encoding").is_some() {
            loop {
                let size = self.line()?;
                let size = usize::from_str_radix(&size, 16).unwrap();
                while self.ahead.len() < size + 2 {
                    if !self.more() {
                        return Err(answer.body);
                    }
                }
                if size == 0 {
                    while !self.line()?.is_empty() {}
                    break;
                }
                let mut data = self.take(size + 2);
                assert!(data.ends_with(b"\r\n"));
                data.truncate(size);
                answer.body.extend(data);
            }
        } else {
            while self.more() {}
            answer.body = std::mem::take(&mut self.ahead);
        }
        Ok(answer)
    }

    /// Reads to the end of the stream: what came, and how it ended.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, End) {
        let end = loop {
            match self.read() {
                Ok(0) => break End::Clean,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break End::Open,
                Err(_) => break End::Cut,
            }
        };
        (std::mem::take(&mut self.ahead), end)
    }

    /// The next `count` bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count {
            assert!(self.more(), "it ended after {:?}", self.ahead);
        }
        self.take(count)
    }

    /// Ends this side and reads on.
    pub(crate) fn finish(&mut self) {
        self.stream.conn.send_close_notify();
        self.stream.flush().unwrap();
    }

    pub(crate) fn patience(&self, limit: Duration) {
        self.stream.sock.set_read_timeout(Some(limit)).unwrap();
    }

    fn line(&mut self) -> Result<String, Vec<u8>> {
        loop {
            if let Some(end) = find(&self.ahead, b"\r\n") {
                let mut line = self.take(end + 2);
                line.truncate(end);
                return Ok(String::from_utf8(line).unwrap());
            }
            if !self.more() {
                return Err(std::mem::take(&mut self.ahead));
            }
        }
    }

    fn more(&mut self) -> bool {
        self.read().is_ok_and(|count| count > 0)
    }

    fn read(&mut self) -> std::io::Result<usize> {
        let mut bytes = [0; 16384];
        let count = self.stream.read(&mut bytes)?;
        self.ahead.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.ahead.split_off(count);
        std::mem::replace(&mut self.ahead, rest)
    }
}

pub(crate) fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
