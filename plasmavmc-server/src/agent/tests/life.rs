//! A life in order: created, running, asked for this and that, stopped, deleted.

use std::time::Duration;

use plasmavmc_kvm::channel::Watched;
use plasmavmc_types::{
    AgentHealth, BackingImage, Disk, DiskFormat, DiskLocation, Label, ObservedState, OperationKind, OperationState,
    PauseCause, PoolName, PowerWanted,
};
use rustix::process::test_kill_process;

use super::place::{SOON, at_a_place, micro, pid_of, small, small_with};

const BOOT: Duration = Duration::from_secs(180);

fn volume(name: &str) -> DiskLocation {
    DiskLocation::Volume {
        pool: PoolName::new("default").unwrap(),
        volume: Label::new(name).unwrap(),
    }
}

#[test]
fn a_vm_is_created_paused_resumed_and_stopped_by_force() {
    at_a_place(async |place| {
        let agent = place.agent().await;
        let (vm, create) = place.create(small("some")).await;
        let running = place.until_running(vm).await;
        assert_eq!(place.until_ended(create, SOON).await.state, OperationState::Done);

        let pause = place.ask(vm, OperationKind::Pause, SOON).await;
        assert_eq!(place.until_ended(pause, SOON).await.state, OperationState::Done);
        let paused = ObservedState::Paused {
            cause: PauseCause::Asked,
        };
        place.until_state(vm, |state| *state == paused, SOON).await;
        let resume = place.ask(vm, OperationKind::Resume, SOON).await;
        assert_eq!(place.until_ended(resume, SOON).await.state, OperationState::Done);
        place.until_running(vm).await;
        let reset = place.ask(vm, OperationKind::Reset, SOON).await;
        assert_eq!(place.until_ended(reset, SOON).await.state, OperationState::Done);

        let stop = place.ask(vm, OperationKind::Stop { force: true }, SOON).await;
        let ended = place.until_ended(stop, SOON).await;
        assert_eq!(ended.state, OperationState::Done, "{ended:?}");
        let status = place
            .until_state(vm, |state| *state == ObservedState::Stopped, SOON)
            .await;
        assert_eq!(status.process, None);
        assert_eq!(place.vm(vm).record.unwrap().value.power(), PowerWanted::Off);
        assert!(test_kill_process(pid_of(&running)).is_err(), "its process is left");

        place
            .want(vm, |record| record.with_power(PowerWanted::On).unwrap())
            .await;
        place.until_running(vm).await;
        place.want(vm, |record| record.delete().unwrap()).await;
        place
            .until_state(vm, |state| *state == ObservedState::Stopped, SOON)
            .await;
        assert!(place.qemus().is_empty());
        agent.stop().await;
    });
}

#[test]
fn a_guest_that_starts_paused_waits_to_be_resumed_also_through_another_server() {
    at_a_place(async |place| {
        let agent = place.agent().await;
        let (vm, create) = place
            .create(small_with("held", |fields| fields.start_paused = true))
            .await;
        let created = place.until_ended(create, SOON).await;
        assert_eq!(
            (created.state, created.step.as_str()),
            (OperationState::Done, "its guest is paused")
        );
        let is_held = |state: &ObservedState| {
            matches!(
                state,
                ObservedState::Paused {
                    cause: PauseCause::Asked
                }
            )
        };
        let held = place.until_state(vm, is_held, SOON).await;
        agent.stop().await;

        let agent = place.agent().await;
        let resume = place.ask(vm, OperationKind::Resume, SOON).await;
        assert_eq!(place.until_ended(resume, SOON).await.state, OperationState::Done);
        let running = place.until_running(vm).await;
        assert_eq!((running.process, running.attempt), (held.process, held.attempt));
        agent.stop().await;
    });
}

#[test]
fn a_guest_that_does_not_power_off_fails_the_stop_and_runs_on() {
    at_a_place(async |place| {
        let agent = place.agent().await;
        let (vm, _) = place.create(small("deaf")).await;
        let running = place.until_running(vm).await;
        let stop = place
            .ask(vm, OperationKind::Stop { force: false }, Duration::from_secs(3))
            .await;
        let ended = place.until_ended(stop, SOON).await;
        let OperationState::Failed(error) = ended.state else {
            panic!("{ended:?}")
        };
        assert_eq!(error.reason, "GUEST_DID_NOT_POWER_OFF", "{error}");
        let is_on = |view: &plasmavmc_core::view::ClusterView| {
            let vm = view.vms.get(&vm)?;
            (vm.record.as_ref()?.value.power() == PowerWanted::On).then_some(())
        };
        place.until("wanted on", SOON, is_on).await;
        let status = place.until_running(vm).await;
        assert_eq!(status.process, running.process);
        agent.stop().await;
    });
}

