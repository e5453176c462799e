//! What a machine is, in the words that decisions are made in.

use std::path::Path;

use plasmavmc_core::reconcile::{Ended, Machine as Seen, Observed};
use plasmavmc_guard::wire::ExitReason;
use plasmavmc_kvm::machine::{Cause, DiskTrouble, Machine, MachineState, Phase};
use plasmavmc_types::{AgentHealth, Condition, Label, PauseCause, QemuProcess};

/// What QEMU says when a signal told it to end; it ends with code 0 then, too.
const ENDED_BY_SIGNAL: &str = "terminating on signal";
const MAX_TEXT_BYTES: usize = 400;

/// A machine as it is now.
pub fn observe(machine: &Machine, process: Option<QemuProcess>, agent: AgentHealth, held_back: bool) -> Seen {
    let state = machine.state().borrow().clone();
    let observed = match state.phase {
        // It answers nobody, so its phase is what it was.
        phase if state.frozen && !matches!(phase, Phase::Ending | Phase::Gone(_)) => Observed::Frozen,
        // To everybody else it is as paused as it can be.
        Phase::Prepared if held_back => Observed::Paused(PauseCause::Asked),
        phase => observed(phase),
    };
    let is_gone = matches!(observed, Observed::Gone(_));
    Seen {
        attempt: machine.key().attempt,
        observed,
        leased: state.leased,
        process: process.filter(|_| !is_gone),
        qemu: (!is_gone).then(|| state.qemu.clone()),
        agent: if is_gone { AgentHealth::NotAsked } else { agent },
        conditions: conditions(&state),
        last_words: end_of(&state.last_words),
    }
}

/// A process that ended while no server looked.
pub fn ended_unseen(attempt: plasmavmc_types::AttemptId, exit: ExitReason, last_words: &str) -> Seen {
    Seen {
        attempt,
        observed: Observed::Gone(ended_as(exit, last_words)),
        leased: false,
        process: None,
        qemu: None,
        agent: AgentHealth::NotAsked,
        conditions: Vec::new(),
        last_words: end_of(last_words),
    }
}

fn observed(phase: Phase) -> Observed {
    match phase {
        Phase::Prepared => Observed::Prepared,
        Phase::Running => Observed::Running,
        Phase::Paused(cause) => Observed::Paused(cause),
        Phase::Stopping => Observed::Stopping,
        Phase::Rebooting => Observed::Rebooting,
        Phase::PoweredOff(_) => Observed::PoweredOff,
        Phase::Ending => Observed::Ending,
        Phase::Unreachable => Observed::Unreachable,
        Phase::Gone(cause) => Observed::Gone(ended(cause)),
    }
}

fn ended(cause: Cause) -> Ended {
    match cause {
        Cause::GuestPoweredOff => Ended::GuestPoweredOff,
        Cause::Stopped => Ended::Stopped,
        Cause::Killed => Ended::Killed,
        Cause::OutOfMemory => Ended::OutOfMemory,
        Cause::Signal { signal } => Ended::Signal(signal),
        Cause::Exited { code } => Ended::Exited(code),
        Cause::Unknown => Ended::Unseen,
    }
}

/// Nobody heard what the guest did. A QEMU that ended well without a signal was told to quit, and that is said
/// only to one whose guest has powered off.
fn ended_as(exit: ExitReason, last_words: &str) -> Ended {
    match exit {
        ExitReason::Exited { code: 0 } if !last_words.contains(ENDED_BY_SIGNAL) => Ended::GuestPoweredOff,
        ExitReason::Exited { code } => Ended::Exited(code),
        ExitReason::Signalled { signal, .. } => Ended::Signal(signal),
        ExitReason::KilledOnOrder | ExitReason::Superseded | ExitReason::Unknown { kill_ordered: true } => {
            Ended::Killed
        }
        ExitReason::OutOfMemory => Ended::OutOfMemory,
        ExitReason::Unknown { kill_ordered: false } => Ended::Unseen,
    }
}

fn conditions(state: &MachineState) -> Vec<Condition> {
    let trouble = state.disk_trouble.iter().map(disk_condition);
    trouble.flatten().collect()
}

fn disk_condition(trouble: &DiskTrouble) -> Option<Condition> {
    let (name, text) = match trouble.is_full {
        true => (
            "disk-full",
            format!("no room is left for {}: make room, then resume the VM", trouble.device),
        ),
        false => (
            "disk-error",
            format!("{} answered with an error: {}", trouble.device, trouble.reason),
        ),
    };
    let name = Label::new(name).ok()?;
    Some(Condition { name, text })
}

/// The end, where the reason stands.
pub fn end_of(text: &str) -> String {
    let mut start = text.len().saturating_sub(MAX_TEXT_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

/// The process of a machine, named so that no later one is taken for it.
pub fn process_of(pid: i32) -> Option<QemuProcess> {
    process_in(Path::new("/proc"), pid)
}

fn process_in(proc: &Path, pid: i32) -> Option<QemuProcess> {
    let stat = std::fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    // The second field is the program's name in parentheses, and may contain anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    let start_time_ticks = after_name.split_ascii_whitespace().nth(22 - 3)?.parse().ok()?;
    Some(QemuProcess {
        pid: u32::try_from(pid).ok()?,
        start_time_ticks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_end_is_told_from_one_by_signal() {
        let check = |exit, words: &str, expected| assert_eq!(ended_as(exit, words), expected, "{exit:?} {words}");
        let code = |code| ExitReason::Exited { code };
        check(code(0), "", Ended::GuestPoweredOff);
        check(
            code(0),
            "qemu-system-x86_64: terminating on signal 15 from pid 1 (init)",
            Ended::Exited(0),
        );
        check(code(1), "", Ended::Exited(1));
        check(ExitReason::KilledOnOrder, "", Ended::Killed);
        check(ExitReason::Unknown { kill_ordered: false }, "", Ended::Unseen);
        let crashed = ExitReason::Signalled {
            signal: 11,
            core_dumped: true,
        };
        check(crashed, "", Ended::Signal(11));
    }

    #[test]
    fn a_process_is_named_by_pid_and_start() {
        let own = process_of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert_eq!(own.pid, std::process::id());
        assert!(own.start_time_ticks > 0);
        let proc = tempfile::tempdir().unwrap();
        std::fs::create_dir(proc.path().join("7")).unwrap();
        let fields: Vec<String> = (3..30).map(|number| number.to_string()).collect();
        std::fs::write(proc.path().join("7/stat"), format!("7 (a) b) {}", fields.join(" "))).unwrap();
        assert_eq!(process_in(proc.path(), 7).unwrap().start_time_ticks, 22);
        assert_eq!(process_in(proc.path(), 8), None);
    }

    #[test]
    fn of_many_words_the_last_are_kept() {
        assert_eq!(end_of("short"), "short");
        assert!(end_of(&format!("{}the end", "ä".repeat(500))).ends_with("the end"));
    }
}
