use super::*;

fn printed(format: OutputFormat, print: impl FnOnce(&mut Printer<&mut Vec<u8>>) -> Result<(), Failure>) -> String {
    let mut out = Vec::new();
    print(&mut Printer::new(&mut out, format, TextForm::Escaped)).expect("a vector takes everything");
    String::from_utf8(out).expect("printed text is UTF-8")
}

fn row(key: &'static [u8], value: &'static [u8]) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: value.into(),
        create_revision: 3,
        mod_revision: 5,
        version: 2,
    }
}

#[test]
fn a_row_is_a_flat_object() {
    let text = printed(OutputFormat::Json, |printer| printer.row(9, &row(b"/a", b"\xff")));
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        value,
        json!({
            "revision": 9, "key": "/a", "value": { "base64": "/w==" },
            "create_revision": 3, "mod_revision": 5, "version": 2,
        })
    );
}

#[test]
fn a_table_has_one_line_per_row_whatever_the_bytes() {
    let answer = RangeAnswer {
        revision: 9,
        kvs: vec![row(b"/a", b"two\nlines"), row(b"/\0", b"\xff")],
        more: false,
    };
    let text = printed(OutputFormat::Table, |printer| printer.range(&answer, false));
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        lines,
        [
            vec!["KEY", "VALUE", "CREATED", "MODIFIED", "VERSION"],
            vec!["/a", r"two\nlines", "3", "5", "2"],
            vec![r"/\x00", r"\xff", "3", "5", "2"],
        ]
    );
}

#[test]
fn values_that_were_not_asked_for_are_not_shown() {
    let answer = RangeAnswer {
        revision: 9,
        kvs: vec![row(b"/a", b"")],
        more: true,
    };
    let text = printed(OutputFormat::Json, |printer| printer.range(&answer, true));
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&value["more"], value["kvs"][0].get("value")), (&json!(true), None));
    let text = printed(OutputFormat::Table, |printer| printer.range(&answer, true));
    assert!(!text.contains("VALUE"), "{text}");
}

#[test]
fn events_are_one_line_each() {
    let put = Event {
        kind: EventKind::Put,
        kv: row(b"/a", b"1\n2"),
    };
    let delete = Event {
        kind: EventKind::Delete,
        kv: row(b"/b", b""),
    };
    for (event, table, kind) in [
        (&put, "5 put /a 1\\n2 (version 2)\n", "put"),
        (&delete, "5 delete /b\n", "delete"),
    ] {
        assert_eq!(printed(OutputFormat::Table, |printer| printer.event(event)), table);
        let text = printed(OutputFormat::Json, |printer| printer.event(event));
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            (text.lines().count(), &value["kind"], &value["mod_revision"]),
            (1, &json!(kind), &json!(5))
        );
    }
}

#[test]
fn a_transaction_tells_its_branch_and_each_result() {
    let answer = TxnAnswer {
        succeeded: false,
        revision: 7,
        results: vec![
            OpResult::Touched(2),
            OpResult::Got(None),
            OpResult::Got(Some(row(b"/a", b"x"))),
        ],
    };
    let text = printed(OutputFormat::Json, |printer| printer.txn(&answer));
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value["succeeded"], json!(false));
    assert_eq!(value["results"][0], json!({ "touched": 2 }));
    assert_eq!(value["results"][1], json!({ "get": null }));
    assert_eq!(value["results"][2]["get"]["value"], json!("x"));
    let text = printed(OutputFormat::Table, |printer| printer.txn(&answer));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1..], ["2 keys changed", "no such key", "/a = x"]);
}

fn status() -> StatusResponse {
    let member = |id, voter| Member {
        id,
        name: format!("m{id}"),
        address: format!("[::1]:{id}"),
        voter,
    };
    StatusResponse {
        cluster_id: "c".into(),
        member: Some(member(2, true)),
        leader_id: 1,
        leader_address: "[::1]:1".into(),
        term: 4,
        members: vec![member(1, true), member(2, true), member(3, false)],
        matched_index: [(2, 17)].into(),
        state_digest: b"\x00\xab".as_slice().into(),
        problem: "the disk is full".into(),
        ..StatusResponse::default()
    }
}

#[test]
fn a_status_has_every_field_under_its_own_name() {
    let text = printed(OutputFormat::Json, |printer| printer.status(&status()));
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        value["member"],
        json!({ "id": 2, "name": "m2", "address": "[::1]:2", "voter": true })
    );
    assert_eq!(
        (&value["leader_id"], &value["term"], &value["revision"]),
        (&json!(1), &json!(4), &json!(0))
    );
    assert_eq!(value["matched_index"], json!({ "2": 17 }));
    assert_eq!(value["state_digest"], json!("00ab"));
    assert_eq!(value["problem"], json!("the disk is full"));
    let proto = include_str!("../../../../../proto/chainfire/cluster.proto");
    let message = proto.split_once("message StatusResponse {").expect("the message").1;
    let fields = message
        .split_once("\n}")
        .expect("its end")
        .0
        .lines()
        .filter(|line| line.contains(" = "));
    for field in fields {
        let name = field
            .split(" = ")
            .next()
            .and_then(|text| text.split_whitespace().last())
            .expect("a name");
        assert!(value.get(name).is_some(), "{name} is missing");
    }
}

#[test]
fn a_status_for_people_names_the_leader_and_the_problem() {
    let text = printed(OutputFormat::Table, |printer| printer.status(&status()));
    for expected in ["member 1 at [::1]:1", "the disk is full", "leader", "learner", "17"] {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
}

#[test]
fn members_that_do_not_answer_are_listed_with_the_reason() {
    let all = [
        ("a:1".to_owned(), Ok(status())),
        ("b:1".to_owned(), Err("it is silent".to_owned())),
    ];
    let text = printed(OutputFormat::Table, |printer| printer.statuses(&all));
    assert!(text.contains("it is silent"), "{text}");
    let text = printed(OutputFormat::Json, |printer| printer.statuses(&all));
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value[0]["status"]["leader_id"], json!(1));
    assert_eq!(value[1], json!({ "server": "b:1", "error": "it is silent" }));
}
