use super::*;

/// What is seen of host 2's file: what it says, and whether it is locked.
type Seen = Option<(Option<Sign>, bool)>;

fn host(number: u128) -> HostId {
    HostId::from_uuid(Uuid::from_u128(number))
}

fn nonce(number: u128) -> InstanceNonce {
    InstanceNonce::from_uuid(Uuid::from_u128(number))
}

/// Host 2's file as its instance 2 writes it: by this process, for the nth time.
fn sign(writer: u128, count: u64) -> Option<Sign> {
    Some(Sign {
        instance: nonce(2),
        writer: Uuid::from_u128(writer),
        count,
    })
}

fn seen(sight: Seen, is_proven: bool) -> Looked {
    let sight = sight.map(|(sign, is_locked)| (host(2), Sight { sign, is_locked }));
    Looked::Seen {
        is_proven,
        others: sight.into_iter().collect(),
    }
}

fn other(has_it: bool, offers_it: bool) -> BTreeMap<HostId, Other> {
    let other = Other {
        name: "two".to_owned(),
        instance: nonce(2),
        has_it,
        offers_it,
    };
    BTreeMap::from([(host(2), other)])
}

fn word(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Alone => "alone",
        Verdict::Open => "open",
        Verdict::Shared => "shared",
        Verdict::NotShared(_) => "not shared",
    }
}

#[test]
fn one_look_says_what_it_can() {
    let nobody = BTreeMap::new;
    let mut of_another_life = sign(1, 1);
    of_another_life.as_mut().unwrap().instance = nonce(9);
    let table: [(&str, Seen, BTreeMap<HostId, Other>, &str); 8] = [
        ("nobody there", None, nobody(), "alone"),
        ("another without the pool", None, other(false, false), "alone"),
        ("another that is not there yet", None, other(true, false), "open"),
        (
            "another that is there, locked",
            Some((sign(1, 1), true)),
            other(true, true),
            "shared",
        ),
        (
            "locked, before it tells of the pool",
            Some((sign(1, 1), true)),
            other(false, false),
            "shared",
        ),
        (
            "its server was just restarted",
            Some((sign(1, 1), false)),
            other(true, true),
            "open",
        ),
        (
            "locked by an instance that is over",
            Some((of_another_life, true)),
            other(true, false),
            "open",
        ),
        (
            "locked, and half written",
            Some((None, true)),
            other(true, false),
            "open",
        ),
    ];
    for (name, sight, alive, expected) in table {
        let verdict = Memory::default().learn(&seen(sight, false), &alive, 0);
        assert_eq!(word(&verdict), expected, "{name}");
    }
    // A lock of a host that is not known to live proves nothing.
    let verdict = Memory::default().learn(&seen(Some((sign(1, 1), true)), false), &nobody(), 0);
    assert_ne!(verdict, Verdict::Shared);
}

/// Looks in order, one a second, at host 2, which lives and offers the pool.
fn history(name: &str, is_proven: bool, looks: &[(Seen, &str)]) {
    let mut memory = Memory {
        is_proven,
        ..Memory::default()
    };
    for (number, (sight, expected)) in looks.iter().enumerate() {
        let looked = seen(*sight, memory.is_proven);
        let verdict = memory.learn(&looked, &other(true, true), number as u64 * 1000);
        assert_eq!(word(&verdict), *expected, "{name}, look {number}");
        assert_eq!(memory.is_proven, *expected == "shared", "{name}, look {number}");
    }
}

