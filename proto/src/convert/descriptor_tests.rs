//! What is promised about the messages themselves.

use prost::Message;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

use crate::{DESCRIPTORS, api};

fn message(name: &str) -> DescriptorProto {
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let ours = files.into_iter().filter(|file| file.package() == "plasmavmc");
    let mut messages = ours.flat_map(|file| file.message_type);
    messages.find(|message| message.name() == name).unwrap()
}

/// A field as far as bytes and JSON depend on it.
fn shape(field: &FieldDescriptorProto) -> (i32, String, i32, i32, String, bool) {
    (
        field.number(),
        field.name().to_owned(),
        field.r#type().into(),
        field.label().into(),
        field.type_name().to_owned(),
        field.proto3_optional(),
    )
}

#[test]
fn a_create_request_is_a_specification_with_more_behind_it() {
    let (request, spec) = (message("CreateVmRequest"), message("VmSpec"));
    let of_spec: Vec<_> = spec.field.iter().map(shape).collect();
    let (flat, rest): (Vec<_>, Vec<_>) = request.field.iter().map(shape).partition(|field| field.0 < 100);
    assert_eq!(flat, of_spec);
    let names: Vec<&str> = rest.iter().map(|field| field.1.as_str()).collect();
    assert_eq!(names, ["vmid", "powered_off", "wait", "request_id"]);
    assert!(spec.oneof_decl.len() == request.oneof_decl.len());
}

#[test]
fn the_bytes_of_a_request_read_as_its_specification() {
    let request = api::CreateVmRequest {
        name: "web-1".to_owned(),
        vcpus: 2,
        memory_mb: 512,
        boot_order: vec!["root".to_owned()],
        priority: Some(7),
        vmid: 101,
        request_id: "r".to_owned(),
        ..Default::default()
    };
    let spec = api::VmSpec::decode(request.encode_to_vec().as_slice()).unwrap();
    let expected = api::VmSpec {
        name: "web-1".to_owned(),
        vcpus: 2,
        memory_mb: 512,
        boot_order: vec!["root".to_owned()],
        priority: Some(7),
        ..Default::default()
    };
    assert_eq!(spec, expected);
}
