//! Channels against a QEMU made of sockets, which connects, breaks off and does not read when it is told to.

use std::path::PathBuf;
use std::time::Duration;

use plasmavmc_kvm::channel::{Channel, ChannelOptions, Console, Incoming, SendError, Watched};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const SOON: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);

struct Scene {
    folder: TempDir,
    channel: Channel,
}

fn scene_with(inbox_bytes: usize) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let options = ChannelOptions {
        inbox_bytes,
        owner: None,
    };
    let channel = Channel::listen(&folder.path().join("port.sock"), options).unwrap();
    Scene { folder, channel }
}

fn scene() -> Scene {
    scene_with(1024 * 1024)
}

impl Scene {
    fn path(&self) -> PathBuf {
        self.folder.path().join("port.sock")
    }

    /// QEMU connects, and the channel has seen it.
    async fn connect(&self) -> UnixStream {
        let mut state = self.channel.state();
        let before = state.borrow().sessions;
        let stream = UnixStream::connect(self.path()).await.unwrap();
        let seen = state.wait_for(|state| state.sessions > before && state.connected);
        tokio::time::timeout(SOON, seen).await.unwrap().unwrap();
        stream
    }

    async fn next(&mut self) -> Incoming {
        tokio::time::timeout(SOON, self.channel.receive())
            .await
            .unwrap()
            .unwrap()
    }
}

fn data(text: &str) -> Incoming {
    Incoming::Data(text.as_bytes().to_vec())
}

#[tokio::test]
async fn the_newest_connection_wins_and_the_last_words_of_the_old_one_are_heard() {
    let mut scene = scene();
    let mut old = scene.connect().await;
    old.write_all(b"last words").await.unwrap();
    let mut new = scene.connect().await;
    new.write_all(b"first words").await.unwrap();
    for expected in [
        Incoming::Connected,
        data("last words"),
        Incoming::Disconnected,
        Incoming::Connected,
        data("first words"),
    ] {
        assert_eq!(scene.next().await, expected);
    }
    scene
        .channel
        .sender()
        .send(b"for the new".to_vec(), SOON)
        .await
        .unwrap();
    let mut read = [0; 11];
    new.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"for the new");
    assert_eq!(old.read(&mut read).await.unwrap(), 0, "the old one is hung up on");
}

#[tokio::test]
async fn nothing_is_kept_for_a_session_that_is_still_to_come() {
    let scene = scene();
    let error = scene
        .channel
        .sender()
        .send(b"too early".to_vec(), SOON)
        .await
        .unwrap_err();
    assert!(
        matches!(error, SendError::NotConnected { .. }) && !error.was_begun(),
        "{error}"
    );
    let mut peer = scene.connect().await;
    scene.channel.sender().send(b"in time".to_vec(), SOON).await.unwrap();
    let mut read = [0; 7];
    peer.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"in time");
}

#[tokio::test]
async fn a_peer_that_does_not_read_costs_deadlines_and_no_frame_is_torn() {
    let scene = scene();
    let mut peer = scene.connect().await;
    let sender = scene.channel.sender();
    let long = vec![b'L'; 2 * 1024 * 1024];
    let error = sender.send(long.clone(), SHORT).await.unwrap_err();
    assert!(
        matches!(error, SendError::Unfinished { written, .. } if written > 0),
        "{error}"
    );
    let error = sender.send(b"taken back".to_vec(), SHORT).await.unwrap_err();
    assert!(
        matches!(error, SendError::NotSent { .. }) && !error.was_begun(),
        "{error}"
    );

    let mut read = vec![0; long.len() + 4];
    let (sent, all) = tokio::join!(sender.send(b"next".to_vec(), SOON), peer.read_exact(&mut read));
    sent.unwrap();
    all.unwrap();
    assert!(read[..long.len()] == long, "the frame that was begun is whole");
    assert_eq!(&read[long.len()..], b"next");
}

#[tokio::test]
async fn a_consumer_that_pauses_never_stops_the_peer() {
    const SENT: usize = 10 * 1024 * 1024;
    let mut scene = scene_with(100_000);
    let mut peer = scene.connect().await;
    let written = tokio::time::timeout(SOON, peer.write_all(&vec![b'x'; SENT])).await;
    written.expect("the reader drains").unwrap();
    peer.shutdown().await.unwrap();
    let (mut kept, mut lost) = (0, 0);
    loop {
        match scene.next().await {
            Incoming::Data(bytes) => kept += bytes.len(),
            Incoming::Lost { bytes } => lost += bytes,
            Incoming::Connected => {}
            Incoming::Disconnected => break,
        }
    }
    assert_eq!(kept as u64 + lost, SENT as u64);
    assert_eq!(lost, scene.channel.lost_bytes());
    assert!(kept >= 90_000 && lost > 0, "{kept} kept, {lost} lost");
}

