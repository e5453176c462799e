//! A client that does not give up, and somebody who starts the server again when it has died.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use parking_lot::Mutex;
use tonic::{Code, Status};

use crate::cluster::{Client, Cluster, Node};

const PATIENCE: Duration = Duration::from_secs(120);
const AGAIN_AFTER: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Persistent<'a> {
    cluster: &'a Cluster,
    node: &'a Node,
    client: Client,
    /// What is being done, and what was when the server died.
    step: Mutex<(&'static str, Option<&'static str>)>,
}

impl<'a> Persistent<'a> {
    pub fn new(cluster: &'a Cluster, node: &'a Node) -> Result<Self> {
        Ok(Self {
            cluster,
            node,
            client: node.client()?,
            step: Mutex::new(("start", None)),
        })
    }

    /// Where the disks of the host are that it speaks to.
    pub fn pool(&self) -> PathBuf {
        self.node.dir().join("pools/default")
    }

    pub fn begin(&self, step: &'static str) {
        self.step.lock().0 = step;
    }

    /// The step in which the server died.
    pub fn died_in(&self) -> Option<&'static str> {
        self.step.lock().1
    }

    /// Calls until there is an answer; a refusal is one.
    pub async fn call<T>(&self, mut call: impl AsyncFnMut(Client) -> Result<T, Status>) -> Result<Result<T, Status>> {
        let begun = Instant::now();
        loop {
            let answer = call(self.client.clone()).await;
            self.revive()?;
            match answer {
                Err(status) if is_no_answer(&status) => {
                    if begun.elapsed() > PATIENCE {
                        bail!("no answer within {PATIENCE:?}: {status}");
                    }
                }
                answer => return Ok(answer),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Starts the server again if it has died of the place that was armed. It dies once: it is unarmed then.
    pub fn revive(&self) -> Result<()> {
        let Some(end) = self.node.ended_by_itself() else {
            return Ok(());
        };
        let mut step = self.step.lock();
        if step.1.is_some() {
            bail!("the server died unarmed: {end}");
        }
        step.1 = Some(step.0);
        self.cluster.restart(self.node, &[])?;
        Ok(())
    }
}

/// What says nothing about whether the call was carried out.
fn is_no_answer(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
    )
}
