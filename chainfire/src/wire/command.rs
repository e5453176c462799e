//! Transactions as `raft.proto` stores them in the log and sends them between members.
//!
//! These bytes outlive the program that wrote them: a change here must keep reading what earlier
//! versions wrote.

use crate::kv::{Compare, CompareTarget, KeyValue, KvError, Op, OpResult, Txn, TxnAnswer};
use crate::proto;

use super::kv::{malformed, relation_from_number, relation_to_number, translate_all};

/// The command that carries a transaction.
pub fn txn_to_command(txn: Txn) -> proto::TxnCommand {
    proto::TxnCommand {
        compares: txn.compares.into_iter().map(compare_to_command).collect(),
        success: txn.success.into_iter().map(op_to_command).collect(),
        failure: txn.failure.into_iter().map(op_to_command).collect(),
    }
}

/// The transaction that a command carries.
pub fn txn_from_command(command: proto::TxnCommand) -> Result<Txn, KvError> {
    Ok(Txn {
        compares: translate_all("compares", command.compares, compare_from_command)?,
        success: translate_all("success", command.success, op_from_command)?,
        failure: translate_all("failure", command.failure, op_from_command)?,
    })
}

/// What a leader answers to the member that passed a transaction on.
pub fn answer_to_ref(answer: TxnAnswer) -> proto::TxnResponseRef {
    proto::TxnResponseRef {
        succeeded: answer.succeeded,
        revision: answer.revision,
        results: answer.results.into_iter().map(result_to_ref).collect(),
    }
}

/// The answer that a leader sent.
pub fn answer_from_ref(answer: proto::TxnResponseRef) -> Result<TxnAnswer, KvError> {
    Ok(TxnAnswer {
        succeeded: answer.succeeded,
        revision: answer.revision,
        results: translate_all("results", answer.results, result_from_ref)?,
    })
}

fn compare_to_command(compare: Compare) -> proto::CompareCommand {
    use proto::compare_command::Target;
    proto::CompareCommand {
        key: compare.key,
        relation: relation_to_number(compare.relation) as u32,
        target: Some(match compare.target {
            CompareTarget::CreateRevision(operand) => Target::CreateRevision(operand),
            CompareTarget::ModRevision(operand) => Target::ModRevision(operand),
            CompareTarget::Version(operand) => Target::Version(operand),
            CompareTarget::Value(operand) => Target::Value(operand),
        }),
    }
}

fn compare_from_command(command: proto::CompareCommand) -> Result<Compare, KvError> {
    use proto::compare_command::Target;
    Ok(Compare {
        // A number beyond i32 is as unknown as any other.
        relation: relation_from_number(i32::try_from(command.relation).unwrap_or(i32::MAX))?,
        target: match command.target {
            Some(Target::CreateRevision(operand)) => CompareTarget::CreateRevision(operand),
            Some(Target::ModRevision(operand)) => CompareTarget::ModRevision(operand),
            Some(Target::Version(operand)) => CompareTarget::Version(operand),
            Some(Target::Value(operand)) => CompareTarget::Value(operand),
            None => return Err(malformed("target", "is missing")),
        },
        key: command.key,
    })
}

fn op_to_command(op: Op) -> proto::OpCommand {
    use proto::op_command::Op as Command;
    proto::OpCommand {
        op: Some(match op {
            Op::Put { key, value } => Command::Put(proto::PutCommand { key, value }),
            Op::Delete { key } => Command::Delete(key),
            Op::DeletePrefix { prefix } => Command::DeletePrefix(prefix),
            Op::Get { key } => Command::Get(key),
        }),
    }
}

fn op_from_command(command: proto::OpCommand) -> Result<Op, KvError> {
    use proto::op_command::Op as Command;
    match command.op {
        Some(Command::Put(put)) => Ok(Op::Put {
            key: put.key,
            value: put.value,
        }),
        Some(Command::Delete(key)) => Ok(Op::Delete { key }),
        Some(Command::DeletePrefix(prefix)) => Ok(Op::DeletePrefix { prefix }),
        Some(Command::Get(key)) => Ok(Op::Get { key }),
        None => Err(malformed("op", "is missing")),
    }
}

