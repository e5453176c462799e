//! QEMUs that die, servers that die, and VMs that are not this host's any more.

use std::time::{Duration, Instant};

use plasmavmc_core::view::ClusterView;
use plasmavmc_kvm::runtime::RuntimeFolder;
use plasmavmc_types::{
    Disk, DiskLocation, Exit, HostId, Label, ObservedState, OperationState, Placement, RestartPolicy, VmId,
};
use rustix::process::{Signal, kill_process, test_kill_process};
use uuid::Uuid;

use super::place::{SOON, at_a_place, pid_of, small, small_with};
use crate::store::{Write, keys};

#[test]
fn a_qemu_that_is_killed_is_restarted_and_a_crash_loop_ends() {
    at_a_place(async |place| {
        let agent = place.agent().await;
        let spec = small_with("fragile", |fields| {
            fields.restart = RestartPolicy::OnCrash {
                tries: 1,
                window_s: 600,
            };
        });
        let (vm, _) = place.create(spec).await;
        let first = place.until_running(vm).await;
        let begun = Instant::now();
        kill_process(pid_of(&first), Signal::KILL).unwrap();
        let down = place
            .until_state(vm, |state| *state != ObservedState::Running, SOON)
            .await;
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "it took {:?}",
            begun.elapsed()
        );
        assert_eq!(down.last_exit, Some(Exit::Signal(9)));
        assert_eq!(down.crashes_at_ms.len(), 1);
        let second = place.until_running(vm).await;
        assert_ne!(second.process, first.process);

        kill_process(pid_of(&second), Signal::KILL).unwrap();
        let failed = place
            .until_state(vm, |state| matches!(state, ObservedState::Failed { .. }), SOON)
            .await;
        let ObservedState::Failed { reason } = &failed.state else {
            panic!()
        };
        assert!(
            reason.contains("signal 9") && reason.contains("crashed 2 times"),
            "{reason}"
        );
        assert!(place.qemus().is_empty());
        agent.stop().await;
    });
}

#[test]
fn a_new_agent_adopts_what_the_old_one_left() {
    at_a_place(async |place| {
        let agent = place.agent().await;
        let (stays, _) = place.create(small("stays")).await;
        let (dies, _) = place.create(small("dies")).await;
        let (goes, _) = place.create(small("goes")).await;
        let before = place.until_running(stays).await;
        let dying = place.until_running(dies).await;
        place.until_running(goes).await;
        agent.stop().await;
        assert!(
            test_kill_process(pid_of(&before)).is_ok(),
            "stopping the agent stopped a guest"
        );
        kill_process(pid_of(&dying), Signal::KILL).unwrap();
        place.want(goes, |record| record.delete().unwrap()).await;

        let revision = place.status(stays).unwrap().revision;
        let agent = place.agent().await;
        let crashed = |view: &ClusterView| {
            let status = &view.vms.get(&dies)?.status.as_ref()?.value;
            let again = status.state == ObservedState::Running && status.process != dying.process;
            again.then(|| status.clone())
        };
        let restarted = place.until("restarted", SOON, crashed).await;
        assert_eq!(restarted.crashes_at_ms.len(), 1);
        place
            .until_state(goes, |state| *state == ObservedState::Stopped, SOON)
            .await;
        assert!(agent.consoles().attach(stays).is_ok());
        assert!(agent.consoles().attach(goes).is_err());
        let status = place.status(stays).unwrap();
        assert_eq!(
            (status.value.process, status.value.attempt),
            (before.process, before.attempt)
        );
        assert_eq!(status.revision, revision, "nothing was new, and it was written");
        agent.stop().await;
    });
}

