//! The suite that every [`Kv`] passes, one test per promise.
//!
//! A case knows only the trait; what it is run against, the caller says. `kv_conformance!(start)` makes a
//! test of each case, `kv_compaction_conformance!(start)` of those that need a history that can be cut;
//! `start` is an `async fn(Limits) -> Subject` that makes a new, empty store. [`differential`] compares
//! two stores over random transactions.
//!
//! A case must never wait by the clock: it waits for what it expects, and [`PATIENCE`] only turns a hang
//! into a failure.

#![cfg(any(test, feature = "conformance"))]

mod compaction;
mod concurrency;
mod differential;
mod limits;
mod ranges;
mod reads;
mod txns;
mod watches;

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;

use super::{Event, Key, KeyValue, Kv, KvError, Limits, RangeQuery, Revision, Value, WatchBatch, WatchStream};

pub use differential::differential;

/// Longer than any case takes on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Cuts the history of a store.
#[async_trait]
pub trait Compactable: Send + Sync + fmt::Debug {
    /// Forgets what was before `revision`; when it returns, reads below are refused.
    async fn compact(&self, revision: Revision) -> Result<(), KvError>;
}

/// A new, empty store, and what keeps it running.
#[derive(Clone)]
pub struct Subject {
    pub kv: Arc<dyn Kv>,
    pub limits: Limits,
    pub compactable: Option<Arc<dyn Compactable>>,
    /// Servers, folders: dropped with the subject.
    pub world: Arc<dyn Any + Send + Sync>,
}

impl Subject {
    pub fn new(kv: Arc<dyn Kv>, limits: Limits) -> Self {
        Self {
            kv,
            limits,
            compactable: None,
            world: Arc::new(()),
        }
    }

    /// The same subject, with a history that can be cut.
    #[must_use]
    pub fn with_compaction(mut self, compactable: Arc<dyn Compactable>) -> Self {
        self.compactable = Some(compactable);
        self
    }

    /// The same subject, keeping something alive.
    #[must_use]
    pub fn within(mut self, world: impl Any + Send + Sync) -> Self {
        self.world = Arc::new(world);
        self
    }
}

/// The limits that the suite runs with: small where a case has to exceed them.
pub fn suite_limits() -> Limits {
    Limits {
        page_keys: 400,
        page_bytes: 256 * 1024,
        watches: 32,
        ..Limits::default()
    }
}

/// A promise, by name.
pub struct Case {
    pub name: &'static str,
    run: fn(Subject) -> BoxFuture<'static, ()>,
}

/// The one list of cases. Hands it to another macro.
#[doc(hidden)]
#[macro_export]
macro_rules! kv_conformance_cases {
    ($callback:ident $arguments:tt) => {
        $crate::$callback! { $arguments
            reads::a_missing_key_is_answered_with_none
            reads::a_put_is_read_back_with_its_numbers
            reads::every_put_raises_version_and_mod_revision
            reads::a_deleted_key_begins_a_new_life
            reads::keys_and_values_are_any_bytes
            reads::a_big_value_comes_back_whole
            reads::a_stale_read_catches_up
            ranges::a_range_is_ordered_and_stays_under_its_prefix
            ranges::a_prefix_that_cannot_grow_is_ranged
            ranges::the_empty_prefix_is_the_whole_store
            ranges::pages_add_up_to_a_thousand_keys
            ranges::pages_show_one_revision_while_writes_go_on
            ranges::a_page_starts_after_a_key_that_is_gone
            ranges::a_page_ends_early_at_its_bytes
            ranges::keys_only_leaves_out_the_values
            ranges::a_past_revision_shows_the_past
            ranges::a_future_revision_is_refused
            txns::compares_decide_the_branch
            txns::a_missing_key_compares_as_zero
            txns::every_compare_must_hold
            txns::later_operations_see_earlier_ones
            txns::a_transaction_is_one_revision
            txns::what_changes_nothing_makes_no_revision
            txns::a_key_put_twice_changed_once
            txns::deleted_and_put_is_a_new_life
            txns::created_and_deleted_was_never_there
            txns::a_prefix_is_deleted_and_counted
            txns::the_empty_prefix_deletes_everything
            txns::a_refused_transaction_changes_nothing
            watches::a_watch_begins_with_a_bookmark
            watches::a_watch_from_zero_sees_what_follows
            watches::a_watch_from_the_past_delivers_all_since
            watches::a_watch_resumes_anywhere_without_gap_or_duplicate
            watches::an_event_shows_the_row_as_it_was
            watches::a_key_changes_once_per_revision
            watches::revisions_are_delivered_whole_and_sorted
            watches::only_the_prefix_is_watched
            watches::a_future_revision_is_not_watched
            watches::an_idle_watch_advances
            watches::a_dropped_watch_frees_its_place
            watches::a_watch_that_is_not_read_skips_nothing
            limits::an_empty_key_is_refused
            limits::a_long_key_is_refused
            limits::a_large_value_is_refused
            limits::too_many_operations_are_refused
            limits::a_large_transaction_is_refused
            limits::a_large_page_is_refused
            limits::a_continuation_outside_its_prefix_is_refused
            concurrency::counters_lose_no_update
            concurrency::one_of_many_creates_a_key
            concurrency::every_write_has_its_own_revision
            concurrency::a_range_never_sees_half_a_transaction
            concurrency::a_get_sees_every_put_before_it
            concurrency::watches_see_five_thousand_concurrent_writes
        }
    };
}

