//! A history that is cut: what is gone is refused by name, what is left is whole.

use futures::StreamExt;

use crate::kv::{KeyValue, KvError, RangeQuery, Revision};

use super::{Subject, Watching, get, list, put};

async fn compact(subject: &Subject, revision: Revision) {
    let compactable = subject
        .compactable
        .as_ref()
        .expect("a subject whose history can be cut");
    compactable.compact(revision).await.expect("a compaction");
}

async fn listed(subject: &Subject, revision: Revision) -> Vec<KeyValue> {
    let query = RangeQuery {
        revision,
        ..RangeQuery::default()
    };
    list(subject.kv.as_ref(), query).await
}

/// Puts ten values of `a`, deletes `b` at the fifth, and answers the first revision.
async fn make_history(subject: &Subject) -> Revision {
    let kv = subject.kv.as_ref();
    put(kv, "b", "x").await;
    let first = put(kv, "a", "0").await;
    for value in 1..5 {
        put(kv, "a", value.to_string()).await;
    }
    assert_eq!(kv.delete("b".into()).await, Ok((first + 5, true)));
    for value in 6..10 {
        put(kv, "a", value.to_string()).await;
    }
    first
}

pub(super) async fn the_compacted_revision_itself_is_readable(subject: Subject) {
    let first = make_history(&subject).await;
    let before: Vec<_> = [listed(&subject, first + 4).await, listed(&subject, first + 7).await].into();
    compact(&subject, first + 4).await;
    let after: Vec<_> = [listed(&subject, first + 4).await, listed(&subject, first + 7).await].into();
    assert_eq!(before, after);
    assert_eq!(after[0].len(), 2, "a key that was deleted later was there then");
}

pub(super) async fn what_is_before_is_refused(subject: Subject) {
    let first = make_history(&subject).await;
    let compacted = first + 4;
    compact(&subject, compacted).await;
    for asked in [1, first, compacted - 1] {
        let query = RangeQuery {
            revision: asked,
            ..RangeQuery::default()
        };
        let answer = subject.kv.range(query).await;
        assert_eq!(answer, Err(KvError::Compacted { asked, compacted }));
    }
}

pub(super) async fn a_watch_from_compacted_history_is_refused(subject: Subject) {
    let first = make_history(&subject).await;
    let compacted = first + 4;
    compact(&subject, compacted).await;
    for asked in [1, first, compacted] {
        let error = subject.kv.watch("a".into(), asked).await.err();
        assert_eq!(error, Some(KvError::Compacted { asked, compacted }));
    }
    // "From now on" needs no history.
    Watching::from(subject.kv.as_ref(), "a", 0).await;
}

pub(super) async fn a_watch_resumes_right_after_the_cut(subject: Subject) {
    let first = make_history(&subject).await;
    compact(&subject, first + 4).await;
    let mut watching = Watching::from(subject.kv.as_ref(), "", first + 5).await;
    let events = watching.until(first + 9).await;
    let revisions: Vec<_> = events.iter().map(|event| event.kv.mod_revision).collect();
    assert_eq!(revisions, (first + 5..=first + 9).collect::<Vec<_>>());
}

pub(super) async fn a_cut_watch_ends_with_the_reason(subject: Subject) {
    let kv = subject.kv.as_ref();
    // Opened in the past, so that it still needs history when that is cut. A store may have had the time
    // to deliver it; what it must not do is leave something out.
    let first = make_history(&subject).await;
    let mut watching = Watching::from(kv, "", first).await;
    let last = put(kv, "a", "last").await;
    compact(&subject, last).await;
    let mut expected = first;
    while expected <= last {
        match watching.batch().await {
            Ok(batch) => {
                for event in batch.events {
                    assert_eq!(event.kv.mod_revision, expected);
                    expected += 1;
                }
            }
            Err(error) => {
                let (needed, compacted) = (expected, last);
                assert_eq!(error, KvError::SlowWatcher { needed, compacted });
                assert!(watching.stream.next().await.is_none(), "nothing follows an error");
                return;
            }
        }
    }
}

pub(super) async fn the_present_is_untouched(subject: Subject) {
    let kv = subject.kv.as_ref();
    let first = make_history(&subject).await;
    let mut watching = Watching::from(kv, "", 0).await;
    compact(&subject, first + 9).await;
    let row = get(kv, "a").await.expect("the row");
    assert_eq!(
        (row.value.as_ref(), row.create_revision, row.version),
        (b"9".as_slice(), first, 9)
    );
    assert_eq!(get(kv, "b").await, None);
    assert_eq!(listed(&subject, 0).await, [row]);
    let reborn = put(kv, "b", "y").await;
    assert_eq!(get(kv, "b").await.expect("the row").version, 1);
    assert_eq!(
        watching.until(reborn).await.len(),
        1,
        "a watch that was up to date goes on"
    );
    compact(&subject, reborn).await;
    compact(&subject, first).await;
    assert_eq!(
        listed(&subject, reborn).await.len(),
        2,
        "compacting less than before changes nothing"
    );
}
