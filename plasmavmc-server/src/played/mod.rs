//! A cluster in memory, for tests of what is decided and answered: the real store interface, mirror, API and
//! controller; only the hosts are played, and their QEMUs are entries in a book.
//!
//! The book knows what really runs, so a VM that would run twice is noticed whoever believes what.

mod host;
mod link;
mod members;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chainfire::kv::memory::MemoryKv;
use chainfire::kv::{Kv, KvError};
use parking_lot::Mutex;
use plasmavmc_core::view::{ClusterView, PlacementMode};
use plasmavmc_types::{Address, HostId, HostName, HostRecord, Timings, VmId};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::api::Backend;
use crate::control::{Controller, OtherMembers, Others};
use crate::store::{ClusterConfig, Mirror, Write, keys};

pub use link::{Fault, Link};
pub use members::{Members, Says};

/// By the clock of the test, which flies when nobody has anything to do.
pub const SOON: Duration = Duration::from_secs(120);

/// What runs where, in truth.
pub type Book = Arc<Mutex<BTreeMap<VmId, HostId>>>;

pub struct Played {
    pub store: Arc<MemoryKv>,
    /// The way from the API to the store.
    pub link: Arc<Link>,
    pub mirror: Mirror,
    mirror_link: Arc<Link>,
    pub backend: Backend,
    pub hosts: Vec<HostId>,
    /// As a leader asks them.
    pub members: Arc<Members>,
    pub book: Book,
    stop: CancellationToken,
    hosts_stop: CancellationToken,
    _stops: DropGuard,
}

/// A controller that can be told whether it leads.
pub struct Led {
    /// Its way to the store.
    pub link: Arc<Link>,
    pub leads: watch::Sender<bool>,
    pub stop: CancellationToken,
    controller: Controller,
}

impl Led {
    pub async fn ends(self) {
        self.stop.cancel();
        self.controller.ended().await;
    }
}

impl Played {
    /// A cluster of hosts of 8 processors and 16 GB, without a controller.
    pub async fn of_hosts(count: usize) -> Self {
        let stop = CancellationToken::new();
        let store = Arc::new(MemoryKv::default());
        let kv: Arc<dyn Kv> = Arc::clone(&store) as Arc<dyn Kv>;
        let mirror_link = Arc::new(Link::to(Arc::clone(&store)));
        let mirror = Mirror::start(Arc::clone(&mirror_link) as Arc<dyn Kv>, stop.clone());
        let link = Arc::new(Link::to(Arc::clone(&store)));
        let api_kv: Arc<dyn Kv> = Arc::clone(&link) as Arc<dyn Kv>;
        let ids: Vec<HostId> = (0..count).map(|_| HostId::from_uuid(Uuid::new_v4())).collect();
        let own = ids.first().copied().unwrap_or_else(|| HostId::from_uuid(Uuid::nil()));
        let cluster = Self {
            backend: Backend::new(api_kv, mirror.clone(), own, watch::channel(3).1, stop.clone()),
            store,
            link,
            mirror,
            mirror_link,
            hosts: ids.clone(),
            members: Arc::default(),
            book: Book::default(),
            hosts_stop: stop.child_token(),
            _stops: stop.clone().drop_guard(),
            stop,
        };
        let config = ClusterConfig {
            timings: Timings::default(),
            placement: PlacementMode::Spread,
            recovery: Default::default(),
        };
        cluster
            .write(Write::new().expect_absent(keys::config()).put_config(&config))
            .await;
        for (number, id) in (1..).zip(ids) {
            let name = HostName::new(format!("h{number}")).unwrap();
            let address: Address = format!("127.0.0.{number}:50051").parse().unwrap();
            let record = HostRecord::new(id, name, vec![address.clone()]).unwrap();
            let record = record.with_cluster_address(Some(address));
            cluster
                .write(Write::new().expect_absent(keys::host_record(id)).put_host(&record))
                .await;
            let (kv, mirror, book) = (Arc::clone(&kv), cluster.mirror.clone(), Arc::clone(&cluster.book));
            let host = host::Host::open(id, kv, mirror, book).await;
            tokio::spawn(host.run(cluster.hosts_stop.clone()));
        }
        cluster
    }

    /// As [`Self::of_hosts`], with a controller that leads.
    pub async fn led(count: usize) -> (Self, Led) {
        let cluster = Self::of_hosts(count).await;
        let led = cluster.controller(true);
        (cluster, led)
    }

    pub fn controller(&self, leads: bool) -> Led {
        let (leads, leadership) = watch::channel(leads);
        let stop = self.stop.child_token();
        let link = Arc::new(Link::to(Arc::clone(&self.store)));
        let kv: Arc<dyn Kv> = Arc::clone(&link) as Arc<dyn Kv>;
        let others = Others {
            own: self.backend.host,
            members: Arc::clone(&self.members) as Arc<dyn OtherMembers>,
        };
        Led {
            link,
            controller: Controller::start(kv, self.mirror.clone(), leadership, others, stop.clone()),
            leads,
            stop,
        }
    }

    /// Makes the mirror miss what happens in `work`, and list everything again.
    pub async fn behind_its_back<F: Future<Output = ()>>(&self, work: impl FnOnce() -> F) {
        let before = self.mirror.figures().listings;
        let reason = "the link is cut".to_owned();
        self.mirror_link.set_down(Some(KvError::Unavailable { reason }));
        self.mirror_link.breaks();
        // Whoever waits for the mirror meanwhile gives up, or goes on after it.
        let _ = tokio::time::timeout(Duration::from_millis(100), work()).await;
        self.mirror_link.set_down(None);
        let relisted = |mirror: &Mirror| (mirror.figures().listings > before).then_some(());
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while relisted(&self.mirror).is_none() {
            tick.tick().await;
        }
    }

    /// From now on no host does anything.
    pub fn hosts_leave(&self) {
        self.hosts_stop.cancel();
    }

    pub async fn write(&self, write: Write) -> u64 {
        let revision = write.commit(&*self.store).await.unwrap().revision;
        self.mirror.reached(revision, SOON).await.unwrap();
        revision
    }

    /// Waits until what is stored is as wanted.
    #[track_caller]
    pub fn until<'a, T: 'a>(
        &'a self,
        what: &'a str,
        look: impl Fn(&ClusterView) -> Option<T> + 'a,
    ) -> impl Future<Output = T> + 'a {
        self.until_mirror(what, move |mirror| mirror.read(&look))
    }

    /// As [`Self::until`], of all that the mirror tells.
    #[track_caller]
    pub fn until_mirror<'a, T: 'a>(
        &'a self,
        what: &'a str,
        look: impl Fn(&Mirror) -> Option<T> + 'a,
    ) -> impl Future<Output = T> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let mut revision = self.mirror.revision();
            let wait = async {
                loop {
                    revision.borrow_and_update();
                    if let Some(found) = look(&self.mirror) {
                        return found;
                    }
                    revision.changed().await.unwrap();
                }
            };
            let found = tokio::time::timeout(SOON, wait).await;
            found.unwrap_or_else(|_| panic!("{caller}: not {what}: {}", self.told()))
        }
    }

    /// What is there, for whoever has to find out why.
    pub fn told(&self) -> String {
        self.mirror.read(|view| {
            let open = view.operations.values().filter(|operation| !operation.value.is_ended());
            let open: Vec<_> = open.map(|operation| &operation.value).collect();
            format!("{:#?}\n{open:#?}\n{:?}", view.vms, self.book.lock())
        })
    }
}
