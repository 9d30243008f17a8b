//! What stands behind a proxy, and a proxy.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};

use crate::Outcome;

const ROOM: usize = 256 * 1024;

pub async fn echo(address: &str) -> Outcome<()> {
    if address.contains('/') {
        let listener = UnixListener::bind(address)?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(echo_one(stream));
        }
    }
    let listener = listen(address)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(echo_one(stream));
    }
}

pub async fn sink(address: &str) -> Outcome<()> {
    let listener = listen(address)?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let mut room = vec![0; ROOM];
            while stream.read(&mut room).await? > 0 {}
            Outcome::Ok(())
        });
    }
}

pub async fn copy(address: &str, to: &str) -> Outcome<()> {
    let listener = listen(address)?;
    loop {
        let (mut client, _) = listener.accept().await?;
        let to = to.to_owned();
        tokio::spawn(async move {
            client.set_nodelay(true)?;
            let mut server = TcpStream::connect(to).await?;
            server.set_nodelay(true)?;
            copy_bidirectional(&mut client, &mut server).await?;
            Outcome::Ok(())
        });
    }
}

fn listen(address: &str) -> Outcome<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address.parse()?)?;
    Ok(socket.listen(4096)?)
}

async fn echo_one(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Outcome<()> {
    let mut room = vec![0; 4096];
    let mut start = Vec::new();
    // The messages of the load are made of `x`: anything else in front is a PROXY header.
    loop {
        let count = stream.read(&mut room).await?;
        if count == 0 {
            return Ok(());
        }
        start.extend_from_slice(&room[..count]);
        if let Some(length) = header_length(&start)
            && start.len() > length
        {
            stream.write_all(&start[length..]).await?;
            break;
        }
    }
    drop(start);
    loop {
        let count = stream.read(&mut room).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&room[..count]).await?;
    }
}

/// Length of the PROXY header, once it is known; 0 when there is none.
fn header_length(start: &[u8]) -> Option<usize> {
    if start.starts_with(b"x") {
        return Some(0);
    }
    if start.starts_with(b"PROXY") {
        return Some(start.windows(2).position(|end| end == b"\r\n")? + 2);
    }
    let length = start.get(14..16)?;
    Some(16 + usize::from(u16::from_be_bytes([length[0], length[1]])))
}
