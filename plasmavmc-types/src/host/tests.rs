use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn beat() -> BeatFields {
    BeatFields {
        epoch: Epoch::FIRST,
        instance: InstanceNonce::from_uuid(Uuid::from_u128(1)),
        boot_id: BootId::from_uuid(Uuid::from_u128(2)),
        sequence: BeatSequence(1),
        lease_ms: 4000,
        failover_ms: 6000,
        capacity: Capacity {
            vcpus: 8,
            memory_mb: 16_384,
        },
        usage: Usage::default(),
        facts: HostFacts::default(),
    }
}

fn session() -> Session {
    Session {
        epoch: Epoch::FIRST,
        instance: InstanceNonce::from_uuid(Uuid::from_u128(1)),
        boot_id: BootId::from_uuid(Uuid::from_u128(2)),
        state: SessionState::Open,
    }
}

#[test]
fn a_host_without_an_address_or_with_one_twice_is_refused() {
    let id = HostId::from_uuid(Uuid::from_u128(1));
    let name = HostName::new("alpha").unwrap();
    let address: Address = "alpha:50052".parse().unwrap();
    let record = HostRecord::new(id, name.clone(), vec![address.clone()]).unwrap();
    assert_eq!(record.with_mode(HostMode::Draining).mode(), HostMode::Draining);
    let json = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<HostRecord>(&json).unwrap(), record);

    assert!(
        HostRecord::new(id, name.clone(), vec![])
            .unwrap_err()
            .mentions("addresses")
    );
    let twice = HostRecord::new(id, name, vec![address.clone(), address]).unwrap_err();
    assert!(twice.mentions("addresses[1]"), "{twice}");
}

#[test]
fn a_beat_counts_only_in_its_own_open_session() {
    let beat = Beat::new(beat()).unwrap();
    assert!(beat.belongs_to(&session()));
    assert!(!beat.belongs_to(&session().fenced()));
    let later = Session {
        epoch: Epoch::from_raw(2),
        ..session()
    };
    assert!(!beat.belongs_to(&later));
    let clone = Session {
        instance: InstanceNonce::from_uuid(Uuid::from_u128(9)),
        ..session()
    };
    assert!(!beat.belongs_to(&clone));
}

#[test]
fn a_beat_needs_a_session_a_lease_and_a_capacity() {
    let spoilt = BeatFields {
        epoch: Epoch::from_raw(0),
        lease_ms: 0,
        capacity: Capacity { vcpus: 0, memory_mb: 0 },
        ..beat()
    };
    let invalid = Beat::new(spoilt.clone()).unwrap_err();
    assert_eq!(invalid.problems().len(), 4, "{invalid}");
    let json = serde_json::to_string(&spoilt).unwrap();
    assert!(serde_json::from_str::<Beat>(&json).is_err());
}

#[test]
fn a_beat_leaves_a_margin_between_its_lease_and_a_fence_or_does_not_say_when() {
    let check = |lease_ms, failover_ms, is_taken: bool| {
        let made = Beat::new(BeatFields {
            lease_ms,
            failover_ms,
            ..beat()
        });
        assert_eq!(made.is_ok(), is_taken, "{lease_ms} {failover_ms}");
        assert!(made.err().is_none_or(|invalid| invalid.mentions("failover_ms")));
    };
    check(4000, 0, true);
    check(4000, 5000, true);
    check(4000, 4999, false);
    check(20_000, 25_000, true);
    check(20_000, 24_999, false);
    check(4000, 3_600_000, true);
    check(4000, 3_600_001, false);
    let mut older = serde_json::to_value(beat()).unwrap();
    older.as_object_mut().unwrap().remove("failover_ms");
    assert_eq!(serde_json::from_value::<Beat>(older).unwrap().failover_ms, 0);
}

#[test]
fn facts_are_few_and_short() {
    let check = |change: fn(&mut HostFacts), field: &str| {
        let mut fields = beat();
        change(&mut fields.facts);
        let refused = Beat::new(fields).unwrap_err();
        assert!(refused.mentions(field), "{refused}");
        assert_eq!(refused.problems().len(), 1, "{refused}");
    };
    check(|f| f.accelerator = "x".repeat(513), "facts.accelerator");
    check(|f| f.version = "x".repeat(513), "facts.version");
    check(
        |f| f.warnings = vec![String::new(), "x".repeat(513)],
        "facts.warnings[1]",
    );
    check(|f| f.warnings = vec![String::new(); 65], "facts.warnings");
    check(|f| f.pools = vec![PoolName::new("a").unwrap(); 65], "facts.pools");
    check(
        |f| f.bridges = vec![BridgeName::new("br0").unwrap(); 65],
        "facts.bridges",
    );
    let mut full = beat();
    full.facts.warnings = vec!["x".repeat(512); 64];
    assert!(Beat::new(full).is_ok());
}

#[test]
fn a_host_keeps_where_other_servers_reach_it() {
    let id = HostId::from_uuid(Uuid::from_u128(1));
    let addresses = vec!["alpha:50051".parse().unwrap()];
    let record = HostRecord::new(id, HostName::new("alpha").unwrap(), addresses).unwrap();
    let cluster: Address = "alpha:50052".parse().unwrap();
    let record = record
        .with_cluster_address(Some(cluster.clone()))
        .with_mode(HostMode::Maintenance);
    assert_eq!(record.cluster_address(), Some(&cluster));
    let json = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<HostRecord>(&json).unwrap(), record);
}

proptest! {
    #[test]
    fn the_bytes_of_beats_compare_as_their_numbers(a: u64, b: u64) {
        let (a, b) = (BeatSequence(a), BeatSequence(b));
        prop_assert_eq!(a.cmp(&b), a.to_ordered_bytes().cmp(&b.to_ordered_bytes()));
    }
}
