//! The actions, each a course of steps with a deadline. They run beside the task that owns the machine, and see
//! it only through its published state.

use std::time::Duration;

use plasmavmc_types::{AgentPolicy, PauseCause};
use serde_json::json;
use tokio::time::Instant;

use super::error::MachineError;
use super::hands::Hands;
use super::{Action, Phase, patience};
use crate::qga::ShutdownMode;

/// Lets the guest execute, for the first time or again.
pub async fn cont(hands: &Hands, action: Action) -> Result<(), MachineError> {
    let command = match hands.phase() {
        Phase::Paused(PauseCause::Suspended) => "system_wakeup",
        _ => "cont",
    };
    hands.command(action, command, json!({})).await?;
    hands
        .wait_until(patience::COMMAND, |state| {
            state.phase == Phase::Running || state.phase.is_gone()
        })
        .await;
    Ok(())
}

pub async fn pause(hands: &Hands) -> Result<(), MachineError> {
    hands.command(Action::Pause, "stop", json!({})).await?;
    hands
        .wait_until(patience::COMMAND, |state| state.phase != Phase::Running)
        .await;
    Ok(())
}

/// The reset button: the guest is not asked. Who paused the VM decides when it goes on, as with QEMU itself
/// and libvirt. One that has stopped for a reason of its own (panic, watchdog, a disk's error) is reset in
/// order to go on.
pub async fn reset(hands: &Hands) -> Result<(), MachineError> {
    let was = hands.phase();
    hands.command(Action::Reset, "system_reset", json!({})).await?;
    // QEMU itself leaves it stopped through a reset, whatever stopped it.
    let is_held = matches!(was, Phase::Paused(PauseCause::Asked | PauseCause::Debugger));
    if matches!(was, Phase::Paused(_)) && !is_held {
        hands.command(Action::Reset, "cont", json!({})).await?;
    }
    Ok(())
}

/// Asks the guest to power off, waits until it has, and ends QEMU.
pub async fn stop(hands: &Hands, within: Duration) -> Result<(), MachineError> {
    ask_to_power_off(hands, Action::Stop, within).await?;
    finish(hands, Action::Stop).await
}

/// Asks the guest to power off and starts it anew in the same process. The guest never restarts itself: then
/// nobody could tell a reboot that was asked for from a crash.
pub async fn reboot(hands: &Hands, within: Duration) -> Result<(), MachineError> {
    let deadline = Instant::now() + within;
    ask_to_power_off(hands, Action::Reboot, within).await?;
    let resets = hands.seen.borrow().resets;
    hands.command(Action::Reboot, "system_reset", json!({})).await?;
    hands.command(Action::Reboot, "cont", json!({})).await?;
    let left = deadline
        .saturating_duration_since(Instant::now())
        .max(patience::COMMAND);
    hands.wait_until(left, |state| state.resets > resets).await;
    Ok(())
}

async fn ask_to_power_off(hands: &Hands, action: Action, within: Duration) -> Result<(), MachineError> {
    let agent = &hands.channels.agent;
    let health = match hands.policy {
        AgentPolicy::None => None,
        AgentPolicy::Required | AgentPolicy::Optional => Some(agent.health(patience::AGENT.min(within)).await),
    };
    match (health, hands.policy) {
        (Some(Ok(_)), _) => {
            agent
                .shutdown(ShutdownMode::PowerDown, patience::AGENT.min(within))
                .await?;
        }
        (Some(Err(source)), AgentPolicy::Required) => return Err(MachineError::AgentSilent { action, source }),
        (Some(Err(_)) | None, _) => hands.command(action, "system_powerdown", json!({})).await?,
    }
    if hands.wait_powered_off(within).await {
        Ok(())
    } else {
        Err(MachineError::DidNotPowerOff { within })
    }
}

/// Ends the process of a guest that has powered off.
pub async fn finish(hands: &Hands, action: Action) -> Result<(), MachineError> {
    if let Some(qmp) = &hands.qmp {
        // The end of the process is what counts, and it may come before the answer.
        let _ = qmp.execute_raw("quit", json!({}), patience::QUIT).await;
        if hands.wait_gone(patience::QUIT).await {
            return Ok(());
        }
    }
    tracing::warn!(vm = %hands.key.vm, %action, "QEMU does not quit; killing it");
    kill(hands).await
}

/// Ends the process at once.
pub async fn kill(hands: &Hands) -> Result<(), MachineError> {
    hands.host.keeper.kill(hands.key).await?;
    if hands.wait_gone(patience::KILL).await {
        Ok(())
    } else {
        Err(MachineError::NotDying { within: patience::KILL })
    }
}
