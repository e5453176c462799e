//! The peer of many VMs: nothing but QEMUs, started two at a time with the arguments that ours have.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

const IN_FLIGHT: usize = 2;
const GREETING: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// The arguments of a QEMU that runs.
pub fn arguments_of(pid: u32) -> Result<Vec<String>> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).context("reading a QEMU's arguments")?;
    let words = line
        .split(|byte| *byte == 0)
        .map(|word| String::from_utf8_lossy(word).into_owned());
    let mut words: Vec<String> = words.collect();
    words.truncate(words.len().saturating_sub(1));
    Ok(words)
}

/// VMs a second, from the first start to the last greeting. All of them are ended.
pub async fn rate(folder: &Path, arguments: &[String], count: usize) -> Result<f64> {
    let begun = Instant::now();
    let starts = (0..count).map(|number| start(folder.join(format!("bare-{number}")), arguments));
    let mut started = futures::stream::iter(starts).buffer_unordered(IN_FLIGHT);
    let mut children = Vec::new();
    while let Some(child) = started.next().await {
        children.push(child?);
    }
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    for child in &mut children {
        child.start_kill()?;
    }
    for child in &mut children {
        child.wait().await?;
    }
    for number in 0..count {
        std::fs::remove_dir_all(folder.join(format!("bare-{number}")))?;
    }
    Ok(rate)
}

async fn start(folder: PathBuf, arguments: &[String]) -> Result<Child> {
    std::fs::create_dir_all(&folder)?;
    let (program, arguments) = arguments.split_first().context("no arguments")?;
    let log = std::fs::File::create(folder.join("qemu.log"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("starting QEMU")?;
    let deadline = Instant::now() + GREETING;
    loop {
        if let Some(status) = child.try_wait()? {
            let said = std::fs::read_to_string(folder.join("qemu.log")).unwrap_or_default();
            bail!("a bare QEMU ended with {status}: {said}");
        }
        if let Ok(mut monitor) = UnixStream::connect(folder.join("qmp.sock")).await {
            let mut greeting = [0_u8; 64];
            if monitor.read(&mut greeting).await? > 0 {
                return Ok(child);
            }
        }
        if Instant::now() > deadline {
            bail!("a bare QEMU does not greet within {GREETING:?}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