#[test]
fn a_silent_agent_fails_the_stop_at_once_and_changes_nothing() {
    at_a_place(async |place| {
        let agent = place.agent().await;
        let spec = small_with("mute", |fields| fields.agent = plasmavmc_types::AgentPolicy::Required);
        let (vm, _) = place.create(spec).await;
        place.until_running(vm).await;
        let begun = std::time::Instant::now();
        let stop = place
            .ask(vm, OperationKind::Stop { force: false }, Duration::from_secs(60))
            .await;
        let ended = place.until_ended(stop, SOON).await;
        let OperationState::Failed(error) = ended.state else {
            panic!("{ended:?}")
        };
        assert_eq!((error.code, error.reason.as_str()), (9, "AGENT_SILENT"), "{error}");
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "it took {:?}",
            begun.elapsed()
        );
        let record = place.vm(vm).record.unwrap().value;
        assert_eq!((record.power(), record.generation().get()), (PowerWanted::On, 1));
        agent.stop().await;
    });
}

#[test]
fn volumes_that_are_missing_are_made_and_kept() {
    at_a_place(async |place| {
        let agent = place.agent().await;
        let base = place.pool().join("base");
        let made = std::process::Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(&base)
            .arg("16M")
            .status();
        assert!(made.unwrap().success());
        let mut root = Disk::new(Label::new("root").unwrap(), volume("vm-root"), 32);
        root.backing = vec![BackingImage {
            location: volume("base"),
            format: DiskFormat::Qcow2,
        }];
        let mut data = Disk::new(Label::new("data").unwrap(), volume("vm-data"), 8);
        data.format = DiskFormat::Raw;
        let spec = small_with("disks", |fields| fields.disks = vec![root, data]);
        let (vm, _) = place.create(spec).await;
        place.until_running(vm).await;
        assert!(place.pool().join("vm-root").is_file());
        assert_eq!(place.pool().join("vm-data").metadata().unwrap().len(), 8 << 20);

        let stop = place.ask(vm, OperationKind::Stop { force: true }, SOON).await;
        place.until_ended(stop, SOON).await;
        std::fs::write(place.pool().join("vm-data"), vec![7; 8 << 20]).unwrap();
        place
            .want(vm, |record| record.with_power(PowerWanted::On).unwrap())
            .await;
        place.until_running(vm).await;
        assert_eq!(
            std::fs::read(place.pool().join("vm-data")).unwrap()[0],
            7,
            "a disk was made anew"
        );
        agent.stop().await;
    });
}

#[test]
fn a_guest_with_an_agent_is_ready_restarted_rebooted_and_stopped_gracefully() {
    at_a_place(async |place| {
        let agent = place.agent().await;
        let (vm, _) = place.create(micro("guest")).await;
        let ready = |view: &plasmavmc_core::view::ClusterView| {
            let status = &view.vms.get(&vm)?.status.as_ref()?.value;
            (status.agent == AgentHealth::Responding).then(|| status.clone())
        };
        let first = place.until("ready", BOOT, ready).await;
        let mut console = agent.consoles().attach(vm).unwrap();
        let Some(Watched::Bytes(history)) = console.next().await else {
            panic!("the console shows nothing")
        };
        assert!(!history.is_empty());

        let reboot = place.ask(vm, OperationKind::Reboot, BOOT).await;
        let ended = place.until_ended(reboot, BOOT).await;
        assert_eq!(ended.state, OperationState::Done, "{ended:?}");
        place.until("ready again", BOOT, ready).await;

        let restart = place.ask(vm, OperationKind::Restart { force: false }, BOOT).await;
        let ended = place.until_ended(restart, BOOT).await;
        assert_eq!(ended.state, OperationState::Done, "{ended:?}");
        let second = place.status(vm).unwrap().value;
        assert_ne!(first.process, second.process);
        assert_eq!(
            second.agent,
            AgentHealth::Responding,
            "it is ready when the restart is done"
        );

        let stop = place.ask(vm, OperationKind::Stop { force: false }, BOOT).await;
        let ended = place.until_ended(stop, BOOT).await;
        assert_eq!(ended.state, OperationState::Done, "{ended:?}");
        place
            .until_state(vm, |state| *state == ObservedState::Stopped, SOON)
            .await;
        assert!(place.qemus().is_empty());
        agent.stop().await;
    });
}
