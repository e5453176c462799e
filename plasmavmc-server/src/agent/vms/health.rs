//! Whether the agent in a guest answers: asked often after a start, seldom once it is known.
//!
//! A guest that never had an agent is asked less and less often: on a host with hundreds of them the asking must
//! not be what the processors do.
//!
//! Must never: call an agent well because its channel is open, or for what it answered before the guest started
//! anew.

use std::time::Duration;

use plasmavmc_kvm::machine::{Machine, MachineState, Phase};
use plasmavmc_types::AgentHealth;
use tokio::sync::watch;
use tokio::time::Instant;

/// An agent that is well answers within milliseconds; one that is just coming up is asked again soon.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// While a guest boots.
const OFTEN: Duration = Duration::from_millis(200);
/// Once it has answered.
const NOW_AND_THEN: Duration = Duration::from_secs(10);
/// When it does not.
const SELDOM: Duration = Duration::from_secs(60);
/// How long a guest may take to boot before its silence is worth telling.
const BOOT: Duration = Duration::from_secs(30);

/// When to ask next.
fn pause_after(answered: bool, since_boot: Duration) -> Duration {
    if answered {
        NOW_AND_THEN
    } else if since_boot < BOOT {
        OFTEN
    } else {
        (since_boot / 10).clamp(OFTEN, SELDOM)
    }
}

/// What to tell of it: silence while it boots is nothing to tell, unless it had answered.
fn tell(known: AgentHealth, answered: bool, since_boot: Duration) -> AgentHealth {
    match (answered, known) {
        (true, _) => AgentHealth::Responding,
        (false, AgentHealth::Responding | AgentHealth::NotResponding) => AgentHealth::NotResponding,
        (false, known) if since_boot < BOOT => known,
        (false, _) => AgentHealth::NotResponding,
    }
}

/// Asks until the machine is gone. `told` is called with what is new.
pub async fn follow<F: Future<Output = ()>>(machine: Machine, mut known: AgentHealth, told: impl Fn(AgentHealth) -> F) {
    let mut state = machine.state();
    let mut resets = state.borrow().resets;
    let mut booted = Instant::now();
    while executes(&mut state).await {
        let now = state.borrow_and_update().resets;
        if now != resets {
            (resets, booted) = (now, Instant::now());
            if known == AgentHealth::Responding {
                known = AgentHealth::NotResponding;
                told(known).await;
            }
        }
        let answered = machine.agent().health(ANSWER_WITHIN).await.is_ok();
        // An answer of the guest before it was started anew says nothing of this one.
        if state.borrow().resets != resets {
            continue;
        }
        let next = tell(known, answered, booted.elapsed());
        if next != known {
            known = next;
            told(known).await;
        }
        let pause = tokio::time::sleep(pause_after(answered, booted.elapsed()));
        tokio::select! {
            () = pause => {}
            _ = anew(&mut state, resets) => {}
        }
    }
}

/// Waits until the guest executes. False if it never will again.
async fn executes(state: &mut watch::Receiver<MachineState>) -> bool {
    let found = state
        .wait_for(|state| state.phase == Phase::Running || state.phase.is_gone())
        .await;
    found.is_ok_and(|state| !state.phase.is_gone())
}

/// Waits until the guest was started anew, or holds still, or is gone.
async fn anew(state: &mut watch::Receiver<MachineState>, resets: u64) {
    let has_changed = |state: &MachineState| state.resets != resets || state.phase != Phase::Running;
    // An error means that the machine has ended, which `executes` sees as well.
    let _ = state.wait_for(has_changed).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_it_is_silent_the_less_it_is_asked() {
        let check = |answered, since_s, expected_ms| {
            let pause = pause_after(answered, Duration::from_secs(since_s));
            assert_eq!(
                pause,
                Duration::from_millis(expected_ms),
                "{answered} after {since_s} s"
            );
        };
        check(false, 0, 200);
        check(false, 29, 200);
        check(false, 30, 3000);
        check(false, 300, 30_000);
        check(false, 86_400, 60_000);
        check(true, 1, 10_000);
    }

    #[test]
    fn silence_while_it_boots_is_not_told() {
        use AgentHealth::{NotAsked, NotResponding, Responding};
        let check = |known, answered, since_s, expected| {
            let told = tell(known, answered, Duration::from_secs(since_s));
            assert_eq!(told, expected, "{known:?} {answered} {since_s}");
        };
        check(NotAsked, false, 1, NotAsked);
        check(NotAsked, false, 31, NotResponding);
        check(NotAsked, true, 1, Responding);
        check(Responding, false, 1, NotResponding);
        check(NotResponding, true, 99, Responding);
    }
}
