//! `demo --store`: three ChainFire members on this machine, one of them killed, nothing lost.
//!
//! Uses the `chainfire` program the way a user would. Whatever happens, no member and no file of the demo
//! remains: both go when [`Cluster`] is dropped.

mod client;
mod cluster;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::checkout::{Checkout, Profile};
use crate::deadline::Interrupt;
use crate::setup::{self, Purpose};
use crate::step;
use client::Client;
use cluster::Cluster;

const WRITES_BEFORE: usize = 20;
const WRITES_AFTER: usize = 20;
const PREFIX: &str = "demo/";
/// Far above what a healthy cluster needs, for machines that are busy with something else.
const WRITES_RESUME_WITHIN: Duration = Duration::from_secs(30);

pub fn run(checkout: &Checkout, check: bool) -> Result<ExitCode> {
    setup::ensure(checkout, Purpose::Store)?;
    step::run(
        "build chainfire",
        &mut checkout.cargo(&["build", "--package", "chainfire", "--bins"]),
    )?;
    let interrupt = Interrupt::install()?;
    let mut cluster = Cluster::new(checkout.binary(Profile::Dev, "chainfire"), interrupt.clone())?;
    if let Err(error) = play(&mut cluster) {
        if !interrupt.is_set() {
            eprintln!("{}", cluster.last_words());
        }
        return Err(error);
    }
    if check {
        println!("demo: every step succeeded");
        return Ok(ExitCode::SUCCESS);
    }
    invite(&cluster);
    if let Some(reason) = interrupt.await_interrupt(|| cluster.ended_by_itself()) {
        bail!("{reason}\n{}", cluster.last_words());
    }
    println!("\nStopping; nothing of the demo remains.");
    Ok(ExitCode::SUCCESS)
}

fn play(cluster: &mut Cluster) -> Result<()> {
    println!("1. Three members start on this machine and form a cluster.");
    cluster.form()?;
    let client = cluster.client();
    println!("{}", client.table(&["status"])?);

    println!("2. {WRITES_BEFORE} writes, each acknowledged by a majority.");
    let mut writes = Writes::new(client);
    for _ in 0..WRITES_BEFORE {
        writes.one()?;
    }

    let leader = cluster.leader()?;
    println!("3. The leader, {}, dies: kill -9.", cluster.describe(leader));
    cluster.kill(leader)?;
    let died = Instant::now();
    cluster
        .interrupt()
        .await_condition("a write after the leader's death", WRITES_RESUME_WITHIN, || {
            writes.one()
        })?;
    println!("   Writes resumed after {:.2} s.", died.elapsed().as_secs_f64());
    for _ in 1..WRITES_AFTER {
        writes.one()?;
    }
    writes.check_nothing_lost()?;
    println!("   All {} acknowledged writes are there.", writes.acknowledged);

    println!("4. {} starts again and catches up.", cluster.describe(leader));
    cluster.restart(leader)?;
    println!("{}", cluster.client().table(&["member", "list"])?);
    Ok(())
}

/// Numbered writes, so that a lost one would be missed.
struct Writes {
    client: Client,
    acknowledged: usize,
}

impl Writes {
    fn new(client: Client) -> Self {
        Self {
            client,
            acknowledged: 0,
        }
    }

    fn one(&mut self) -> Result<()> {
        let next = self.acknowledged;
        self.client.put(&key(next), &value(next))?;
        self.acknowledged += 1;
        Ok(())
    }

    fn check_nothing_lost(&self) -> Result<()> {
        for number in 0..self.acknowledged {
            let found = self
                .client
                .get(&key(number))
                .with_context(|| format!("write {number} is lost"))?;
            if found != value(number) {
                bail!("write {number} holds {found:?} instead of {:?}", value(number));
            }
        }
        Ok(())
    }
}

fn key(number: usize) -> String {
    format!("{PREFIX}{number:04}")
}

fn value(number: usize) -> String {
    format!("value of write {number}")
}

fn invite(cluster: &Cluster) {
    let program = cluster.program().display();
    println!("The cluster stays up until Ctrl-C. In another terminal:\n");
    println!("  export CHAINFIRE_SERVER={}", cluster.addresses());
    println!("  {program} status");
    println!("  {program} put greeting hello");
    println!("  {program} get greeting");
    println!("  {program} range {PREFIX}");
    println!("  {program} watch {PREFIX}        # and write below it from a third terminal");
    println!("  {program} member list -o json");
}
