//! Listeners and connections over real sockets.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "integration tests are their own crate"
)]

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use cloister_transport::{Address, Bound, Listener, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LIMIT: Duration = Duration::from_secs(5);

/// A folder of this test's own, short enough for a socket path, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cl-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> Address {
        Address::Unix(self.0.join("s"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[tokio::test]
async fn a_tcp_connection_is_known_by_its_real_addresses() {
    let listener = Listener::bind(&"tcp:[::]:0".parse().unwrap())
        .await
        .unwrap();
    let Address::Tcp { port, .. } = listener.local_address() else {
        panic!("bound to TCP");
    };
    let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let accepted = listener.accept().await.unwrap();
    assert_eq!(accepted.peer, Some(client.local_addr().unwrap()));
    assert_eq!(accepted.local, Some(client.peer_addr().unwrap()));
}

/// A plane accepts on one runtime and serves on another.
#[test]
fn a_stream_moves_to_the_runtime_of_another_thread() {
    let here = runtime();
    let (detached, mut client) = here.block_on(async {
        let listener = Bound::open(&"tcp:127.0.0.1:0".parse().unwrap())
            .unwrap()
            .attach()
            .unwrap();
        let client = connect(&listener.local_address(), LIMIT).await.unwrap();
        let accepted = listener.accept_detached().await.unwrap();
        (accepted.stream, client)
    });
    let there = std::thread::spawn(move || {
        runtime().block_on(async move {
            let mut stream = detached.attach().unwrap();
            stream.write_all(b"hello").await.unwrap();
        });
    });
    let mut text = String::new();
    here.block_on(client.read_to_string(&mut text)).unwrap();
    there.join().unwrap();
    assert_eq!(text, "hello");
}

#[tokio::test]
async fn a_unix_socket_is_replaced_when_stale_and_only_then() {
    let folder = Folder::new("stale");
    let address = folder.socket();
    let Address::Unix(path) = &address else {
        panic!("a Unix address");
    };
    // A std listener leaves its file behind: what a killed process does.
    drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    assert!(path.exists());
    // Only root may give files away; anybody else keeps his own.
    let _not_root = std::os::unix::fs::chown(path, Some(1234), Some(1234));
    let owner = std::fs::metadata(path).unwrap().uid();

    let listener = Listener::bind(&address).await.unwrap();
    let second = Bound::open(&address).unwrap_err();
    assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
    connect(&address, LIMIT).await.unwrap();
    assert_eq!(std::fs::metadata(path).unwrap().uid(), owner);

    drop(listener);
    assert!(!path.exists());
    std::fs::write(path, "a document").unwrap();
    let refused = Bound::open(&address).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    assert_eq!(std::fs::read_to_string(path).unwrap(), "a document");
}

#[tokio::test]
async fn a_port_in_use_and_a_port_with_nobody_are_told_apart_from_silence() {
    let listener = Listener::bind(&"tcp:127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let address = listener.local_address();
    let error = Bound::open(&address).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);

    drop(listener);
    let error = connect(&address, LIMIT).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

/// A full backlog of a Unix socket answers `EAGAIN` at once; connecting waits for a place instead,
/// and not for longer than it was told.
#[tokio::test]
async fn connecting_to_a_full_unix_backlog_waits_until_its_deadline() {
    let folder = Folder::new("full");
    let Address::Unix(path) = folder.socket() else {
        panic!("a Unix address");
    };
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&socket2::SockAddr::unix(&path).unwrap())
        .unwrap();
    socket.listen(0).unwrap();
    let address = folder.socket();
    let _first = connect(&address, LIMIT).await.unwrap();
    let error = connect(&address, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let (accepted, _) = socket.accept().unwrap();
    connect(&address, LIMIT).await.unwrap();
    drop(accepted);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}
