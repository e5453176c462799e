use proptest::prelude::*;

use super::*;
use crate::store::samples::{any_name, one_of_each, uuid, vm_id};

#[test]
fn every_kind_of_key_reads_back() {
    for (key, _) in one_of_each() {
        assert_eq!(parse(&key.key()), Some(key));
    }
}

#[test]
fn keys_are_what_the_design_says() {
    let vm = vm_id(0x2a);
    let id = "00000000-0000-0000-0000-00000000002a";
    let table = [
        (config(), "/cluster/config".to_owned()),
        (
            host_record(HostId::from_uuid(uuid(0x2a))),
            format!("/hosts/{id}/record"),
        ),
        (session(HostId::from_uuid(uuid(0x2a))), format!("/hosts/{id}/session")),
        (beat(HostId::from_uuid(uuid(0x2a))), format!("/hosts/{id}/beat")),
        (vm_record(vm), format!("/vms/{id}/record")),
        (placement(vm), format!("/vms/{id}/placement")),
        (status(vm), format!("/vms/{id}/status")),
        (name(&VmName::new("web-1").unwrap()), "/names/web-1".to_owned()),
        (number(VmNumber::new(101).unwrap()), "/vmids/0000000101".to_owned()),
        (request(&RequestId::new("r.1").unwrap()), "/requests/r.1".to_owned()),
        (operation(OperationId::from_uuid(uuid(0x2a))), format!("/ops/{id}")),
        (
            decision(&decision_id(1_700_000_000_000, 0xff)),
            "/decisions/00000001700000000000-00ff".to_owned(),
        ),
        (token(&TokenId::new("t").unwrap()), "/tokens/t".to_owned()),
    ];
    for (key, expected) in table {
        assert_eq!(key, expected.as_bytes());
        assert!(parse(&key).is_some(), "{expected}");
    }
}

#[test]
fn what_is_written_in_another_form_is_no_key() {
    let table = [
        "",
        "/",
        "cluster/config",
        "/cluster/configs",
        "/cluster/config/",
        "/vms/0000000000000000000000000000002a/record",
        "/vms/{00000000-0000-0000-0000-00000000002a}/record",
        "/vms/ABCDEF00-0000-0000-0000-00000000002A/record",
        "/vms/abcdef00-0000-0000-0000-00000000002a/records",
        "/vms/abcdef00-0000-0000-0000-00000000002a",
        "/vms/abcdef00-0000-0000-0000-00000000002a/record/x",
        "/names/Web",
        "/names/web/x",
        "/vmids/101",
        "/vmids/+000000101",
        "/vmids/0000000000",
        "/vmids/9999999999",
        "/requests/",
        "/requests/a b",
        "/decisions/1-0000",
        "/decisions/00000001700000000000-00FF",
        "/decisions/99999999999999999999-00ff",
        "/pools/default",
    ];
    for text in table {
        assert_eq!(parse(text.as_bytes()), None, "{text}");
    }
    assert_eq!(parse(b"/names/\xff"), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn keys_read_back(
        kind in 0usize..12, bits in any::<u128>(), text in any_name(),
        short in VmNumber::MIN..=VmNumber::MAX, salt in any::<u16>(), at_ms in any::<u64>(),
    ) {
        let (vm, host) = (vm_id(bits), HostId::from_uuid(uuid(bits)));
        let key = match kind {
            0 => ParsedKey::HostRecord(host),
            1 => ParsedKey::Session(host),
            2 => ParsedKey::Beat(host),
            3 => ParsedKey::VmRecord(vm),
            4 => ParsedKey::Placement(vm),
            5 => ParsedKey::Status(vm),
            6 => ParsedKey::Name(VmName::new(text).unwrap()),
            7 => ParsedKey::Number(VmNumber::new(short).unwrap()),
            8 => ParsedKey::Request(RequestId::new(text).unwrap()),
            9 => ParsedKey::Operation(OperationId::from_uuid(uuid(bits))),
            10 => ParsedKey::Token(TokenId::new(text).unwrap()),
            _ => ParsedKey::Decision(decision_id(at_ms, salt)),
        };
        prop_assert_eq!(parse(&key.key()), Some(key));
    }

    #[test]
    fn whatever_parses_is_written_back_the_same(text in "/(vms|hosts|names|vmids|ops|decisions)/[0-9a-fA-F+-]{1,36}(/record)?") {
        if let Some(key) = parse(text.as_bytes()) {
            prop_assert_eq!(key.to_string(), text);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn decisions_and_numbers_sort_as_they_count(a in any::<u64>(), b in any::<u64>(), salt in any::<u16>()) {
        prop_assert_eq!(a.cmp(&b), decision_id(a, salt).cmp(&decision_id(b, salt)));
        let short = |n: u64| number(VmNumber::new(u32::try_from(n % 999_999_999).unwrap() + 1).unwrap());
        prop_assert_eq!((a % 999_999_999).cmp(&(b % 999_999_999)), short(a).cmp(&short(b)));
    }
}
