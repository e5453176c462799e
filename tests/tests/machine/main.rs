//! Machines with real guests: what they do, and what is left when they are gone.

mod bridges;
mod debian;
mod devices;
mod freeze;
mod life;
mod logs;
mod starts;
mod trouble;
mod user;

use std::future::Future;
use std::time::Duration;

use plasmavmc_kvm::machine::{Cause, Machine, MachineState, Phase};
use plasmavmc_kvm::qga::{Exec, ExecEnd};
use plasmavmc_tests::vms::Place;

pub const SOON: Duration = Duration::from_secs(20);
pub const STOP: Duration = Duration::from_secs(120);

/// Runs a test at a place of its own, and sees that nothing is left of what it started.
pub fn at_a_place<F: Future<Output = anyhow::Result<()>>>(test: impl FnOnce(std::sync::Arc<Place>) -> F) {
    in_runtime(async { at_this_place(Place::new().await.unwrap(), test).await });
}

pub fn in_runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// The same, at a place that was made for it.
pub async fn at_this_place<F: Future<Output = anyhow::Result<()>>>(
    place: Place,
    test: impl FnOnce(std::sync::Arc<Place>) -> F,
) {
    let place = std::sync::Arc::new(place);
    test(std::sync::Arc::clone(&place)).await.unwrap();
    assert_eq!(place.qemus(), [], "a QEMU is left");
    let folders = std::fs::read_dir(&place.host().vms).unwrap();
    let left: Vec<_> = folders.map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "runtime folders are left: {left:?}");
    assert_eq!(
        place.host().keeper.list().await.unwrap(),
        [],
        "the guard holds something"
    );
}

/// Waits until the machine is as wanted.
pub async fn until(
    machine: &Machine,
    what: &str,
    within: Duration,
    wanted: impl Fn(&MachineState) -> bool,
) -> MachineState {
    let mut state = machine.state();
    let seen = tokio::time::timeout(within, state.wait_for(|state| wanted(state))).await;
    match seen {
        Ok(Ok(state)) => state.clone(),
        _ => panic!("not {what} within {within:?}: {:?}", machine.state().borrow()),
    }
}

pub fn exec(path: &str, args: &[&str]) -> Exec {
    Exec::new(path).args(args.iter().copied())
}

pub async fn words(machine: &Machine, args: &[&str]) -> anyhow::Result<String> {
    let outcome = machine.agent().exec(&exec("/bin/micro", args), SOON).await?;
    anyhow::ensure!(outcome.end == ExecEnd::Exited(0), "micro {args:?}: {outcome:?}");
    Ok(String::from_utf8(outcome.stdout.bytes)?)
}

pub fn cause(machine: &Machine) -> Option<Cause> {
    match machine.state().borrow().phase {
        Phase::Gone(cause) => Some(cause),
        _ => None,
    }
}
