//! However many start a guard at once, there is one.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use plasmavmc_guard::client::{Client, ConnectError, EnsureError, ensure_running};
use rustix::process::{Pid, getsid};

use crate::place::{PROGRAM, Place};

#[tokio::test]
async fn starters_at_once_end_up_with_the_same_guard() {
    for _ in 0..5 {
        let place = Place::empty();
        let starters: Vec<_> = (0..8)
            .map(|_| {
                let folder = place.folder();
                tokio::spawn(async move {
                    let client = ensure_running(&folder, Path::new(PROGRAM)).await.expect("a guard");
                    client.status().await.expect("a status").pid
                })
            })
            .collect();
        let mut pids = Vec::new();
        for starter in starters {
            pids.push(starter.await.expect("it ends"));
        }
        assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
        // It has its own session, and its starter is not its parent.
        let pid = Pid::from_raw(pids[0]).expect("a pid");
        assert_eq!(getsid(Some(pid)).expect("its session"), pid);
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pids[0])).expect("its stat");
        let parent = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1))
            .map(str::to_owned);
        assert_ne!(parent, Some(std::process::id().to_string()));
    }
}

#[tokio::test]
async fn a_folder_may_have_a_long_path() {
    let place = Place::empty();
    let folder = place.path().join("deep/".repeat(40));
    assert!(folder.as_os_str().len() > 150);
    let client = ensure_running(&folder, Path::new(PROGRAM)).await.expect("a guard");
    let again = ensure_running(&folder, Path::new(PROGRAM)).await.expect("the same");
    assert_eq!(
        client.status().await.expect("a status").pid,
        again.status().await.expect("a status").pid
    );
}

#[tokio::test]
async fn what_prevents_a_start_is_told() {
    let place = Place::empty();
    let nobody = Client::connect(&place.folder());
    assert!(matches!(nobody, Err(ConnectError { .. })));
    let missing = ensure_running(&place.folder(), Path::new("/no/such")).await;
    assert!(matches!(missing, Err(EnsureError::Program { .. })), "{missing:?}");
    std::fs::write(place.path().join("file"), "").expect("a file");
    let refused = ensure_running(&place.path().join("file"), Path::new(PROGRAM)).await;
    assert!(
        matches!(&refused, Err(EnsureError::NotStarted { output }) if output.contains("cannot make")),
        "{refused:?}"
    );
}

/// What a host does not permit is said, and everything else works.
#[tokio::test]
async fn a_guard_without_privileges_says_what_it_lacks() {
    let place = Place::empty();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let own = place.path().join("own");
    std::fs::create_dir(&own).expect("a folder");
    std::os::unix::fs::chown(&own, Some(65534), Some(65534)).expect("given away");
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).expect("open to all");
    // Where everybody may execute it.
    let program = place.path().join("plasmavmc-guard");
    std::fs::copy(PROGRAM, &program).expect("a copy");
    let mut command = Command::new(&program);
    command
        .args(["start", "--dir"])
        .arg(own.join("guard"))
        .uid(65534)
        .gid(65534);
    // Lower than what mlockall takes, and no way to raise it.
    assert!(command.output().expect("it runs").status.success());
    let client = Client::connect(&own.join("guard")).expect("root may talk to it");
    let status = client.status().await.expect("a status");
    assert!(
        status
            .memory_not_locked
            .is_some_and(|reason| reason.contains("LimitMEMLOCK"))
    );
    assert!(status.not_realtime.is_some_and(|reason| reason.contains("LimitRTPRIO")));
    let held = client
        .spawn(place.script("exit 0"), &[])
        .await
        .expect("it spawns all the same");
    // Its score could not be lowered for the guard, so 0 is no lowering for the child.
    assert_eq!(held.notes, Vec::<String>::new());
    let privileged = Place::with_guard().client().status().await.expect("a status");
    assert_eq!((privileged.memory_not_locked, privileged.not_realtime), (None, None));
}