#[test]
fn a_file_that_is_written_on_with_its_lock_free_says_that_locks_do_not_work() {
    for is_proven in [false, true] {
        let yet = if is_proven { "shared" } else { "open" };
        let free = |writer, count| Some((sign(writer, count), false));
        history(
            "writes on",
            is_proven,
            &[
                (free(1, 1), yet),
                (free(1, 2), yet),
                (free(1, 2), yet),
                (free(1, 3), "not shared"),
                (free(1, 3), "not shared"),
                (Some((None, false)), "not shared"),
                (Some((sign(1, 4), true)), "shared"),
            ],
        );
        history(
            "restarted again and again",
            is_proven,
            &[
                (free(1, 1), yet),
                (free(2, 1), yet),
                (free(3, 5), yet),
                (free(4, 6), yet),
            ],
        );
        history(
            "ended",
            is_proven,
            &[(free(1, 1), yet), (free(1, 2), yet), (free(1, 2), yet)],
        );
        history(
            "restarted",
            is_proven,
            &[
                (free(1, 1), yet),
                (free(1, 2), yet),
                (Some((sign(2, 1), true)), "shared"),
                (free(2, 2), "shared"),
                (free(2, 3), "shared"),
                (free(2, 4), "not shared"),
            ],
        );
    }
}

#[test]
fn what_was_proven_stays_so_when_the_witness_dies() {
    let mut memory = Memory::default();
    let locked = seen(Some((sign(1, 1), true)), false);
    assert_eq!(memory.learn(&locked, &other(true, true), 0), Verdict::Shared);
    for looked in [seen(None, true), seen(Some((sign(1, 1), false)), true)] {
        for alive in [BTreeMap::new(), other(true, true)] {
            assert_eq!(memory.learn(&looked, &alive, 1000), Verdict::Shared);
        }
    }
    // Another folder is there now: nothing was proven in it.
    assert_eq!(memory.learn(&seen(None, false), &BTreeMap::new(), 2000), Verdict::Alone);
    assert!(!memory.is_proven);
}

#[test]
fn a_host_that_offers_another_folder_is_no_company() {
    let mut memory = Memory::default();
    let stranger = |offers_it| {
        let mut alive = other(true, true);
        let third = Other {
            name: "three".to_owned(),
            instance: nonce(3),
            has_it: true,
            offers_it,
        };
        alive.insert(host(3), third);
        alive
    };
    let with_two = seen(Some((sign(1, 1), true)), false);
    assert_eq!(
        memory.learn(&with_two, &stranger(true), 0),
        Verdict::Open,
        "not in a hurry"
    );
    let later = memory.learn(&with_two, &stranger(true), LASTS_MS);
    assert!(
        matches!(&later, Verdict::NotShared(why) if why.starts_with("three ")),
        "{later:?}"
    );
    // It stays so when the other one gives up offering, too, or both would begin again.
    let later = memory.learn(&with_two, &stranger(false), LASTS_MS + 1);
    assert_eq!(word(&later), "not shared");
    assert_eq!(
        memory.learn(&with_two, &other(true, true), LASTS_MS + 2),
        Verdict::Shared
    );
    // One that comes later is waited for: the folder may be remembered as it was.
    let proven = seen(Some((sign(1, 1), true)), true);
    assert_eq!(memory.learn(&proven, &stranger(true), LASTS_MS + 3), Verdict::Shared);
    let late = memory.learn(&proven, &stranger(true), 2 * LASTS_MS + 3);
    assert_eq!(word(&late), "not shared");
}

#[test]
fn a_mount_or_another_server_of_this_host_rules_it_out() {
    let mut memory = Memory::default();
    let locked = seen(Some((sign(1, 1), true)), false);
    assert_eq!(memory.learn(&locked, &other(true, true), 0), Verdict::Shared);
    let alive = other(true, true);
    assert_eq!(
        memory.learn(&Looked::Occupied, &alive, 10),
        Verdict::Shared,
        "it is just ending"
    );
    let lasting = memory.learn(&Looked::Occupied, &alive, 10 + LASTS_MS);
    assert_eq!(word(&lasting), "not shared");
    let why = "it is NFS 3".to_owned();
    let refused = memory.learn(&Looked::Refused(why.clone()), &alive, 20);
    assert_eq!(refused, Verdict::NotShared(why));
    assert!(!memory.is_proven);
}
