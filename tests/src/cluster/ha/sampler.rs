//! Looks every few milliseconds whether any VM runs twice.
//!
//! A QEMU counts as executing unless the kernel says that it is stopped (T), a zombie or dead. That is stricter than it
//! need be: one that waits at `-S` or was paused over its monitor executes nothing either. A failover never needs the
//! difference: what was left behind is stopped before anything is started elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// In the masks of /proc.
const SIGKILL_BIT: u64 = 1 << 8;
/// Between two looks.
const EVERY: Duration = Duration::from_millis(20);

/// Two processes of one VM that executed at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Double {
    pub vm: String,
    pub pids: Vec<u32>,
    pub after: Duration,
}

/// Looks until it is dropped.
#[derive(Debug)]
pub struct Sampler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    looks: AtomicU64,
    slowest_ms: AtomicU64,
    doubles: Mutex<Vec<Double>>,
    executing: Mutex<BTreeMap<String, Vec<u32>>>,
    stopped: Mutex<BTreeSet<u32>>,
}

impl Sampler {
    /// Of the QEMUs that run below this folder.
    pub fn start(below: &std::path::Path) -> Self {
        let shared = Arc::<Shared>::default();
        let (theirs, below) = (Arc::clone(&shared), below.to_owned());
        let watching = std::thread::Builder::new().name("sampler".to_owned());
        let thread = watching.spawn(move || watch(&theirs, &below)).ok();
        Self { shared, thread }
    }

    pub fn doubles(&self) -> Vec<Double> {
        self.shared.doubles.lock().clone()
    }

    /// The processes that executed at the last look, by VM.
    pub fn executing(&self) -> BTreeMap<String, Vec<u32>> {
        self.shared.executing.lock().clone()
    }

    /// The QEMUs that stood still at any look.
    pub fn stopped(&self) -> BTreeSet<u32> {
        self.shared.stopped.lock().clone()
    }

    pub fn looks(&self) -> u64 {
        self.shared.looks.load(Ordering::Relaxed)
    }

    /// The longest time between two looks: what lasted shorter may have been missed.
    pub fn slowest_ms(&self) -> u64 {
        self.shared.slowest_ms.load(Ordering::Relaxed)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends after its next look.
            let _ = thread.join();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "it samples: a thread of its own that waits for nothing but its turn"
)]
fn watch(shared: &Shared, below: &std::path::Path) {
    let began = Instant::now();
    let mut known = BTreeMap::<u32, Option<String>>::new();
    let mut last = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        let mut executing = BTreeMap::<String, Vec<u32>>::new();
        for (pid, vm) in look(&mut known, below) {
            if executes(pid) {
                executing.entry(vm).or_default().push(pid);
            } else if state_of(pid) == 'T' {
                shared.stopped.lock().insert(pid);
            }
        }
        shared.executing.lock().clone_from(&executing);
        let doubles = executing.into_iter().filter(|(_, pids)| pids.len() > 1);
        // Two looks at two processes are not one moment: what was seen is looked at once more.
        for (vm, pids) in doubles.filter(|(_, pids)| pids.iter().all(|pid| executes(*pid))) {
            let after = began.elapsed();
            let mut doubles = shared.doubles.lock();
            if !doubles.iter().any(|double| double.vm == vm && double.pids == pids) {
                doubles.push(Double { vm, pids, after });
            }
        }
        let took = u64::try_from(last.elapsed().as_millis()).unwrap_or(u64::MAX);
        shared.slowest_ms.fetch_max(took, Ordering::Relaxed);
        shared.looks.fetch_add(1, Ordering::Relaxed);
        last = Instant::now();
        std::thread::sleep(EVERY);
    }
}

/// The QEMUs, with the VMs whose they are.
fn look(known: &mut BTreeMap<u32, Option<String>>, below: &std::path::Path) -> Vec<(u32, String)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    // A process may become another program: only what is a QEMU is remembered.
    known.retain(|pid, _| pids.contains(pid));
    let mut found = Vec::new();
    for pid in pids {
        if let Some(vm) = known.get(&pid) {
            found.extend(vm.clone().map(|vm| (pid, vm)));
        } else if let Some(vm) = vm_of(pid, below) {
            known.insert(pid, Some(vm.clone()));
            found.push((pid, vm));
        }
    }
    found
}

fn vm_of(pid: u32, below: &std::path::Path) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    if !name.starts_with("qemu-system") {
        return None;
    }
    let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    // As the host names it, which may be a mount of its own: the last part is the VM.
    let is_ours = folder.starts_with(below) || folder.parent()?.ends_with("vms");
    let vm = folder.file_name()?.to_str()?.to_owned();
    is_ours.then_some(vm)
}

/// A process with SIGKILL on it never comes back from the kernel, though it is shown as running until it is gone.
fn executes(pid: u32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        return false;
    };
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    };
    let is_still = matches!(field("State").chars().next(), None | Some('T' | 't' | 'Z' | 'X'));
    let pending = ["SigPnd", "ShdPnd"].map(|name| u64::from_str_radix(&field(name), 16).unwrap_or_default());
    let is_killed = pending.iter().any(|signals| signals & SIGKILL_BIT != 0);
    !is_still && !is_killed && !is_ending(pid)
}

/// As the kernel says: `T` is stopped. `-`: it is gone.
pub fn state_of(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.trim_start().chars().next());
    state.unwrap_or('-')
}

/// Whether the kernel is already taking it down.
fn is_ending(pid: u32) -> bool {
    const ENDING: u64 = 0x4 | 0x400;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let flags = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(6)?.parse::<u64>().ok());
    flags.is_none_or(|flags| flags & ENDING != 0)
}
