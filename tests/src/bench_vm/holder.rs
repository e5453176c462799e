//! One process that holds many VMs: what it costs while nothing happens, and how soon it sees one end.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

use super::{millis, percentile, rounded};
use crate::bench::process::{cpu_time_of, resident_mb_of};
use crate::vms::{Place, paused};

/// Started at a time.
const AT_ONCE: usize = 4;
const READY: Duration = Duration::from_secs(300);
const NOTICE: Duration = Duration::from_secs(10);
/// Watched while nothing happens.
const IDLE: Duration = Duration::from_secs(20);
/// After the last start, before it counts as idle.
const CALM: Duration = Duration::from_secs(3);

/// The holder's own command line. Not for people: `bench vm` starts it.
#[derive(Debug, Clone, clap::Args)]
pub struct Hold {
    #[arg(long)]
    pub dir: PathBuf,
    #[arg(long)]
    pub count: usize,
}

/// Starts VMs, says the process of each, and then says which end. Ends with its input.
pub async fn hold(options: &Hold) -> Result<()> {
    let place = Place::at(&options.dir).await?;
    let starts = (0..options.count).map(|number| {
        let place = &place;
        async move { place.launch(paused(&format!("held-{number}"))?).await }
    });
    let mut started = futures::stream::iter(starts).buffer_unordered(AT_ONCE);
    let mut machines = Vec::new();
    while let Some(machine) = started.next().await {
        machines.push(machine?);
    }
    drop(started);
    let pids: Vec<i32> = machines.iter().map(|machine| machine.state().borrow().pid).collect();
    println!("{}", serde_json::to_string(&pids)?);
    for machine in &machines {
        let mut state = machine.state();
        tokio::spawn(async move {
            if let Ok(state) = state.wait_for(|state| state.phase.is_gone()).await {
                println!("{}", state.pid);
            }
        });
    }
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}

pub async fn measure(count: usize, figures: &mut BTreeMap<&'static str, Value>) -> Result<()> {
    let place = Place::new().await?;
    let begun = Instant::now();
    let mut holder = Command::new(std::env::current_exe()?)
        .arg("vm-holder")
        .arg("--dir")
        .arg(place.folder())
        .args(["--count", &count.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let pid = holder.id().context("the holder ended")?.to_string();
    let mut said = BufReader::new(holder.stdout.take().context("its output")?).lines();
    let ready = next_line(&mut said, READY).await?;
    let pids: Vec<i32> = serde_json::from_str(&ready)?;
    ensure!(pids.len() == count, "{} of {count} VMs run", pids.len());
    eprintln!("{count} VMs started in {:.1} s", begun.elapsed().as_secs_f64());

    tokio::time::sleep(CALM).await;
    let before = cpu_time_of(&pid)?;
    let watched = Instant::now();
    tokio::time::sleep(IDLE).await;
    let busy = cpu_time_of(&pid)? - before;
    let share_pct = 100.0 * busy.as_secs_f64() / watched.elapsed().as_secs_f64();
    let memory_mb = resident_mb_of(&pid)?;

    let mut notices = Vec::new();
    for victim in pids.iter().take(100) {
        let victim_pid = Pid::from_raw(*victim).context("a pid")?;
        let begun = Instant::now();
        kill_process(victim_pid, Signal::KILL)?;
        let gone = next_line(&mut said, NOTICE).await?;
        notices.push(millis(begun.elapsed()));
        ensure!(gone == victim.to_string(), "{gone} is said to be gone, not {victim}");
    }
    let (p50, p99) = (percentile(&mut notices, 0.5), percentile(&mut notices, 0.99));
    eprintln!(
        "holder of {count}: {memory_mb:.1} MB, {share_pct:.2} % of a processor; an end seen after {p50:.1} ms (p99 {p99:.1})"
    );
    figures.insert("held", count.into());
    figures.insert("holder_rss_mb_200", rounded(memory_mb));
    figures.insert("holder_idle_cpu_pct_200", rounded(share_pct));
    figures.insert("exit_notice_p50_ms", rounded(p50));
    figures.insert("exit_notice_p99_ms", rounded(p99));
    drop(holder.stdin.take());
    holder.wait().await?;
    Ok(())
}

async fn next_line(lines: &mut Lines<BufReader<ChildStdout>>, within: Duration) -> Result<String> {
    let line = tokio::time::timeout(within, lines.next_line()).await;
    line.context("the holder says nothing")??.context("the holder ended")
}
