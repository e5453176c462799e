use super::*;
use crate::store::samples::*;
use plasmavmc_types::{HostId, Incarnation, Placement};
use tokio::time::Instant;

fn placed(n: u128) -> (ParsedKey, StoredValue) {
    let placement = Placement {
        host: host_id(2),
        incarnation: Incarnation::from_raw(u64::try_from(n).unwrap()),
    };
    (ParsedKey::Placement(vm_id(n)), StoredValue::Placement(placement))
}

fn heard_ago_ms(site: &Site, host: HostId) -> u64 {
    site.mirror.heard(Instant::now()).ago_ms[&host]
}

#[tokio::test(start_paused = true)]
async fn a_listing_tells_what_differs_and_nothing_else() {
    let site = Site::started().await;
    let [stays, changes_twice, goes, goes_and_comes, is_new, never_seen] = [1, 2, 3, 4, 5, 6].map(placed);
    for (key, value) in [&stays, &changes_twice, &goes, &goes_and_comes] {
        site.put(key, value).await;
    }
    site.caught_up().await;
    let mut changes = site.mirror.changes();
    let other = placed(7).1;
    let mut revisions = Vec::new();
    site.behind_its_back(async |site: &Site| {
        site.put(&changes_twice.0, &other).await;
        revisions.push(site.put(&changes_twice.0, &changes_twice.1).await);
        site.delete(&goes.0).await;
        site.put(&never_seen.0, &never_seen.1).await;
        site.delete(&never_seen.0).await;
        site.delete(&goes_and_comes.0).await;
        revisions.push(site.put(&goes_and_comes.0, &other).await);
        revisions.push(site.put(&is_new.0, &is_new.1).await);
    })
    .await;
    let last = revisions[2];
    let expected = [
        (revisions[0], changes_twice.0.clone(), true, true),
        (revisions[1], goes_and_comes.0.clone(), true, true),
        (revisions[2], is_new.0.clone(), false, true),
        (last, goes.0.clone(), true, false),
    ];
    let come = come(&mut changes).await;
    assert_eq!(come.iter().map(short).collect::<Vec<_>>(), expected);
    assert_eq!(come[1].before, Some(goes_and_comes.1));
    assert_eq!(come[1].after, Some(other));
    site.mirror.read(|view| {
        let revision = |n| view.vms[&vm_id(n)].placement.as_ref().map(|stored| stored.revision);
        assert_eq!((revision(1), revision(2)), (Some(1), Some(revisions[0])));
        assert_eq!(view.vms.len(), 4);
    });
}

#[tokio::test(start_paused = true)]
async fn a_listing_is_no_sign_of_life() {
    let (site, quiet, lively) = (Site::started().await, host_id(1), host_id(2));
    for host in [quiet, lively] {
        site.put(&ParsedKey::Beat(host), &StoredValue::Beat(beat(1))).await;
    }
    site.caught_up().await;
    tokio::time::advance(Duration::from_secs(5)).await;
    site.behind_its_back(async |site: &Site| {
        site.put(&ParsedKey::Beat(lively), &StoredValue::Beat(beat(2))).await;
    })
    .await;
    assert!(heard_ago_ms(&site, quiet) >= 5000);
    assert!(heard_ago_ms(&site, lively) < 5000);
}

#[tokio::test(start_paused = true)]
async fn a_new_mirror_has_just_heard_of_every_host_there_is() {
    let first = Site::started().await;
    first
        .put(&ParsedKey::Beat(host_id(1)), &StoredValue::Beat(beat(1)))
        .await;
    first.caught_up().await;
    tokio::time::advance(Duration::from_secs(5)).await;
    let stop = CancellationToken::new();
    let second = Mirror::start(first.store(), stop.clone());
    second.listed(SOON).await.unwrap();
    assert!(second.heard(Instant::now()).ago_ms[&host_id(1)] < 1000);
    assert!(heard_ago_ms(&first, host_id(1)) >= 5000);
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_the_view_stays_and_says_how_old_it_is() {
    let site = Site::started().await;
    let (key, value) = placed(1);
    site.put(&key, &value).await;
    site.caught_up().await;
    assert_eq!(site.mirror.figures().behind_ms, 0);
    site.link.cut();
    tokio::time::sleep(Duration::from_secs(7)).await;
    let figures = site.mirror.figures();
    assert!(!figures.is_following);
    assert!((6000..=8000).contains(&figures.behind_ms), "{figures:?}");
    assert_eq!(site.mirror.read(|view| view.vms.len()), 1);
    site.link.heal();
    let (key, value) = placed(2);
    site.put(&key, &value).await;
    // The longest pause between two attempts.
    site.mirror.reached(2, Duration::from_secs(3)).await.unwrap();
    tokio::task::yield_now().await;
    assert!(site.mirror.figures().is_following);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_went_back_in_time_is_followed_there() {
    let site = Site::started().await;
    let host = host_id(1);
    let (key, value) = placed(1);
    site.put(&key, &value).await;
    site.put(&ParsedKey::Beat(host), &StoredValue::Beat(beat(1))).await;
    site.put(&ParsedKey::Session(host), &StoredValue::Session(session(1)))
        .await;
    site.caught_up().await;
    let mut changes = site.mirror.changes();
    // The same keys at the same revisions: one with another value, one with the same, one missing.
    let restored = MemoryKv::default();
    let other = placed(2).1;
    restored.put(key.key(), encode(&other)).await.unwrap();
    let kept = encode(&StoredValue::Beat(beat(1)));
    restored.put(ParsedKey::Beat(host).key(), kept).await.unwrap();
    site.link.cut();
    site.link.put_behind(restored);
    site.link.heal();
    let mut come = Vec::new();
    while come.len() < 2 {
        come.extend(changes.next().await.unwrap().iter().map(short));
    }
    let expected = [(1, key.clone(), true, true), (2, ParsedKey::Session(host), true, false)];
    assert_eq!(come, expected);
    assert_eq!(site.mirror.read(|view| view.revision), 2);
}
