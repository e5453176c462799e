//! One line of QMP, understood as far as it can be.
//!
//! Must never: fail. What makes no sense is a [`Message::Stray`], and the next line is looked at.

use serde_json::Value;

use super::event::{Event, EventTime};
use super::refusal::{Refusal, excerpt};

/// What QEMU says of itself when one connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Major, minor, micro.
    pub version: (u32, u32, u32),
    /// The distribution's name for it.
    pub package: String,
    /// Whether commands can be executed out of band.
    pub oob: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Message {
    Greeting(Greeting),
    Reply {
        id: u64,
        result: Result<Value, Refusal>,
    },
    Event(Event),
    /// Nothing that can be used, and what it looked like.
    Stray(String),
}

impl Message {
    pub fn from_line(line: &[u8]) -> Self {
        let stray = || Self::Stray(excerpt(line));
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(line) else {
            return stray();
        };
        if let Some(greeting) = fields.get("QMP") {
            return Greeting::from_value(greeting).map_or_else(stray, Self::Greeting);
        }
        if let Some(Value::String(name)) = fields.get("event") {
            let name = name.clone();
            let at = fields.get("timestamp").and_then(|at| {
                Some(EventTime {
                    seconds: at.get("seconds")?.as_i64()?,
                    microseconds: at.get("microseconds")?.as_i64()?,
                })
            });
            let data = fields.remove("data").unwrap_or_default();
            return Self::Event(Event { name, data, at });
        }
        // A reply without one of our ids is nobody's: QEMU sends such for what it could not parse.
        let Some(id) = fields.get("id").and_then(Value::as_u64) else {
            return stray();
        };
        let result = match (fields.remove("error"), fields.remove("return")) {
            (Some(error), _) => Err(Refusal::from_error(&error)),
            (None, Some(value)) => Ok(value),
            (None, None) => return stray(),
        };
        Self::Reply { id, result }
    }
}

impl Greeting {
    fn from_value(value: &Value) -> Option<Self> {
        let version = value.get("version")?;
        let part = |name: &str| {
            let number = version.get("qemu")?.get(name)?.as_u64()?;
            u32::try_from(number).ok()
        };
        let offers = |capability: &str| {
            let offered = value.get("capabilities").and_then(Value::as_array);
            offered.is_some_and(|offered| offered.iter().any(|one| one == capability))
        };
        Some(Self {
            version: (part("major")?, part("minor")?, part("micro")?),
            package: version
                .get("package")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            oob: offers("oob"),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::refusal::ErrorClass;
    use super::*;

    fn read(text: &str) -> Message {
        Message::from_line(text.as_bytes())
    }

    #[test]
    fn a_greeting_is_understood_with_and_without_capabilities() {
        let greeting = |capabilities: &str| {
            read(&format!(
                r#"{{"QMP":{{"version":{{"qemu":{{"micro":22,"minor":2,"major":7}},"package":"Debian"}}{capabilities}}}}}"#
            ))
        };
        let expected = |oob| {
            Message::Greeting(Greeting {
                version: (7, 2, 22),
                package: "Debian".to_owned(),
                oob,
            })
        };
        assert_eq!(greeting(r#","capabilities":["oob","newer"]"#), expected(true));
        assert_eq!(greeting(r#","capabilities":[]"#), expected(false));
        assert_eq!(greeting(""), expected(false));
    }

    #[test]
    fn a_refusal_is_one_whatever_its_class_is() {
        let class_of = |text: &str| match read(text) {
            Message::Reply {
                id: 3,
                result: Err(refusal),
            } => refusal.class,
            other => panic!("{other:?}"),
        };
        let reply = |class: &str| format!(r#"{{"id":3,"error":{{"class":{class},"desc":"no"}}}}"#);
        assert_eq!(class_of(&reply(r#""GenericError""#)), ErrorClass::Generic);
        assert_eq!(class_of(&reply(r#""CommandNotFound""#)), ErrorClass::CommandNotFound);
        assert_eq!(class_of(&reply(r#""Newer""#)), ErrorClass::Other("Newer".to_owned()));
        assert_eq!(class_of(&reply("null")), ErrorClass::Other(String::new()));
        assert_eq!(class_of(r#"{"id":3,"error":7}"#), ErrorClass::Other(String::new()));
        // Both at once: a "no" is safer than a wrong "yes".
        assert_eq!(
            class_of(r#"{"id":3,"return":{},"error":{}}"#),
            ErrorClass::Other(String::new())
        );
    }

    #[test]
    fn what_belongs_to_nobody_is_stray() {
        let long = format!("[{}]", "[".repeat(1000));
        for text in [
            "",
            "{",
            "[]",
            "7",
            "null",
            r#"{"id":1}"#,
            r#"{"return":{}}"#,
            r#"{"return":{},"id":"1"}"#,
            r#"{"return":{},"id":-1}"#,
            r#"{"return":{},"id":1.5}"#,
            r#"{"error":{"class":"GenericError"}}"#,
            r#"{"QMP":{}}"#,
            r#"{"event":7}"#,
            &long,
        ] {
            assert!(matches!(read(text), Message::Stray(_)), "{text}");
        }
        assert!(matches!(Message::from_line(b"\xff\xfe{\"id\":1}"), Message::Stray(_)));
    }

    #[test]
    fn an_event_survives_without_data_and_without_a_time() {
        let Message::Event(event) = read(r#"{"event":"NEWER","timestamp":{"seconds":"soon"}}"#) else {
            panic!("no event")
        };
        assert_eq!(
            (event.name.as_str(), &event.data, event.at),
            ("NEWER", &Value::Null, None)
        );
        assert!(event.known().is_none());
    }

    #[test]
    fn an_event_with_a_value_of_a_newer_qemu_is_there_raw() {
        let event = |reason: &str| {
            let at = r#""timestamp":{"seconds":1,"microseconds":2}"#;
            match read(&format!(
                r#"{{"event":"SHUTDOWN","data":{{"guest":true,"reason":"{reason}"}},{at}}}"#
            )) {
                Message::Event(event) => event,
                other => panic!("{other:?}"),
            }
        };
        let known = event("guest-shutdown").known();
        assert!(matches!(known, Some(qapi::qmp::Event::SHUTDOWN { .. })), "{known:?}");
        let newer = event("guest-invented");
        assert!(newer.known().is_none());
        assert_eq!(newer.data, json!({ "guest": true, "reason": "guest-invented" }));
    }
}