/// The one list of cases that cut the history. Hands it to another macro.
#[doc(hidden)]
#[macro_export]
macro_rules! kv_compaction_conformance_cases {
    ($callback:ident $arguments:tt) => {
        $crate::$callback! { $arguments
            compaction::the_compacted_revision_itself_is_readable
            compaction::what_is_before_is_refused
            compaction::a_watch_from_compacted_history_is_refused
            compaction::a_watch_resumes_right_after_the_cut
            compaction::a_cut_watch_ends_with_the_reason
            compaction::the_present_is_untouched
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! kv_case_table {
    ([] $($topic:ident :: $case:ident)*) => {
        &[$(Case {
            name: stringify!($case),
            run: |subject| Box::pin($topic::$case(subject)),
        }),*]
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! kv_conformance_tests {
    ([$start:expr] $($topic:ident :: $case:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::kv::conformance::run(stringify!($case), $start).await;
        })*
    };
}

/// Makes a test of each case; see [`crate::kv::conformance`].
#[macro_export]
macro_rules! kv_conformance {
    ($start:expr) => {
        $crate::kv_conformance_cases! { kv_conformance_tests [$start] }
    };
}

/// Makes a test of each case that cuts the history; see [`crate::kv::conformance`].
#[macro_export]
macro_rules! kv_compaction_conformance {
    ($start:expr) => {
        $crate::kv_compaction_conformance_cases! { kv_conformance_tests [$start] }
    };
}

/// Every promise of the trait.
pub const CASES: &[Case] = kv_conformance_cases! { kv_case_table [] };

/// Every promise about a history that is cut.
pub const COMPACTION_CASES: &[Case] = kv_compaction_conformance_cases! { kv_case_table [] };

/// Runs one case, by name, against a new store.
pub async fn run<F, Fut>(name: &str, start: F)
where
    F: FnOnce(Limits) -> Fut,
    Fut: Future<Output = Subject>,
{
    let case = CASES.iter().chain(COMPACTION_CASES).find(|case| case.name == name);
    let case = case.unwrap_or_else(|| panic!("there is no case {name}"));
    let subject = start(suite_limits()).await;
    let finished = tokio::time::timeout(PATIENCE, (case.run)(subject)).await;
    finished.unwrap_or_else(|_| panic!("{name} did not end within {PATIENCE:?}"));
}

/// Writes a key that must be accepted.
async fn put(kv: &dyn Kv, key: impl Into<Key>, value: impl Into<Value>) -> Revision {
    kv.put(key.into(), value.into()).await.expect("a put")
}

/// What is under a key now.
async fn get(kv: &dyn Kv, key: impl Into<Key>) -> Option<KeyValue> {
    kv.get(key.into(), Default::default()).await.expect("a get").kv
}

/// The store's revision.
async fn current(kv: &dyn Kv) -> Revision {
    kv.get("any".into(), Default::default()).await.expect("a get").revision
}

/// Everything under a prefix, page by page, at one revision.
async fn list(kv: &dyn Kv, query: RangeQuery) -> Vec<KeyValue> {
    let mut all = Vec::new();
    let mut next = Some(query);
    while let Some(query) = next {
        let page = kv.range(query.clone()).await.expect("a page");
        next = query.next_page(&page);
        assert!(
            page.more == next.is_some(),
            "a page that says more follows has a last key"
        );
        all.extend(page.kvs);
    }
    all
}

fn names(kvs: &[KeyValue]) -> Vec<&[u8]> {
    kvs.iter().map(|kv| kv.key.as_ref()).collect()
}

/// A watch that checks, whatever it is used for, that revisions are whole and in order.
struct Watching {
    stream: WatchStream,
    /// Everything below has been delivered.
    next: Revision,
}

impl Watching {
    async fn from(kv: &dyn Kv, prefix: impl Into<Key>, from: Revision) -> Self {
        let mut stream = kv.watch(prefix.into(), from).await.expect("a watch");
        let bookmark = stream.next().await.expect("a first item").expect("a bookmark");
        assert_eq!(bookmark.events, [], "the first item is a bookmark");
        if from != 0 {
            assert_eq!(bookmark.next_revision, from, "the watch begins where it was asked to");
        }
        Self {
            stream,
            next: bookmark.next_revision,
        }
    }

    async fn batch(&mut self) -> Result<WatchBatch, KvError> {
        let batch = self.stream.next().await.expect("the watch goes on")?;
        let revisions = batch.events.iter().map(|event| event.kv.mod_revision);
        assert!(
            revisions
                .clone()
                .all(|revision| (self.next..batch.next_revision).contains(&revision)),
            "events from {} on, resumable at {}: {:?}",
            self.next,
            batch.next_revision,
            revisions.collect::<Vec<_>>()
        );
        assert!(revisions.is_sorted(), "a batch is in order");
        assert!(batch.next_revision >= self.next, "a watch never goes back");
        self.next = batch.next_revision;
        Ok(batch)
    }

    /// The next events, once there are at least so many.
    async fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.batch().await.expect("a batch").events);
        }
        events
    }

    /// Everything that happened up to and including a revision.
    async fn until(&mut self, last: Revision) -> Vec<Event> {
        let mut events = Vec::new();
        while self.next <= last {
            events.extend(self.batch().await.expect("a batch").events);
        }
        events
    }
}
