//! Claims of other hosts, read by somebody who may hang.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use plasmavmc_guard::client::{Client, Events};
use plasmavmc_guard::wire::{ExitReason, Held};
use plasmavmc_types::Epoch;
use rustix::process::{Pid, Signal, kill_process};

use crate::leases::{is_stopped, thaw};
use crate::place::{Obedient, PROGRAM, Place, boottime_ms, eventually, next_exit, processes_naming};

fn folder(place: &Place, name: &str) -> PathBuf {
    let folder = place.path().join(format!("{name}.claims"));
    fs::create_dir(&folder).expect("a folder");
    folder
}

fn claim(folder: &Path, incarnation: u64) {
    fs::write(folder.join(incarnation.to_string()), "").expect("a claim");
}

/// So that it ends in no test.
async fn lease_for_epoch(client: &Client, epoch: u64) {
    let until_ms = boottime_ms() + 60_000;
    client.lease(Epoch::from_raw(epoch), until_ms).await.expect("leased");
}

/// A child that stands still after its lease.
async fn frozen(client: &Client, child: &Obedient) -> Held {
    lease_for_epoch(client, 1).await;
    let held = client.spawn(child.order.clone(), &[]).await.expect("spawned");
    client.lease(Epoch::from_raw(2), 1).await.expect("leased");
    is_stopped(held.pid).await;
    held
}

