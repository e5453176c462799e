use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::store::samples::*;

/// The bytes of any value.
pub fn encode(value: &StoredValue) -> Bytes {
    match value {
        StoredValue::Config(value) => encode_config(value),
        StoredValue::HostRecord(value) => encode_host(value),
        StoredValue::Session(value) => encode_session(value),
        StoredValue::Beat(value) => encode_beat(value),
        StoredValue::VmRecord(value) => encode_record(value),
        StoredValue::Placement(value) => encode_placement(value),
        StoredValue::Status(value) => encode_status(value),
        StoredValue::Pointer(value) => encode_pointer(*value),
        StoredValue::Request(value) => encode_request(value),
        StoredValue::Operation(value) => encode_operation(value),
        StoredValue::Decision(value) => encode_decision(value),
        StoredValue::Token(value) => encode_token(value),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// The samples of `one_of_each` in format 1, in their order. Bytes like these are on people's disks: if this
/// test fails, the format has changed, and every released version's bytes must still be read.
const FORMAT_1: &str = include_str!("format_1.hex");

#[test]
fn the_bytes_of_format_1_are_read_and_written_as_ever() {
    let lines: Vec<&str> = FORMAT_1.lines().collect();
    let samples = one_of_each();
    assert_eq!(lines.len(), samples.len());
    for (line, (key, value)) in lines.into_iter().zip(samples) {
        let (frozen_key, frozen) = line.split_once(' ').unwrap();
        assert_eq!(key.to_string(), frozen_key);
        assert_eq!(hex(&encode(&value)), frozen, "{key} is written differently");
        assert_eq!(
            decode(&key, &unhex(frozen)).unwrap(),
            value,
            "{key} is read differently"
        );
    }
}

#[test]
fn values_that_have_few_fields_set_read_back() {
    let values = [
        (ParsedKey::VmRecord(vm_id(1)), StoredValue::VmRecord(record(1))),
        (ParsedKey::Session(host_id(1)), StoredValue::Session(session(1))),
        (
            ParsedKey::Request(plasmavmc_types::RequestId::new("r").unwrap()),
            StoredValue::Request(Request {
                vm: None,
                operation: None,
                ..request()
            }),
        ),
    ];
    for (key, value) in values {
        assert_eq!(decode(&key, &encode(&value)).unwrap(), value);
    }
}

#[test]
fn bytes_that_are_no_value_are_errors_that_say_why() {
    let check = |key: ParsedKey, bytes: &[u8], reason: &str| {
        let error = decode(&key, bytes).unwrap_err().to_string();
        assert!(error.contains(reason), "{key}: {error}");
    };
    check(ParsedKey::Beat(host_id(1)), &[1, 2, 3], "a beat has 3 bytes, not 8");
    check(ParsedKey::Beat(host_id(1)), &[0; 8], "instance has 0 bytes");
    check(
        ParsedKey::VmRecord(vm_id(1)),
        &[0xff; 9],
        "not the message it should be",
    );
    check(ParsedKey::VmRecord(vm_id(1)), &[], "spec is missing");
    check(ParsedKey::Config, &[], "format 0 is not known");
    check(
        ParsedKey::Config,
        &[8, 2],
        "format 2 is not known to this version, which has 1",
    );
    check(
        ParsedKey::Token(plasmavmc_types::TokenId::new("t").unwrap()),
        &[],
        "secret_sha256 has 0 bytes, not 32",
    );
    let mode = store::ClusterConfig {
        format: 1,
        beat_ms: 1000,
        freeze_after_ms: 4000,
        failover_after_ms: 6000,
        placement: "tetris".to_owned(),
        ..store::ClusterConfig::default()
    };
    check(
        ParsedKey::Config,
        &mode.encode_to_vec(),
        "the placement mode \"tetris\"",
    );
    let timings = store::ClusterConfig {
        freeze_after_ms: 1,
        placement: "spread".to_owned(),
        ..mode
    };
    check(ParsedKey::Config, &timings.encode_to_vec(), "freeze_after_ms is 1");
}

#[test]
fn later_beats_have_greater_bytes_whatever_follows_the_sequence() {
    let bytes = |sequence| encode_beat(&beat(sequence));
    assert!(bytes(255) < bytes(256));
    let bound = BeatSequence(256).to_ordered_bytes();
    assert!(bytes(255).as_ref() < bound.as_slice());
    assert!(bytes(256).as_ref() > bound.as_slice());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn records_read_back(record in any_record()) {
        prop_assert_eq!(decode_record(&encode_record(&record)).unwrap(), record);
    }

    #[test]
    fn statuses_read_back(status in any_status()) {
        prop_assert_eq!(decode_status(&encode_status(&status)).unwrap(), status);
    }

    #[test]
    fn hosts_sessions_and_beats_read_back(host in any_host(), session in any_session(), beat in any_beat()) {
        prop_assert_eq!(decode_host(&encode_host(&host)).unwrap(), host);
        prop_assert_eq!(decode_session(&encode_session(&session)).unwrap(), session);
        prop_assert_eq!(decode_beat(&encode_beat(&beat)).unwrap(), beat);
    }

    #[test]
    fn operations_decisions_and_requests_read_back(
        operation in any_operation(), decision in any_decision(), request in any_request(),
    ) {
        prop_assert_eq!(decode_operation(&encode_operation(&operation)).unwrap(), operation);
        prop_assert_eq!(decode_decision(&encode_decision(&decision)).unwrap(), decision);
        prop_assert_eq!(decode_request(&encode_request(&request)).unwrap(), request);
    }

    #[test]
    fn the_rest_reads_back(
        bits in any::<u128>(), incarnation in 1u64.., token in any::<([u8; 32], u64, u32)>(), packs in any::<bool>(),
    ) {
        let placement = Placement { host: host_id(bits), incarnation: plasmavmc_types::Incarnation::from_raw(incarnation) };
        prop_assert_eq!(decode_placement(&encode_placement(&placement)).unwrap(), placement);
        prop_assert_eq!(decode_pointer(&encode_pointer(vm_id(bits))).unwrap(), vm_id(bits));
        let (secret_sha256, expires_at_ms, uses_left) = token;
        let token = Token { secret_sha256, expires_at_ms, uses_left };
        prop_assert_eq!(decode_token(&encode_token(&token)).unwrap(), token);
        let placement = if packs { PlacementMode::Pack } else { PlacementMode::Spread };
        let recovery = Recovery { generation: token.uses_left, at_ms: token.expires_at_ms };
        let config = ClusterConfig { placement, recovery, ..config() };
        prop_assert_eq!(decode_config(&encode_config(&config)).unwrap(), config);
    }

    #[test]
    fn no_bytes_make_it_panic(which in 0usize..13, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (key, _) = one_of_each().swap_remove(which);
        let _ = decode(&key, &bytes);
    }

    #[test]
    fn no_damage_makes_it_panic(which in 0usize..13, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let (key, value) = one_of_each().swap_remove(which);
        let mut bytes = encode(&value).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode(&key, &bytes);
    }
}
