use super::*;

/// A folder whose sockets cannot be addressed directly.
fn long_folder(root: &Path) -> PathBuf {
    let folder = root.join("d".repeat(120)).join("e".repeat(120));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

async fn assert_connects(listener: &Listener) {
    let (connected, accepted) = tokio::join!(async { connect(listener.path()) }, listener.accept());
    connected.unwrap();
    accepted.unwrap();
}

#[tokio::test]
async fn a_path_of_any_length_can_be_offered_and_reached() {
    let root = tempfile::tempdir().unwrap();
    for folder in [root.path().to_owned(), long_folder(root.path())] {
        let listener = Listener::bind(&folder.join("qga.sock"), None).unwrap();
        let mode = std::fs::metadata(listener.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{folder:?}");
        assert_connects(&listener).await;
    }
}

#[tokio::test]
async fn a_listener_replaces_a_stale_socket_and_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("console.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(matches!(connect(&path), Err(SocketError::Refused { .. })));

    let listener = Listener::bind(&path, None).unwrap();
    assert_connects(&listener).await;
    drop(listener);
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    assert!(matches!(connect(&path), Err(SocketError::Missing { .. })));
}

#[tokio::test]
async fn an_older_listener_does_not_remove_the_file_of_a_newer_one() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("qga.sock");
    let older = Listener::bind(&path, None).unwrap();
    let newer = Listener::bind(&path, None).unwrap();
    drop(older);
    assert_connects(&newer).await;
}

#[tokio::test]
async fn what_is_no_socket_is_not_removed() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    assert!(matches!(
        Listener::bind(&path, None),
        Err(SocketError::NotASocket { .. })
    ));
    assert_eq!(std::fs::read(&path).unwrap(), b"data");
}

#[tokio::test]
async fn a_name_that_can_never_fit_is_refused_with_the_limit() {
    let root = tempfile::tempdir().unwrap();
    let path = long_folder(root.path()).join("n".repeat(120));
    let refused = Listener::bind(&path, None).unwrap_err();
    assert!(
        matches!(refused, SocketError::NameTooLong { limit: 80..=95, .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn a_peer_that_accepts_nobody_is_told_from_one_that_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let listener = Listener::bind(&root.path().join("busy.sock"), None).unwrap();
    let mut held = Vec::new();
    let refused = loop {
        match connect(listener.path()) {
            Ok(stream) => held.push(stream),
            Err(refused) => break refused,
        }
        assert!(held.len() < 100, "the queue has no end");
    };
    assert!(matches!(refused, SocketError::NotAccepting { .. }), "{refused}");
}
