//! A spawn order: all that the new process is made of. Nothing is inherited from the guard by accident.

use std::collections::{BTreeMap, BTreeSet};

use plasmavmc_types::Incarnation;
use serde::{Deserialize, Serialize};

use super::{Key, MAX_DESCRIPTORS};

/// Descriptors that are handed over get numbers in the child from here...
const LOWEST_NUMBER: i32 = 3;
/// ...to here; above it the launching process keeps its own.
pub(crate) const HIGHEST_NUMBER: i32 = 255;
/// A VM has a claims folder in each pool its disks lie in.
const MOST_CLAIMS: usize = 64;
/// They are kept in the child's record, whose length is bounded.
const MOST_CLAIMS_BYTES: usize = 8 * 1024;

/// A process to run. Besides what is named here it has an own session, standard input from /dev/null, core
/// dumps off, no new privileges, no signal held back, and no other descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpawnOrder {
    pub key: Key,
    /// Absolute path.
    pub program: String,
    /// Without the program's name. One of them must contain the VM's id: that is how a process is recognised
    /// after the death of its guard.
    pub arguments: Vec<String>,
    /// All of it.
    pub environment: BTreeMap<String, String>,
    /// Absolute path.
    pub working_folder: String,
    pub output: Output,
    /// The numbers that the descriptors of the packet get in the child, in their order (after the output's,
    /// if that one is passed).
    pub descriptors: Vec<i32>,
    pub owner: Option<Owner>,
    /// How many descriptors it may open; what the guard was started with when absent.
    pub open_files: Option<u64>,
    pub cgroup: Option<Cgroup>,
    /// From -1000 (never) to 1000 (first).
    pub oom_score_adj: i16,
    /// What happens to it when the guard dies.
    pub death_signal: Option<DeathSignal>,
    /// It may execute only while the guard's deadline is ahead. Left out where absent: a guard that knows no
    /// leases takes the order then, and refuses one that it could not keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
}

/// That a child could be started elsewhere once its host's lease is over. Its death signal has to be
/// [`DeathSignal::Stop`], and its cgroup, if it has one, its own: all of that is frozen with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    pub incarnation: Incarnation,
    /// The VM's claims folders (`<vm>.claims`) in shared pools, as absolute paths. While it is frozen, a file
    /// there named by a higher incarnation is the proof on which the guard kills it.
    pub claims: Vec<String>,
}

/// Where standard output and error go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    Discard,
    /// Appended to; relative to the working folder or absolute. A symbolic link, a second name of a file or
    /// anything but a regular file is refused.
    File(String),
    /// The first descriptor of the packet.
    Passed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
    /// The supplementary groups, all of them: the one that may open /dev/kvm, for one.
    pub groups: Vec<u32>,
}

/// A folder of the version 2 hierarchy. It is made if it is missing and removed when the child is collected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Absolute path.
    pub folder: String,
    /// From 1 to 10000. A host that does not allow it makes a note, not an error; so for the memory.
    pub cpu_weight: Option<u16>,
    pub memory_max: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeathSignal {
    /// SIGSTOP: it holds still until a new guard decides.
    Stop,
    /// SIGKILL.
    Kill,
}

impl SpawnOrder {
    /// An order with nothing optional in it.
    pub fn new(key: Key, program: impl Into<String>, working_folder: impl Into<String>) -> Self {
        Self {
            key,
            program: program.into(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            working_folder: working_folder.into(),
            output: Output::Discard,
            descriptors: Vec::new(),
            owner: None,
            open_files: None,
            cgroup: None,
            oom_score_adj: 0,
            death_signal: None,
            lease: None,
        }
    }

    /// How many descriptors have to come with it.
    pub fn descriptors_expected(&self) -> usize {
        self.descriptors.len() + usize::from(self.output == Output::Passed)
    }

    /// Everything that is wrong with it, as sentences; empty when nothing is.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        self.check_paths(&mut problems);
        self.check_words(&mut problems);
        self.check_descriptors(&mut problems);
        if let Some(lease) = &self.lease {
            self.check_lease(lease, &mut problems);
        }
        if let Some(owner) = &self.owner {
            let ids = [owner.uid, owner.gid].into_iter().chain(owner.groups.iter().copied());
            if ids.into_iter().any(|id| id == u32::MAX) {
                problems.push(format!("owner: {} stands for no user and no group", u32::MAX));
            }
        }
        if !(-1000..=1000).contains(&self.oom_score_adj) {
            problems.push(format!("oom_score_adj {} is not in -1000..=1000", self.oom_score_adj));
        }
        if let Some(weight) = self.cgroup.as_ref().and_then(|cgroup| cgroup.cpu_weight)
            && !(1..=10_000).contains(&weight)
        {
            problems.push(format!("cgroup.cpu_weight {weight} is not in 1..=10000"));
        }
        problems
    }

