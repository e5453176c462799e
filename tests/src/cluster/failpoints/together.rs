//! Servers that die inside of a fence, a failover, a freeze, a thaw, or a departure.
//!
//! ```text
//!   arm ──▶ a leased VM on one host ──▶ the host is lost, cut off, or shut down ──▶ a server dies ──▶ started again
//!                                                                                       └── the VM runs, once
//! ```
//! A place that the leader gets to is armed on a server that leads; the others on the one that has the VM.
//! Must never: be content with a place that no server reached.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use parking_lot::Mutex;
use plasmavmc_proto::api::{PrepareHostShutdownRequest, Vm, vm::State};

use super::ENV;
use crate::cluster::ha::{leased_on, movable, until_leads};
use crate::cluster::{HostedCluster, until};

const HOSTS: usize = 3;
/// The host that is lost, cut off or shut down.
const VICTIM: usize = 0;
const ARMED_LEADER: usize = 1;
const CONVERGES: Duration = Duration::from_secs(60);
/// Longer than a lease.
const CUT: Duration = Duration::from_millis(4500);

/// A cluster whose servers die at places.
#[derive(Debug)]
pub struct Together<'a> {
    cluster: &'a HostedCluster,
    arms: Mutex<Arms>,
}

#[derive(Debug, Default)]
struct Arms {
    /// The host whose server was armed and has not died yet.
    armed: Option<usize>,
    has_died: bool,
}

impl<'a> Together<'a> {
    pub fn new(cluster: &'a HostedCluster) -> Self {
        Self {
            cluster,
            arms: Mutex::default(),
        }
    }

    /// The victim loses its power, and the leader dies at the place.
    pub async fn host_is_lost(&self, place: &str) -> Result<()> {
        let vm = self.vm(place).await?;
        self.arm(place, ARMED_LEADER).await?;
        until_leads(self.cluster, ARMED_LEADER).await?;
        // A server that has not heard the victim, while nobody lives that has, gives it the time of a boot.
        for asked in [1, 2] {
            self.cluster.until_beats(asked, VICTIM).await?;
        }
        self.cluster.lab()[VICTIM].power_cut()?;
        let moved = self.until_runs(&vm).await?;
        self.has_died(place)?;
        ensure!(moved.incarnation == vm.incarnation + 1, "{moved:?}");
        self.cluster.lab()[VICTIM].power_on()?;
        self.end(&vm).await
    }

    /// The victim is cut off for longer than its lease, and its server dies at the place.
    pub async fn host_is_cut_off(&self, place: &str) -> Result<()> {
        let vm = self.vm(place).await?;
        self.arm(place, VICTIM).await?;
        let cut = Instant::now();
        self.cluster.lab().partition(&[&[VICTIM], &[1, 2]])?;
        until("the end of the cut", CONVERGES, async || {
            self.revive().map_err(|error| error.to_string())?;
            (cut.elapsed() >= CUT).then_some(()).ok_or("it goes on".to_owned())
        })
        .await?;
        self.cluster.lab().heal()?;
        self.until_runs(&vm).await?;
        until(&format!("a server to die at {place}"), CONVERGES, async || {
            self.revive().map_err(|error| error.to_string())?;
            self.has_died(place).map_err(|error| error.to_string())
        })
        .await?;
        self.end(&vm).await
    }

    /// The victim is to be shut down, and its server dies at the place.
    pub async fn host_is_shut_down(&self, place: &str) -> Result<()> {
        let vm = self.vm(place).await?;
        self.arm(place, VICTIM).await?;
        let client = self.cluster.client(1)?;
        let request = PrepareHostShutdownRequest {
            id: self.cluster.name(VICTIM),
            timeout_ms: 3000,
            ..Default::default()
        };
        client.hosts().prepare_host_shutdown(request).await?;
        let moved = self.until_runs_where(&vm, |seen| seen.host != vm.host).await?;
        self.has_died(place)?;
        ensure!(moved.incarnation > vm.incarnation, "{moved:?}");
        ensure!(
            self.cluster.qemus(VICTIM).is_empty(),
            "it runs on a host that it has left"
        );
        client.activate(&self.cluster.name(VICTIM)).await?;
        self.end(&vm).await
    }

    async fn vm(&self, place: &str) -> Result<Vm> {
        leased_on(self.cluster, VICTIM, movable(place)).await
    }

    /// Starts the server of a host anew: it dies the first time it gets there.
    async fn arm(&self, place: &str, host: usize) -> Result<()> {
        self.kill(host).await?;
        self.cluster.serve_with(host, &[], &[(ENV, place)])?;
        self.cluster.until_whole(host, HOSTS).await?;
        // Before its first beat it knows of no lease, and leaves the freezing to the guard.
        self.cluster.until_beats((host + 1) % HOSTS, host).await?;
        *self.arms.lock() = Arms {
            armed: Some(host),
            has_died: false,
        };
        Ok(())
    }

    async fn kill(&self, host: usize) -> Result<()> {
        let Some(server) = self.cluster.server(host) else {
            return Ok(());
        };
        server.kill();
        until("the end of a server", CONVERGES, async || {
            server.exit().map(drop).ok_or("it runs")
        })
        .await
    }

    /// Starts again, unarmed, whoever has died.
    fn revive(&self) -> Result<()> {
        for host in 0..HOSTS {
            let has_power = self.cluster.lab()[host].has_power();
            let has_ended = self.cluster.server(host).is_some_and(|server| server.exit().is_some());
            if !has_power || !has_ended {
                continue;
            }
            let mut arms = self.arms.lock();
            if arms.armed.take_if(|armed| *armed == host).is_none() {
                bail!("the server of host {host} died unarmed");
            }
            arms.has_died = true;
            self.cluster.serve(host, &[])?;
        }
        Ok(())
    }

    fn has_died(&self, place: &str) -> Result<()> {
        ensure!(self.arms.lock().has_died, "no server got to {place}");
        Ok(())
    }

    async fn until_runs(&self, vm: &Vm) -> Result<Vm> {
        let needs_move = !self.cluster.lab()[VICTIM].has_power();
        self.until_runs_where(vm, |seen| !needs_move || seen.host != vm.host)
            .await
    }

    async fn until_runs_where(&self, vm: &Vm, is_there: impl Fn(&Vm) -> bool) -> Result<Vm> {
        let client = self.cluster.client(1)?;
        until(&format!("{} to run", vm.name), CONVERGES, async || {
            self.revive().map_err(|error| error.to_string())?;
            let seen = client.get(&vm.id).await.map_err(|status| status.to_string())?;
            let host = self
                .cluster
                .host_called(&seen.host)
                .map_err(|error| error.to_string())?;
            let executes = self.cluster.qemus(host).len() == 1;
            if seen.state() == State::Running && is_there(&seen) && executes {
                Ok(seen)
            } else {
                Err(format!("{seen:?}"))
            }
        })
        .await
    }

    /// Everything as it was, for the next place.
    async fn end(&self, vm: &Vm) -> Result<()> {
        let armed = self.arms.lock().armed.take();
        if let Some(host) = armed {
            self.kill(host).await?;
        }
        let has_server = |host: usize| self.cluster.server(host).is_some_and(|server| server.exit().is_none());
        for host in (0..HOSTS).filter(|host| !has_server(*host)) {
            self.cluster.serve(host, &[])?;
        }
        for host in 0..HOSTS {
            self.cluster.until_whole(host, HOSTS).await?;
        }
        self.cluster.client(1)?.delete(&vm.id, true).await?;
        Ok(())
    }
}
