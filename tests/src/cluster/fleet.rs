//! A cluster of servers on loopback.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use plasmavmc_proto::api::host;
use rand::RngExt;

use super::client::{Client, is_whole};
use super::node::{API_PORT, CLUSTER_PORT, Entrance};
use super::{Node, Programs, Site, until};

/// Starting a debug build of everything on a busy machine.
pub const WHOLE: Duration = Duration::from_secs(60);

/// Servers of one cluster. All end with it.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: the servers, then whatever runs in the folder.
    nodes: Vec<Node>,
    programs: Programs,
    site: Site,
}

impl Cluster {
    /// Founds a cluster and waits until it is whole.
    pub async fn start(size: usize) -> Result<Self> {
        Self::start_at(Site::new()?, Programs::find()?, size).await
    }

    /// Of which nothing runs yet.
    pub fn plan_at(site: Site, programs: Programs, size: usize) -> Result<Self> {
        let network = free_network(size)?;
        let plan = |number| Node::plan(&format!("h{number}"), &format!("{network}.{number}"), site.folder());
        Ok(Self {
            nodes: (1..=size).map(plan).collect(),
            programs,
            site,
        })
    }

    pub async fn start_at(site: Site, programs: Programs, size: usize) -> Result<Self> {
        let cluster = Self::plan_at(site, programs, size)?;
        cluster.form().await.with_context(|| cluster.last_words())?;
        Ok(cluster)
    }

    async fn form(&self) -> Result<()> {
        let Some((first, others)) = self.nodes.split_first() else {
            bail!("a cluster of none");
        };
        first.start(&self.programs, Entrance::Init, &[])?;
        self.until_whole(&[first]).await?;
        if others.is_empty() {
            return Ok(());
        }
        let token = first.client()?.token(u32::try_from(others.len())?).await?;
        for (index, node) in others.iter().enumerate() {
            let entrance = Entrance::Join {
                via: &first.api,
                token: &token,
            };
            node.start(&self.programs, entrance, &[])?;
            // One after the other: what goes wrong is told where it happens.
            let nodes: Vec<&Node> = self.nodes.iter().take(index + 2).collect();
            self.until_whole(&nodes).await?;
        }
        // Of a host that has beaten once, before the others were there, nobody but itself knows that it lived.
        let last = self.nodes.last().context("a node")?.client()?;
        for node in &self.nodes {
            last.until_beats(&node.name).await?;
        }
        Ok(())
    }

    /// Waits until these nodes agree that they are the cluster, and all their hosts are heard of.
    async fn until_whole(&self, nodes: &[&Node]) -> Result<()> {
        for node in nodes {
            let client = node.client()?;
            until(
                &format!("{} in a cluster of {}", node.name, nodes.len()),
                WHOLE,
                async || {
                    if let Some(end) = self.nodes.iter().find_map(Node::ended_by_itself) {
                        return Err(end);
                    }
                    let status = client.status().await.map_err(|status| status.to_string())?;
                    if is_whole(&status, nodes.len()) {
                        Ok(())
                    } else {
                        Err(format!("{status:?}"))
                    }
                },
            )
            .await?;
        }
        Ok(())
    }

    /// Waits until every node agrees that all are there.
    pub async fn until_all_whole(&self) -> Result<()> {
        self.until_whole(&self.nodes.iter().collect::<Vec<_>>()).await
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    pub fn site(&self) -> &Site {
        &self.site
    }

    pub fn folder(&self) -> &Path {
        self.site.folder()
    }

    /// A client of the node with that number, counted from 0.
    pub fn client(&self, index: usize) -> Result<Client> {
        self.nodes.get(index).context("no such node")?.client()
    }

    /// The addresses of all, as `--server` takes them.
    pub fn addresses(&self) -> String {
        let addresses: Vec<&str> = self.nodes.iter().map(|node| node.api.as_str()).collect();
        addresses.join(",")
    }

    /// The node that a host's name belongs to.
    pub fn node_called(&self, name: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| node.name == name);
        found.with_context(|| format!("no node is called {name:?}"))
    }

    /// The nodes but one.
    pub fn others(&self, than: &Node) -> Vec<&Node> {
        self.nodes.iter().filter(|node| node.name != than.name).collect()
    }