/// Waits until a number of readers came and went for a folder. Whether one was there tells its time of access.
async fn is_read(folder: &Path) {
    use std::time::{Duration, SystemTime};
    // Older than what it holds, so that the next read is noted.
    let long_ago = SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
    let times = fs::FileTimes::new().set_accessed(long_ago);
    let opened = fs::File::open(folder).expect("the folder");
    opened.set_times(times).expect("set");
    eventually("it is read", async || {
        let accessed = fs::metadata(folder).expect("a look").accessed().expect("a time");
        (accessed > long_ago + Duration::from_secs(60)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_higher_claim_kills_what_is_frozen() {
    let mut place = Place::with_guard();
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    let (first, second) = (folder(&place, "a"), folder(&place, "b"));
    let child = place.leased(7, &[&first, &second]);
    for number in [1, 6, 7] {
        claim(&second, number);
    }
    fs::write(second.join("9.new"), "").expect("no claim");
    let held = frozen(&client, &child).await;
    for _ in 0..3 {
        is_read(&second).await;
    }
    is_stopped(held.pid).await;
    claim(&second, 8);
    let (exited, exit) = next_exit(&mut events).await;
    assert_eq!((exited.key, exit.reason), (held.key, ExitReason::Superseded));
    assert!(place.log().contains("a claim of 8"), "{}", place.log());
    client.collect(held.key).await.expect("collected");

    // The same for what was adopted.
    let child = place.leased(7, &[&first, &second]);
    lease_for_epoch(&client, 3).await;
    client.spawn(child.order.clone(), &[]).await.expect("spawned");
    place.kill_guard();
    place.start_guard(&[]);
    let client = place.client();
    let superseded = async || {
        let list = client.list().await.expect("a list");
        matches!(&list[0].phase, plasmavmc_guard::wire::Phase::Exited(exit) if exit.reason == ExitReason::Superseded)
            .then_some(())
    };
    eventually("it is superseded", superseded).await;
}

#[tokio::test]
async fn what_executes_is_not_killed_by_a_claim() {
    let place = Place::with_guard();
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    let folder = folder(&place, "a");
    let child = place.leased(7, &[&folder]);
    let held = frozen(&client, &child).await;
    is_read(&folder).await;
    lease_for_epoch(&client, 3).await;
    thaw(&client, held.key).await.expect("thawed");
    claim(&folder, 8);
    // A frozen one beside it is killed by the same claim, so readers were there.
    let other = place.leased(6, &[&folder]);
    client.spawn(other.order.clone(), &[]).await.expect("spawned");
    child.exit(4);
    assert_eq!(next_exit(&mut events).await.1.reason, ExitReason::Exited { code: 4 });
    client.lease(Epoch::from_raw(4), 1).await.expect("leased");
    let (exited, exit) = next_exit(&mut events).await;
    assert_eq!((exited.key, exit.reason), (other.key(), ExitReason::Superseded));
}

#[tokio::test]
async fn what_cannot_be_read_proves_nothing_and_hides_nothing() {
    let place = Place::with_guard();
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    let missing = place.path().join("missing.claims");
    let file = place.path().join("file.claims");
    fs::write(&file, "9").expect("a file");
    let readable = folder(&place, "a");
    claim(&readable, 7);
    let child = place.leased(7, &[&missing, &file, &readable]);
    let held = frozen(&client, &child).await;
    for _ in 0..4 {
        is_read(&readable).await;
    }
    is_stopped(held.pid).await;
    assert_eq!(client.status().await.expect("a status").frozen, 1);
    claim(&readable, 9);
    assert_eq!(next_exit(&mut events).await.1.reason, ExitReason::Superseded);
}

fn read(folders: &[&Path]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("read-claims").args(folders).output().expect("it runs")
}

#[tokio::test]
async fn a_reader_tells_the_highest_claim_of_each_folder() {
    let place = Place::empty();
    let (first, empty, second) = (folder(&place, "a"), folder(&place, "b"), folder(&place, "c"));
    claim(&first, 12);
    claim(&first, 3);
    claim(&second, 4);
    let output = read(&[&first, &empty, &second]);
    assert!(output.status.success());
    assert_eq!(output.stdout, b"12\n4\n");
    let output = read(&[&place.path().join("missing"), &second]);
    assert!(!output.status.success());
    assert_eq!(output.stdout, b"4\n");
}

/// A folder that takes a while to read, above all so often.
fn big_folder(place: &Place) -> PathBuf {
    let folder = folder(place, "big");
    for number in 0..2000 {
        fs::File::create(folder.join(format!("{number}.old"))).expect("a file");
    }
    folder
}

const OFTEN: usize = 30;

fn readers(folder: &Path) -> Vec<Pid> {
    let own = rustix::process::getpid();
    let found = processes_naming(&folder.display().to_string()).into_iter();
    found.filter(|pid| *pid != own).collect()
}

/// A leased VM that is frozen, while a reader of its claims stands still; and that it is superseded meanwhile.
struct Caught {
    _place: Place,
    client: Client,
    events: Events,
    folder: PathBuf,
    reader: Pid,
}

async fn caught() -> Caught {
    let place = Place::with_guard();
    let client = place.client();
    let events = client.subscribe().await.expect("a subscription");
    let folder = big_folder(&place);
    let child = place.leased(7, &[&*folder; OFTEN]);
    frozen(&client, &child).await;
    let reader = catch(&folder).await;
    claim(&folder, 8);
    Caught {
        _place: place,
        client,
        events,
        folder,
        reader,
    }
}

/// Stops a reader in the middle of its work, as a dead mount would.
async fn catch(folder: &Path) -> Pid {
    eventually("a reader is caught", async || {
        let reader = *readers(folder).first()?;
        kill_process(reader, Signal::STOP).ok()?;
        // It may have been at its end.
        (crate::place::state(reader.as_raw_nonzero().get()) == Some('T')).then_some(reader)
    })
    .await
}

#[tokio::test]
async fn a_claim_that_is_read_too_late_does_not_kill_what_was_let_go() {
    let place = Place::with_guard();
    let client = place.client();
    let mut events = client.subscribe().await.expect("a subscription");
    let (big, small) = (big_folder(&place), folder(&place, "small"));
    // Wherever a reader begins, it most likely comes to the small one after some big ones.
    let mut folders: Vec<&Path> = vec![&big; OFTEN];
    folders.insert(OFTEN / 2, &small);
    let child = place.leased(7, &folders);
    let held = frozen(&client, &child).await;
    let reader = catch(&big).await;
    claim(&small, 8);
    lease_for_epoch(&client, 3).await;
    thaw(&client, held.key).await.expect("thawed");
    kill_process(reader, Signal::CONT).expect("SIGCONT");
    eventually("the reader is heard", async || readers(&big).is_empty().then_some(())).await;
    child.exit(4);
    assert_eq!(next_exit(&mut events).await.1.reason, ExitReason::Exited { code: 4 });
}

#[tokio::test]
async fn a_reader_that_hangs_is_left_and_has_no_second_beside_it() {
    let mut caught = caught().await;
    let (client, folder, reader) = (&caught.client, &caught.folder, caught.reader);
    let began = std::time::Instant::now();
    let mut looks = 0;
    eventually("it is gone", async || {
        let status = client.status().await.expect("the guard serves");
        assert_eq!(status.children, 1);
        let there = readers(folder);
        looks += 1;
        assert!(there.len() <= 1, "{there:?} beside each other");
        (!there.contains(&reader)).then_some(())
    })
    .await;
    let hung = began.elapsed();
    assert!(hung.as_secs() >= 3 && looks > 10, "given up after {hung:?}");
    // And the one after it does what it could not.
    assert_eq!(next_exit(&mut caught.events).await.1.reason, ExitReason::Superseded);
}

#[tokio::test]
async fn a_reader_is_handed_on_to_a_new_program_which_ends_it() {
    let mut caught = caught().await;
    caught.client.upgrade(None).await.expect("upgraded");
    assert_eq!(next_exit(&mut caught.events).await.1.reason, ExitReason::Superseded);
    // Reaped, too: it was a child of the program before.
    let gone = async || {
        crate::place::state(caught.reader.as_raw_nonzero().get())
            .is_none()
            .then_some(())
    };
    eventually("it is gone", gone).await;
}
