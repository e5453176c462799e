use plasmavmc_proto::api::{
    CreateVmRequest, Disk, DiskBus, DiskLocation, Operation, Vm, VmSpec, disk_location, operation, vm,
};

use super::*;

fn yaml(text: &str) -> Node {
    serde_yaml_ng::from_str(text).expect("YAML")
}

#[test]
fn an_answer_has_every_field_in_the_order_of_the_api() {
    let operation = Operation {
        id: "1".to_owned(),
        state: operation::State::Running.into(),
        created_at_ms: u64::MAX,
        ..Operation::default()
    };
    assert_eq!(
        serde_json::to_string(&node_of(&operation)).unwrap(),
        "{\"id\":\"1\",\"kind\":\"\",\"vm_id\":\"\",\"vm_name\":\"\",\"state\":\"running\",\"step\":\"\",\"error\":null,\
         \"created_at_ms\":18446744073709551615,\"updated_at_ms\":0,\"deadline_ms\":0,\"host\":\"\",\
         \"cancel_requested\":false}"
    );
}

#[test]
fn an_enum_value_of_a_newer_server_is_shown_as_its_number() {
    let vm = Vm {
        state: 99,
        ..Vm::default()
    };
    assert_eq!(node_of(&vm).get("state"), Some(&Node::text("99")));
    let vm = Vm {
        state: vm::State::Unspecified.into(),
        ..Vm::default()
    };
    assert_eq!(node_of(&vm).get("state"), Some(&Node::text("unspecified")));
}

#[test]
fn what_is_written_reads_back() {
    let disk = Disk {
        name: "root".to_owned(),
        location: Some(DiskLocation {
            location: Some(disk_location::Location::Path("/x".to_owned())),
        }),
        size_mb: 1024,
        bus: DiskBus::VirtioScsi.into(),
        ..Disk::default()
    };
    let spec = VmSpec {
        name: "web".to_owned(),
        vcpus: 2,
        disks: vec![disk],
        priority: Some(0),
        ..VmSpec::default()
    };
    let text = serde_yaml_ng::to_string(&node_of(&spec)).unwrap();
    assert!(text.contains("bus: virtio_scsi") && text.contains("path: /x"), "{text}");
    assert_eq!(merge(&VmSpec::default(), &yaml(&text)), Ok(spec));
}

#[test]
fn a_file_is_read_with_sizes_and_short_words() {
    let file = "
name: web
vcpus: 2
memory_mb: 4G
agent: optional
firmware: uefi-secure-boot
disks:
- name: root
  location: {volume: {pool: default, volume: web-root}}
  size_mb: 10G
  bus: DISK_BUS_SATA
nics: [{name: net0, user: true}]
affinity: {hosts: [h1, h2]}
";
    let request = merge(&CreateVmRequest::default(), &yaml(file)).unwrap();
    assert_eq!((request.memory_mb, request.disks[0].size_mb), (4096, 10_240));
    assert_eq!(request.disks[0].bus(), DiskBus::Sata);
    assert_eq!(request.firmware, 2);
    assert_eq!(request.affinity.unwrap().hosts, ["h1", "h2"]);
}

#[test]
fn fields_that_are_not_named_stay() {
    let before = merge(
        &VmSpec::default(),
        &yaml("{vcpus: 2, affinity: {hosts: [h1], apart_from: [db]}}"),
    )
    .unwrap();
    let after = merge(&before, &yaml("{affinity: {hosts: []}, priority: null}")).unwrap();
    let affinity = after.affinity.unwrap();
    assert!(affinity.hosts.is_empty());
    assert_eq!((after.vcpus, affinity.apart_from), (2, vec!["db".to_owned()]));
}

#[test]
fn what_is_wrong_is_named_by_its_path() {
    let table = [
        ("[]", "is a list; a group of fields is needed"),
        ("{vcpu: 2}", "vcpu is unknown; did you mean vcpus?"),
        ("{colour: red}", "colour is unknown; name, vcpus, memory_mb"),
        (
            "{vcpus: two}",
            "vcpus is \"two\"; a number that is not negative is needed",
        ),
        ("{vcpus: -1}", "vcpus is -1; a number that is not negative"),
        (
            "{vcpus: 4294967296}",
            "vcpus is 4294967296; at most 4294967295 is allowed",
        ),
        ("{memory_mb: 4096K}", "memory_mb \"4096K\" has the unit \"K\""),
        ("{name: [a]}", "name is a list; a text is needed"),
        ("{rng: 1}", "rng is 1; true or false is needed"),
        ("{disks: {name: a}}", "disks is a group of fields; a list is needed"),
        ("{disks: [{nme: a}]}", "disks[0].nme is unknown; did you mean name?"),
        (
            "{disks: [{location: {path: 1.5}}]}",
            "disks[0].location.path is 1.5; a text is needed",
        ),
        ("{agent: requird}", "agent is \"requird\"; did you mean required?"),
        (
            "{agent: perhaps}",
            "agent is \"perhaps\"; required, optional, none are allowed",
        ),
        ("{agent: 1}", "agent is 1; one of required, optional, none is needed"),
        ("{affinity: h1}", "affinity is \"h1\"; a group of fields is needed"),
    ];
    for (text, says) in table {
        let error = merge(&VmSpec::default(), &yaml(text)).unwrap_err().to_string();
        assert!(error.starts_with(says), "{text}: {error}");
    }
}

#[test]
fn a_field_that_stands_twice_is_refused() {
    for parsed in [
        serde_json::from_str::<Node>("{\"vcpus\": 1, \"vcpus\": 2}").map_err(|error| error.to_string()),
        serde_yaml_ng::from_str::<Node>("vcpus: 1\nvcpus: 2\n").map_err(|error| error.to_string()),
    ] {
        let error = parsed.unwrap_err();
        assert!(error.contains("vcpus is given twice"), "{error}");
    }
}

#[test]
fn people_see_only_what_was_chosen() {
    let spec = VmSpec {
        name: "web".to_owned(),
        vcpus: 1,
        ..VmSpec::default()
    };
    let sparse = without_defaults(&node_of(&spec));
    assert_eq!(sparse.get("name"), Some(&Node::text("web")));
    assert_eq!(
        (sparse.get("disks"), sparse.get("rng"), sparse.get("affinity")),
        (None, None, None)
    );
}
