//! The first connections share the threads of replication: as much work as a member can be given must not look like
//! its death. With all connections there, members built without optimisation gave their leader up under twice these
//! clients, in five runs of five.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chainfire::kv::{Key, Value};
use plasmavmc_tests::members::{Local, MemberClient};
use tokio::task::JoinSet;

const MEMBERS: usize = 3;
/// Clients of each kind at each member.
const CLIENTS: usize = 200;
/// One long page.
const LISTED: u64 = 400;
const LISTED_BYTES: usize = 2_048;
const WRITTEN_BYTES: usize = 16 * 1024;
const LOAD: Duration = Duration::from_secs(8);
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// What a client does over and over.
#[derive(Debug, Clone, Copy)]
enum Work {
    List,
    Put,
    Get,
}

impl Work {
    async fn once(self, client: &MemberClient, number: u64) -> Result<()> {
        let key = |number: u64| Key::from(format!("listed/{:05}", number % LISTED));
        match self {
            Work::List => drop(client.list(&Key::from("listed/"), 0, false).await?),
            Work::Get => drop(client.get(&key(number), false).await?),
            Work::Put => {
                let (key, value) = (format!("written/{}", number % 500), vec![b'x'; WRITTEN_BYTES]);
                client.put(&Key::from(key), &Value::from(value)).await?;
            }
        }
        Ok(())
    }
}

async fn fill(client: &MemberClient) -> Result<()> {
    for first in (0..LISTED).step_by(50) {
        let row = |number| {
            (
                Key::from(format!("listed/{number:05}")),
                Value::from(vec![b'v'; LISTED_BYTES]),
            )
        };
        client
            .put_together(&(first..first + 50).map(row).collect::<Vec<_>>())
            .await?;
    }
    Ok(())
}

async fn under_load() -> Result<()> {
    let local = Local::found(MEMBERS, Vec::new()).await?;
    fill(&local.client(0)?).await.context("filling")?;
    let before = local.client(0)?.status().await?;

    let done = [Work::List, Work::Put, Work::Get].map(|work| (work, Arc::new(AtomicU64::new(0))));
    let (start, started) = tokio::sync::watch::channel(None);
    let failed = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for member in &local.members {
        for (work, done) in &done {
            for _ in 0..CLIENTS {
                let client = MemberClient::new(&member.address, CALL_LIMIT)?;
                // It connects with its first call: one after the other, before the load.
                client.get(&Key::from("listed/"), true).await.context("connecting")?;
                let (work, done) = (*work, Arc::clone(done));
                let (mut started, failed) = (started.clone(), Arc::clone(&failed));
                clients.spawn(async move {
                    let end = started.wait_for(Option::is_some).await?.context("an end")?;
                    while Instant::now() < end {
                        let number = done.fetch_add(1, Ordering::Relaxed);
                        // More than a member can do is answered so, in time.
                        if work.once(&client, number).await.is_err() {
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    anyhow::Ok(())
                });
            }
        }
    }
    start.send_replace(Some(Instant::now() + LOAD));
    while let Some(ended) = clients.join_next().await {
        ended.context("a client")?.context("a call failed")?;
    }

    let calls = done.map(|(work, done)| (work, done.load(Ordering::Relaxed)));
    let failed = failed.load(Ordering::Relaxed);
    println!("{calls:?}, of these {failed} failed");
    let total: u64 = calls.iter().map(|(_, calls)| calls).sum();
    assert!(failed * 2 < total, "most calls must be answered, or there was no load");
    for index in 0..MEMBERS {
        let after = local.client(index)?.status().await?;
        assert_eq!(
            (after.term, after.leader_id),
            (before.term, before.leader_id),
            "the leader was given up"
        );
    }
    Ok(())
}

#[test]
fn a_leader_is_kept_under_all_the_load_that_its_members_can_be_given() {
    chainfire::descriptors::raise_limit();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(under_load()).unwrap();
}
