//! The mirror on the store in memory, which can be compacted, cut off and replaced at will.

mod following;
mod limits;
mod random;
mod relisting;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chainfire::kv::memory::MemoryKv;
use chainfire::kv::{
    Consistency, GetAnswer, Key, Kv, KvError, RangeAnswer, RangeQuery, Revision, Txn, TxnAnswer, WatchStream,
};
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Change, Changes, Mirror};
use crate::store::codec::tests::encode;
use crate::store::keys::ParsedKey;
use crate::store::values::StoredValue;

const SOON: Duration = Duration::from_secs(30);

/// A store whose link can be cut, and behind which another store can be put.
#[derive(Debug)]
struct Link {
    store: Mutex<Arc<MemoryKv>>,
    /// Goes up when the link is cut: watches end.
    cuts: watch::Sender<u64>,
    is_cut: Mutex<bool>,
    /// What is stored is shown, and nobody confirms that it is all.
    has_no_leader: Mutex<bool>,
}

impl Link {
    fn reach(&self) -> Result<Arc<MemoryKv>, KvError> {
        if *self.is_cut.lock() {
            let reason = "the link is cut".to_owned();
            return Err(KvError::Unavailable { reason });
        }
        Ok(Arc::clone(&self.store.lock()))
    }

    fn cut(&self) {
        *self.is_cut.lock() = true;
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    fn heal(&self) {
        *self.is_cut.lock() = false;
    }

    fn put_behind(&self, store: MemoryKv) {
        *self.store.lock() = Arc::new(store);
    }
}

#[async_trait]
impl Kv for Link {
    async fn get(&self, key: Key, consistency: Consistency) -> Result<GetAnswer, KvError> {
        if *self.has_no_leader.lock() && consistency == Consistency::Linearizable {
            let reason = "nobody leads".to_owned();
            return Err(KvError::NoLeader { reason });
        }
        self.reach()?.get(key, consistency).await
    }

    async fn range(&self, query: RangeQuery) -> Result<RangeAnswer, KvError> {
        self.reach()?.range(query).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnAnswer, KvError> {
        self.reach()?.txn(txn).await
    }

    async fn watch(&self, prefix: Key, from: Revision) -> Result<WatchStream, KvError> {
        let batches = self.reach()?.watch(prefix, from).await?;
        let mut cuts = self.cuts.subscribe();
        cuts.mark_unchanged();
        let cut = async move { drop(cuts.changed().await) };
        Ok(batches.take_until(cut).boxed())
    }
}

/// A store and its mirror.
struct Site {
    link: Arc<Link>,
    mirror: Mirror,
    stop: CancellationToken,
    _stops: DropGuard,
}

impl Site {
    fn new(store: MemoryKv) -> Self {
        let link = Arc::new(Link {
            store: Mutex::new(Arc::new(store)),
            cuts: watch::Sender::new(0),
            is_cut: Mutex::new(false),
            has_no_leader: Mutex::new(false),
        });
        let stop = CancellationToken::new();
        let kv: Arc<dyn Kv> = Arc::clone(&link) as Arc<dyn Kv>;
        Self {
            mirror: Mirror::start(kv, stop.clone()),
            link,
            _stops: stop.clone().drop_guard(),
            stop,
        }
    }

    async fn started() -> Self {
        let site = Self::new(MemoryKv::default());
        site.caught_up().await;
        site
    }

    fn store(&self) -> Arc<MemoryKv> {
        Arc::clone(&self.link.store.lock())
    }

    async fn put(&self, key: &ParsedKey, value: &StoredValue) -> Revision {
        self.store().put(key.key(), encode(value)).await.unwrap()
    }

    async fn delete(&self, key: &ParsedKey) -> Revision {
        self.store().delete(key.key()).await.unwrap().0
    }

    /// Waits until the mirror shows all that is stored.
    async fn caught_up(&self) {
        self.mirror.listed(SOON).await.unwrap();
        let answer = self.store().get("/".into(), Consistency::Linearizable).await.unwrap();
        self.mirror.reached(answer.revision, SOON).await.unwrap();
    }

    /// Makes the mirror miss something, whatever `change` does, and list again.
    async fn behind_its_back(&self, change: impl AsyncFnOnce(&Self)) {
        self.caught_up().await;
        let before = self.mirror.figures().listings;
        self.link.cut();
        change(self).await;
        let store = self.store();
        let now = store.get("/".into(), Consistency::Linearizable).await.unwrap().revision;
        store.compact(now).unwrap();
        self.link.heal();
        let relisted = async {
            while self.mirror.figures().listings == before || !self.mirror.figures().is_following {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(SOON, relisted).await.unwrap();
        self.caught_up().await;
    }
}

/// The changes that have come, one by one.
async fn come(changes: &mut Changes) -> Vec<Change> {
    let mut all = Vec::new();
    while let Ok(batch) = tokio::time::timeout(Duration::from_millis(50), changes.next()).await {
        all.extend(batch.unwrap().iter().cloned());
    }
    all
}

/// A change in short: its revision, its key, and which sides it has.
fn short(change: &Change) -> (Revision, ParsedKey, bool, bool) {
    let (before, after) = (change.before.is_some(), change.after.is_some());
    (change.revision, change.key.clone(), before, after)
}
