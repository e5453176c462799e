//! A life in order: boot, work, reboot, stop, power-off.

use std::time::Duration;

use plasmavmc_kvm::machine::{Cause, MachineError, NotNow, Phase};
use plasmavmc_kvm::qga::ExecEnd;
use plasmavmc_tests::vms::{boot_id, has_booted, micro};
use plasmavmc_types::{AgentPolicy, PauseCause};
use rustix::process::{Pid, Signal, kill_process};

use crate::{SOON, STOP, at_a_place, cause, exec, until, words};

#[test]
fn a_guest_boots_works_reboots_and_stops() {
    at_a_place(async |place| {
        let machine = place.launch(micro("life", "", |_| {})?).await?;
        assert_eq!(machine.state().borrow().phase, Phase::Prepared);
        let refused = machine.stop(SOON).await.unwrap_err();
        assert!(
            matches!(
                refused,
                MachineError::NotNow {
                    reason: NotNow::NotStarted,
                    ..
                }
            ),
            "{refused}"
        );
        machine.cont().await?;
        has_booted(&machine).await?;
        assert_eq!(machine.state().borrow().phase, Phase::Running);

        let agent = machine.agent();
        let outcome = agent
            .exec(&exec("/bin/sh", &["-c", "echo out; echo err >&2; exit 3"]), SOON)
            .await?;
        assert_eq!(
            (outcome.end, outcome.stdout.bytes),
            (ExecEnd::Exited(3), b"out\n".to_vec())
        );
        let bytes: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
        agent.write_file("/run/blob", &bytes, SOON).await?;
        assert_eq!(agent.read_file("/run/blob", 1 << 20, SOON).await?.bytes, bytes);

        machine.pause().await?;
        assert_eq!(machine.state().borrow().phase, Phase::Paused(PauseCause::Asked));
        let refused = machine.stop(SOON).await.unwrap_err();
        assert!(
            matches!(
                refused,
                MachineError::NotNow {
                    reason: NotNow::Paused,
                    ..
                }
            ),
            "{refused}"
        );
        machine.resume().await?;
        assert_eq!(machine.state().borrow().phase, Phase::Running);

        let first = boot_id(&machine).await?;
        let pid = machine.state().borrow().pid;
        machine.reboot(STOP).await?;
        has_booted(&machine).await?;
        assert_ne!(boot_id(&machine).await?, first, "it has not booted anew");
        assert_eq!(machine.state().borrow().pid, pid, "a reboot keeps the process");

        machine.stop(STOP).await?;
        assert_eq!(cause(&machine), Some(Cause::Stopped));
        let gone = machine.kill().await.unwrap_err();
        assert!(
            matches!(
                gone,
                MachineError::NotNow {
                    reason: NotNow::Gone,
                    ..
                }
            ),
            "{gone}"
        );
        Ok(())
    });
}

#[test]
fn a_guest_that_powers_itself_off_is_told_from_a_qemu_that_dies() {
    at_a_place(async |place| {
        let off = place.launch(micro("off", "", |_| {})?).await?;
        let shot = place.launch(micro("shot", "", |_| {})?).await?;
        off.cont().await?;
        has_booted(&off).await?;
        // The answer may be lost with the guest.
        let _ = words(&off, &["poweroff"]).await;
        until(&off, "gone", SOON, |state| state.phase.is_gone()).await;
        assert_eq!(cause(&off), Some(Cause::GuestPoweredOff));

        shot.cont().await?;
        let pid = Pid::from_raw(shot.state().borrow().pid).unwrap();
        kill_process(pid, Signal::KILL)?;
        until(&shot, "gone", SOON, |state| state.phase.is_gone()).await;
        assert_eq!(cause(&shot), Some(Cause::Signal { signal: 9 }));
        Ok(())
    });
}

#[test]
fn a_reset_of_a_paused_vm_leaves_it_paused_and_it_boots_when_it_is_resumed() {
    at_a_place(async |place| {
        let machine = place.launch(micro("held", "", |_| {})?).await?;
        machine.cont().await?;
        has_booted(&machine).await?;
        let first = boot_id(&machine).await?;
        machine.pause().await?;
        machine.reset().await?;
        let state = until(&machine, "reset", SOON, |state| state.resets > 0).await;
        assert_eq!(state.phase, Phase::Paused(PauseCause::Asked));
        machine.resume().await?;
        has_booted(&machine).await?;
        let second = boot_id(&machine).await?;
        assert_ne!(second, first, "it has not booted anew");

        // Who is not paused goes on at once.
        let resets = machine.state().borrow().resets;
        machine.reset().await?;
        until(&machine, "reset", SOON, |state| state.resets > resets).await;
        assert_eq!(machine.state().borrow().phase, Phase::Running);
        has_booted(&machine).await?;
        assert_ne!(boot_id(&machine).await?, second, "it has not booted anew");
        machine.kill().await?;
        Ok(())
    });
}

#[test]
fn a_silent_agent_fails_graceful_actions_fast_and_a_kill_works() {
    at_a_place(async |place| {
        let machine = place.launch(micro("mute", "", |_| {})?).await?;
        machine.cont().await?;
        has_booted(&machine).await?;
        words(&machine, &["mute"]).await?;
        // It falls silent a moment after it has said so.
        let deadline = std::time::Instant::now() + SOON;
        while machine.agent().health(Duration::from_secs(3)).await.is_ok() {
            assert!(std::time::Instant::now() < deadline, "the agent does not fall silent");
        }
        let begun = std::time::Instant::now();
        for attempt in [machine.stop(STOP).await, machine.reboot(STOP).await] {
            let error = attempt.unwrap_err();
            assert!(matches!(error, MachineError::AgentSilent { .. }), "{error}");
        }
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "it took {:?}",
            begun.elapsed()
        );
        assert_eq!(machine.state().borrow().phase, Phase::Running);
        machine.kill().await?;
        assert_eq!(cause(&machine), Some(Cause::Killed));
        Ok(())
    });
}

#[test]
fn without_an_agent_by_policy_the_acpi_button_is_pressed() {
    at_a_place(async |place| {
        let machine = place
            .launch(micro("acpi", "", |fields| fields.agent = AgentPolicy::None)?)
            .await?;
        machine.cont().await?;
        has_booted(&machine).await?;
        machine.stop(STOP).await?;
        assert_eq!(cause(&machine), Some(Cause::Stopped));
        Ok(())
    });
}
