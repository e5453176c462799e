//! How options are written, so that no value can become an option of its own.
//!
//! QEMU reads two notations. JSON is used wherever QEMU takes it, because a value in it is a value. In
//! `key=value,...` a comma ends the value unless it is doubled. Neither is ever put together by hand
//! outside of this file, and control characters are refused before they get here.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value};

use crate::refused::{Reason, Refused};

/// A list of arguments under construction.
#[derive(Debug, Default)]
pub(super) struct Arguments(Vec<String>);

impl Arguments {
    pub fn flag(&mut self, option: &str) {
        self.0.push(option.to_owned());
    }

    /// An option whose whole value QEMU takes as it is.
    pub fn plain(&mut self, option: &str, value: impl Into<String>) {
        self.flag(option);
        self.0.push(value.into());
    }

    /// An option with a list of keys and values.
    pub fn keyed(&mut self, option: &str, pairs: &[(&str, &str)]) {
        let mut text = String::new();
        for (key, value) in pairs {
            let separator = if text.is_empty() { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(text, "{separator}{key}={}", value.replace(',', ",,"));
        }
        self.plain(option, text);
    }

    pub fn json(&mut self, option: &str, value: &Object) {
        self.plain(option, Value::Object(value.0.clone()).to_string());
    }

    pub fn finish(self) -> Vec<String> {
        self.0
    }
}

/// One object of QEMU, as it takes it on the command line and over QMP alike.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object(Map<String, Value>);

impl Object {
    /// `kind` is what QEMU calls driver, type or qom-type.
    pub fn new(kind: &str, name: &str) -> Self {
        Self(Map::new()).with(kind, name)
    }

    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    #[must_use]
    pub fn with_some(self, key: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

/// A path as text that means the same to QEMU as to us.
pub(super) fn path_text<'a>(field: &str, path: &'a Path) -> Result<&'a str, Refused> {
    let refuse = |problem| {
        let text = path.to_string_lossy().into_owned();
        Refused::new(field, Reason::UnsafeText { text, problem })
    };
    let text = path.to_str().ok_or_else(|| refuse("is not UTF-8"))?;
    if text.contains(char::is_control) {
        Err(refuse("has a control character"))
    } else if !path.is_absolute() {
        // QEMU runs in its runtime folder, and would take `nbd:...` for a protocol.
        Err(refuse("is not an absolute path"))
    } else {
        Ok(text)
    }
}
