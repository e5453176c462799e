use proptest::prelude::*;

use super::*;

fn reported(state: QemuRunState) -> Signal {
    Signal::Reported(state)
}

/// Follows signals one after the other.
fn check(from: Phase, steps: &[(Signal, Phase)]) {
    let mut phase = from;
    for (signal, expected) in steps {
        let next = follow(phase, signal);
        assert_eq!(next, *expected, "{phase:?} and {signal:?}");
        phase = next;
    }
}

#[test]
fn a_life_from_start_to_graceful_stop() {
    check(
        Phase::Prepared,
        &[
            (Signal::Began(Action::Cont), Phase::Prepared),
            (reported(QemuRunState::Running), Phase::Running),
            (reported(QemuRunState::Paused), Phase::Paused(PauseCause::Asked)),
            (reported(QemuRunState::Running), Phase::Running),
            (Signal::Began(Action::Stop), Phase::Stopping),
            (reported(QemuRunState::Running), Phase::Stopping),
            (
                reported(QemuRunState::Shutdown),
                Phase::PoweredOff(PoweredOffBy::Request),
            ),
            (Signal::MonitorLost, Phase::PoweredOff(PoweredOffBy::Request)),
            (
                Signal::ProcessEnded(ExitReason::Exited { code: 0 }),
                Phase::Gone(Cause::Stopped),
            ),
            (reported(QemuRunState::Running), Phase::Gone(Cause::Stopped)),
        ],
    );
}

#[test]
fn a_guest_that_powers_itself_off_is_told_from_a_killed_qemu() {
    check(
        Phase::Running,
        &[
            (reported(QemuRunState::Shutdown), Phase::PoweredOff(PoweredOffBy::Guest)),
            (Signal::Began(Action::Finish), Phase::PoweredOff(PoweredOffBy::Guest)),
            (
                Signal::ProcessEnded(ExitReason::KilledOnOrder),
                Phase::Gone(Cause::GuestPoweredOff),
            ),
        ],
    );
    let signalled = ExitReason::Signalled {
        signal: 9,
        core_dumped: false,
    };
    check(
        Phase::Running,
        &[(
            Signal::ProcessEnded(signalled),
            Phase::Gone(Cause::Signal { signal: 9 }),
        )],
    );
}

#[test]
fn a_reboot_passes_through_power_off_and_is_no_power_off() {
    check(
        Phase::Running,
        &[
            (Signal::Began(Action::Reboot), Phase::Rebooting),
            (reported(QemuRunState::Shutdown), Phase::Rebooting),
            (reported(QemuRunState::PreLaunch), Phase::Rebooting),
            (reported(QemuRunState::Running), Phase::Rebooting),
            (Signal::Ended(Action::Reboot, QemuRunState::Running), Phase::Running),
        ],
    );
}

#[test]
fn a_paused_vm_that_is_reset_waits_for_a_resume_and_is_not_prepared_again() {
    let paused = Phase::Paused(PauseCause::Asked);
    check(
        paused,
        &[
            (Signal::Began(Action::Reset), paused),
            (reported(QemuRunState::PreLaunch), paused),
            (Signal::Ended(Action::Reset, QemuRunState::PreLaunch), paused),
            (reported(QemuRunState::Running), Phase::Running),
        ],
    );
}

#[test]
fn an_action_that_failed_leaves_what_qemu_says() {
    check(
        Phase::Running,
        &[
            (Signal::Began(Action::Stop), Phase::Stopping),
            (Signal::Ended(Action::Stop, QemuRunState::Running), Phase::Running),
        ],
    );
}

#[test]
fn a_silent_monitor_is_unreachable_and_never_gone() {
    check(
        Phase::Running,
        &[
            (Signal::MonitorLost, Phase::Unreachable),
            (reported(QemuRunState::Running), Phase::Running),
        ],
    );
}

#[test]
fn trouble_has_its_cause() {
    for (state, cause) in [
        (QemuRunState::IoError, PauseCause::IoError),
        (QemuRunState::GuestPanicked, PauseCause::GuestPanicked),
        (QemuRunState::Watchdog, PauseCause::Watchdog),
    ] {
        check(Phase::Running, &[(reported(state), Phase::Paused(cause))]);
    }
}

#[test]
fn what_may_be_asked_when() {
    use Action::*;
    let all = [
        Cont, Stop, Reboot, Reset, Pause, Resume, Devices, Screenshot, Finish, Kill,
    ];
    let table: &[(Phase, &[Action])] = &[
        (Phase::Prepared, &[Cont, Devices, Screenshot, Kill]),
        (Phase::Running, &[Stop, Reboot, Reset, Pause, Devices, Screenshot, Kill]),
        (
            Phase::Paused(PauseCause::Asked),
            &[Reset, Resume, Devices, Screenshot, Kill],
        ),
        (
            Phase::Paused(PauseCause::GuestPanicked),
            &[Reset, Devices, Screenshot, Kill],
        ),
        (Phase::Stopping, &[Kill]),
        (Phase::Rebooting, &[Kill]),
        (Phase::Ending, &[Kill]),
        (Phase::PoweredOff(PoweredOffBy::Guest), &[Finish, Kill]),
        (Phase::Unreachable, &[Kill]),
        (Phase::Gone(Cause::Unknown), &[]),
    ];
    for (phase, allowed) in table {
        for action in all {
            assert_eq!(
                admit(*phase, action).is_ok(),
                allowed.contains(&action),
                "{phase:?} {action:?}"
            );
        }
    }
}

fn any_state() -> impl Strategy<Value = QemuRunState> {
    prop::sample::select(vec![
        QemuRunState::PreLaunch,
        QemuRunState::Running,
        QemuRunState::Paused,
        QemuRunState::Shutdown,
        QemuRunState::IoError,
        QemuRunState::GuestPanicked,
        QemuRunState::Other("levitating".to_owned()),
    ])
}

fn any_signal() -> impl Strategy<Value = Signal> {
    let action = prop::sample::select(vec![
        Action::Stop,
        Action::Reboot,
        Action::Kill,
        Action::Pause,
        Action::Finish,
    ]);
    prop_oneof![
        8 => any_state().prop_map(Signal::Reported),
        3 => action.clone().prop_map(Signal::Began),
        3 => (action, any_state()).prop_map(|(action, state)| Signal::Ended(action, state)),
        2 => Just(Signal::MonitorLost),
        1 => Just(Signal::ProcessEnded(ExitReason::Exited { code: 0 })),
    ]
}

proptest! {
    #[test]
    fn only_the_end_of_the_process_makes_a_machine_gone_and_it_stays_so(
        signals in prop::collection::vec(any_signal(), 0..40),
    ) {
        let mut phase = Phase::Prepared;
        let mut ended = false;
        for signal in signals {
            let next = follow(phase, &signal);
            ended |= matches!(signal, Signal::ProcessEnded(_));
            prop_assert_eq!(next.is_gone(), ended);
            if phase.is_gone() {
                prop_assert_eq!(next, phase);
            }
            let says_running = matches!(
                &signal,
                Signal::Reported(QemuRunState::Running) | Signal::Ended(_, QemuRunState::Running)
            );
            if next == Phase::Running && phase != Phase::Running {
                prop_assert!(says_running, "running without QEMU saying so: {:?}", signal);
            }
            phase = next;
        }
    }
}
