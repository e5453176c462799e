//! What to make of what is found, as one pure table.

use plasmavmc_guard::wire::{ExitReason, Key, Phase};
use plasmavmc_types::AttemptId;

/// What is known of one VM on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// What the guard holds for it.
    pub held: Option<(Key, Phase)>,
    pub folder: FolderEvidence,
    /// Processes with the VM's id in their command line, besides the one the guard holds.
    pub other_pids: Vec<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderEvidence {
    Absent,
    Present {
        /// Somebody holds the lock: a QEMU, or who starts one.
        is_locked: bool,
        record: RecordEvidence,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordEvidence {
    None,
    Of(AttemptId),
    Unusable(String),
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It runs, and we know what it is.
    Runs(Key),
    /// It ended while nobody looked.
    Ended(Key, ExitReason),
    /// The guard holds a process that we know nothing about.
    Unknown {
        key: Key,
        problem: String,
    },
    /// Processes that nobody holds. They may run the VM: it must not be started, nor they be killed unasked.
    Orphans(Vec<i32>),
    /// Somebody is starting it right now, or holds its lock for another reason.
    Locked,
    /// The rest of a VM that does not run.
    Stale,
    Nothing,
}

pub fn judge(evidence: &Evidence) -> Verdict {
    match (&evidence.held, &evidence.folder) {
        (Some((key, Phase::Exited(exit))), _) if evidence.other_pids.is_empty() => Verdict::Ended(*key, exit.reason),
        (Some((key, phase)), folder) if !phase.is_exited() => match folder {
            FolderEvidence::Present {
                record: RecordEvidence::Of(attempt),
                ..
            } if *attempt == key.attempt => Verdict::Runs(*key),
            folder => Verdict::Unknown {
                key: *key,
                problem: problem_of(folder),
            },
        },
        _ if !evidence.other_pids.is_empty() => Verdict::Orphans(evidence.other_pids.clone()),
        (_, FolderEvidence::Absent) => Verdict::Nothing,
        (_, FolderEvidence::Present { is_locked: true, .. }) => Verdict::Locked,
        (_, FolderEvidence::Present { is_locked: false, .. }) => Verdict::Stale,
    }
}

fn problem_of(folder: &FolderEvidence) -> String {
    match folder {
        FolderEvidence::Absent => "its runtime folder is gone".to_owned(),
        FolderEvidence::Present { record, .. } => match record {
            RecordEvidence::None => "its record is gone".to_owned(),
            RecordEvidence::Of(attempt) => format!("its record is of attempt {attempt}"),
            RecordEvidence::Unusable(problem) => problem.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use plasmavmc_guard::wire::Exit;
    use plasmavmc_types::VmId;
    use uuid::Uuid;

    use super::*;

    fn attempt(number: u128) -> AttemptId {
        AttemptId::from_uuid(Uuid::from_u128(number))
    }

    fn key() -> Key {
        Key {
            vm: VmId::from_uuid(Uuid::from_u128(9)),
            attempt: attempt(1),
        }
    }

    fn exited() -> Phase {
        Phase::Exited(Exit {
            reason: ExitReason::Exited { code: 0 },
            seen_unix_ms: 1,
        })
    }

    fn check(held: Option<Phase>, folder: Option<(bool, RecordEvidence)>, pids: &[i32], expected: &Verdict) {
        let folder = folder.map_or(FolderEvidence::Absent, |(is_locked, record)| FolderEvidence::Present {
            is_locked,
            record,
        });
        let evidence = Evidence {
            held: held.map(|phase| (key(), phase)),
            folder,
            other_pids: pids.to_vec(),
        };
        assert_eq!(judge(&evidence), *expected, "{evidence:?}");
    }

    #[test]
    fn what_is_found_is_told_apart() {
        let ours = || RecordEvidence::Of(attempt(1));
        let unknown = |problem: &str| Verdict::Unknown {
            key: key(),
            problem: problem.to_owned(),
        };
        check(Some(Phase::Running), Some((true, ours())), &[], &Verdict::Runs(key()));
        check(Some(Phase::Adopted), Some((true, ours())), &[], &Verdict::Runs(key()));
        check(
            Some(Phase::Registered),
            Some((true, ours())),
            &[],
            &Verdict::Runs(key()),
        );
        let ended = Verdict::Ended(key(), ExitReason::Exited { code: 0 });
        check(Some(exited()), Some((false, ours())), &[], &ended);
        check(Some(exited()), None, &[], &ended);
        let other = format!("its record is of attempt {}", attempt(2));
        check(
            Some(Phase::Running),
            Some((true, RecordEvidence::Of(attempt(2)))),
            &[],
            &unknown(&other),
        );
        check(
            Some(Phase::Running),
            Some((true, RecordEvidence::Unusable("torn".into()))),
            &[],
            &unknown("torn"),
        );
        check(Some(Phase::Running), None, &[], &unknown("its runtime folder is gone"));
        check(None, Some((true, ours())), &[77], &Verdict::Orphans(vec![77]));
        check(None, None, &[77], &Verdict::Orphans(vec![77]));
        check(None, Some((true, ours())), &[], &Verdict::Locked);
        check(None, Some((false, ours())), &[], &Verdict::Stale);
        check(None, None, &[], &Verdict::Nothing);
    }

    #[test]
    fn an_ended_attempt_never_hides_a_process_that_runs() {
        check(
            Some(exited()),
            Some((true, RecordEvidence::None)),
            &[77],
            &Verdict::Orphans(vec![77]),
        );
    }
}
