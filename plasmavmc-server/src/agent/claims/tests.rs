use std::os::unix::fs::MetadataExt;

use super::super::instance::Life;
use super::*;

struct Pool {
    folder: tempfile::TempDir,
    vm: VmId,
}

impl Pool {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            vm: VmId::from_uuid(Uuid::from_u128(7)),
        }
    }

    fn claim(&self, me: &Claimant, own: u64) -> Result<Vec<String>, ClaimError> {
        let pools = [self.folder.path().to_owned()];
        me.claim(&pools, self.vm, Incarnation::from_raw(own))
    }

    fn claims(&self) -> PathBuf {
        folder_of(self.folder.path(), self.vm)
    }

    fn names(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.claims()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

fn life(number: u128, machine: &str) -> Life {
    Life {
        boot_id: BootId::from_uuid(Uuid::from_u128(number)),
        nonce: InstanceNonce::from_uuid(Uuid::from_u128(number)),
        machine: Some(machine.to_owned()),
    }
}

fn host(number: u128, life: Life, past: Vec<Life>) -> Claimant {
    Claimant {
        host: HostId::from_uuid(Uuid::from_u128(number)),
        instance: Instance { life, past },
    }
}

fn one() -> Claimant {
    host(1, life(1, "one"), Vec::new())
}

fn two() -> Claimant {
    host(2, life(2, "two"), Vec::new())
}

#[test]
fn a_claim_is_made_once_and_is_its_makers_again_and_again() {
    let pool = Pool::new();
    let claimed = pool.claim(&one(), 3).unwrap();
    let folder = fs::canonicalize(pool.claims()).unwrap();
    assert_eq!(claimed, [folder.to_str().unwrap()]);
    assert_eq!(pool.names(), ["3".to_owned()].into());
    let before = fs::metadata(pool.claims().join("3")).unwrap();
    assert_eq!(pool.claim(&one(), 3).unwrap(), claimed);
    let after = fs::metadata(pool.claims().join("3")).unwrap();
    assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
    let refused = pool.claim(&two(), 3).unwrap_err();
    assert!(
        matches!(refused, ClaimError::Anothers { .. }) && refused.is_final(),
        "{refused}"
    );
}

#[test]
fn a_rebooted_machine_knows_its_claims_and_a_copy_of_its_disk_does_not() {
    let pool = Pool::new();
    pool.claim(&one(), 3).unwrap();
    let check = |claimant: Claimant, is_ours: bool| {
        let claimed = pool.claim(&claimant, 3);
        assert_eq!(claimed.is_ok(), is_ours, "{claimed:?}");
    };
    check(host(1, life(9, "one"), vec![life(1, "one")]), true);
    check(host(1, life(9, "copy"), vec![life(1, "one")]), false);
    check(host(1, life(9, "one"), Vec::new()), false);
    check(host(2, life(1, "one"), Vec::new()), false);
}

#[test]
fn a_start_below_the_highest_claim_is_refused_and_leaves_nothing() {
    let pool = Pool::new();
    pool.claim(&two(), 4).unwrap();
    let refused = pool.claim(&one(), 3).unwrap_err();
    let ClaimError::Superseded { own, higher, .. } = &refused else {
        panic!("{refused}")
    };
    assert_eq!((own.get(), higher.get()), (3, 4));
    assert!(!refused.is_final());
    assert_eq!(pool.names(), ["4".to_owned()].into());
    // The next one is above.
    pool.claim(&one(), 5).unwrap();
    assert!(matches!(pool.claim(&two(), 4), Err(ClaimError::Superseded { .. })));
}

#[test]
fn many_at_once_make_one_claim() {
    let pool = Pool::new();
    let makers: Vec<Claimant> = (1..=8)
        .map(|number| host(number, life(number, "m"), Vec::new()))
        .collect();
    let pool = &pool;
    let won = std::thread::scope(|scope| {
        let try_it = |me| scope.spawn(move || pool.claim(me, 1).is_ok());
        let tries: Vec<_> = makers.iter().map(try_it).collect();
        let won = tries.into_iter().map(|one| one.join().unwrap());
        won.filter(|won| *won).count()
    });
    assert_eq!(won, 1);
    assert_eq!(pool.names().len(), 1);
}

#[test]
fn what_a_crash_left_unfinished_is_no_claim_and_goes() {
    let pool = Pool::new();
    fs::create_dir(pool.claims()).unwrap();
    let left = |name: &str| fs::write(pool.claims().join(name), b"{\"ho").unwrap();
    left("3.0b7f.new");
    left("2.0b7f.new");
    left("4.0b7f.new");
    left("note");
    pool.claim(&one(), 3).unwrap();
    let expected = ["3", "4.0b7f.new", "note"].map(str::to_owned);
    assert_eq!(pool.names(), expected.into());
}

#[test]
fn a_claim_that_cannot_be_read_is_nobodys_and_is_named() {
    let pool = Pool::new();
    fs::create_dir(pool.claims()).unwrap();
    fs::write(pool.claims().join("3"), b"").unwrap();
    let refused = pool.claim(&one(), 3).unwrap_err().to_string();
    let path = fs::canonicalize(pool.claims()).unwrap().join("3");
    assert!(refused.contains(path.to_str().unwrap()), "{refused}");
    fs::remove_file(path).unwrap();
    pool.claim(&one(), 3).unwrap();
}

#[test]
fn the_last_few_claims_stay() {
    let pool = Pool::new();
    for number in 1..=9 {
        let claimant = if number % 2 == 0 { two() } else { one() };
        pool.claim(&claimant, number).unwrap();
    }
    assert_eq!(pool.names(), ["6", "7", "8", "9"].map(str::to_owned).into());
    forget(pool.folder.path(), pool.vm).unwrap();
    forget(pool.folder.path(), pool.vm).unwrap();
    assert!(!pool.claims().exists());
}

#[test]
fn two_names_of_one_folder_are_one_claim_and_a_pool_that_is_gone_is_an_error() {
    let pool = Pool::new();
    let other_name = pool.folder.path().join("link");
    std::os::unix::fs::symlink(pool.folder.path(), &other_name).unwrap();
    let pools = [pool.folder.path().to_owned(), other_name];
    assert_eq!(one().claim(&pools, pool.vm, Incarnation::FIRST).unwrap().len(), 1);
    let gone = one().claim(&[pool.folder.path().join("gone")], pool.vm, Incarnation::FIRST);
    assert!(matches!(gone, Err(ClaimError::Io { .. })), "{gone:?}");
}
