use super::*;
use crate::store::keys;
use crate::store::mirror::{ChangesError, MirrorError};
use crate::store::samples::*;
use crate::store::values::ClusterConfig;
use crate::store::write::Write;
use chainfire::kv::Limits;
use plasmavmc_core::events::Changed;
use plasmavmc_types::{RequestId, TokenId, VmRef};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn what_was_there_is_listed_page_by_page_and_every_kind_has_its_place() {
    let limits = Limits {
        page_keys: 2,
        ..Limits::default()
    };
    let store = MemoryKv::new(limits);
    for (key, value) in one_of_each() {
        store.put(key.key(), encode(&value)).await.unwrap();
    }
    let site = Site::new(store);
    site.caught_up().await;
    let (vm, host) = (vm_id(1), host_id(2));
    site.mirror.read(|view| {
        assert_eq!(view.revision, 13);
        assert_eq!(view.timings, config().timings);
        assert_eq!(view.placement_mode, config().placement);
        let stored = &view.vms[&vm];
        assert_eq!(
            stored.record.as_ref().map(|s| (&s.value, s.revision)),
            Some((&full_record(), 5))
        );
        assert_eq!(stored.placement.as_ref().map(|s| s.revision), Some(6));
        assert_eq!(
            stored.status.as_ref().map(|s| (&s.value, s.revision)),
            Some((&status(), 7))
        );
        let stored = &view.hosts[&host];
        assert_eq!(stored.record.as_ref().map(|s| &s.value), Some(&host_record()));
        assert_eq!(stored.session.as_ref().map(|s| s.revision), Some(3));
        assert_eq!(stored.beat.as_ref().map(|s| &s.value), Some(&beat(0x0102)));
        assert_eq!(view.find(&"web-1".parse::<VmRef>().unwrap()), Some(vm));
        assert_eq!(view.find(&"101".parse::<VmRef>().unwrap()), Some(vm));
        assert_eq!((view.operations.len(), view.decisions.len()), (1, 1));
    });
    assert_eq!(site.mirror.config().map(|c| c.value), Some(config()));
    let id = RequestId::new("r-1").unwrap();
    assert_eq!(site.mirror.request(&id).map(|r| r.value), Some(request()));
    assert_eq!(site.mirror.old_requests(u64::MAX, 9, 9), [(id.clone(), 10)]);
    assert_eq!(site.mirror.old_requests(request().at_ms, 9, 9), []);
    assert_eq!(site.mirror.old_requests(0, 0, 9), [(id, 10)]);
    assert_eq!(
        site.mirror.token(&TokenId::new("t-1").unwrap()).map(|t| t.value),
        Some(token())
    );
    assert_eq!(site.mirror.tokens().len(), 1);
    assert_eq!(site.mirror.figures().keys, 13);
    assert_eq!(site.mirror.problems(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_leaves_no_trace() {
    let site = Site::started().await;
    for (key, value) in one_of_each() {
        site.put(&key, &value).await;
    }
    site.caught_up().await;
    for (key, _) in one_of_each() {
        site.delete(&key).await;
    }
    site.caught_up().await;
    let empty = site.mirror.read(|view| plasmavmc_core::view::ClusterView {
        revision: view.revision,
        ..Default::default()
    });
    site.mirror.read(|view| assert_eq!(*view, empty));
    assert_eq!(
        site.mirror.config(),
        None::<plasmavmc_core::view::Stored<ClusterConfig>>
    );
    assert_eq!((site.mirror.figures().keys, site.mirror.figures().requests), (0, 0));
    assert!(site.mirror.heard(Instant::now()).ago_ms.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_transaction_comes_whole_and_after_the_look() {
    let site = Site::started().await;
    let (vms, mut changes) = site.mirror.follow(|view| view.vms.len());
    assert_eq!(vms, 0);
    let created = Write::new()
        .create_vm(&record(1))
        .commit(&*site.store())
        .await
        .unwrap()
        .revision;
    let batch = changes.next().await.unwrap();
    let keys: Vec<_> = batch.iter().map(short).collect();
    let expected = [
        (
            created,
            keys::parse(&keys::name(&record(1).spec().name)).unwrap(),
            false,
            true,
        ),
        (
            created,
            keys::parse(&keys::number(record(1).number())).unwrap(),
            false,
            true,
        ),
        (created, ParsedKey::VmRecord(vm_id(1)), false, true),
    ];
    assert_eq!(keys, expected);
    // Whoever hears of a change finds it in the view.
    assert!(site.mirror.read(|view| view.vms[&vm_id(1)].record.is_some()));
    assert!(matches!(
        batch[2].as_event_source(),
        Some(Changed::VmRecord(_, None, Some(_)))
    ));
    assert_eq!(batch[0].as_event_source(), None);
}

#[tokio::test(start_paused = true)]
async fn a_revision_is_reached_even_when_only_others_write() {
    let site = Site::started().await;
    let mut changes = site.mirror.changes();
    let revision = site.store().put("tool/x".into(), "1".into()).await.unwrap();
    site.mirror.reached(revision, SOON).await.unwrap();
    let revision = site.store().put("/no/key/of/ours".into(), "1".into()).await.unwrap();
    site.mirror.reached(revision, SOON).await.unwrap();
    assert_eq!(come(&mut changes).await, []);
    assert_eq!(site.mirror.figures().keys, 0);

    let late = site.mirror.reached(revision + 1, Duration::from_millis(100)).await;
    let expected = MirrorError::Late {
        wanted: revision + 1,
        at: revision,
        waited_ms: 100,
    };
    assert_eq!(late, Err(expected));
}

#[tokio::test(start_paused = true)]
async fn when_it_stops_everybody_who_waits_hears_of_it() {
    let site = Site::started().await;
    let mut changes = site.mirror.changes();
    site.stop.cancel();
    assert_eq!(site.mirror.reached(99, SOON).await, Err(MirrorError::Stopped));
    assert_eq!(changes.next().await, Err(ChangesError::Stopped));
    assert_eq!(site.mirror.changes().next().await, Err(ChangesError::Stopped));
    assert!(site.mirror.revision().changed().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn hosts_are_heard_when_their_beats_arrive_here() {
    let (site, host) = (Site::started().await, host_id(1));
    assert_eq!(site.mirror.heard(Instant::now()).ago_ms.get(&host), None);
    site.put(&ParsedKey::Beat(host), &StoredValue::Beat(beat(1))).await;
    site.caught_up().await;
    let arrived = Instant::now();
    site.put(&ParsedKey::Session(host), &StoredValue::Session(session(1)))
        .await;
    let heard = site.mirror.heard(arrived + Duration::from_millis(1500));
    assert_eq!(heard.ago_ms[&host], 1500);
    tokio::time::advance(Duration::from_secs(3)).await;
    site.put(&ParsedKey::Beat(host), &StoredValue::Beat(beat(2))).await;
    site.caught_up().await;
    assert_eq!(site.mirror.heard(Instant::now()).ago_ms[&host], 0);
}

#[tokio::test(start_paused = true)]
async fn before_the_first_listing_nothing_is_claimed() {
    let site = Site::new(MemoryKv::default());
    site.link.cut();
    let within = Duration::from_millis(500);
    let waited_ms = 500;
    assert_eq!(site.mirror.listed(within).await, Err(MirrorError::Empty { waited_ms }));
    let figures = site.mirror.figures();
    assert!(!figures.is_following);
    assert!(figures.behind_ms >= 500, "{figures:?}");
    site.link.heal();
    site.mirror.listed(SOON).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn beats_that_are_replayed_at_the_start_are_not_heard() {
    let (store, host) = (MemoryKv::default(), host_id(1));
    let beat_at = async |site: &Site, sequence| {
        let (key, value) = (ParsedKey::Beat(host), StoredValue::Beat(beat(sequence)));
        let revision = site.put(&key, &value).await;
        site.caught_up().await;
        revision
    };
    let is_heard = |site: &Site, now| {
        let heard = site.mirror.heard(now);
        heard.ago_ms[&host] < heard.contact.listening_for_ms
    };
    let passes = || tokio::time::sleep(Duration::from_secs(1));
    store
        .put(ParsedKey::Beat(host).key(), encode(&StoredValue::Beat(beat(1))))
        .await
        .unwrap();
    let site = Site::new(store);
    *site.link.has_no_leader.lock() = true;
    site.caught_up().await;
    passes().await;
    // Committed before it began, and applied here only now.
    let replayed = beat_at(&site, 2).await;
    passes().await;
    assert_eq!(site.mirror.listens_since(), None);
    assert!(!is_heard(&site, Instant::now()));

    *site.link.has_no_leader.lock() = false;
    passes().await;
    assert_eq!(site.mirror.listens_since(), Some(replayed));
    assert!(!is_heard(&site, Instant::now()));
    let live = beat_at(&site, 3).await;
    passes().await;
    assert!(is_heard(&site, Instant::now()));
    assert!(live > replayed);
    // It stays so, whatever else is listed again.
    site.behind_its_back(async |site: &Site| {
        site.put(&ParsedKey::Beat(host), &StoredValue::Beat(beat(4))).await;
    })
    .await;
    assert_eq!(site.mirror.listens_since(), Some(replayed));
}
