use super::*;
use crate::store::mirror::ChangesError;
use crate::store::samples::*;
use crate::store::write::DECISIONS_KEPT;
use crate::store::{keys, mirror};
use plasmavmc_types::{Incarnation, Placement};

fn placement() -> StoredValue {
    StoredValue::Placement(Placement {
        host: host_id(2),
        incarnation: Incarnation::FIRST,
    })
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_left_out_and_counted_until_it_can() {
    let site = Site::started().await;
    let mut changes = site.mirror.changes();
    let key = ParsedKey::Placement(vm_id(1));
    site.put(&key, &placement()).await;
    let revision = site.store().put(key.key(), "\u{ff}nonsense".into()).await.unwrap();
    site.caught_up().await;
    assert_eq!(site.mirror.problems(), 1);
    let unreadable = site.mirror.unreadable().remove(0);
    assert_eq!((&unreadable.key, unreadable.revision), (&key, revision));
    assert!(unreadable.problem.contains("not the message"), "{}", unreadable.problem);
    assert!(site.mirror.read(|view| view.vms.is_empty()));

    // A listing finds nothing new about it.
    site.behind_its_back(async |_| {}).await;
    assert_eq!(site.mirror.problems(), 1);
    site.put(&key, &placement()).await;
    site.caught_up().await;
    assert_eq!(site.mirror.problems(), 0);
    let come = come(&mut changes).await;
    let sides: Vec<_> = come
        .iter()
        .map(|c| (c.before.is_some(), c.after.is_some(), c.is_unreadable))
        .collect();
    assert_eq!(sides, [(false, true, false), (true, false, true), (false, true, false)]);
    assert!(come[1].as_event_source().is_none(), "nothing was deleted");
}

#[tokio::test(start_paused = true)]
async fn a_beat_that_cannot_be_read_is_a_sign_of_life() {
    let (site, host) = (Site::started().await, host_id(1));
    site.store().put(ParsedKey::Beat(host).key(), "x".into()).await.unwrap();
    site.caught_up().await;
    assert!(
        site.mirror
            .heard(tokio::time::Instant::now())
            .ago_ms
            .contains_key(&host)
    );
    assert_eq!(site.mirror.problems(), 1);
    site.delete(&ParsedKey::Beat(host)).await;
    site.caught_up().await;
    assert_eq!(site.mirror.problems(), 0);
    assert!(site.mirror.heard(tokio::time::Instant::now()).ago_ms.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_newest_decisions_are_shown_and_the_oldest_told_to_be_deleted() {
    let site = Site::started().await;
    let id = |n: usize| keys::decision_id(u64::try_from(n).unwrap(), 0);
    let kept = DECISIONS_KEPT;
    for n in 0..kept + 5 {
        let value = StoredValue::Decision(decision(u64::try_from(n).unwrap()));
        site.put(&ParsedKey::Decision(id(n)), &value).await;
    }
    site.caught_up().await;
    let shown = |site: &Site| {
        site.mirror.read(|view| {
            let mut ids = view.decisions.keys();
            (
                view.decisions.len(),
                ids.next().cloned().unwrap(),
                ids.next_back().cloned().unwrap(),
            )
        })
    };
    assert_eq!(shown(&site), (kept, id(5), id(kept + 4)));
    assert_eq!(site.mirror.surplus_decisions(100), (0..5).map(id).collect::<Vec<_>>());
    assert_eq!(site.mirror.surplus_decisions(2), [id(0), id(1)]);

    // When newer ones go, older ones move up; what is deleted while it is not shown is gone too.
    site.delete(&ParsedKey::Decision(id(kept + 4))).await;
    site.delete(&ParsedKey::Decision(id(0))).await;
    site.caught_up().await;
    assert_eq!(shown(&site), (kept, id(4), id(kept + 3)));
    let late = ParsedKey::Decision(id(0));
    site.put(&late, &StoredValue::Decision(decision(0))).await;
    site.caught_up().await;
    assert_eq!(shown(&site), (kept, id(4), id(kept + 3)));
    assert_eq!(site.mirror.surplus_decisions(100), (0..4).map(id).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_too_slow_is_told_so() {
    let site = Site::started().await;
    let mut changes = site.mirror.changes();
    let key = ParsedKey::Placement(vm_id(1));
    for _ in 0..=mirror::CHANGES_KEPT {
        site.put(&key, &placement()).await;
        // One batch each.
        site.caught_up().await;
    }
    assert_eq!(changes.next().await, Err(ChangesError::Lagged { missed: 1 }));
}
