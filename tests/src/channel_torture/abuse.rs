//! The abuses, each followed by the proof that bytes flow.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plasmavmc_kvm::channel::{Channel, Incoming};

use super::guest::{BETWEEN_LOOKS, COMMAND, ECHO_PORTS, Guest, UNREAD_BYTES, connected, until_seen};
use super::{FLOW_RETURNS, Report};

/// How many ends of a session come from a listener that is replaced, as by a restarted server.
const LISTENER_EVERY: u64 = 5;
const INBOX_BYTES: usize = 1024 * 1024;
/// A frame may die with the connection; whoever needs an answer asks again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Ends sessions, and has a frame echoed through each that follows.
pub async fn reconnect(guest: &Guest, wanted: u64, report: &mut Report) {
    let echo = "for port in /dev/virtio-ports/echo*; do
        (while :; do cat <>$port >&0; usleep 20000; done) </dev/null >/dev/null 2>&1 & echo $! >>/run/echoes; done";
    if let Err(error) = guest.shell(echo).await {
        return report.fails("echoing ports", &error);
    }
    let each = wanted.div_ceil(ECHO_PORTS as u64);
    let ports = (0..ECHO_PORTS).map(|number| reconnect_port(guest, format!("echo{number}"), each));
    for (count, failures) in futures::future::join_all(ports).await {
        report.reconnects += count;
        for error in failures {
            report.fails("reconnect", &error);
        }
    }
    // Twenty loops that look for a host would leave the guest no time for anything else.
    if let Err(error) = guest.shell("kill $(cat /run/echoes)").await {
        report.fails("ending the echoing ports", &error);
    }
}

async fn reconnect_port(guest: &Guest, port: String, wanted: u64) -> (u64, Vec<anyhow::Error>) {
    let mut failures = Vec::new();
    let mut count = 0;
    let mut channel = match guest.listen(&port, INBOX_BYTES) {
        Ok(channel) => channel,
        Err(error) => return (0, vec![error]),
    };
    for round in 0..=wanted {
        if round > 0 {
            channel = match end_session(guest, &port, channel, round).await {
                Ok(channel) => channel,
                Err(error) => return (count, vec![error]),
            };
        }
        match echoed(&mut channel, &format!("<{port} round {round}>")).await {
            Ok(()) => count += u64::from(round > 0),
            Err(error) => failures.push(error.context(format!("{port}, round {round}"))),
        }
    }
    channel.close().await;
    (count, failures)
}

async fn end_session(guest: &Guest, port: &str, channel: Channel, round: u64) -> Result<Channel> {
    if round.is_multiple_of(LISTENER_EVERY) {
        channel.close().await;
        return guest.listen(port, INBOX_BYTES);
    }
    let before = channel.state().borrow().sessions;
    channel.sender().disconnect().await;
    let mut state = channel.state();
    let again = state.wait_for(|state| state.sessions > before);
    tokio::time::timeout(FLOW_RETURNS, again)
        .await
        .context("QEMU did not connect again")??;
    Ok(channel)
}

async fn echoed(channel: &mut Channel, frame: &str) -> Result<()> {
    connected(channel).await?;
    let deadline = Instant::now() + FLOW_RETURNS;
    loop {
        // A frame that cannot be sent is as good as one that was lost.
        let sent = channel
            .sender()
            .send(format!("{frame}\n").into_bytes(), ASK_AGAIN)
            .await;
        let seen = until_seen(channel, frame, ASK_AGAIN).await;
        match seen {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("{frame} never came back; it was last sent: {sent:?}")));
            }
            Err(_) => {}
        }
    }
}

/// Kills the agent while it sends a long answer.
pub async fn kill_agents(guest: &Guest, kills: u32, report: &mut Report) {
    if let Err(error) = guest.shell("head -c 3000000 /dev/zero >/run/big").await {
        return report.fails("a big file", &error);
    }
    for round in 0..kills {
        // At another moment of the answer each time.
        let delay_us = 1000 + 7919 * u64::from(round) % 150_000;
        match kill_agent(guest, delay_us).await {
            Ok(()) => report.agent_kills += 1,
            Err(error) => report.fails(&format!("agent kill {round}"), &error),
        }
    }
}

async fn kill_agent(guest: &Guest, delay_us: u64) -> Result<()> {
    let script = format!("(usleep {delay_us}; killall -9 qemu-ga) </dev/null >/dev/null 2>&1 &");
    guest.shell(&script).await?;
    // One answer of megabytes: what is left of it in the port is what the next sync has to get past.
    let open = serde_json::json!({ "path": "/run/big", "mode": "r" });
    if let Ok(handle) = guest.agent.execute_raw("guest-file-open", open, COMMAND).await {
        let read = serde_json::json!({ "handle": handle, "count": 3_000_000 });
        // Killed before, during or after it: each is as good, as long as the next command is answered.
        let _ = guest
            .agent
            .execute_raw("guest-file-read", read, Duration::from_secs(2))
            .await;
    }
    guest.answers(FLOW_RETURNS).await?;
    guest.shell("true").await
}

/// Lets the guest write without anybody taking it, and then takes what is there.
pub async fn leave_unread(guest: &Guest, report: &mut Report) {
    match flood(guest).await {
        Ok(bytes) => report.drained_bytes += bytes,
        Err(error) => report.fails("a reader that pauses", &error),
    }
}

async fn flood(guest: &Guest) -> Result<u64> {
    const FLOOD_BYTES: u64 = 8 * 1024 * 1024;
    const FLOOD_BLOCK_BYTES: u64 = 32 * 1024;
    let mut channel = guest.listen("flood", UNREAD_BYTES)?;
    connected(&channel).await?;
    let blocks = FLOOD_BYTES / FLOOD_BLOCK_BYTES;
    let script = format!("dd if=/dev/zero of=/dev/virtio-ports/flood bs={FLOOD_BLOCK_BYTES} count={blocks}");
    // It ends although nobody takes anything: the reader drains.
    let written = guest.shell(&script).await;
    written.with_context(|| format!("the guest's writer was blocked after {} bytes", channel.lost_bytes()))?;
    let deadline = Instant::now() + FLOW_RETURNS;
    while channel.lost_bytes() + (UNREAD_BYTES as u64) < FLOOD_BYTES {
        ensure!(
            Instant::now() < deadline,
            "only {} bytes were drained",
            channel.lost_bytes()
        );
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
    let mut marked = 0;
    let mut kept = 0;
    while let Ok(Some(incoming)) = tokio::time::timeout(BETWEEN_LOOKS, channel.receive()).await {
        match incoming {
            Incoming::Lost { bytes } => marked += bytes,
            Incoming::Data(bytes) => kept += bytes.len() as u64,
            Incoming::Connected | Incoming::Disconnected => {}
        }
    }
    ensure!(
        marked == channel.lost_bytes(),
        "{marked} bytes are marked as lost, {} are",
        channel.lost_bytes()
    );
    ensure!(
        marked + kept >= FLOOD_BYTES,
        "{marked} lost and {kept} kept are less than was sent"
    );
    guest.shell("echo still here >/dev/virtio-ports/flood").await?;
    until_seen(&mut channel, "still here", FLOW_RETURNS).await?;
    channel.close().await;
    Ok(marked)
}