#[test]
fn a_vm_that_was_placed_elsewhere_is_killed_and_an_orphan_is_not() {
    at_a_place(async |place| {
        let agent = place.agent().await;
        let (moved, _) = place.create(small("moved")).await;
        let (orphan, _) = place.create(small("orphan")).await;
        let lost = pid_of(&place.until_running(moved).await);
        let kept = pid_of(&place.until_running(orphan).await);
        let elsewhere = HostId::from_uuid(Uuid::from_u128(9));
        place
            .place_at(moved, Placement::first(place.host).next(elsewhere).unwrap())
            .await;
        let gone = async {
            while test_kill_process(lost).is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, gone).await.unwrap();
        let vm = place.vm(orphan);
        let forget = Write::new().forget_vm(&vm.record.unwrap(), vm.placement.as_ref(), vm.status.as_ref());
        place.write(forget).await;
        let warned = |view: &ClusterView| {
            let beat = &view.hosts.get(&place.host)?.beat.as_ref()?.value;
            let mut warnings = beat.facts.warnings.iter();
            warnings.find(|warning| warning.contains(&orphan.to_string())).cloned()
        };
        let warning = place.until("warned of", SOON, warned).await;
        assert!(warning.contains("knows nothing of it"), "{warning}");
        assert!(test_kill_process(kept).is_ok(), "an orphan was killed");
        agent.stop().await;
    });
}

#[test]
fn what_cannot_be_started_fails_with_the_reason_until_it_is_changed() {
    at_a_place(async |place| {
        let agent = place.agent().await;
        let missing = DiskLocation::File {
            path: place.folder.join("missing.qcow2"),
        };
        let disk = Disk::new(Label::new("root").unwrap(), missing, 8);
        let (vm, create) = place
            .create(small_with("broken", |fields| fields.disks = vec![disk]))
            .await;
        let status = place
            .until_state(vm, |state| matches!(state, ObservedState::Failed { .. }), SOON)
            .await;
        let ObservedState::Failed { reason } = &status.state else {
            panic!()
        };
        assert!(
            reason.contains("disks[0].location") && reason.contains("missing.qcow2"),
            "{reason}"
        );
        let ended = place.until_ended(create, SOON).await;
        assert!(matches!(ended.state, OperationState::Failed(_)), "{ended:?}");
        assert!(std::fs::read_dir(place.folder.join("run/vms")).map_or(true, |mut left| left.next().is_none()));

        place
            .want(vm, |record| {
                let spec = record.spec().edit(|fields| fields.disks.clear()).unwrap();
                record.with_spec(spec).unwrap()
            })
            .await;
        place.until_running(vm).await;
        agent.stop().await;
    });
}

#[test]
fn nothing_is_written_by_who_lost_the_session() {
    at_a_place(async |place| {
        let agent = place.agent().await;
        let (vm, _) = place.create(small("some")).await;
        let running = place.until_running(vm).await;
        let session = place
            .mirror
            .read(|view| view.hosts[&place.host].session.clone().unwrap());
        let other = plasmavmc_types::Session {
            epoch: session.value.epoch.next().unwrap(),
            instance: plasmavmc_types::InstanceNonce::from_uuid(Uuid::from_u128(3)),
            ..session.value
        };
        let write = Write::new().expect(keys::session(place.host), session.revision);
        place.write(write.put_session(place.host, &other)).await;
        let revision = place.status(vm).unwrap().revision;
        kill_process(pid_of(&running), Signal::KILL).unwrap();
        // That nothing happens has no condition to wait for: longer than the pause before a VM is started again.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(place.status(vm).unwrap().revision, revision);
        assert!(place.qemus().is_empty(), "it was started without a session");
        agent.stop().await;
    });
}

#[test]
fn a_start_that_finds_its_folder_taken_waits_until_it_is_free() {
    at_a_place(async |place| {
        let agent = place.agent().await;
        // What was here is taken over before anything is started.
        let (first, _) = place.create(small("first")).await;
        place.until_running(first).await;
        let id = VmId::from_uuid(Uuid::new_v4());
        let folder = RuntimeFolder::create(&place.vms(), id).unwrap();
        let lock = folder.lock().unwrap();
        let (vm, create) = place.create_as(id, small("late")).await;
        let waits = |view: &ClusterView| {
            let status = &view.vms.get(&vm)?.status.as_ref()?.value;
            let names = status.conditions.iter().map(|condition| condition.name.as_str());
            names.into_iter().any(|name| name == "left-alone").then_some(())
        };
        place.until("said to be left alone", SOON, waits).await;
        assert_eq!(place.qemus().len(), 1);
        drop(lock);
        let running = place.until_running(vm).await;
        assert_eq!(running.crashes_at_ms, Vec::<u64>::new(), "to wait is no crash");
        assert_eq!(place.until_ended(create, SOON).await.state, OperationState::Done);
        agent.stop().await;
    });
}
