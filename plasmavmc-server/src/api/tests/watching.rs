//! Streams that break off and resume: nothing is missed, whatever happens meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use plasmavmc_proto::api;
use plasmavmc_proto::api::watch_vms_response::change::Change;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::api::events;
use crate::api::vms::watch;

/// What a client makes of a stream of VMs.
#[derive(Debug, Default)]
struct Follower {
    vms: BTreeMap<String, api::Vm>,
    from: u64,
    is_current: bool,
}

type Stream = Receiver<Result<api::WatchVmsResponse, Status>>;

impl Follower {
    async fn attach(&mut self, cluster: &Played) -> Stream {
        if self.from == 0 {
            self.vms.clear();
        }
        self.is_current = false;
        let request = api::WatchVmsRequest {
            from_revision: self.from,
            id: String::new(),
        };
        watch::watch(cluster.backend.clone(), request).await.unwrap()
    }

    fn take(&mut self, message: api::WatchVmsResponse) {
        for change in message.changes {
            match change.change.unwrap() {
                Change::Vm(vm) => drop(self.vms.insert(vm.id.clone(), vm)),
                Change::Removed(id) => drop(self.vms.remove(&id)),
            }
        }
        assert!(message.revision >= self.from, "a stream goes forward");
        self.from = message.revision;
        self.is_current |= message.is_current;
    }

    /// Takes what there is.
    fn drain(&mut self, stream: &mut Stream) {
        while let Ok(message) = stream.try_recv() {
            self.take(message.unwrap());
        }
    }

    fn generations(&self) -> BTreeMap<String, (u64, i32)> {
        let vms = self.vms.values();
        vms.map(|vm| (vm.name.clone(), (vm.generation, vm.state))).collect()
    }
}

async fn something(cluster: &Played, rng: &mut StdRng) {
    let name = format!("vm{}", rng.random_range(0..6));
    match rng.random_range(0..4) {
        0 => drop(create::create(&cluster.backend, small(&name), patient()).await),
        1 => drop(delete(cluster, &name, true, 0).await),
        2 => drop(order(cluster, &name, STOP).await),
        _ => drop(order(cluster, &name, OperationKind::Start).await),
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_vms_resumes_without_a_gap() {
    for seed in 0..6 {
        let (cluster, controller) = Played::led(2).await;
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut steady, mut roaming) = (Follower::default(), Follower::default());
        let mut steady_stream = steady.attach(&cluster).await;
        let mut stream = Some(roaming.attach(&cluster).await);
        for _ in 0..120 {
            something(&cluster, &mut rng).await;
            steady.drain(&mut steady_stream);
            match (&mut stream, rng.random_range(0..6)) {
                // Breaks off with messages unread.
                (Some(_), 0) => stream = None,
                (Some(stream), 1..4) => {
                    if let Ok(message) = stream.try_recv() {
                        roaming.take(message.unwrap());
                    }
                }
                (None, 0..3) => stream = Some(roaming.attach(&cluster).await),
                _ => tokio::time::sleep(Duration::from_millis(rng.random_range(0..40))).await,
            }
            if rng.random_bool(0.05) {
                cluster.behind_its_back(|| something(&cluster, &mut rng)).await;
            }
        }
        let mut stream = match stream {
            Some(stream) => stream,
            None => roaming.attach(&cluster).await,
        };
        tokio::time::sleep(Duration::from_secs(5)).await;
        for (follower, stream) in [(&mut steady, &mut steady_stream), (&mut roaming, &mut stream)] {
            follower.drain(stream);
            assert!(follower.is_current);
        }
        let listed = crate::api::vms::read::list(&cluster.backend, Default::default())
            .await
            .unwrap()
            .vms;
        let truth: BTreeMap<_, _> = listed
            .iter()
            .map(|vm| (vm.name.clone(), (vm.generation, vm.state)))
            .collect();
        assert_eq!(steady.generations(), truth, "seed {seed}");
        assert_eq!(roaming.generations(), truth, "seed {seed}");
        controller.ends().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_in_parts_resumes_from_before_all_of_it() {
    let cluster = Played::of_hosts(1).await;
    for number in 0..450 {
        made(&cluster, &format!("vm{number}")).await;
    }
    let mut stream = Follower::default().attach(&cluster).await;
    let mut parts = Vec::new();
    while parts.last().is_none_or(|last: &api::WatchVmsResponse| !last.is_current) {
        parts.push(stream.recv().await.unwrap().unwrap());
    }
    let told: Vec<(usize, bool)> = parts
        .iter()
        .map(|part| (part.changes.len(), part.revision == 0))
        .collect();
    assert_eq!(told, [(200, true), (200, true), (50, true), (0, false)]);
}

/// An event without what differs when it is told again.
fn essence(event: &api::Event) -> (u64, String, String, String) {
    let api::Event {
        revision,
        kind,
        vm_id,
        operation,
        ..
    } = event.clone();
    (revision, kind, vm_id, operation)
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_events_resumes_without_a_gap() {
    let (cluster, controller) = Played::led(2).await;
    let begin = cluster.mirror.read(|view| view.revision);
    let attach = |from_revision| {
        let request = api::WatchEventsRequest {
            from_revision,
            ..Default::default()
        };
        events::watch(cluster.backend.clone(), request)
    };
    let mut rng = StdRng::seed_from_u64(7);
    for _ in 0..60 {
        something(&cluster, &mut rng).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    // Everything in one piece, and again in pieces of any length.
    let mut stream = attach(begin).await.unwrap();
    let mut whole = Vec::new();
    tokio::time::sleep(Duration::from_secs(1)).await;
    while let Ok(event) = stream.try_recv() {
        whole.push(event.unwrap());
    }
    let expected: BTreeSet<_> = whole.iter().map(essence).collect();
    assert!(expected.len() > 100 && expected.len() == whole.len(), "{}", whole.len());
    let is_split = |pair: &&[api::Event]| pair[0].revision == pair[1].revision;
    assert!(
        whole.windows(2).filter(is_split).count() > 10,
        "some transactions have several events"
    );
    let (mut from, mut pieces) = (begin, BTreeSet::new());
    while pieces.len() < expected.len() {
        let mut stream = attach(from).await.unwrap();
        for _ in 0..rng.random_range(2..9) {
            let Ok(event) = tokio::time::timeout(Duration::from_secs(1), stream.recv()).await else {
                break;
            };
            let event = event.unwrap().unwrap();
            from = event.resume_from;
            pieces.insert(essence(&event));
        }
    }
    assert_eq!(pieces, expected);
    controller.ends().await;
}
