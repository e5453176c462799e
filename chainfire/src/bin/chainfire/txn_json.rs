//! Transactions as programs write them.

use bytes::Bytes;
use chainfire::kv::{Compare, CompareTarget, Op, Txn};
use serde::Deserialize;

use crate::bytes_text::from_base64;
use crate::failure::Failure;
use crate::txn_text::relation_of;

/// Reads a transaction from JSON. Unknown names are refused: a misspelt compare must not go unheeded.
pub fn read(text: &str) -> Result<Txn, Failure> {
    let wrong = |problem: &dyn std::fmt::Display| Failure::Usage(format!("the transaction: {problem}"));
    let txn: TxnText = serde_json::from_str(text).map_err(|error| wrong(&error))?;
    let ops = |ops: Vec<OpText>| ops.into_iter().map(OpText::into_op).collect::<Result<_, _>>();
    Ok(Txn {
        compares: txn
            .compares
            .into_iter()
            .map(CompareText::into_compare)
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(&error))?,
        success: ops(txn.success).map_err(|error| wrong(&error))?,
        failure: ops(txn.failure).map_err(|error| wrong(&error))?,
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TxnText {
    #[serde(default)]
    compares: Vec<CompareText>,
    #[serde(default)]
    success: Vec<OpText>,
    #[serde(default)]
    failure: Vec<OpText>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum BytesText {
    Plain(String),
    Encoded(Base64Text),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64Text {
    base64: String,
}

impl BytesText {
    fn into_bytes(self) -> Result<Bytes, String> {
        match self {
            BytesText::Plain(text) => Ok(text.into()),
            BytesText::Encoded(text) => from_base64(&text.base64).map_err(|error| error.to_string()),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CompareText {
    key: BytesText,
    target: TargetText,
    relation: String,
    operand: OperandText,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TargetText {
    CreateRevision,
    ModRevision,
    Version,
    Value,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OperandText {
    Number(u64),
    Bytes(BytesText),
}

impl CompareText {
    fn into_compare(self) -> Result<Compare, String> {
        let target = match (self.target, self.operand) {
            (TargetText::CreateRevision, OperandText::Number(number)) => CompareTarget::CreateRevision(number),
            (TargetText::ModRevision, OperandText::Number(number)) => CompareTarget::ModRevision(number),
            (TargetText::Version, OperandText::Number(number)) => CompareTarget::Version(number),
            (TargetText::Value, OperandText::Bytes(bytes)) => CompareTarget::Value(bytes.into_bytes()?),
            (TargetText::Value, OperandText::Number(_)) => return Err("the operand of a value is a string".to_owned()),
            _ => return Err("the operand of a revision or version is a number".to_owned()),
        };
        Ok(Compare {
            key: self.key.into_bytes()?,
            relation: relation_of(&self.relation).ok_or("a relation is one of = != > <")?,
            target,
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum OpText {
    Put(PutText),
    Get(KeyText),
    Delete(KeyText),
    DeletePrefix(PrefixText),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PutText {
    key: BytesText,
    value: BytesText,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyText {
    key: BytesText,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PrefixText {
    prefix: BytesText,
}

impl OpText {
    fn into_op(self) -> Result<Op, String> {
        Ok(match self {
            OpText::Put(PutText { key, value }) => Op::Put {
                key: key.into_bytes()?,
                value: value.into_bytes()?,
            },
            OpText::Get(KeyText { key }) => Op::Get { key: key.into_bytes()? },
            OpText::Delete(KeyText { key }) => Op::Delete { key: key.into_bytes()? },
            OpText::DeletePrefix(PrefixText { prefix }) => Op::DeletePrefix {
                prefix: prefix.into_bytes()?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use chainfire::kv::Relation;

    use super::*;

    #[test]
    fn every_part_is_read() {
        let text = r#"{
            "compares": [
                {"key": "a", "target": "mod_revision", "relation": "=", "operand": 0},
                {"key": "b", "target": "value", "relation": "!=", "operand": {"base64": "/w=="}}
            ],
            "success": [{"put": {"key": {"base64": "AA=="}, "value": "x"}}, {"delete": {"key": "d"}}],
            "failure": [{"get": {"key": "a"}}, {"delete_prefix": {"prefix": ""}}]
        }"#;
        let expected = Txn::default()
            .when(Compare::absent("a"))
            .when(Compare::value("b", Relation::NotEqual, b"\xff".as_slice()))
            .then(Op::Put {
                key: b"\0".as_slice().into(),
                value: "x".into(),
            })
            .then(Op::Delete { key: "d".into() })
            .otherwise(Op::Get { key: "a".into() })
            .otherwise(Op::DeletePrefix { prefix: "".into() });
        assert_eq!(read(text).expect("a transaction"), expected);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for text in [
            "{",
            r#"{"compare": []}"#,
            r#"{"success": [{"put": {"key": "a"}}]}"#,
            r#"{"success": [{"put": {"key": "a", "value": "b", "ttl": 1}}]}"#,
            r#"{"success": [{"move": {"key": "a"}}]}"#,
            r#"{"compares": [{"key": "a", "target": "value", "relation": "=", "operand": 1}]}"#,
            r#"{"compares": [{"key": "a", "target": "version", "relation": "=", "operand": "1"}]}"#,
            r#"{"compares": [{"key": "a", "target": "version", "relation": "~", "operand": 1}]}"#,
            r#"{"success": [{"get": {"key": {"base64": "*"}}}]}"#,
        ] {
            let error = read(text).expect_err(text);
            assert_eq!(error.exit_status(), 2, "{text}: {error}");
        }
    }
}
