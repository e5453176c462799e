//! Keys and values are bytes; people type and read text. This is the way between the two.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Value, json};

/// How bytes are written in arguments and tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextForm {
    /// Arguments are taken as they are; tables show what is not printable as \xNN.
    Escaped,
    Hex,
    Base64,
}

/// Why a text does not stand for bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BytesTextError {
    #[error("{text:?} is not hexadecimal: write two digits for each byte, such as 2f766d")]
    Hex { text: String },
    #[error("{text:?} is not base64, with its padding, such as L3Zt")]
    Base64 { text: String },
    #[error("{text:?} has \\{escape}, which means nothing; write \\n \\r \\t \\\" \\\\ or \\xNN")]
    Escape { text: String, escape: String },
}

impl TextForm {
    /// The bytes that an argument stands for.
    pub fn read(self, argument: OsString) -> Result<Bytes, BytesTextError> {
        let bytes = argument.into_vec();
        match self {
            TextForm::Escaped => Ok(bytes.into()),
            TextForm::Hex => unhex(&bytes).ok_or_else(|| BytesTextError::Hex {
                text: String::from_utf8_lossy(&bytes).into_owned(),
            }),
            TextForm::Base64 => BASE64
                .decode(&bytes)
                .map(Bytes::from)
                .map_err(|_| BytesTextError::Base64 {
                    text: String::from_utf8_lossy(&bytes).into_owned(),
                }),
        }
    }

    /// Bytes as a table shows them.
    pub fn show(self, bytes: &[u8]) -> String {
        match self {
            TextForm::Escaped => escape(bytes),
            TextForm::Hex => hex(bytes),
            TextForm::Base64 => BASE64.encode(bytes),
        }
    }
}

/// Two digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &[u8]) -> Option<Bytes> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.chunks_exact(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect::<Option<Vec<u8>>>()
        .map(Bytes::from)
}

/// Printable text as it is, everything else escaped, so that a terminal is never upset and nothing that
/// differs looks alike.
fn escape(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\n' => shown.push_str("\\n"),
                '\r' => shown.push_str("\\r"),
                '\t' => shown.push_str("\\t"),
                '\\' => shown.push_str("\\\\"),
                _ if letter.is_control() => push_hex(&mut shown, letter.encode_utf8(&mut [0; 4]).as_bytes()),
                _ => shown.push(letter),
            }
        }
        push_hex(&mut shown, chunk.invalid());
    }
    shown
}

fn push_hex(shown: &mut String, bytes: &[u8]) {
    for byte in bytes {
        shown.push_str(&format!("\\x{byte:02x}"));
    }
}

/// The bytes that an escaped text stands for: what [`escape`] writes, and \" besides.
pub fn unescape(text: &str) -> Result<Bytes, BytesTextError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let wrong = || BytesTextError::Escape {
            text: text.to_owned(),
            escape: escaped
                .chars()
                .take(if escaped.starts_with('x') { 3 } else { 1 })
                .collect(),
        };
        let mut taken = 1;
        bytes.push(match escaped.as_bytes().first().ok_or_else(wrong)? {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'"' => b'"',
            b'\\' => b'\\',
            b'x' => {
                taken = 3;
                let digits = escaped.as_bytes().get(1..3).ok_or_else(wrong)?;
                unhex(digits).ok_or_else(wrong)?[0]
            }
            _ => return Err(wrong()),
        });
        rest = &escaped[taken..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes.into())
}

/// Bytes in JSON: a string where they are printable text, else `{"base64": ...}`.
pub fn json_bytes(bytes: &[u8]) -> Value {
    let is_printable = |text: &&str| {
        text.chars()
            .all(|letter| !letter.is_control() || "\n\r\t".contains(letter))
    };
    match std::str::from_utf8(bytes).ok().filter(is_printable) {
        Some(text) => Value::String(text.to_owned()),
        None => json!({ "base64": BASE64.encode(bytes) }),
    }
}

/// The bytes of a base64 text, as [`json_bytes`] writes it.
pub fn from_base64(text: &str) -> Result<Bytes, BytesTextError> {
    TextForm::Base64.read(text.to_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: [&[u8]; 8] = [
        b"",
        b"/vms/1",
        "größe ☂".as_bytes(),
        b"two words",
        b"a\nb\r\t\\x41",
        b"\0\x01\x7f\xff",
        b"\xc3\x28",
        b"\xc2\x85",
    ];

    #[test]
    fn escaped_text_stands_for_the_same_bytes() {
        for bytes in SAMPLES {
            let shown = TextForm::Escaped.show(bytes);
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
            assert_eq!(unescape(&shown).expect(&shown), bytes);
        }
        assert_eq!(TextForm::Escaped.show(b"a\0\xff\\"), r"a\x00\xff\\");
    }

    #[test]
    fn hex_and_base64_stand_for_the_same_bytes() {
        for form in [TextForm::Hex, TextForm::Base64] {
            for bytes in SAMPLES {
                let shown = form.show(bytes);
                assert_eq!(form.read(shown.clone().into()).expect(&shown), bytes);
            }
        }
    }

    #[test]
    fn an_argument_is_taken_as_it_is() {
        let argument = OsString::from_vec(b"a\\n\xff".to_vec());
        assert_eq!(TextForm::Escaped.read(argument).expect("bytes"), b"a\\n\xff".as_slice());
    }

    #[test]
    fn what_stands_for_no_bytes_is_refused() {
        for text in ["f", "fg", "0x41"] {
            assert!(TextForm::Hex.read(text.into()).is_err(), "{text}");
        }
        assert!(TextForm::Base64.read("*".into()).is_err());
        for (text, escape) in [("\\", "\\,"), ("a\\q", "\\q,"), ("\\x4", "\\x4,"), ("\\xé1", "\\xé1,")] {
            let error = unescape(text).expect_err(text).to_string();
            assert!(error.contains(escape), "{error}");
        }
    }

    #[test]
    fn json_tells_text_from_bytes() {
        assert_eq!(json_bytes(b"a\nb"), json!("a\nb"));
        assert_eq!(json_bytes("ü".as_bytes()), json!("ü"));
        assert_eq!(json_bytes(b"\0"), json!({ "base64": "AA==" }));
        assert_eq!(json_bytes(b"\xff"), json!({ "base64": "/w==" }));
    }
}
