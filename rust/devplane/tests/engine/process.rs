//! A user process that does what a test says and remembers everything it received.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::client::{find, header};

/// What was received as one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    /// Which connection it came on, from 0.
    pub(crate) connection: usize,
    /// Request line and headers, Latin-1 read as such.
    pub(crate) head: String,
    /// The body, chunks joined.
    pub(crate) body: Vec<u8>,
    /// Everything behind the head, as it came.
    pub(crate) raw_body: Vec<u8>,
    /// Whether the body came to its end.
    pub(crate) is_whole: bool,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        header(&self.head, name)
    }

    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }
}

/// What is sent back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pieces: Vec<Vec<u8>>,
    pause: Duration,
    closes: bool,
    before_body: bool,
    heir: Option<Sender<Tunnel>>,
}

/// A connection that a test plays the user process on.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) stream: TcpStream,
    /// What had come behind the request.
    pub(crate) ahead: Vec<u8>,
}

impl Reply {
    pub(crate) fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            pieces: vec![bytes.into()],
            ..Self::default()
        }
    }

    /// 200 with a length and `body`.
    pub(crate) fn ok(body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        bytes.push_str(&String::from_utf8_lossy(body));
        Self::bytes(bytes)
    }

    /// Nothing at all, the connection left open.
    pub(crate) fn silence() -> Self {
        Self::default()
    }

    pub(crate) fn then(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.pieces.push(bytes.into());
        self
    }

    pub(crate) fn every(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    pub(crate) fn closing(self) -> Self {
        Self {
            closes: true,
            ..self
        }
    }

    /// Sent as soon as the head is there.
    pub(crate) fn before_body(self) -> Self {
        Self {
            before_body: true,
            ..self
        }
    }
}

impl Reply {
    /// Once it is sent, the connection is the test's.
    pub(crate) fn leaving_to(self, heir: Sender<Tunnel>) -> Self {
        Self {
            heir: Some(heir),
            ..self
        }
    }
}

/// Health checks are answered and not remembered.
const HEALTH_AGENT: &str = "Evervault-Healthcheck-Agent";

type Script = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    received: Arc<AtomicUsize>,
}

impl Process {
    /// Answers each request with what `script` makes of its head.
    pub(crate) fn new(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let received = Arc::new(AtomicUsize::new(0));
        let (script, all): (Script, _) = (Arc::new(script), Arc::clone(&seen));
        let count = Arc::clone(&received);
        // The thread ends with the test's process.
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (script, seen) = (Arc::clone(&script), Arc::clone(&all));
                let count = Arc::clone(&count);
                std::thread::spawn(move || {
                    serve(connection, stream.unwrap(), &script, &seen, &count)
                });
            }
        });
        Self {
            address,
            seen,
            received,
        }
    }

    /// Says what it was asked for.
    pub(crate) fn echo() -> Self {
        Self::new(|request| Reply::ok(request.line()))
    }

    /// Everything so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// Bytes of bodies so far, of requests that are not over yet too.
    pub(crate) fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }

    /// The only request so far.
    pub(crate) fn only(&self) -> Request {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }
}

fn serve(
    connection: usize,
    mut stream: TcpStream,
    script: &Script,
    seen: &Mutex<Vec<Request>>,
    received: &AtomicUsize,
) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut ahead = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = find(&ahead, b"\r\n\r\n") {
                break end + 4;
            }
            if !more(&mut stream, &mut ahead) {
                if !ahead.is_empty() {
                    let head = ahead.iter().map(|byte| char::from(*byte)).collect();
                    seen.lock().ok()?.push(Request {
                        connection,
                        head,
                        ..Request::default()
                    });
                }
                return None;
            }
        };
        let rest = ahead.split_off(end);
        let head = ahead.iter().map(|byte| char::from(*byte)).collect();
        let mut request = Request {
            connection,
            head,
            ..Request::default()
        };
        if request.header("user-agent").as_deref() == Some(HEALTH_AGENT) {
            send(&mut stream, &Reply::ok(""))?;
            return None;
        }
        let reply = script(&request);
        if reply.before_body {
            send(&mut stream, &reply)?;
        }
        ahead = body(&mut stream, rest, &mut request, received);
        let is_whole = request.is_whole;
        seen.lock().ok()?.push(request);
        if !is_whole {
            return None;
        }
        if !reply.before_body {
            send(&mut stream, &reply)?;
        }
        if reply.closes {
            return None;
        }
        if let Some(heir) = reply.heir {
            return heir.send(Tunnel { stream, ahead }).ok();
        }
    }
}

fn send(stream: &mut TcpStream, reply: &Reply) -> Option<()> {
    for piece in &reply.pieces {
        stream.write_all(piece).ok()?;
        std::thread::sleep(reply.pause);
    }
    Some(())
}

/// Reads a body; what follows it is given back.
fn body(
    stream: &mut TcpStream,
    mut bytes: Vec<u8>,
    request: &mut Request,
    received: &AtomicUsize,
) -> Vec<u8> {
    received.fetch_add(bytes.len(), Ordering::Relaxed);
    let length = request
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let is_chunked = request.header("transfer-encoding").is_some();
    loop {
        let end = if is_chunked {
            chunks(&bytes)
        } else {
            Some((bytes.len() >= length, length, Vec::new()))
        };
        if let Some((true, used, data)) = end {
            let rest = bytes.split_off(used);
            request.body = if is_chunked { data } else { bytes.clone() };
            request.raw_body = bytes;
            request.is_whole = true;
            return rest;
        }
        let before = bytes.len();
        if !more(stream, &mut bytes) {
            request.raw_body = bytes;
            return Vec::new();
        }
        received.fetch_add(bytes.len() - before, Ordering::Relaxed);
    }
}

/// Whether a chunked body ended, where, and its data.
fn chunks(bytes: &[u8]) -> Option<(bool, usize, Vec<u8>)> {
    let (mut at, mut data) = (0, Vec::new());
    loop {
        let line = find(&bytes[at..], b"\r\n")?;
        let size =
            usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).ok()?, 16).ok()?;
        at += line + 2;
        if size == 0 {
            loop {
                let line = find(&bytes[at..], b"\r\n")?;
                at += line + 2;
                if line == 0 {
                    return Some((true, at, data));
                }
            }
        }
        data.extend_from_slice(bytes.get(at..at + size)?);
        at += size + 2;
        bytes.get(at - 1)?;
    }
}

fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> bool {
    let mut room = vec![0; 65536];
    match stream.read(&mut room) {
        Ok(count) if count > 0 => {
            bytes.extend_from_slice(&room[..count]);
            true
        }
        _ => false,
    }
}
