//! The launcher's end: a short life in one straight line, from the order to the program.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use super::{Assignment, Failure, FromLauncher, Prepared, ToLauncher, descriptors, steps};
use crate::wire::socket::{self, Received};
use crate::wire::{self, SpawnOrder, Step};

type Outcome<T> = Result<T, Failure>;

/// A guard that talks to us in a way we cannot read, or does not talk at all.
const NO_ORDER: u8 = 2;
/// What was reported to the guard.
const FAILED: u8 = 1;

/// Becomes the ordered program. Returns only if that did not happen.
pub fn run() -> ExitCode {
    // The guard may hold signals back while it replaces its program; the program must not.
    if crate::sys::let_signals_through().is_err() {
        return ExitCode::from(NO_ORDER);
    }
    // Out of the way of every number an order may give, and closed by exec.
    let stdin = std::io::stdin();
    let Ok(guard) = rustix::io::fcntl_dupfd_cloexec(&stdin, descriptors::OWN_LOWEST) else {
        return ExitCode::from(NO_ORDER);
    };
    let Some((assignment, passed)) = receive_assignment(&guard) else {
        return ExitCode::from(NO_ORDER);
    };
    let Err(failure) = become_program(&guard, &assignment, passed) else {
        // The guard is gone: what it did not order is not executed.
        return ExitCode::SUCCESS;
    };
    tell(&guard, &FromLauncher::Failed(failure));
    ExitCode::from(FAILED)
}

fn receive_assignment(guard: &OwnedFd) -> Option<(Assignment, Vec<OwnedFd>)> {
    let Ok(Received::Packet { bytes, descriptors }) = socket::receive_waiting(guard, wire::MAX_DESCRIPTORS) else {
        return None;
    };
    match wire::decode(&bytes) {
        Ok(ToLauncher::Prepare(assignment)) => Some((*assignment, descriptors)),
        Ok(ToLauncher::Go) | Err(_) => None,
    }
}

/// `Ok` when the guard went away before it said "go".
fn become_program(guard: &OwnedFd, assignment: &Assignment, passed: Vec<OwnedFd>) -> Outcome<()> {
    let order = &assignment.order;
    // Held until exec: dropping them would close them.
    let (_placed, prepared) = prepare(assignment, passed)?;
    tell(guard, &FromLauncher::Prepared(prepared));
    if !told_to_go(guard) {
        return Ok(());
    }
    // Last, because a change of user clears it, and because a launcher that waits has to end with its guard,
    // not to be stopped with it.
    at(
        Step::DeathSignal,
        steps::set_death_signal(order.death_signal, assignment.guard_pid),
    )?;
    Err(execute(order))
}

fn prepare(assignment: &Assignment, passed: Vec<OwnedFd>) -> Outcome<(Vec<OwnedFd>, Prepared)> {
    let order = &assignment.order;
    let mut found = Prepared::default();
    at(Step::Session, steps::open_session())?;
    at(Step::Limits, steps::set_limits(order, assignment.limits))?;
    steps::set_oom_score(order.oom_score_adj, &mut found.notes);
    if let Some(cgroup) = &order.cgroup {
        let mark = at(Step::Cgroup, steps::join_cgroup(cgroup, &mut found.notes))?;
        found.cgroup = Some(mark);
    }
    at(Step::WorkingFolder, std::env::set_current_dir(&order.working_folder))?;
    let mut passed = passed.into_iter();
    let output = at(Step::Output, steps::open_output(order, &mut passed))?;
    let placed = at(
        Step::Descriptors,
        descriptors::place(passed.collect(), &order.descriptors),
    )?;
    at(Step::Descriptors, steps::redirect(&output))?;
    at(Step::Owner, steps::become_owner(order.owner.as_ref()))?;
    Ok((placed, found))
}

fn at<T>(step: Step, outcome: io::Result<T>) -> Outcome<T> {
    outcome.map_err(|error| Failure {
        step,
        errno: error.raw_os_error(),
        problem: error.to_string(),
    })
}

fn tell(guard: &OwnedFd, message: &FromLauncher) {
    // A guard that cannot be told is gone; the next thing read from it says so.
    if let Ok(packet) = wire::encode(message) {
        let _ = socket::send(guard, &packet, &[]);
    }
}

fn told_to_go(guard: &OwnedFd) -> bool {
    let Ok(Received::Packet { bytes, .. }) = socket::receive_waiting(guard, 0) else {
        return false;
    };
    matches!(wire::decode(&bytes), Ok(ToLauncher::Go))
}

fn execute(order: &SpawnOrder) -> Failure {
    let error = Command::new(&order.program)
        .args(&order.arguments)
        .env_clear()
        .envs(&order.environment)
        .exec();
    Failure {
        step: Step::Execute,
        errno: error.raw_os_error(),
        problem: format!("{}: {error}", order.program),
    }
}
