use super::*;

use std::sync::atomic::Ordering;

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
        idle: Some(Duration::from_secs(8)),
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

/// Without an idle limit a quiet connection stays, and one whose server takes nothing ends all the
/// same, and so does one that has ended on one side.
#[tokio::test(start_paused = true)]
async fn what_a_side_does_not_take_is_kept_no_longer_than_the_stall_limit() {
    let limits = Limits {
        idle: None,
        stall: Duration::from_secs(8),
        ..Limits::default()
    };
    for ends in [false, true] {
        let started = Instant::now();
        let copied = pumped(64, limits, |mut client, mut server| async move {
            sleep(Duration::from_secs(100)).await;
            client.write_all(b"x").await.unwrap();
            assert_eq!(server.read_u8().await.unwrap(), b'x');
            if ends {
                client.shutdown().await.unwrap();
            } else {
                // More than the server's side has room for, and it reads none of it.
                client.write_all(&[b'x'; 100]).await.unwrap();
            }
            sleep(Duration::from_secs(100)).await;
            assert!(client.write_all(&[b'x'; 200]).await.is_err());
        })
        .await;
        assert!(matches!(copied.end, End::Idle), "{:?}", copied.end);
        let silent = started.elapsed().saturating_sub(Duration::from_secs(100));
        assert!(silent >= Duration::from_secs(8), "{silent:?}");
    }
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

/// Bulk over real sockets: it is spliced, a small message after it is not lost in a pipe, and the
/// end is passed on.
#[tokio::test]
async fn bulk_is_spliced_in_order_and_small_messages_go_on_afterwards() {
    let (mut client, first) = UnixStream::pair().unwrap();
    let (second, mut server) = UnixStream::pair().unwrap();
    let local = LocalSet::new();
    let scratch = Scratch::new();
    let pipes = Rc::clone(&scratch.pipes);
    let pump = local.run_until(async move {
        let (mut first, mut second) = (Stream::Unix(first), Stream::Unix(second));
        let meter = Meter::default();
        join(
            b"opening".to_vec(),
            &mut first,
            &mut second,
            Limits::default(),
            &scratch,
            &meter,
        )
        .await
    });
    let bulk: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let sent = bulk.clone();
    let client_side = async move {
        client.write_all(&sent).await.unwrap();
        for byte in 0..100_u8 {
            client.write_all(&[byte]).await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), byte);
        }
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"bye");
    };
    let server_side = async move {
        let mut opening = [0; 7];
        server.read_exact(&mut opening).await.unwrap();
        assert_eq!(&opening, b"opening");
        let mut got = vec![0; bulk.len()];
        server.read_exact(&mut got).await.unwrap();
        assert!(got == bulk, "bulk arrives in order");
        for _ in 0..100 {
            let byte = server.read_u8().await.unwrap();
            server.write_all(&[byte]).await.unwrap();
        }
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        server.write_all(b"bye").await.unwrap();
    };
    let (copied, (), ()) = tokio::join!(pump, client_side, server_side);
    assert!(matches!(copied.end, End::Closed));
    assert_eq!((copied.forward, copied.backward), (8_000_100, 103));
    assert_eq!(pipes.idle_count(), 1, "the pipe came back, empty");
}

/// The receiver goes away while bytes are in the pipe: that pipe is not given to anybody else.
#[tokio::test]
async fn a_pipe_with_bytes_of_one_connection_never_serves_another() {
    let (mut client, first) = UnixStream::pair().unwrap();
    let (second, mut server) = UnixStream::pair().unwrap();
    let scratch = Scratch::new();
    let pipes = Rc::clone(&scratch.pipes);
    let pump = async move {
        let (mut first, mut second) = (Stream::Unix(first), Stream::Unix(second));
        let limits = Limits {
            linger: Duration::from_millis(50),
            ..Limits::default()
        };
        join(
            Vec::new(),
            &mut first,
            &mut second,
            limits,
            &scratch,
            &Meter::default(),
        )
        .await
    };
    let client_side = async move {
        // Until the pump lets go.
        let chunk = vec![1; 65_536];
        while client.write_all(&chunk).await.is_ok() {}
    };
    let watched = Rc::clone(&pipes);
    let server_side = async move {
        let mut some = vec![0; 3_000_000];
        server.read_exact(&mut some).await.unwrap();
        assert_eq!(watched.lent_count(), 1, "bulk goes through a pipe");
        drop(server);
    };
    tokio::join!(pump, client_side, server_side);
    assert_eq!(pipes.idle_count(), 0);
}