fn result_to_ref(result: OpResult) -> proto::TxnResultRef {
    use proto::txn_result_ref::Result as Message;
    proto::TxnResultRef {
        result: Some(match result {
            OpResult::Touched(count) => Message::Touched(count),
            OpResult::Got(None) => Message::Missing(true),
            OpResult::Got(Some(kv)) => Message::Got(proto::RowRef {
                key: kv.key,
                row: Some(proto::Row {
                    create_revision: kv.create_revision,
                    mod_revision: kv.mod_revision,
                    version: kv.version,
                    value: kv.value,
                }),
            }),
        }),
    }
}

fn result_from_ref(message: proto::TxnResultRef) -> Result<OpResult, KvError> {
    use proto::txn_result_ref::Result as Message;
    match message.result {
        Some(Message::Touched(count)) => Ok(OpResult::Touched(count)),
        Some(Message::Missing(_)) => Ok(OpResult::Got(None)),
        Some(Message::Got(proto::RowRef { key, row: Some(row) })) => Ok(OpResult::Got(Some(KeyValue {
            key,
            value: row.value,
            create_revision: row.create_revision,
            mod_revision: row.mod_revision,
            version: row.version,
        }))),
        Some(Message::Got(proto::RowRef { row: None, .. })) => Err(malformed("got.row", "is missing")),
        None => Err(malformed("result", "is missing")),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::kv::Relation;

    fn everything() -> Txn {
        let compare = |relation, target| Compare {
            key: "k".into(),
            relation,
            target,
        };
        Txn::default()
            .when(compare(Relation::Equal, CompareTarget::CreateRevision(1)))
            .when(compare(Relation::NotEqual, CompareTarget::ModRevision(2)))
            .when(compare(Relation::Greater, CompareTarget::Version(3)))
            .when(compare(Relation::Less, CompareTarget::Value("v".into())))
            .then(Op::Put {
                key: "a".into(),
                value: "1".into(),
            })
            .then(Op::Delete { key: "b".into() })
            .otherwise(Op::DeletePrefix { prefix: "".into() })
            .otherwise(Op::Get { key: "c".into() })
    }

    #[test]
    fn a_transaction_survives_the_log() {
        let bytes = txn_to_command(everything()).encode_to_vec();
        let command = proto::TxnCommand::decode(bytes.as_slice()).expect("decodes");
        assert_eq!(txn_from_command(command), Ok(everything()));
    }

    #[test]
    fn an_answer_survives_the_way_back_from_the_leader() {
        let answer = TxnAnswer {
            succeeded: false,
            revision: 4,
            results: vec![
                OpResult::Touched(0),
                OpResult::Got(None),
                OpResult::Got(Some(KeyValue {
                    key: "k".into(),
                    value: "".into(),
                    create_revision: 1,
                    mod_revision: 2,
                    version: 3,
                })),
            ],
        };
        assert_eq!(answer_from_ref(answer_to_ref(answer.clone())), Ok(answer));
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let mut command = txn_to_command(everything());
        command.failure[1].op = None;
        assert_eq!(
            txn_from_command(command),
            Err(KvError::Malformed {
                reason: "failure[1].op is missing".into()
            })
        );
        let mut command = txn_to_command(everything());
        command.compares[3].relation = u32::MAX;
        let error = txn_from_command(command).expect_err("unknown relation");
        assert!(error.to_string().contains("compares[3].relation"), "{error}");
        let answer = proto::TxnResponseRef {
            results: vec![proto::TxnResultRef {
                result: Some(proto::txn_result_ref::Result::Got(proto::RowRef::default())),
            }],
            ..Default::default()
        };
        let error = answer_from_ref(answer).expect_err("no row");
        assert!(error.to_string().contains("results[0].got.row"), "{error}");
    }
}
