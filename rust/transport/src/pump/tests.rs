use super::*;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::UnixStream;
use tokio::task::LocalSet;

/// Runs a pump between two links and gives `work` their far ends.
async fn pumped<F, T>(capacity: usize, limits: Limits, work: F) -> Copied
where
    F: FnOnce(DuplexStream, DuplexStream) -> T,
    T: Future<Output = ()>,
{
    let (client, mut first) = duplex(capacity);
    let (mut second, server) = duplex(capacity);
    let scratch = Scratch::new();
    let meter = Meter::default();
    let (copied, ()) = tokio::join!(
        async {
            let copied = copy_both(&mut first, &mut second, limits, &scratch, &meter).await;
            drop((first, second));
            copied
        },
        work(client, server)
    );
    assert_eq!(meter.forward.load(Ordering::Relaxed), copied.forward);
    assert_eq!(meter.backward.load(Ordering::Relaxed), copied.backward);
    copied
}

/// A pump that closed both ways at the first end would lose the answer.
#[tokio::test(start_paused = true)]
async fn the_end_of_one_direction_leaves_the_other_open() {
    let copied = pumped(64, Limits::default(), |mut client, mut server| async move {
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.unwrap();
        assert_eq!(question, b"question");
        server.write_all(b"a long answer").await.unwrap();
        server.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"a long answer");
    })
    .await;
    assert!(matches!(copied.end, End::Closed));
    assert_eq!((copied.forward, copied.backward), (8, 13));
}

/// The link takes 7 bytes at a time, so nearly every write is partial and something is kept.
#[tokio::test(start_paused = true)]
async fn what_a_slow_reader_leaves_is_kept_and_arrives_in_order() {
    let sent: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let expected = sent.clone();
    let copied = pumped(7, Limits::default(), |mut client, server| async move {
        let (mut from_server, mut to_server) = tokio::io::split(server);
        let writing = async {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
            let mut nothing = Vec::new();
            client.read_to_end(&mut nothing).await.unwrap();
            assert!(nothing.is_empty());
        };
        let reading = async {
            let mut got = Vec::new();
            from_server.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, expected);
            to_server.shutdown().await.unwrap();
        };
        tokio::join!(writing, reading);
    })
    .await;
    assert_eq!(copied.forward, 800_000);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_after_the_idle_limit_and_not_before() {
    let limits = Limits {
        idle: Duration::from_secs(8),
        ..Limits::default()
    };
    let started = Instant::now();
    let copied = pumped(64, limits, |mut client, mut server| async move {
        sleep(Duration::from_secs(7)).await;
        client.write_all(b"x").await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'x');
        // The pump lets go: both ends see it.
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    })
    .await;
    assert!(matches!(copied.end, End::Idle));
    let silent = started.elapsed().saturating_sub(Duration::from_secs(7));
    assert!(silent >= Duration::from_secs(8) && silent <= Duration::from_secs(11));
}

/// A server that answers early and closes: its answer arrives although the client still sends.
#[tokio::test]
async fn an_early_answer_survives_a_client_that_goes_on_sending() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let (mut client, mut first) = UnixStream::pair().unwrap();
            let (mut second, mut server) = UnixStream::pair().unwrap();
            let pump = tokio::task::spawn_local(async move {
                let scratch = Scratch::new();
                let limits = Limits {
                    linger: Duration::from_millis(200),
                    ..Limits::default()
                };
                copy_both(&mut first, &mut second, limits, &scratch, &Meter::default()).await
            });
            client.write_all(b"head").await.unwrap();
            server.read_exact(&mut [0; 4]).await.unwrap();
            server.write_all(b"413 too large").await.unwrap();
            drop(server);
            // The writes go into a connection whose other side is gone.
            for _ in 0..64 {
                client.write_all(&[b'x'; 4096]).await.unwrap();
            }
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"413 too large");
            assert!(matches!(pump.await.unwrap().end, End::Closed));
        })
        .await;
}