    /// The node that leads, as `asked` knows it.
    pub async fn leader(&self, asked: &Client) -> Result<&Node> {
        let status = asked.status().await?;
        let member = status.members.iter().find(|member| member.role == "leader");
        let name = member.map_or(status.leader.as_str(), |member| member.name.as_str());
        self.node_called(name)
    }

    /// Starts a server again on its folder. The moment it was started.
    pub fn restart(&self, node: &Node, env: &[(&str, &str)]) -> Result<Instant> {
        let started = Instant::now();
        node.start(&self.programs, Entrance::Again, env)?;
        Ok(started)
    }

    /// Waits until a node answers.
    pub async fn until_serves(&self, node: &Node) -> Result<Client> {
        let client = node.client()?;
        until(&format!("{} to serve", node.name), WHOLE, async || {
            if let Some(end) = node.ended_by_itself() {
                return Err(end);
            }
            let status = client.status().await.map_err(|status| status.to_string())?;
            if status.has_quorum {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await?;
        Ok(client)
    }

    /// Waits until `asked` says of a host what is wanted.
    pub async fn until_host(&self, asked: &Client, name: &str, wanted: host::State, within: Duration) -> Result<()> {
        until(&format!("host {name} to be {wanted:?}"), within, async || {
            let hosts = asked.list_hosts().await.map_err(|status| status.to_string())?;
            let host = hosts.into_iter().find(|host| host.name == name);
            match host {
                Some(host) if host.state() == wanted => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// What nothing may be left of when every VM is deleted: processes, runtime folders, volumes, operations.
    pub async fn until_no_debris(&self, asked: &Client, within: Duration) -> Result<()> {
        until("no debris", within, async || {
            let left = self.debris(asked).await.map_err(|error| format!("{error:#}"))?;
            if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
        })
        .await
    }

    pub(super) async fn debris(&self, asked: &Client) -> Result<Vec<String>> {
        let mut left: Vec<String> = Vec::new();
        left.extend(asked.list().await?.iter().map(super::client::describe));
        let operations = asked.open_operations().await?;
        left.extend(operations.iter().map(|operation| format!("open: {operation:?}")));
        for node in &self.nodes {
            let qemus = self.site.qemus(node.dir());
            left.extend(qemus.iter().map(|pid| format!("{}: QEMU {pid:?}", node.name)));
            for below in ["run/vms", "pools/default"] {
                let entries = std::fs::read_dir(node.dir().join(below))
                    .into_iter()
                    .flatten()
                    .flatten();
                left.extend(entries.map(|entry| entry.path().display().to_string()));
            }
        }
        Ok(left)
    }

    /// The ends of all logs.
    pub fn last_words(&self) -> String {
        let words = |node: &Node| format!("--- {}\n{}\n", node.name, node.log_tail(15));
        self.nodes.iter().map(words).collect()
    }
}

/// Runs a test on a cluster of its own. When it fails, the ends of all logs are told.
pub fn with_cluster<F: Future<Output = Result<()>>>(size: usize, test: impl FnOnce(Arc<Cluster>) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts where threads are to be had");
    let outcome = runtime.block_on(async {
        let cluster = Arc::new(Cluster::start(size).await?);
        let outcome = test(Arc::clone(&cluster)).await;
        outcome.with_context(|| cluster.last_words())
    });
    if let Err(error) = outcome {
        panic!("{error:?}");
    }
}

/// The first three numbers of addresses on loopback that no other cluster uses: every address there is local, and
/// ports need not be shared, so a server that restarts finds its own free.
fn free_network(size: usize) -> Result<String> {
    for _ in 0..100 {
        let mut random = rand::rng();
        let network = format!("127.{}.{}", random.random_range(1..255), random.random_range(0..255));
        let ports = (1..=size).flat_map(|number| [API_PORT, CLUSTER_PORT].map(|port| (number, port)));
        let is_free = |(number, port): (usize, u16)| TcpListener::bind(format!("{network}.{number}:{port}")).is_ok();
        if ports.into_iter().all(is_free) {
            return Ok(network);
        }
    }
    bail!("no free addresses on loopback")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_on_loopback_are_free_and_differ() {
        let networks: std::collections::BTreeSet<_> = (0..20).map(|_| free_network(3).unwrap()).collect();
        assert!(networks.len() > 15, "{networks:?}");
        assert!(
            networks
                .iter()
                .all(|network| network.starts_with("127.") && network != "127.0.0")
        );
    }
}