#[tokio::test]
async fn a_thousand_connections_leave_no_descriptor() {
    let fds = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut scene = scene();
    // What the runtime opens for itself is open now.
    drop(scene.connect().await);
    for _ in 0..1000 {
        let mut peer = scene.connect().await;
        peer.write_all(b"half a fra").await.unwrap();
        drop(peer);
        while scene.next().await != Incoming::Disconnected {}
    }
    let socket = scene.path();
    // Other tests of this process open descriptors, too; a thousand would stand out.
    let left = fds();
    assert!(left < 500, "{left} descriptors are open");
    scene.channel.close().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn closing_tells_the_peer_and_whoever_still_sends() {
    let scene = scene();
    let mut peer = scene.connect().await;
    let sender = scene.channel.sender();
    scene.channel.close().await;
    assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0);
    let error = sender.send(b"late".to_vec(), SOON).await.unwrap_err();
    assert!(matches!(error, SendError::Closed { .. }), "{error}");
}

#[tokio::test]
async fn every_watcher_of_a_console_sees_the_past_and_the_present_across_reconnects() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console.sock");
    let console = Console::attach(Channel::listen(&path, ChannelOptions::default()).unwrap(), 1000);
    let mut first = console.watch();
    let mut peer = UnixStream::connect(&path).await.unwrap();
    peer.write_all(b"SeaBIOS\n").await.unwrap();
    assert_eq!(seen(&mut first, 8).await, "SeaBIOS\n");
    drop(peer);
    let mut peer = UnixStream::connect(&path).await.unwrap();
    peer.write_all(b"login: ").await.unwrap();
    let mut second = console.watch();
    assert_eq!(seen(&mut first, 7).await, "login: ");
    assert_eq!(seen(&mut second, 15).await, "SeaBIOS\nlogin: ");

    console.write(b"root\n".to_vec(), SOON).await.unwrap();
    let mut typed = [0; 5];
    peer.read_exact(&mut typed).await.unwrap();
    assert_eq!(&typed, b"root\n");
    console.close().await;
    assert_eq!(tokio::time::timeout(SOON, first.next()).await.unwrap(), None);
}

#[tokio::test]
async fn a_console_that_was_anothers_begins_with_what_it_showed_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console.sock");
    let channel = Channel::listen(&path, ChannelOptions::default()).unwrap();
    let console = Console::attach_after(channel, 1000, Box::new(|| b"SeaBIOS\n".to_vec()));
    let mut early = console.watch();
    for text in ["login: ", "again: "] {
        let mut peer = UnixStream::connect(&path).await.unwrap();
        peer.write_all(text.as_bytes()).await.unwrap();
        if text == "login: " {
            assert_eq!(seen(&mut early, 15).await, "SeaBIOS\nlogin: ");
        } else {
            assert_eq!(seen(&mut early, 7).await, text, "the past comes once");
        }
    }
    assert_eq!(seen(&mut console.watch(), 22).await, "SeaBIOS\nlogin: again: ");
}

#[tokio::test]
async fn a_slow_watcher_is_told_what_it_missed_and_slows_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("console.sock");
    let console = Console::attach(Channel::listen(&path, ChannelOptions::default()).unwrap(), 1000);
    let mut slow = console.watch();
    let mut quick = console.watch();
    let mut peer = UnixStream::connect(&path).await.unwrap();
    for _ in 0..50 {
        peer.write_all(&[b'x'; 100]).await.unwrap();
        seen(&mut quick, 100).await;
    }
    assert_eq!(slow.next().await, Some(Watched::Missed { bytes: 4000 }));
    assert_eq!(slow.next().await, Some(Watched::Bytes(vec![b'x'; 1000])));
    assert_eq!(console.scrollback().len(), 1000);
}

/// So many bytes, however they are cut.
async fn seen(watcher: &mut plasmavmc_kvm::channel::Watcher, count: usize) -> String {
    let mut all = String::new();
    while all.len() < count {
        match tokio::time::timeout(SOON, watcher.next()).await.unwrap() {
            Some(Watched::Bytes(bytes)) => all.push_str(std::str::from_utf8(&bytes).unwrap()),
            other => panic!("{other:?}"),
        }
    }
    all
}
