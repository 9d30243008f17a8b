//! Load on a TCP proxy, one thread each:
//!
//! - `relay-load echo ADDRESS`: says back what it hears, but for a PROXY header in front;
//! - `relay-load sink ADDRESS`: reads and says nothing;
//! - `relay-load copy LISTEN TO`: `tokio::io::copy_bidirectional`, a competitor;
//! - `relay-load bulk TO CONNECTIONS SECONDS`: writes, and prints how many MB (10^6 bytes) went;
//! - `relay-load ping TO CONNECTIONS SECONDS`: 64 bytes to and fro; prints count, p50 and p99 in µs;
//! - `relay-load connect TO SECONDS`: connects, 64 bytes to and fro, closes; prints the count.
//!
//! An address is `HOST:PORT`, or a path for `echo`. Whatever goes wrong ends it with a status that is
//! not 0: a proxy that fails has no figure.

mod server;

use std::env;
use std::error::Error;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const MESSAGE: usize = 64;
const BULK_BYTES: usize = 256 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["echo", address] => server::echo(address).await,
        ["sink", address] => server::sink(address).await,
        ["copy", listen, to] => server::copy(listen, to).await,
        ["bulk", to, connections, seconds] => {
            let bytes = many(to, connections, seconds, bulk).await?;
            println!("{}", bytes.iter().sum::<u64>() / 1_000_000);
            Ok(())
        }
        ["ping", to, connections, seconds] => {
            let mut took = many(to, connections, seconds, ping).await?.concat();
            took.sort_unstable();
            let at = |part: usize| f64::from(took[took.len() * part / 100]) / 1e3;
            println!("{} {:.1} {:.1}", took.len(), at(50), at(99));
            Ok(())
        }
        ["connect", to, seconds] => {
            let end = end(seconds)?;
            let mut count = 0_u64;
            while Instant::now() < end {
                let mut stream = connected(to).await?;
                round(&mut stream).await?;
                drop(stream);
                count += 1;
            }
            println!("{count}");
            Ok(())
        }
        _ => Err("see the head of main.rs".into()),
    }
}

fn end(seconds: &str) -> Outcome<Instant> {
    Ok(Instant::now() + Duration::from_secs_f64(seconds.parse()?))
}

async fn connected(to: &str) -> Outcome<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Runs `work` on each of several connections until the end of the time.
async fn many<T: Send + 'static, F>(
    to: &str,
    connections: &str,
    seconds: &str,
    work: fn(TcpStream, Instant) -> F,
) -> Outcome<Vec<T>>
where
    F: Future<Output = Outcome<T>> + Send + 'static,
{
    let mut streams = Vec::new();
    for _ in 0..connections.parse()? {
        streams.push(connected(to).await?);
    }
    let end = end(seconds)?;
    let mut tasks = JoinSet::new();
    for stream in streams {
        tasks.spawn(work(stream, end));
    }
    let mut done = Vec::new();
    while let Some(one) = tasks.join_next().await {
        done.push(one??);
    }
    Ok(done)
}

/// Bytes written.
async fn bulk(mut stream: TcpStream, end: Instant) -> Outcome<u64> {
    let chunk = vec![b'x'; BULK_BYTES];
    let mut written = 0;
    while Instant::now() < end {
        stream.write_all(&chunk).await?;
        written += BULK_BYTES as u64;
    }
    // What is still on the way belongs to the figure: the other side ends when it has all.
    stream.shutdown().await?;
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(written)
}

/// Nanoseconds of each round.
async fn ping(mut stream: TcpStream, end: Instant) -> Outcome<Vec<u32>> {
    let mut took = Vec::new();
    loop {
        let begun = Instant::now();
        if begun >= end {
            return Ok(took);
        }
        round(&mut stream).await?;
        took.push(u32::try_from(begun.elapsed().as_nanos())?);
    }
}

async fn round(stream: &mut TcpStream) -> Outcome<()> {
    let said = [b'x'; MESSAGE];
    let mut heard = [0; MESSAGE];
    stream.write_all(&said).await?;
    stream.read_exact(&mut heard).await?;
    if heard == said {
        Ok(())
    } else {
        Err("another message came back".into())
    }
}
