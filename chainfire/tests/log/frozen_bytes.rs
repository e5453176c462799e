//! The bytes of every stored message, as released versions wrote them.
//!
//! A field may be added; what stands here must stay readable and, with the same content, must be written
//! the same.

use bytes::Bytes;
use chainfire::proto;
use prost::Message;

fn check<M: Message + Default + PartialEq + std::fmt::Debug>(message: &M, frozen: &str) {
    let written: String = message
        .encode_to_vec()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(written, frozen);
    let bytes: Vec<u8> = (0..frozen.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&frozen[at..at + 2], 16).unwrap())
        .collect();
    assert_eq!(M::decode(bytes.as_slice()).unwrap(), *message);
}

fn log_id() -> proto::LogId {
    proto::LogId {
        term: 3,
        leader: 1,
        index: 300,
    }
}

fn membership() -> proto::Membership {
    let peer = |id: u64| proto::Peer {
        id,
        name: format!("n{id}"),
        address: format!("h{id}:1"),
    };
    proto::Membership {
        voters: vec![proto::VoterSet { ids: vec![1, 2] }, proto::VoterSet { ids: vec![2, 3] }],
        peers: (1..=4).map(peer).collect(),
    }
}

fn stored_membership() -> proto::StoredMembership {
    proto::StoredMembership {
        at: Some(log_id()),
        membership: Some(membership()),
    }
}

fn state_meta() -> proto::StateMeta {
    proto::StateMeta {
        applied: Some(log_id()),
        revision: 1000,
        membership: Some(stored_membership()),
        cluster_id: "c1".to_owned(),
        feature_level: 1,
        next_member_id: 5,
        keys: 12,
        digest: Bytes::from_static(&[0xde, 0xad]),
        allotted: vec![proto::Allotted {
            request_id: "r".to_owned(),
            member_id: 4,
        }],
    }
}

#[test]
fn log_id_and_ballot() {
    check(&log_id(), "0803100118ac02");
    let ballot = proto::Ballot {
        term: 3,
        node: 1,
        committed: true,
    };
    check(&ballot, "080310011801");
}

#[test]
fn memberships() {
    check(
        &membership(),
        "0a040a0201020a040a020203120c080112026e311a0468313a31120c080212026e321a0468323a31120c080312026e331a0468333a31120c080412026e341a0468343a31",
    );
    check(
        &stored_membership(),
        "0a070803100118ac0212440a040a0201020a040a020203120c080112026e311a0468313a31120c080212026e321a0468323a31120c080312026e331a0468333a31120c080412026e341a0468343a31",
    );
}

#[test]
fn entries() {
    let entry = |payload| proto::Entry {
        id: Some(log_id()),
        payload,
    };
    check(&entry(None), "0a070803100118ac02");
    check(
        &entry(Some(proto::entry::Payload::Commands(Bytes::from_static(b"xyz")))),
        "0a070803100118ac02120378797a",
    );
    check(
        &entry(Some(proto::entry::Payload::Membership(membership()))),
        "0a070803100118ac021a440a040a0201020a040a020203120c080112026e311a0468313a31120c080212026e321a0468323a31120c080312026e331a0468333a31120c080412026e341a0468343a31",
    );
}

fn transaction() -> proto::TxnCommand {
    use proto::compare_command::Target;
    use proto::op_command::Op;
    let key = || Bytes::from_static(b"k");
    let compare = |relation, target| proto::CompareCommand {
        key: key(),
        relation,
        target: Some(target),
    };
    let op = |op| proto::OpCommand { op: Some(op) };
    proto::TxnCommand {
        compares: vec![
            compare(0, Target::CreateRevision(1)),
            compare(1, Target::ModRevision(2)),
            compare(2, Target::Version(3)),
            compare(3, Target::Value(Bytes::from_static(b"v"))),
        ],
        success: vec![
            op(Op::Put(proto::PutCommand {
                key: key(),
                value: Bytes::from_static(b"v"),
            })),
            op(Op::Delete(key())),
        ],
        failure: vec![op(Op::DeletePrefix(key())), op(Op::Get(key()))],
    }
}

#[test]
fn command_batches() {
    use proto::command::Command;
    let commands = [
        Command::Found(proto::Found {
            cluster_id: "c1".to_owned(),
            level: 1,
        }),
        Command::Txn(transaction()),
        Command::AllotMember(proto::AllotMember {
            request_id: "r".to_owned(),
        }),
        Command::SetLevel(proto::SetLevel { level: 2 }),
    ];
    let batch = proto::CommandBatch {
        commands: commands
            .map(|command| proto::Command { command: Some(command) })
            .to_vec(),
    };
    check(
        &batch,
        "0a0822060a02633110010a3e0a3c0a050a016b18010a070a016b100120020a070a016b100228030a080a016b100332017612080a060a016b120176120312016b1a031a016b1a0322016b0a0512030a01720a041a020802",
    );
}

#[test]
fn rows_and_state() {
    let row = proto::Row {
        create_revision: 1,
        mod_revision: 200,
        version: 3,
        value: Bytes::from_static(b"v"),
    };
    check(&row, "080110c8011803220176");
    let stored = proto::BlockRow {
        key: Bytes::from_static(b"k"),
        row: Some(row),
    };
    check(&stored, "0a016b120a080110c8011803220176");
    let gone = proto::BlockRow { row: None, ..stored };
    check(&gone, "0a016b");
    check(
        &state_meta(),
        "0a070803100118ac0210e8071a4f0a070803100118ac0212440a040a0201020a040a020203120c080112026e311a0468313a31120c080212026e321a0468323a31120c080312026e331a0468333a31120c080412026e341a0468343a312202633128013005380c4202dead4a050a01721004",
    );
    let header = proto::SnapshotHeader {
        meta: Some(state_meta()),
        format: 1,
    };
    check(
        &header,
        "0a720a070803100118ac0210e8071a4f0a070803100118ac0212440a040a0201020a040a020203120c080112026e311a0468313a31120c080212026e321a0468323a31120c080312026e331a0468333a31120c080412026e341a0468343a312202633128013005380c4202dead4a050a017210041001",
    );
}
