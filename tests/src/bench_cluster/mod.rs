//! `bench cluster`: a VM ordered from a cluster beside `virsh create`, and hundreds of VMs beside a bare loop.
//!
//! Three servers on one machine, with real syncs on one disk. Every figure that has a peer is a ratio of two things
//! measured in turn in one run: nothing else means anything on a machine whose speed changes by the minute.

mod bare_loop;
mod many;
mod one;

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::bench::programs::default_scratch;
use crate::cluster::{Cluster, Programs, Site};

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Fewer rounds, fewer VMs
    #[arg(long)]
    pub quick: bool,
    /// How many VMs there are at once
    #[arg(long)]
    pub vms: Option<usize>,
}

pub type Figures = BTreeMap<&'static str, Value>;

/// Runs everything and answers the figures by name.
pub async fn run(options: &Options) -> Result<Figures> {
    let rounds = if options.quick { 10 } else { 30 };
    let count = options.vms.unwrap_or(if options.quick { 60 } else { 500 });
    let mut figures = Figures::new();
    // On the disk of the build: the system's temporary folder may be in memory.
    let site = Site::below(&default_scratch())?;
    let cluster = Cluster::start_at(site, Programs::find()?, 3).await?;
    let measured = async {
        one::measure(&cluster, rounds, &mut figures).await.context("one VM")?;
        many::measure(&cluster, count, &mut figures).await.context("many VMs")
    };
    measured.await.with_context(|| cluster.last_words())?;
    Ok(figures)
}
