//! A server small enough to read: HTTP/1.1 over std, one thread a connection, no dependency.
//!
//! `POST /hello` answers with what it saw: the body as it arrived (in clear, as the enclave opened it)
//! and some of the headers. `GET /` and `GET /health` answer 200. It binds `0.0.0.0:$PORT`, 8008 when
//! unset. It trusts the data plane in front of it to send well-formed HTTP.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// Headers that the answer repeats; of the rest it says the names alone.
const SHOWN: [&str; 5] = [
    "content-type",
    "host",
    "user-agent",
    "x-evervault-ctx",
    "x-forwarded-for",
];
const MAX_BODY_BYTES: u64 = 1 << 20;
const MAX_HEAD_BYTES: u64 = 1 << 16;
const DEFAULT_PORT: u16 = 8008;
const IDLE: Duration = Duration::from_secs(75);

fn main() -> ExitCode {
    let port = match std::env::var("PORT").map(|port| port.parse::<u16>()) {
        Ok(Ok(port)) => port,
        Ok(Err(_)) => {
            say("PORT is not a port number");
            return ExitCode::FAILURE;
        }
        Err(_) => DEFAULT_PORT,
    };
    let listener = match TcpListener::bind(("0.0.0.0", port)) {
        Ok(listener) => listener,
        Err(error) => {
            say(&format!("cannot listen on port {port}: {error}"));
            return ExitCode::FAILURE;
        }
    };
    say(&format!("listening on port {port}"));
    for stream in listener.incoming().flatten() {
        let thread = std::thread::Builder::new().spawn(move || {
            // A connection that breaks is over; there is nobody to tell.
            let _ = serve(&stream);
        });
        if let Err(error) = thread {
            say(&format!("no room for a connection: {error}"));
        }
    }
    ExitCode::SUCCESS
}

fn serve(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = Request::read(&mut reader)? {
        let (status, body) = answer(&request);
        let mut writer = stream;
        write!(
            writer,
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        if request.is_last {
            break;
        }
    }
    Ok(())
}

fn answer(request: &Request) -> (&'static str, String) {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/") => ("200 OK", "{\"hello\":\"enclave\"}\n".into()),
        ("GET", "/health") => ("200 OK", "{\"status\":\"ok\"}\n".into()),
        ("POST", "/hello") => ("200 OK", describe(request)),
        (_, "/" | "/health" | "/hello") => {
            ("405 Method Not Allowed", "{\"error\":\"method\"}\n".into())
        }
        _ => ("404 Not Found", "{\"error\":\"path\"}\n".into()),
    }
}

/// A JSON body is repeated as it is, anything else as a string.
fn describe(request: &Request) -> String {
    let text = String::from_utf8_lossy(&request.body);
    let is_json = request
        .header("content-type")
        .is_some_and(|kind| kind.starts_with("application/json"));
    let mut out = String::from("{\"saw\":");
    if is_json && !text.trim().is_empty() {
        out.push_str(text.trim());
    } else {
        quote(&text, &mut out);
    }
    out.push_str(",\"headers\":{");
    let shown = SHOWN
        .iter()
        .filter_map(|&name| Some((name, request.header(name)?)));
    list(&mut out, shown, |out, (name, value)| {
        quote(name, out);
        out.push(':');
        quote(value, out);
    });
    out.push_str("},\"header_names\":[");
    list(&mut out, request.headers.iter(), |out, (name, _)| {
        quote(name, out);
    });
    out.push_str("],\"initialized\":");
    let is_initialized = std::env::var("EV_INITIALIZED").is_ok_and(|value| value == "true");
    out.push_str(if is_initialized { "true" } else { "false" });
    out.push_str("}\n");
    out
}

fn list<T>(out: &mut String, items: impl Iterator<Item = T>, put: impl Fn(&mut String, T)) {
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(',');
        }
        put(out, item);
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            character if character < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            character => out.push(character),
        }
    }
    out.push('"');
}

struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    is_last: bool,
}

impl Request {
    /// The next request, or none when the connection ended between two.
    fn read(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Self>> {
        let mut head = Read::by_ref(reader).take(MAX_HEAD_BYTES);
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_ascii_whitespace().map(str::to_owned);
        let (method, target) = (words.next().ok_or_else(bad)?, words.next().ok_or_else(bad)?);
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if head.read_line(&mut line)? == 0 {
                return Err(bad());
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(bad)?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let path = target.split('?').next().unwrap_or_default().to_owned();
        let mut request = Self {
            method,
            path,
            headers,
            body: Vec::new(),
            is_last: false,
        };
        request.is_last = request.header("connection") == Some("close");
        request.body = if request.header("transfer-encoding").is_some() {
            read_chunks(reader)?
        } else {
            let length = request.header("content-length").map(str::parse::<u64>);
            read_exactly(reader, length.transpose().map_err(|_| bad())?.unwrap_or(0))?
        };
        Ok(Some(request))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }
}

fn read_chunks(reader: &mut BufReader<&TcpStream>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        Read::by_ref(reader)
            .take(MAX_HEAD_BYTES)
            .read_line(&mut line)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let length = u64::from_str_radix(digits, 16).map_err(|_| bad())?;
        if length == 0 {
            // Trailers, up to the empty line.
            while Read::by_ref(reader)
                .take(MAX_HEAD_BYTES)
                .read_line(&mut line)?
                > 2
            {}
            return Ok(body);
        }
        body.extend(read_exactly(reader, length)?);
        if u64::try_from(body.len()).is_ok_and(|length| length > MAX_BODY_BYTES) {
            return Err(bad());
        }
        read_exactly(reader, 2)?;
    }
}

fn read_exactly(reader: &mut BufReader<&TcpStream>, length: u64) -> io::Result<Vec<u8>> {
    if length > MAX_BODY_BYTES {
        return Err(bad());
    }
    let mut body = Vec::new();
    let read = Read::by_ref(reader).take(length).read_to_end(&mut body)?;
    if u64::try_from(read) == Ok(length) {
        Ok(body)
    } else {
        Err(bad())
    }
}

fn bad() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

fn say(message: &str) {
    let _ = writeln!(io::stderr(), "hello-enclave: {message}");
}
