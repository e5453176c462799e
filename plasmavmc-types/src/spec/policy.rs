//! What to do with a VM when something happens to it.

use serde::{Deserialize, Serialize};

use crate::invalid::Checks;
use crate::{HostName, VmId};

/// Whether graceful actions depend on the guest agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentPolicy {
    /// A graceful action begins only if the agent has just answered.
    #[default]
    Required,
    /// Through the agent if it answers now, else as none.
    Optional,
    /// The guest has no agent: graceful actions press the ACPI button and hope.
    None,
}

/// Where a VM may run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Affinity {
    /// Only these hosts; empty: any.
    #[serde(default)]
    pub hosts: Vec<HostName>,
    /// Never on one host with these VMs.
    #[serde(default)]
    pub apart_from: Vec<VmId>,
    /// On one host with these VMs.
    #[serde(default)]
    pub together_with: Vec<VmId>,
    /// Of the hosts that fit, rather one of these.
    #[serde(default)]
    pub prefer_hosts: Vec<HostName>,
    /// Of the hosts that fit, rather one without these VMs.
    #[serde(default)]
    pub prefer_apart_from: Vec<VmId>,
    /// Of the hosts that fit, rather one with these VMs.
    #[serde(default)]
    pub prefer_together_with: Vec<VmId>,
}

const MAX_AFFINITIES: usize = 64;

impl Affinity {
    pub(crate) fn check(&self, checks: &mut Checks) {
        let hosts = [
            ("affinity.hosts", &self.hosts),
            ("affinity.prefer_hosts", &self.prefer_hosts),
        ];
        for (field, hosts) in hosts {
            checks.require_at_most(field, hosts.len(), MAX_AFFINITIES);
            checks.require_unique(hosts, |index| format!("{field}[{index}]"));
        }
        for (field, vms) in self.vms() {
            checks.require_at_most(field, vms.len(), MAX_AFFINITIES);
            checks.require_unique(vms, |index| format!("{field}[{index}]"));
        }
        let opposites = [
            ("", &self.apart_from, &self.together_with),
            ("prefer_", &self.prefer_apart_from, &self.prefer_together_with),
        ];
        for (kind, apart, together) in opposites {
            for (index, vm) in apart.iter().enumerate() {
                let is_free = !together.contains(vm);
                checks.require(is_free, format!("affinity.{kind}apart_from[{index}]"), || {
                    format!("is {vm}, which affinity.{kind}together_with names too")
                });
            }
        }
    }

    /// The lists of VMs, with their names.
    pub(crate) fn vms(&self) -> [(&'static str, &[VmId]); 4] {
        [
            ("affinity.apart_from", &self.apart_from),
            ("affinity.together_with", &self.together_with),
            ("affinity.prefer_apart_from", &self.prefer_apart_from),
            ("affinity.prefer_together_with", &self.prefer_together_with),
        ]
    }
}

/// Whether a VM is leased: frozen when its host loses contact, and started elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HaPolicy {
    /// Where the cluster and the disks allow it.
    #[default]
    Auto,
    /// Refused where they do not.
    On,
    Off,
}

/// What to do when QEMU dies by itself. A guest that powers itself off has not crashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RestartPolicy {
    Never,
    /// Restart, with growing pauses, at most `tries` times within any `window_s` seconds.
    OnCrash {
        tries: u32,
        window_s: u32,
    },
}

impl Default for RestartPolicy {
    fn default() -> Self {
        RestartPolicy::OnCrash {
            tries: Self::DEFAULT_TRIES,
            window_s: Self::DEFAULT_WINDOW_S,
        }
    }
}

impl RestartPolicy {
    pub const DEFAULT_TRIES: u32 = 3;
    pub const DEFAULT_WINDOW_S: u32 = 600;

    pub(crate) fn check(self, checks: &mut Checks) {
        if let RestartPolicy::OnCrash { tries, window_s } = self {
            checks.require_range("restart.on_crash.tries", tries, 1..=100);
            checks.require_range("restart.on_crash.window_s", window_s, 10..=86_400);
        }
    }
}

/// Another VM that has to be there first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    pub vm: VmId,
    #[serde(default)]
    pub until: DependencyReached,
}

/// When a dependency counts as there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependencyReached {
    /// Its QEMU executes.
    Running,
    /// Its agent answered after this boot; without an agent, as `running`.
    #[default]
    Ready,
}
