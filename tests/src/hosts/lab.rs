//! A lab: some hosts on a switch, and the place from which a test's clients reach them.

use std::collections::BTreeSet;
use std::future::Future;
use std::ops::Index;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use parking_lot::Mutex;

use super::links::{Links, between};
use super::namespace::{Holder, Network};
use super::{DiskPlan, Host, LabError, OwnedFolder};

const SWITCH: &str = "\
link add switch type bridge mcast_snooping 0
addr add 10.77.0.1/24 dev switch
addr add fd77::1/64 dev switch nodad
link set lo up
link set switch up
";

/// What a lab shall consist of.
#[derive(Debug, Clone, Copy)]
pub struct LabPlan {
    pub hosts: usize,
    pub disk: DiskPlan,
}

/// Hosts on one switch. Every lab is a world of its own: addresses do not collide.
#[derive(Debug)]
pub struct Lab {
    // Dropped in this order: hosts lose power before the disks' mounts go, and the folder goes last.
    hosts: Vec<Host>,
    links: Mutex<Links>,
    switch: Arc<Network>,
    _anchor: Holder,
    folder: OwnedFolder,
}

impl Lab {
    /// Makes the switch and the hosts and turns them on.
    pub fn build(plan: LabPlan) -> Result<Self, LabError> {
        let uid = rustix::process::getuid();
        if !uid.is_root() {
            return Err(LabError::NotRoot { uid: uid.as_raw() });
        }
        let folder = OwnedFolder::create("lab")?;
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount", "--"]);
        let anchor = Holder::start(unshare, "echo ready", "the switch")?;
        let switch = Network::of(&anchor)?;
        switch.feed("ip", "iproute2", &["-batch", "-"], SWITCH)?;
        let links = Links::lay(&switch)?;
        let hosts = (0..plan.hosts)
            .map(|index| Host::make(index, plan.disk, folder.path(), &switch, &anchor))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            hosts,
            links: Mutex::new(links),
            switch: Arc::new(switch),
            _anchor: anchor,
            folder,
        })
    }

    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Where logs and data are while the lab lives.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Parts the network: hosts in no common group cannot hear each other; hosts in no group at all keep
    /// all their links. Replaces what was cut before.
    pub fn partition(&self, groups: &[&[usize]]) -> Result<(), LabError> {
        self.links.lock().set(&self.switch, between(groups))
    }

    /// From now on, nothing that `from` sends reaches `to`. Adds to what is cut.
    pub fn cut_one_way(&self, from: usize, to: usize) -> Result<(), LabError> {
        let mut links = self.links.lock();
        let mut cuts = links.cuts().clone();
        cuts.insert((from, to));
        links.set(&self.switch, cuts)
    }

    /// From now on, a host hears none of the others. Adds to what is cut.
    pub fn deafen(&self, host: usize) -> Result<(), LabError> {
        self.others(host).try_for_each(|other| self.cut_one_way(other, host))
    }

    /// From now on, none of the others hears a host. Adds to what is cut.
    pub fn mute(&self, host: usize) -> Result<(), LabError> {
        self.others(host).try_for_each(|other| self.cut_one_way(host, other))
    }

    fn others(&self, host: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.hosts.len()).filter(move |other| *other != host)
    }

    /// Mends every link.
    pub fn heal(&self) -> Result<(), LabError> {
        self.links.lock().set(&self.switch, BTreeSet::new())
    }

    /// Runs a future on a runtime whose threads sit in the switch: sockets opened there reach the hosts.
    pub fn run<F>(&self, future: F) -> F::Output
    where
        F: Future + Send,
        F::Output: Send,
    {
        self.run_made(|| future)
    }

    /// The same with a future that is made where it runs, and stays there.
    pub fn run_made<F>(&self, make: impl FnOnce() -> F + Send) -> F::Output
    where
        F: Future,
        F::Output: Send,
    {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // A thread in the wrong network would make every later failure a lie.
                self.switch
                    .enter()
                    .expect("this process made the switch and may enter it");
                let switch = Arc::clone(&self.switch);
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(2)
                    .on_thread_start(move || {
                        switch.enter().expect("this process made the switch and may enter it");
                    })
                    .enable_all()
                    .build()
                    .expect("a runtime starts where threads and descriptors are to be had");
                runtime.block_on(make())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Index<usize> for Lab {
    type Output = Host;

    fn index(&self, index: usize) -> &Host {
        &self.hosts[index]
    }
}
