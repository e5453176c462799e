//! A server that dies at every step of what it does, and comes back.
//!
//! A place where a server can be told to die is armed, and a VM is put through its life by a client that repeats
//! what was not answered. Wherever the server died, it is started again, unarmed. True means: every step comes to
//! its end as if nothing had happened, no VM ever has two QEMUs, and in the end nothing is left.
//!
//! ```text
//!   arm NAME ──▶ create ▸ pause ▸ resume ▸ reset ▸ update ▸ restart ▸ stop ▸ start ▸ delete ──▶ no debris
//!                  └── died here? started again, unarmed; the same request once more
//! ```

mod life;
mod persistent;
mod together;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::node::{Entrance, Node};
use super::{Cluster, Programs, Site};
use life::Guest;
use persistent::Persistent;
pub use together::Together;

/// In the environment of a server that can be told to die.
pub const ENV: &str = "PLASMAVMC_FAILPOINT";

/// Which places to try, and how often each is passed before it kills.
#[derive(Debug, Clone, clap::Args)]
pub struct Failpoints {
    /// Only places whose names begin so, separated by commas
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// All but those whose names begin so
    #[arg(long, value_delimiter = ',')]
    pub except: Vec<String>,
    /// Die at the first, the second ... time a place is reached, up to this one
    #[arg(long, default_value_t = 4)]
    pub hits: u32,
}

/// Places on the way of a guest that is asked: only one with an agent gets there.
pub const OF_GUESTS: [&str; 3] = ["stop-", "reboot-", "power-"];

/// Places on the way of hosts that fail: one host alone does not get there. See [`Together`].
const OF_CLUSTERS: [&str; 5] = ["fence-", "failover-", "freeze-", "thaw-", "leave-"];

impl Failpoints {
    fn wants(&self, name: &str) -> bool {
        let begins = |list: &[String]| list.iter().any(|start| name.starts_with(start.as_str()));
        let is_alone = !OF_CLUSTERS.iter().any(|start| name.starts_with(start));
        is_alone && (self.only.is_empty() || begins(&self.only)) && !begins(&self.except)
    }
}

/// The result, as one JSON object.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub cases: u32,
    /// How often a server died at a place, in which step of a VM's life.
    pub deaths: BTreeMap<String, BTreeMap<String, u32>>,
    /// Places that no case reached.
    pub never_reached: Vec<String>,
    pub violations: Vec<String>,
    pub slowest_s: f64,
    pub seconds: f64,
}

impl Report {
    pub fn is_success(&self) -> bool {
        self.violations.is_empty() && self.cases > 0 && self.never_reached.is_empty()
    }

    /// How often a server died.
    pub fn died(&self) -> u32 {
        self.deaths.values().flat_map(BTreeMap::values).sum()
    }
}

/// Puts one VM after the other through its life, each time with another place armed.
pub async fn run(options: &Failpoints) -> Result<Report> {
    let begun = Instant::now();
    let mut report = Report::default();
    let cluster = Cluster::start_at(Site::new()?, Programs::mortal()?, 1).await?;
    let wanted = plasmavmc_server::failpoint::NAMES.iter();
    for name in wanted.filter(|name| options.wants(name)) {
        let mut reached = false;
        for hit in 1..=options.hits {
            let case = Instant::now();
            let outcome = one_case(&cluster, name, hit).await;
            report.cases += 1;
            report.slowest_s = report.slowest_s.max(case.elapsed().as_secs_f64());
            match outcome {
                Ok(Some(step)) => {
                    reached = true;
                    eprintln!("{name}:{hit}: died in {step}, {:.1} s", case.elapsed().as_secs_f64());
                    let steps = report.deaths.entry((*name).to_owned()).or_default();
                    *steps.entry(step.to_owned()).or_default() += 1;
                }
                // Not reached so often: neither will it be more often.
                Ok(None) => break,
                Err(error) => {
                    reached = true;
                    let violation = format!("{name}:{hit}: {error:#}");
                    eprintln!("{violation}\n{}", cluster.last_words());
                    report.violations.push(violation);
                    clear(&cluster).await.context("clearing up after a violation")?;
                }
            }
        }
        if !reached {
            report.never_reached.push((*name).to_owned());
        }
    }
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// One life of a VM. The step in which the server died, if it did.
async fn one_case(cluster: &Cluster, name: &str, hit: u32) -> Result<Option<&'static str>> {
    let armed = format!("{name}:{hit}");
    // A host opens one session in its life.
    if name.starts_with("session-") {
        let cluster = Cluster::plan_at(Site::new()?, Programs::mortal()?, 1)?;
        let node = cluster.nodes().first().context("a node")?;
        node.start(cluster.programs(), Entrance::Init, &[(ENV, &armed)])?;
        let outcome = one_life(&cluster, node, &armed, Guest::Bare).await;
        return outcome.with_context(|| cluster.last_words());
    }
    let node = cluster.nodes().first().context("a node")?;
    node.kill();
    cluster.restart(node, &[(ENV, &armed)])?;
    let needs_agent = OF_GUESTS.iter().any(|start| name.starts_with(start));
    let guest = if needs_agent { Guest::Micro } else { Guest::Bare };
    one_life(cluster, node, &armed, guest).await
}

async fn one_life(cluster: &Cluster, node: &Node, armed: &str, guest: Guest) -> Result<Option<&'static str>> {
    let client = Persistent::new(cluster, node)?;
    // As request ids and names take it.
    life::whole(cluster, &client, &armed.replace(':', "-"), guest).await?;
    Ok(client.died_in())
}

/// So that one violation does not fail the cases after it.
async fn clear(cluster: &Cluster) -> Result<()> {
    let node = cluster.nodes().first().context("a node")?;
    node.kill();
    cluster.restart(node, &[])?;
    let client = cluster.until_serves(node).await?;
    for vm in client.list().await? {
        // What cannot be deleted shows in the cases that follow.
        let _ = client.delete(&vm.id, true).await;
    }
    let pool = std::fs::read_dir(node.dir().join("pools/default"));
    for volume in pool.into_iter().flatten().flatten() {
        std::fs::remove_file(volume.path())?;
    }
    let cleared = cluster.until_no_debris(&client, super::fleet::WHOLE).await;
    ensure!(cleared.is_ok(), "{cleared:?}");
    Ok(())
}
