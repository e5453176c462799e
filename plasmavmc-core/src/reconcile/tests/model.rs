//! Whole lives at random: two hosts that do what `reconcile` says, a controller that does what `plan` says, clients,
//! and all that can go wrong between them.
//!
//! ```text
//!   events (proptest) --> World: the store, and two Sites: QEMU, and a server that knows less than there is
//!                           after each: the rules that must never be broken
//!   then calm: everything is delivered and works --> it comes to rest, and is as it was wanted
//! ```
//! A server sees the store late, its writes arrive late or twice removed from their answers, it dies in the middle of
//! everything. What it decides on is only what it was told; what is checked is the truth.

mod acts;
mod calm;
mod outside;
mod site;
mod world;

use plasmavmc_types::{AgentPolicy, HostMode, Leaving, OperationKind, RestartPolicy};
use proptest::prelude::*;

use world::World;

/// Something that happens. The numbers choose among what is possible at that moment.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A moment in which everything works on a host: what is sent arrives, what is done succeeds.
    Well(usize),
    /// The server of a host looks at what it knows, and begins what follows.
    Decide(usize),
    /// Its view becomes what is stored.
    Hear(usize),
    /// A transaction on its way reaches the store.
    Arrive(usize),
    /// Its sender is told, or is told that nobody knows.
    Answer(usize, bool),
    /// What is done with a machine ends, well or in some other way.
    Work(usize, u8),
    /// The server notices what became of its machine.
    Notice(usize),
    /// What could not be taken over is looked at again.
    LookAgain(usize),
    /// A QEMU dies, or its guest does something.
    Guest(usize, u8),
    /// kill -9 of a server: what was on its way may still arrive.
    Crash(usize, u8),
    /// A server starts; what runs is taken over, or left alone.
    Start(usize, bool),
    /// The session of a host is ended.
    Fence(usize),
    /// The server notices that, and opens the next one.
    Open(usize),
    Mode(usize, HostMode),
    /// A host is about to be switched off; or not any more.
    Depart(usize, Option<Leaving>),
    /// A client asks for something.
    Call(OperationKind, bool),
    Cancel,
    /// The controller looks and acts.
    Control,
    /// A transaction whose sender has gone, or given up, arrives after all.
    Late,
    /// The VM is moved though its host has not said that nothing runs.
    Force,
    Pass(u64),
}

const KINDS: [OperationKind; 9] = [
    OperationKind::Start,
    OperationKind::Stop { force: false },
    OperationKind::Stop { force: true },
    OperationKind::Reboot,
    OperationKind::Restart { force: false },
    OperationKind::Restart { force: true },
    OperationKind::Reset,
    OperationKind::Pause,
    OperationKind::Resume,
];

fn event(is_forced: bool) -> impl Strategy<Value = Event> {
    let site = || prop_oneof![4 => Just(0usize), 1 => Just(1usize)];
    let mode = prop::sample::select(vec![HostMode::Active, HostMode::Draining, HostMode::Maintenance]);
    let kind = || {
        let usual = prop::sample::select(KINDS.to_vec());
        prop_oneof![12 => usual, 1 => Just(OperationKind::Delete)]
    };
    prop_oneof![
        90 => site().prop_map(Event::Well),
        30 => site().prop_map(Event::Decide),
        20 => site().prop_map(Event::Hear),
        16 => site().prop_map(Event::Arrive),
        16 => (site(), prop::bool::weighted(0.8)).prop_map(|(site, is_known)| Event::Answer(site, is_known)),
        24 => (site(), any::<u8>()).prop_map(|(site, how)| Event::Work(site, how)),
        12 => site().prop_map(Event::Notice),
        4 => site().prop_map(Event::LookAgain),
        8 => (site(), any::<u8>()).prop_map(|(site, what)| Event::Guest(site, what)),
        4 => (site(), any::<u8>()).prop_map(|(site, how)| Event::Crash(site, how)),
        5 => (site(), any::<bool>()).prop_map(|(site, is_whole)| Event::Start(site, is_whole)),
        1 => site().prop_map(Event::Fence),
        4 => site().prop_map(Event::Open),
        3 => (site(), mode).prop_map(|(site, mode)| Event::Mode(site, mode)),
        3 => (site(), prop::sample::select(vec![None, Some(Leaving::Move), Some(Leaving::Stay)]))
            .prop_map(|(site, leaving)| Event::Depart(site, leaving)),
        14 => (kind(), any::<bool>()).prop_map(|(kind, force)| Event::Call(kind, force)),
        2 => Just(Event::Cancel),
        10 => Just(Event::Control),
        4 => Just(Event::Late),
        2 => Just(if is_forced { Event::Force } else { Event::Control }),
        8 => prop_oneof![Just(100), Just(2500), Just(40_000)].prop_map(Event::Pass),
    ]
}

fn policy() -> impl Strategy<Value = (AgentPolicy, RestartPolicy)> {
    let agent = prop::sample::select(vec![AgentPolicy::Required, AgentPolicy::Optional, AgentPolicy::None]);
    let tries = RestartPolicy::OnCrash {
        tries: 2,
        window_s: 600,
    };
    (agent, prop::sample::select(vec![tries, RestartPolicy::Never]))
}

fn live(policy: (AgentPolicy, RestartPolicy), events: &[Event]) -> World {
    let mut world = World::new(policy.0, policy.1);
    for event in events {
        world.happens(*event);
        world.check();
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_runs_twice_and_everything_comes_to_rest(
        policy in policy(), events in prop::collection::vec(event(false), 0..240),
    ) {
        let mut world = live(policy, &events);
        world.calm_down();
        world.check_rest();
    }

    #[test]
    fn what_was_moved_by_force_is_killed_and_comes_to_rest(
        policy in policy(), events in prop::collection::vec(event(true), 0..200),
    ) {
        let mut world = live(policy, &events);
        world.calm_down();
        world.check_rest();
    }
}
