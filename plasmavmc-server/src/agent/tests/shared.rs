//! Shared pools: offered once another host is seen there, and claimed in.

use std::collections::BTreeMap;

use plasmavmc_types::{
    Beat, BeatFields, BeatSequence, BootId, Capacity, Disk, DiskLocation, Epoch, HostFacts, HostId, HostName,
    HostRecord, InstanceNonce, Label, ObservedState, OperationKind, PoolName, PowerWanted, Session, SessionState,
    Usage,
};
use uuid::Uuid;

use super::place::{Place, SOON, at_a_place, small_with};
use crate::agent::Pool;
use crate::agent::pools::Pools;
use crate::agent::probe::Probes;
use crate::store::{Write, keys};

fn pool() -> PoolName {
    PoolName::new("default").unwrap()
}

/// Another host that lives and offers the pool, and its file there. It goes when this does.
async fn neighbour(place: &Place) -> Probes {
    let host = HostId::from_uuid(Uuid::new_v4());
    let (instance, boot_id) = (
        InstanceNonce::from_uuid(Uuid::new_v4()),
        BootId::from_uuid(Uuid::new_v4()),
    );
    let addresses = vec!["127.0.0.2:50051".parse().unwrap()];
    let record = HostRecord::new(host, HostName::new("beta").unwrap(), addresses).unwrap();
    let session = Session {
        epoch: Epoch::FIRST,
        instance,
        boot_id,
        state: SessionState::Open,
    };
    let beat = Beat::new(BeatFields {
        epoch: Epoch::FIRST,
        instance,
        boot_id,
        sequence: BeatSequence(1),
        lease_ms: 4000,
        failover_ms: 6000,
        capacity: Capacity { vcpus: 1, memory_mb: 1 },
        usage: Usage::default(),
        facts: HostFacts {
            pools: vec![pool()],
            shared_pools: vec![pool()],
            ..HostFacts::default()
        },
    });
    let write = Write::new()
        .expect_absent(keys::host_record(host))
        .put_host(&record)
        .expect_absent(keys::session(host))
        .put_session(host, &session)
        .put_first_beat(host, &beat.unwrap(), 0);
    place.write(write).await;
    let settings = Pool {
        folder: place.pool(),
        is_shared: true,
    };
    let pools = Pools::new(BTreeMap::from([(pool(), settings)]));
    let mut probes = Probes::new(host, instance, &pools);
    probes.look(0, |_, _| BTreeMap::new()).await;
    probes
}

#[test]
fn a_leased_vm_is_claimed_beside_its_disks_and_waits_below_a_higher_claim() {
    at_a_place(async |place| {
        let _neighbour = neighbour(&place).await;
        let agent = place.agent_of(true, 3).await;
        let offers = |view: &plasmavmc_core::view::ClusterView| {
            let beat = view.hosts.get(&place.host)?.beat.as_ref()?;
            (beat.value.facts.shared_pools == [pool()]).then_some(())
        };
        place.until("offering its pool", SOON, offers).await;
        let location = DiskLocation::Volume {
            pool: pool(),
            volume: Label::new("root").unwrap(),
        };
        let disk = Disk::new(Label::new("root").unwrap(), location, 8);
        let (vm, _) = place
            .create(small_with("some", |fields| fields.disks = vec![disk]))
            .await;
        let running = place.until_running(vm).await;
        assert!(running.leased);
        let claims = place.pool().join(format!("{vm}.claims"));
        let claim = std::fs::read_to_string(claims.join("1")).unwrap();
        assert!(claim.contains(&place.host.to_string()), "{claim}");

        let stop = place.ask(vm, OperationKind::Stop { force: true }, SOON).await;
        place.until_ended(stop, SOON).await;
        std::fs::write(claims.join("2"), "").unwrap();
        place
            .want(vm, |record| record.with_power(PowerWanted::On).unwrap())
            .await;
        let waits = |view: &plasmavmc_core::view::ClusterView| {
            let status = &view.vms.get(&vm)?.status.as_ref()?.value;
            let mut conditions = status.conditions.iter();
            let waiting = conditions.find(|condition| condition.text.contains("claim of incarnation 2"))?;
            (status.state == ObservedState::Starting).then(|| waiting.clone())
        };
        place.until("waiting", SOON, waits).await;
        assert!(place.qemus().is_empty());
        std::fs::remove_file(claims.join("2")).unwrap();
        place.until_running(vm).await;
        agent.stop().await;
    });
}

#[test]
fn a_pool_that_no_other_host_has_is_offered_but_not_as_shared() {
    at_a_place(async |place| {
        let agent = place.agent_of(true, 3).await;
        let facts = |view: &plasmavmc_core::view::ClusterView| {
            Some(view.hosts.get(&place.host)?.beat.as_ref()?.value.facts.clone())
        };
        let facts = place.until("beating", SOON, facts).await;
        assert_eq!((facts.pools, facts.shared_pools), (vec![pool()], Vec::new()));
        assert_eq!(facts.warnings, Vec::<String>::new());
        agent.stop().await;
    });
}
