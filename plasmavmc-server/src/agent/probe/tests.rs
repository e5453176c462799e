use std::path::Path;

use plasmavmc_types::HostId;
use uuid::Uuid;

use super::super::Pool;
use super::*;

fn host(number: u128) -> HostId {
    HostId::from_uuid(Uuid::from_u128(number))
}

fn nonce(number: u128) -> InstanceNonce {
    InstanceNonce::from_uuid(Uuid::from_u128(number))
}

fn probes(number: u128, folder: &Path) -> Probes {
    let pool = |is_shared| Pool {
        folder: folder.to_owned(),
        is_shared,
    };
    let name = |name| PoolName::new(name).unwrap();
    let pools = [(name("nas"), pool(true)), (name("own"), pool(false))];
    Probes::new(host(number), nonce(number), &Pools::new(BTreeMap::from(pools)))
}

/// As the store has the others, each with the pool.
fn company(others: &[u128]) -> Alive {
    let other = |number: &u128| {
        let other = Other {
            name: format!("host{number}"),
            instance: nonce(*number),
            has_it: true,
            offers_it: false,
        };
        (host(*number), other)
    };
    others.iter().map(other).collect()
}

fn names(probes: &Probes) -> Vec<String> {
    probes.passed().map(ToString::to_string).collect()
}

#[tokio::test]
async fn two_hosts_in_one_folder_offer_it_and_one_alone_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (probes(1, folder.path()), probes(2, folder.path()));
    assert!(!one.look(0, |_, _| company(&[])).await);
    assert_eq!((names(&one), one.warnings()), (Vec::new(), Vec::new()));
    assert!(two.look(0, |_, _| company(&[1])).await);
    assert_eq!(names(&two), ["nas"]);
    // Not its time yet, then company comes.
    assert!(!one.look(500, |_, _| company(&[])).await);
    assert!(one.look(1000, |_, _| company(&[2])).await);
    assert_eq!(names(&one), ["nas"]);
    // The proof is written, so a server that is restarted has it at once, be it alone.
    one.look(2000, |_, _| company(&[2])).await;
    drop((one, two));
    let mut again = probes(1, folder.path());
    assert!(again.look(0, |_, _| company(&[])).await);
    assert_eq!((names(&again), again.warnings()), (vec!["nas".to_owned()], Vec::new()));
}

#[tokio::test]
async fn a_pool_that_is_gone_is_told_and_not_unshared() {
    let folder = tempfile::tempdir().unwrap();
    let pool = folder.path().join("pool");
    std::fs::create_dir(&pool).unwrap();
    let (mut one, mut two) = (probes(1, &pool), probes(2, &pool));
    two.look(0, |_, _| company(&[])).await;
    one.look(0, |_, _| company(&[2])).await;
    std::fs::rename(&pool, folder.path().join("away")).unwrap();
    assert!(one.look(LATER_MS, |_, _| company(&[2])).await);
    let warnings = one.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("nas"), "{warnings:?}");
    assert_eq!(names(&one), ["nas"]);
}

#[test]
fn looks_are_frequent_while_others_come_and_rare_otherwise() {
    let mut pace = Pace::default();
    let mut check = |at_ms, is_settled, others: &[u128], expected| {
        assert_eq!(
            pace.is_due(is_settled, &company(others), at_ms),
            expected,
            "at {at_ms} ms"
        );
    };
    check(0, false, &[], true);
    check(SOON_MS, false, &[], false);
    check(LATER_MS, false, &[], true);
    check(LATER_MS + SOON_MS, false, &[2], true);
    check(LATER_MS + 2 * SOON_MS, true, &[2], false);
    check(LATER_MS + 2 * SOON_MS, false, &[2], true);
    check(LATER_MS + HURRIES_MS + 2 * SOON_MS, false, &[2], true);
    check(LATER_MS + HURRIES_MS + 3 * SOON_MS, false, &[2], false);
    check(LATER_MS + HURRIES_MS + 3 * SOON_MS, false, &[2, 3], true);
}
