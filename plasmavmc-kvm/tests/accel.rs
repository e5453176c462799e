//! The trial guest on the real QEMU, and what the host's own KVM is worth.

use std::path::Path;
use std::time::{Duration, Instant};

use plasmavmc_kvm::accel::{
    AccelError, Accelerator, DEADLINE, Outcome, Question, TrialError, Wanted, probe, trial_with,
};

const QEMU: &str = "qemu-system-x86_64";
/// Above the deadline: starting and collecting a process on a loaded machine.
const SLACK: Duration = Duration::from_secs(1);

fn question<'a>(machine: &'a str, cpu: &'a str) -> Question<'a> {
    Question {
        program: Path::new(QEMU),
        machine,
        cpu,
    }
}

#[tokio::test]
async fn the_trial_guest_comes_through_on_every_board_and_cpu_without_kvm() {
    for machine in ["q35", "pc"] {
        for cpu in ["max", "qemu64"] {
            let outcome = trial_with(Accelerator::Tcg, question(machine, cpu)).await.unwrap();
            assert_eq!(outcome, Outcome::Ran, "{machine} {cpu}");
        }
    }
}

#[tokio::test]
async fn a_cpu_without_64_bit_mode_does_not_pass() {
    let outcome = trial_with(Accelerator::Tcg, question("pc", "qemu32")).await.unwrap();
    assert_eq!(outcome, Outcome::Reset);
}

#[tokio::test]
async fn auto_ends_in_time_with_a_reason_and_remembers_it() {
    let folder = tempfile::tempdir().unwrap();
    let memory = folder.path().join("accel.json");
    let begun = Instant::now();
    let first = probe(Wanted::Auto, question("q35", "max"), &memory).await.unwrap();
    assert!(begun.elapsed() < DEADLINE + SLACK, "{:?}", begun.elapsed());
    assert!(!first.remembered);
    println!("{} after {:?}: {}", first.accelerator, first.took, first.reason);
    assert!(
        first.reason.contains("KVM") || first.reason.contains("/dev/kvm"),
        "{}",
        first.reason
    );

    let second = probe(Wanted::Auto, question("q35", "max"), &memory).await.unwrap();
    assert_eq!((second.accelerator, &second.reason), (first.accelerator, &first.reason));
    if memory.exists() {
        assert!(second.remembered);
        assert!(second.took < Duration::from_millis(100), "{:?}", second.took);
    }
}

#[tokio::test]
async fn insisting_on_kvm_agrees_with_auto() {
    let folder = tempfile::tempdir().unwrap();
    let memory = folder.path().join("accel.json");
    let auto = probe(Wanted::Auto, question("q35", "max"), &memory).await.unwrap();
    match probe(Wanted::Kvm, question("q35", "max"), &memory).await {
        Ok(verdict) => assert_eq!(verdict.accelerator, auto.accelerator),
        Err(AccelError::Refused(refusal)) => {
            assert_eq!(auto.accelerator, Accelerator::Tcg);
            assert!(refusal.to_string().contains("accel = kvm"), "{refusal}");
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn what_qemu_refuses_is_told_in_its_own_words() {
    let outcome = trial_with(Accelerator::Tcg, question("q35", "no-such-cpu"))
        .await
        .unwrap();
    assert!(
        matches!(&outcome, Outcome::QemuEnded { how, said } if how == "status 1" && said.contains("no-such-cpu")),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn tcg_is_given_without_starting_anything() {
    let nowhere = Question {
        program: Path::new("/nonexistent/qemu"),
        ..question("q35", "max")
    };
    let verdict = probe(Wanted::Tcg, nowhere, Path::new("/nonexistent/accel.json"))
        .await
        .unwrap();
    assert_eq!(verdict.accelerator, Accelerator::Tcg);
    let missing = trial_with(Accelerator::Tcg, nowhere).await;
    assert!(matches!(missing, Err(TrialError::Start { .. })), "{missing:?}");
}
