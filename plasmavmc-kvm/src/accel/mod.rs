//! Which accelerator runs guests on this host: KVM where it does, TCG where it does not.
//!
//! A /dev/kvm that opens proves little: inside other virtual machines there are some that run a boot sector
//! and hang with the first kernel. So a tiny guest of ours is run, on the board and the CPU model that the VM
//! will have, and has two seconds to come through (`firmware` says what it does).
//!
//! ```text
//!  wanted tcg ----------------------------------------> TCG
//!  wanted kvm, auto -> /dev/kvm opens? -> trial: ran -> KVM
//!                            |no           |no
//!                            `-------------+--> auto: TCG, with the reason;  kvm: refused, with the reason
//! ```
//!
//! Must never choose KVM on a guess, run longer than its deadline, or keep an answer beyond a reboot.

mod decision;
mod firmware;
mod remembered;
mod trial;

use std::fs::OpenOptions;
use std::path::Path;
use std::time::{Duration, Instant};

pub use decision::{Accelerator, Decision, Outcome, Refusal, Wanted, check_architecture, decide};
pub use trial::{DEADLINE, TrialError};

const KVM_DEVICE: &str = "/dev/kvm";

/// What is asked: this QEMU, as the VM will be started with it.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// A path, or a name to look for as a shell would.
    pub program: &'a Path,
    /// As in `-machine`, without `accel=`.
    pub machine: &'a str,
    /// As in `-cpu`.
    pub cpu: &'a str,
}

/// The answer, and how it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub accelerator: Accelerator,
    /// One sentence for people, without a full stop.
    pub reason: String,
    pub took: Duration,
    /// No trial was needed: there was one since this host booted.
    pub remembered: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum AccelError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Trial(#[from] TrialError),
}

/// Finds the accelerator. What a trial shows is kept in `memory`, a file, until the host reboots.
pub async fn probe(wanted: Wanted, question: Question<'_>, memory: &Path) -> Result<Verdict, AccelError> {
    let begun = Instant::now();
    check_architecture(std::env::consts::ARCH)?;
    let (decision, remembered) = match decision::without_trial(wanted) {
        Some(decision) => (decision, false),
        None => {
            let (outcome, remembered) = outcome(question, memory).await?;
            (decide(wanted, &outcome)?, remembered)
        }
    };
    Ok(Verdict {
        accelerator: decision.accelerator,
        reason: decision.reason,
        took: begun.elapsed(),
        remembered,
    })
}

async fn outcome(question: Question<'_>, memory: &Path) -> Result<(Outcome, bool), TrialError> {
    // Not remembered: it costs nothing, and loading a module or joining a group repairs it at once.
    if let Err(problem) = OpenOptions::new().read(true).write(true).open(KVM_DEVICE) {
        let problem = problem.to_string();
        return Ok((Outcome::NoDevice { problem }, false));
    }
    let key = remembered::Key::of(question.program, question.machine, question.cpu);
    let boot_and_key = remembered::boot_id().zip(key);
    if let Some((boot_id, key)) = &boot_and_key
        && let Some(outcome) = remembered::recall(memory, boot_id, key)
    {
        return Ok((outcome, true));
    }
    let outcome = trial_with(Accelerator::Kvm, question).await?;
    if let Some((boot_id, key)) = boot_and_key
        && let Err(error) = remembered::remember(memory, &boot_id, key, outcome.clone())
    {
        tracing::warn!(file = %memory.display(), %error, "the outcome of the KVM trial is not kept: the next start repeats it");
    }
    Ok((outcome, false))
}

/// Runs the trial guest with one accelerator, whatever is remembered. With TCG it always comes through:
/// that shows that a failure with KVM is KVM's.
pub async fn trial_with(accelerator: Accelerator, question: Question<'_>) -> Result<Outcome, TrialError> {
    trial::run(question.program, accelerator, question.machine, question.cpu).await
}
