//! Transactions as people write them, a line for each compare and operation.

use bytes::Bytes;
use chainfire::kv::{Compare, CompareTarget, Op, Relation, Txn};

use crate::bytes_text::unescape;
use crate::failure::Failure;
use crate::txn_json;

/// Reads a transaction: JSON if it begins with a brace, else lines.
pub fn read(text: &str) -> Result<Txn, Failure> {
    if text.trim_start().starts_with('{') {
        return txn_json::read(text);
    }
    let mut txn = Txn::default();
    for (index, line) in text.lines().enumerate() {
        read_line(line, &mut txn).map_err(|problem| {
            Failure::Usage(format!(
                "line {} of the transaction: {problem}; see 'chainfire txn --help'",
                index + 1
            ))
        })?;
    }
    Ok(txn)
}

fn read_line(line: &str, txn: &mut Txn) -> Result<(), String> {
    if line.trim_start().starts_with('#') {
        return Ok(());
    }
    let words = split_words(line)?;
    let Some((first, rest)) = words.split_first() else {
        return Ok(());
    };
    match first.as_ref() {
        b"if" => txn.compares.push(read_compare(rest)?),
        b"then" => txn.success.push(read_op(rest)?),
        b"else" => txn.failure.push(read_op(rest)?),
        _ => return Err("a line begins with 'if', 'then' or 'else'".to_owned()),
    }
    Ok(())
}

fn read_compare(words: &[Bytes]) -> Result<Compare, String> {
    match words {
        [key, absent] if absent == "absent" => Ok(Compare::absent(key.clone())),
        [key, target, relation, operand] => {
            let number = || {
                let text = std::str::from_utf8(operand).ok();
                text.and_then(|text| text.parse::<u64>().ok())
                    .ok_or_else(|| "a revision or version is a number".to_owned())
            };
            Ok(Compare {
                key: key.clone(),
                relation: std::str::from_utf8(relation)
                    .ok()
                    .and_then(relation_of)
                    .ok_or("a relation is one of = != > <")?,
                target: match target.as_ref() {
                    b"value" => CompareTarget::Value(operand.clone()),
                    b"mod" => CompareTarget::ModRevision(number()?),
                    b"create" => CompareTarget::CreateRevision(number()?),
                    b"version" => CompareTarget::Version(number()?),
                    _ => return Err("what is compared is one of value, mod, create, version".to_owned()),
                },
            })
        }
        _ => Err("an 'if' is 'if KEY absent' or 'if KEY value = VALUE'".to_owned()),
    }
}

/// The relation with this sign.
pub fn relation_of(sign: &str) -> Option<Relation> {
    match sign {
        "=" => Some(Relation::Equal),
        "!=" => Some(Relation::NotEqual),
        ">" => Some(Relation::Greater),
        "<" => Some(Relation::Less),
        _ => None,
    }
}

fn read_op(words: &[Bytes]) -> Result<Op, String> {
    let Some((verb, operands)) = words.split_first() else {
        return Err("what is to be done is missing".to_owned());
    };
    match (verb.as_ref(), operands) {
        (b"put", [key, value]) => Ok(Op::Put {
            key: key.clone(),
            value: value.clone(),
        }),
        (b"get", [key]) => Ok(Op::Get { key: key.clone() }),
        (b"del", [key]) => Ok(Op::Delete { key: key.clone() }),
        (b"del-prefix", [prefix]) => Ok(Op::DeletePrefix { prefix: prefix.clone() }),
        (b"put", _) => Err("'put' takes a key and a value; quote words with spaces".to_owned()),
        (b"get" | b"del" | b"del-prefix", _) => Err("it takes one key; quote words with spaces".to_owned()),
        _ => Err("what is done is one of put, get, del, del-prefix".to_owned()),
    }
}

/// Words between spaces; quotes hold a word together; escapes stand for bytes in either.
fn split_words(line: &str) -> Result<Vec<Bytes>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let end = closing_quote(quoted).ok_or("a quote is not closed")?;
                let after = &quoted[end + 1..];
                if !after.is_empty() && !after.starts_with(char::is_whitespace) {
                    return Err("a closing quote is followed by a space".to_owned());
                }
                (&quoted[..end], after)
            }
            None => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
        };
        words.push(unescape(word).map_err(|error| error.to_string())?);
        rest = after.trim_start();
    }
    Ok(words)
}

/// Where the first quote is that no backslash precedes.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(index, letter)| {
        let closes = letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        closes.then_some(index)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_is_read() {
        let text = r#"
            # remarks and empty lines are skipped

            if /lock absent
            if /a value != "two words"
            if /a mod > 17
            if /a create < 18
            if /a version = 1
            then put /a "a \"b\"\n"
            then del \x00\xff
            else get ""
            else del-prefix /tmp/
        "#;
        let compare = |target, relation| Compare {
            key: "/a".into(),
            relation,
            target,
        };
        let expected = Txn::default()
            .when(Compare::absent("/lock"))
            .when(compare(CompareTarget::Value("two words".into()), Relation::NotEqual))
            .when(compare(CompareTarget::ModRevision(17), Relation::Greater))
            .when(compare(CompareTarget::CreateRevision(18), Relation::Less))
            .when(compare(CompareTarget::Version(1), Relation::Equal))
            .then(Op::Put {
                key: "/a".into(),
                value: "a \"b\"\n".into(),
            })
            .then(Op::Delete {
                key: b"\0\xff".as_slice().into(),
            })
            .otherwise(Op::Get { key: "".into() })
            .otherwise(Op::DeletePrefix { prefix: "/tmp/".into() });
        assert_eq!(read(text).expect("a transaction"), expected);
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said_with_its_number() {
        for (line, expected) in [
            ("put a b", "begins with"),
            ("if a", "'if KEY absent'"),
            ("if a value == b", "a relation is"),
            ("if a mod = x", "a number"),
            ("if a size = 1", "one of value"),
            ("then", "missing"),
            ("then move a b", "one of put"),
            ("then put a", "a key and a value"),
            ("then put a b c", "a key and a value"),
            ("then get a b", "one key"),
            ("then put a \"b", "not closed"),
            ("then put \"a\"b c", "followed by a space"),
            ("then put a \\q", "means nothing"),
        ] {
            let error = read(&format!("then get a\n{line}")).expect_err(line);
            let text = error.to_string();
            assert!(text.contains("line 2") && text.contains(expected), "{line}: {text}");
            assert_eq!(error.exit_status(), 2);
        }
    }

    #[test]
    fn nothing_is_a_transaction_that_does_nothing() {
        assert_eq!(read("").expect("a transaction"), Txn::default());
    }
}
