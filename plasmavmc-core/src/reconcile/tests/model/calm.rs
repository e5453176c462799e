//! The time in which nothing goes wrong any more.

use plasmavmc_types::{AgentHealth, AgentPolicy, HostMode, OperationState, PauseCause};

use super::super::*;
use super::world::World;
use crate::code::Code;
use crate::samples::{host_id, vm_id};

/// Rounds in which something was done. More, and something goes round in circles.
const MOST_ROUNDS: usize = 250;
/// Rounds without anything to do, half a minute each: longer than any operation may take.
const QUIET_ROUNDS: usize = 40;
/// An operation that has so long left is done in time, now that everything works.
const LEFT_MS: u64 = 70_000;

impl World {
    /// From now on everything works, and everything is delivered, until there is nothing left to do.
    pub fn calm_down(&mut self) {
        while let Some(change) = self.late.pop() {
            self.apply(&change);
        }
        for site in 0..2 {
            self.start(site, true);
            self.open(site);
            self.set_mode(site, HostMode::Active);
            self.stay(site);
        }
        let can_be_done = |operation: &plasmavmc_types::Operation| operation.deadline_ms > self.now_ms + LEFT_MS;
        let open: Vec<_> = self.open_operations().into_iter().filter(can_be_done).collect();
        let (mut rounds, mut quiet) = (0, 0);
        while quiet < QUIET_ROUNDS {
            if self.calm_round() {
                rounds += 1;
                assert!(rounds < MOST_ROUNDS, "it does not come to rest: {}", self.told());
            } else {
                quiet += 1;
                self.now_ms += 30_000;
            }
            self.check_but_for_force();
        }
        for operation in open {
            let ended = self
                .cluster
                .view
                .operations
                .get(&operation.id)
                .map(|ended| &ended.value.state);
            if let Some(OperationState::Failed(error)) = ended {
                assert_ne!(
                    error.code,
                    Code::DeadlineExceeded.number(),
                    "{operation:#?}: {error}: {}",
                    self.told()
                );
            }
        }
    }

    fn check_but_for_force(&self) {
        if !self.was_forced {
            self.check();
        }
    }

    /// Whether anything was done.
    fn calm_round(&mut self) -> bool {
        let has_done = [self.goes_well(0), self.goes_well(1), self.control()];
        has_done.contains(&true)
    }

    /// A moment in which everything works on a host. Whether it has done something.
    pub fn goes_well(&mut self, site: usize) -> bool {
        self.arrive(site);
        self.answer(site, true);
        self.work(site, 0);
        self.guest_is_well(site);
        self.sites[site].notice();
        self.sites[site].look_again();
        self.hear(site);
        self.decide(site)
    }

    fn guest_is_well(&mut self, site: usize) {
        let has_agent = self.agent_policy() != Some(AgentPolicy::None);
        let Some(qemu) = &mut self.sites[site].qemu else { return };
        match qemu.observed {
            Observed::PoweredOff => qemu.observed = Observed::Gone(Ended::GuestPoweredOff),
            Observed::Unreachable | Observed::Paused(PauseCause::IoError) => qemu.observed = Observed::Running,
            Observed::Running if has_agent => qemu.agent = AgentHealth::Responding,
            _ => {}
        }
    }

    fn agent_policy(&self) -> Option<AgentPolicy> {
        let record = self.cluster.view.vms.get(&vm_id(1))?.record.as_ref()?;
        Some(record.value.spec().agent)
    }

    /// All is as it was wanted.
    pub fn check_rest(&self) {
        assert_eq!(self.open_operations(), [], "{}", self.told());
        let living: Vec<u32> = self
            .sites
            .iter()
            .filter(|site| site.living().is_some())
            .map(|site| site.number)
            .collect();
        for site in &self.sites {
            let local = &site.server.as_ref().unwrap().local;
            assert_eq!(
                (&local.doing, &local.left_alone, local.is_writing),
                (&None, &None, false),
                "{}",
                self.told()
            );
        }
        let Some(vm) = self.cluster.view.vms.get(&vm_id(1)) else {
            assert!(living.is_empty(), "{}", self.told());
            assert!(
                self.cluster.view.names.is_empty() && self.cluster.view.numbers.is_empty(),
                "{}",
                self.told()
            );
            return;
        };
        let record = &vm.record.as_ref().expect("what is left has a record").value;
        assert!(!record.is_deleted(), "{}", self.told());
        let state = vm.current_status().map(|status| &status.value.state);
        match state {
            Some(ObservedState::Running | ObservedState::Paused { .. }) => {
                assert!(self.is_wanted_on(), "{}", self.told());
                let host = vm.placement.as_ref().unwrap().value.host;
                assert_eq!(
                    living.iter().map(|number| host_id(*number)).collect::<Vec<_>>(),
                    [host],
                    "{}",
                    self.told()
                );
            }
            Some(ObservedState::Failed { .. }) => assert!(living.is_empty() && self.is_wanted_on(), "{}", self.told()),
            Some(ObservedState::Stopped) => assert!(living.is_empty() && !self.is_wanted_on(), "{}", self.told()),
            None => assert!(
                vm.placement.is_none() && !self.is_wanted_on() && living.is_empty(),
                "{}",
                self.told()
            ),
            state => panic!("{state:?} is no rest: {}", self.told()),
        }
    }
}
