//! An election where every vote takes long to be kept.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use plasmavmc_tests::members::{Expectation, Local, await_agreement};

/// Longer than a candidate's first patience, and shorter than what a vote may take at all.
const SYNC_MS: u64 = 400;
const ELECTED_WITHIN: Duration = Duration::from_secs(30);
/// Candidates that stood again whenever they had no answer yet came to thousands.
const MAX_TERMS: u64 = 3;

async fn elected_on_slow_disks() -> Result<()> {
    let slow = ("CHAINFIRE_FAULT_LOG_DELAY_MS".to_owned(), SYNC_MS.to_string());
    let mut local = Local::found(3, vec![slow]).await?;
    for round in 0..3 {
        local.await_whole(3, false, ELECTED_WITHIN).await?;
        let before = local.client(0)?.status().await?;
        let ids = before.members.iter().map(|member| (member.id, member.address.clone()));
        let (_, address) = ids
            .into_iter()
            .find(|(id, _)| *id == before.leader_id)
            .context("a leader")?;
        let place = local.members.iter().position(|member| member.address == address);
        let leader = place.context("the leader is one of the three")?;
        let killed = Instant::now();
        local.kill(leader);

        let survivors = (0..3).filter(|index| *index != leader);
        let survivors = survivors.map(|index| local.client(index)).collect::<Result<Vec<_>>>()?;
        let expected = Expectation {
            voters: 3,
            same_state: false,
        };
        let deadline = killed + ELECTED_WITHIN;
        let after = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let agreed = await_agreement(&survivors, expected, left).await;
            let after = agreed.map_err(anyhow::Error::msg)?.swap_remove(0);
            // At first both still name the one that is gone.
            if after.leader_id != before.leader_id {
                break after;
            }
        };
        let (terms, took) = (after.term - before.term, killed.elapsed());
        println!("round {round}: {terms} terms, {took:?}");
        assert!(terms <= MAX_TERMS, "{terms} terms for one election");
        local.launch(leader, false)?;
    }
    Ok(())
}

#[test]
fn a_leader_is_elected_though_each_vote_takes_long_to_be_kept() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(elected_on_slow_disks()).unwrap();
}
