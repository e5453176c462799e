use super::*;

fn host(number: u128) -> HostId {
    HostId::from_uuid(Uuid::from_u128(number))
}

fn presence(number: u128, pool: &Path) -> Presence {
    Presence::new(host(number), InstanceNonce::from_uuid(Uuid::from_u128(number)), pool)
}

fn look(of: &mut Presence, others: &[u128]) -> (bool, BTreeMap<HostId, Sight>) {
    let others: BTreeSet<HostId> = others.iter().map(|number| host(*number)).collect();
    match of.look(&others, &others, false).unwrap() {
        Looked::Seen { is_proven, others } => (is_proven, others),
        looked => panic!("{looked:?}"),
    }
}

#[test]
fn two_hosts_see_each_other_and_each_others_locks() {
    let pool = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (presence(1, pool.path()), presence(2, pool.path()));
    assert_eq!(look(&mut one, &[2]).1, BTreeMap::new());
    let seen = look(&mut two, &[1, 3]).1;
    assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [host(1)]);
    let sight = seen[&host(1)];
    assert!(sight.is_locked);
    let sign = sight.sign.unwrap();
    assert_eq!((sign.instance, sign.writer, sign.count), (one.instance, one.writer, 1));
    look(&mut one, &[2]);
    assert_eq!(look(&mut two, &[1]).1[&host(1)].sign.unwrap().count, 2);
    drop(one);
    let left = look(&mut two, &[1]).1[&host(1)];
    assert_eq!((left.is_locked, left.sign.map(|sign| sign.count)), (false, Some(2)));
    // Nothing but the two files is left behind.
    assert_eq!(fs::read_dir(pool.path().join(FOLDER)).unwrap().count(), 2);
}

#[test]
fn a_second_server_of_one_host_does_not_get_its_file() {
    let pool = tempfile::tempdir().unwrap();
    let (mut first, mut second) = (presence(1, pool.path()), presence(1, pool.path()));
    look(&mut first, &[]);
    let none = BTreeSet::new();
    assert_eq!(second.look(&none, &none, false).unwrap(), Looked::Occupied);
    let own = pool.path().join(FOLDER).join(host(1).to_string());
    let content: Content = serde_json::from_slice(&fs::read(own).unwrap()).unwrap();
    assert_eq!(content.writer, first.writer, "it wrote without the lock");
    drop(first);
    look(&mut second, &[]);
}

#[test]
fn the_proof_lies_in_the_pool_and_goes_with_it() {
    let pool = tempfile::tempdir().unwrap();
    let folder = pool.path().join("mounted");
    fs::create_dir(&folder).unwrap();
    let none = BTreeSet::new();
    let proven = |looked: io::Result<Looked>| matches!(looked, Ok(Looked::Seen { is_proven: true, .. }));
    let mut first = presence(1, &folder);
    assert!(!proven(first.look(&none, &none, true)), "a new file holds no proof");
    assert!(proven(first.look(&none, &none, true)));
    drop(first);
    let mut second = presence(1, &folder);
    assert!(proven(second.look(&none, &none, false)), "a restart forgot it");
    // As if it was unmounted: another folder is seen in its place.
    fs::rename(&folder, pool.path().join("away")).unwrap();
    assert!(second.look(&none, &none, true).is_err());
    fs::create_dir(&folder).unwrap();
    assert!(!proven(second.look(&none, &none, true)));
    fs::remove_dir_all(&folder).unwrap();
    fs::rename(pool.path().join("away"), &folder).unwrap();
    assert!(proven(second.look(&none, &none, false)));
}

#[test]
fn a_file_that_is_cut_or_foreign_says_nothing() {
    let pool = tempfile::tempdir().unwrap();
    let mut one = presence(1, pool.path());
    look(&mut one, &[]);
    let content = fs::read(pool.path().join(FOLDER).join(host(1).to_string())).unwrap();
    let other = pool.path().join(FOLDER).join(host(2).to_string());
    for bytes in [&content[..], &content[..content.len() - 3], b""] {
        fs::write(&other, bytes).unwrap();
        let sight = look(&mut one, &[2]).1[&host(2)];
        assert_eq!((sight.sign, sight.is_locked), (None, false));
    }
}
