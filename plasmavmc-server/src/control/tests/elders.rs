//! Members that have listened for longer than a leader whose server was restarted.

use std::sync::Arc;
use std::time::Duration;

use chainfire::kv::Kv;
use plasmavmc_core::view::ClusterView;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::elders::{Asking, Known};
use super::super::{OtherMembers, Others};
use crate::played::{Led, Played, SOON, Says};
use crate::store::Mirror;

const FIRST: &str = "127.0.0.1:50051";
const SECOND: &str = "127.0.0.2:50051";
const THIRD: &str = "127.0.0.3:50051";

/// A cluster of three whose hosts have just stopped beating, and whose first server was restarted since. Other things
/// are committed.
async fn restarted() -> (Played, CancellationToken) {
    let mut cluster = Played::of_hosts(3).await;
    cluster.hosts_leave();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let stop = CancellationToken::new();
    cluster.mirror = Mirror::start(Arc::clone(&cluster.store) as Arc<dyn Kv>, stop.clone());
    cluster.mirror.listed(SOON).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(cluster.mirror.listens_since().is_some());
    let (store, ends) = (Arc::clone(&cluster.store), stop.clone());
    tokio::spawn(async move {
        while !ends.is_cancelled() {
            store.put("tool/x".into(), "1".into()).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    (cluster, stop)
}

fn are_fenced(view: &ClusterView) -> Option<()> {
    let mut sessions = view.hosts.values().filter_map(|host| host.session.as_ref());
    sessions.all(|session| !session.value.is_open()).then_some(())
}

/// How long it takes until the silent hosts are given up.
async fn until_fenced(told: &[(&str, Says)]) -> Duration {
    let (cluster, stop) = restarted().await;
    for (address, says) in told {
        cluster.members.say(address, *says);
    }
    let began = Instant::now();
    let led: Led = cluster.controller(true);
    let mut revision = cluster.mirror.revision();
    let fenced = revision.wait_for(|_| cluster.mirror.read(are_fenced).is_some());
    tokio::time::timeout(Duration::from_secs(300), fenced)
        .await
        .unwrap()
        .unwrap();
    led.ends().await;
    stop.cancel();
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn hosts_that_another_member_outlived_are_given_up_after_their_time() {
    let took = until_fenced(&[(SECOND, Says::Nothing), (THIRD, Says::Since(0))]).await;
    assert!((6000..9500).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_cold_start_hosts_get_the_time_of_a_boot() {
    // It was started after the last beats, as the leader was; another does not know; or nobody answers.
    for told in [
        vec![(THIRD, Says::Since(u64::MAX))],
        vec![],
        vec![(SECOND, Says::Nothing), (THIRD, Says::Nothing)],
        // It is this one.
        vec![(FIRST, Says::Since(0))],
    ] {
        let took = until_fenced(&told).await;
        assert!((179_000..190_000).contains(&took.as_millis()), "{told:?}: {took:?}");
    }
}

/// What asks, alone.
fn asking(cluster: &Played, mirror: &Mirror) -> (watch::Sender<bool>, Known, tokio::task::JoinHandle<()>) {
    let (leads, leadership) = watch::channel(true);
    let known = Known::new();
    let others = Others {
        own: cluster.backend.host,
        members: Arc::clone(&cluster.members) as Arc<dyn OtherMembers>,
    };
    let asking = Asking {
        own: others.own,
        mirror: mirror.clone(),
        members: others.members,
        leadership,
        known: known.clone(),
    };
    (leads, known, tokio::spawn(asking.run()))
}

fn lowest(known: &Known, mirror: &Mirror) -> Option<u64> {
    mirror.read(|view| known.lowest(None, view, Instant::now()))
}

#[tokio::test(start_paused = true)]
async fn the_others_are_asked_every_beat_and_what_they_say_gets_old() {
    let (cluster, stop) = restarted().await;
    cluster.members.say(SECOND, Says::Nothing);
    cluster.members.say(THIRD, Says::Since(3));
    let (leads, known, task) = asking(&cluster, &cluster.mirror);
    let passes = |ms| tokio::time::sleep(Duration::from_millis(ms));
    passes(10).await;
    // One that hangs keeps no answer of another waiting.
    assert_eq!(lowest(&known, &cluster.mirror), Some(3));
    passes(9890).await;
    let asked = cluster.members.asked();
    let expected = [(SECOND.to_owned(), 10), (THIRD.to_owned(), 10)];
    assert_eq!(asked.into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(lowest(&known, &cluster.mirror), Some(3));
    // It dies.
    cluster.members.say(THIRD, Says::Nothing);
    passes(3000).await;
    assert_eq!(lowest(&known, &cluster.mirror), None);
    cluster.members.say(THIRD, Says::Since(9));
    passes(2000).await;
    assert_eq!(lowest(&known, &cluster.mirror), Some(9));

    leads.send(false).unwrap();
    passes(10).await;
    assert_eq!(lowest(&known, &cluster.mirror), None);
    cluster.members.asked();
    passes(10_000).await;
    assert!(cluster.members.asked().is_empty());
    // It ends with who tells it.
    drop(leads);
    task.await.unwrap();
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_by_who_has_heard_all_hosts_itself() {
    let cluster = Played::of_hosts(3).await;
    let (_leads, _known, task) = asking(&cluster, &cluster.mirror);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(cluster.members.asked().is_empty());
    task.abort();
}
