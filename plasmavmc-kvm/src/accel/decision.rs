//! What follows from a trial: pure, so that every combination stands in a table.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What executes a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The CPU itself.
    Kvm,
    /// QEMU's translator: correct everywhere, and about ten times slower.
    Tcg,
}

impl Accelerator {
    /// As QEMU's `accel=` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the configuration asks for: `accel = kvm | tcg | auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// KVM or nothing.
    Kvm,
    /// TCG without a look at KVM.
    Tcg,
    /// KVM where it runs a guest, else TCG.
    #[default]
    Auto,
}

impl FromStr for Wanted {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        match text {
            "kvm" => Ok(Wanted::Kvm),
            "tcg" => Ok(Wanted::Tcg),
            "auto" => Ok(Wanted::Auto),
            _ => Err(Refusal::UnknownWord { word: text.to_owned() }),
        }
    }
}

/// How KVM did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The trial guest came to its end.
    Ran,
    /// /dev/kvm is not there or does not open.
    NoDevice { problem: String },
    /// It was still running when its time was over.
    TooSlow { after: Duration },
    /// The guest read back something else than it had written.
    Miscomputed,
    /// The CPU of the guest reset itself: a fault in the handler of a fault.
    Reset,
    /// QEMU ended by itself before the guest came to its end.
    QemuEnded { how: String, said: String },
}

impl Outcome {
    /// One sentence for people, without a full stop.
    pub fn sentence(&self) -> String {
        match self {
            Outcome::Ran => "KVM ran the trial guest".to_owned(),
            Outcome::NoDevice { problem } => format!("/dev/kvm cannot be opened: {problem}"),
            Outcome::TooSlow { after } => format!(
                "/dev/kvm opens, but a guest of 400 bytes was not through within {} ms (usual where virtualisation is \
                 nested or switched off one level below)",
                after.as_millis()
            ),
            Outcome::Miscomputed => "/dev/kvm opens, but the trial guest computed something wrong".to_owned(),
            Outcome::Reset => "/dev/kvm opens, but the trial guest's CPU reset itself in 64-bit mode".to_owned(),
            Outcome::QemuEnded { how, said } if said.is_empty() => {
                format!("/dev/kvm opens, but QEMU ended with it ({how})")
            }
            Outcome::QemuEnded { how, said } => format!("/dev/kvm opens, but QEMU ended with it ({how}): {said}"),
        }
    }
}

/// Why there is no accelerator to give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("accel = {word:?} is unknown: write kvm, tcg or auto")]
    UnknownWord { word: String },
    #[error("this host's CPU is of the architecture {architecture}: VMs run on x86_64 hosts only")]
    Architecture { architecture: String },
    #[error("accel = kvm, but {sentence}: repair KVM on this host, or set accel = auto or tcg")]
    KvmUnusable { sentence: String },
}

/// The accelerator to use, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub accelerator: Accelerator,
    /// One sentence for people, without a full stop.
    pub reason: String,
}

/// Refuses hosts that can run none of our guests, whatever is wanted.
pub fn check_architecture(architecture: &str) -> Result<(), Refusal> {
    match architecture {
        "x86_64" => Ok(()),
        other => Err(Refusal::Architecture {
            architecture: other.to_owned(),
        }),
    }
}

/// Decides what can be decided without a trial.
pub fn without_trial(wanted: Wanted) -> Option<Decision> {
    (wanted == Wanted::Tcg).then(|| Decision {
        accelerator: Accelerator::Tcg,
        reason: "TCG: the configuration says accel = tcg".to_owned(),
    })
}

/// Decides after the trial.
pub fn decide(wanted: Wanted, outcome: &Outcome) -> Result<Decision, Refusal> {
    if let Some(decision) = without_trial(wanted) {
        return Ok(decision);
    }
    let sentence = outcome.sentence();
    match (outcome, wanted) {
        (Outcome::Ran, _) => Ok(Decision {
            accelerator: Accelerator::Kvm,
            reason: sentence,
        }),
        (_, Wanted::Kvm) => Err(Refusal::KvmUnusable { sentence }),
        (_, Wanted::Auto | Wanted::Tcg) => Ok(Decision {
            accelerator: Accelerator::Tcg,
            reason: format!("TCG: {sentence}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures() -> Vec<Outcome> {
        vec![
            Outcome::NoDevice {
                problem: "No such file or directory".to_owned(),
            },
            Outcome::TooSlow {
                after: Duration::from_secs(2),
            },
            Outcome::Miscomputed,
            Outcome::Reset,
            Outcome::QemuEnded {
                how: "signal 6".to_owned(),
                said: "error: failed to set MSR 0x345".to_owned(),
            },
        ]
    }

    #[test]
    fn kvm_is_used_only_after_it_ran_a_guest() {
        for wanted in [Wanted::Auto, Wanted::Kvm] {
            let decision = decide(wanted, &Outcome::Ran).unwrap();
            assert_eq!(decision.accelerator, Accelerator::Kvm);
        }
        for outcome in failures() {
            let decision = decide(Wanted::Auto, &outcome).unwrap();
            assert_eq!(decision.accelerator, Accelerator::Tcg, "{outcome:?}");
            assert!(decision.reason.contains("/dev/kvm"), "{}", decision.reason);
        }
    }

    #[test]
    fn who_insists_on_kvm_gets_it_or_the_reason() {
        for outcome in failures() {
            let refusal = decide(Wanted::Kvm, &outcome).unwrap_err();
            assert!(refusal.to_string().contains(&outcome.sentence()), "{refusal}");
        }
    }

    #[test]
    fn who_wants_tcg_gets_it_even_where_kvm_runs() {
        assert_eq!(
            decide(Wanted::Tcg, &Outcome::Ran).unwrap().accelerator,
            Accelerator::Tcg
        );
        assert!(without_trial(Wanted::Auto).is_none() && without_trial(Wanted::Kvm).is_none());
    }

    #[test]
    fn other_architectures_and_words_are_refused_by_name() {
        assert_eq!(check_architecture("x86_64"), Ok(()));
        let refusal = check_architecture("aarch64").unwrap_err().to_string();
        assert!(refusal.contains("aarch64") && refusal.contains("x86_64"), "{refusal}");
        let refusal = "xen".parse::<Wanted>().unwrap_err().to_string();
        assert!(refusal.contains("\"xen\"") && refusal.contains("auto"), "{refusal}");
        assert_eq!("auto".parse(), Ok(Wanted::Auto));
    }
}