    fn check_lease(&self, lease: &Lease, problems: &mut Vec<String>) {
        if self.death_signal != Some(DeathSignal::Stop) {
            problems.push("lease: the death signal has to be `stop`, or it runs on when the guard dies".to_owned());
        }
        for folder in &lease.claims {
            if !folder.starts_with('/') {
                problems.push(format!("lease.claims {folder:?} is not absolute"));
            }
            if folder.contains('\0') {
                problems.push(format!("lease.claims {folder:?} contains a zero byte"));
            }
        }
        let bytes: usize = lease.claims.iter().map(String::len).sum();
        if lease.claims.len() > MOST_CLAIMS || bytes > MOST_CLAIMS_BYTES {
            problems.push(format!(
                "lease.claims: {} folders of {bytes} bytes are more than {MOST_CLAIMS} of {MOST_CLAIMS_BYTES}",
                lease.claims.len()
            ));
        }
    }

    fn check_paths(&self, problems: &mut Vec<String>) {
        let cgroup = self.cgroup.as_ref().map(|cgroup| ("cgroup.folder", &cgroup.folder));
        let paths = [("program", &self.program), ("working_folder", &self.working_folder)];
        for (field, path) in paths.into_iter().chain(cgroup) {
            if !path.starts_with('/') {
                problems.push(format!("{field} {path:?} is not absolute"));
            }
        }
        if let Some(cgroup) = &self.cgroup
            && cgroup.folder.split('/').any(|part| part == "..")
        {
            problems.push(format!("cgroup.folder {:?} contains `..`: write it out", cgroup.folder));
        }
    }

    fn check_words(&self, problems: &mut Vec<String>) {
        let log = match &self.output {
            Output::File(path) => Some(path),
            Output::Discard | Output::Passed => None,
        };
        let cgroup = self.cgroup.as_ref().map(|cgroup| &cgroup.folder);
        let words = [&self.program, &self.working_folder]
            .into_iter()
            .chain(log)
            .chain(cgroup);
        let words = words.chain(&self.arguments).chain(self.environment.values());
        if let Some(word) = words.chain(self.environment.keys()).find(|word| word.contains('\0')) {
            problems.push(format!("{word:?} contains a zero byte"));
        }
        let vm = self.key.vm.to_string();
        if !self.arguments.iter().any(|argument| argument.contains(&vm)) {
            problems.push(format!(
                "no argument contains the VM's id {vm}: name it, or the process cannot be recognised later"
            ));
        }
        if let Some(name) = self
            .environment
            .keys()
            .find(|name| name.is_empty() || name.contains('='))
        {
            problems.push(format!("{name:?} is no name for an environment variable"));
        }
    }

    fn check_descriptors(&self, problems: &mut Vec<String>) {
        if self.descriptors_expected() > MAX_DESCRIPTORS {
            problems.push(format!(
                "{} descriptors are more than {MAX_DESCRIPTORS}",
                self.descriptors_expected()
            ));
        }
        let mut taken = BTreeSet::new();
        for number in &self.descriptors {
            if !(LOWEST_NUMBER..=HIGHEST_NUMBER).contains(number) {
                problems.push(format!(
                    "descriptor number {number} is not in {LOWEST_NUMBER}..={HIGHEST_NUMBER}"
                ));
            }
            if !taken.insert(number) {
                problems.push(format!("descriptor number {number} is given twice"));
            }
        }
    }
}
