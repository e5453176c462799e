//! Sessions and beats.

use std::time::Duration;

use plasmavmc_core::view::ClusterView;
use plasmavmc_types::{BootId, Epoch, HostId, InstanceNonce, Session, SessionState};
use uuid::Uuid;

use super::place::{Place, SOON, at_a_place, small};
use crate::store::{Write, keys};

fn epoch_of(view: &ClusterView, host: HostId) -> Option<Session> {
    Some(view.hosts.get(&host)?.session.as_ref()?.value)
}

async fn until_open(place: &Place, epoch: u64) -> Session {
    let look = |view: &ClusterView| {
        epoch_of(view, place.host).filter(|session| session.is_open() && session.epoch == Epoch::from_raw(epoch))
    };
    place.until("open", SOON, look).await
}

/// Two more beats of the session.
async fn beats(place: &Place, session: Session) {
    let sequence = |view: &ClusterView| {
        let beat = &view.hosts.get(&place.host)?.beat.as_ref()?.value;
        beat.belongs_to(&session).then_some(beat.sequence.0)
    };
    let first = place.until("beating", SOON, sequence).await;
    place
        .until("beating on", SOON, |view| {
            sequence(view).filter(|now| *now >= first + 2)
        })
        .await;
}

#[test]
fn a_host_beats_in_its_session_and_a_restarted_server_goes_on_in_it() {
    at_a_place(async |place| {
        let agent = place.agent().await;
        let session = until_open(&place, 1).await;
        beats(&place, session).await;
        let beat = place
            .mirror
            .read(|view| view.hosts[&place.host].beat.clone().unwrap().value);
        assert_eq!(beat.facts.pools.len(), 1);
        assert!(beat.facts.accelerator.starts_with("tcg"), "{}", beat.facts.accelerator);
        assert!(beat.capacity.vcpus > 0);
        let mut contact = agent.contact();
        let heard = contact.wait_for(|contact| contact.open && contact.last_ok.is_some());
        assert!(tokio::time::timeout(SOON, heard).await.unwrap().is_ok());
        agent.stop().await;

        let agent = place.agent().await;
        beats(&place, session).await;
        agent.stop().await;
    });
}

#[test]
fn a_fenced_host_opens_the_next_epoch_and_keeps_its_vms() {
    at_a_place(async |place| {
        let agent = place.agent().await;
        let (vm, _) = place.create(small("some")).await;
        let before = place.until_running(vm).await;
        place.fence().await;
        let session = until_open(&place, 2).await;
        beats(&place, session).await;
        assert_eq!(place.status(vm).unwrap().value.process, before.process);
        agent.stop().await;
    });
}

#[test]
fn a_session_of_somebody_else_is_waited_for() {
    at_a_place(async |place| {
        let other = Session {
            epoch: Epoch::from_raw(7),
            instance: InstanceNonce::from_uuid(Uuid::from_u128(1)),
            boot_id: BootId::from_uuid(Uuid::from_u128(2)),
            state: SessionState::Open,
        };
        let write = Write::new().expect_absent(keys::session(place.host));
        place.write(write.put_session(place.host, &other)).await;
        let agent = place.agent().await;
        let (vm, _) = place.create(small("some")).await;
        // That nothing happens has no condition to wait for: longer than a start takes, and than two tries to open.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(place.mirror.read(|view| epoch_of(view, place.host)), Some(other));
        assert!(place.status(vm).is_none(), "it was claimed without a session");
        assert!(place.qemus().is_empty());
        place.fence().await;
        until_open(&place, 8).await;
        place.until_running(vm).await;
        agent.stop().await;
    });
}
