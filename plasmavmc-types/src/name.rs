//! Names that people choose.
//!
//! All are DNS labels, so that a VM's name can become its guest's host name, and a name can never be
//! taken for a number or an id (see [`crate::VmRef`]).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Invalid;

const MAX_BYTES: usize = 63;

/// Why a text is no DNS label that starts with a letter.
fn refuse_label(text: &str) -> Option<String> {
    let problem = if text.is_empty() {
        "is empty".to_owned()
    } else if text.len() > MAX_BYTES {
        format!("has {} bytes, at most {MAX_BYTES} are allowed", text.len())
    } else if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        format!("{text:?} must start with a letter from a to z")
    } else if text.ends_with('-') {
        format!("{text:?} must not end with a hyphen")
    } else if let Some(bad) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        format!("{text:?} has {bad:?}; a to z, 0 to 9 and hyphens are allowed")
    } else if Uuid::try_parse(text).is_ok() {
        format!("{text:?} looks like an id")
    } else {
        return None;
    };
    Some(problem)
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
                let text = text.into();
                match refuse_label(&text) {
                    None => Ok(Self(text)),
                    Some(problem) => Err(Invalid::whole($what, problem)),
                }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

name!(
    /// The name of a VM, unique in the cluster.
    VmName,
    "VM name"
);
name!(
    /// The name of a host, unique in the cluster.
    HostName,
    "host name"
);
name!(
    /// The name of a storage pool.
    PoolName,
    "pool name"
);
name!(
    /// The name of something inside a VM (a disk, a NIC) or of a network.
    Label,
    "name"
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn good_names_are_taken() {
        for good in ["a", "test-vm", "web1", "x--y", &"a".repeat(63), "deadbeef"] {
            assert!(VmName::new(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn bad_names_are_refused_with_the_reason() {
        let table = [
            ("", "is empty"),
            ("101", "must start with a letter"),
            ("-a", "must start with a letter"),
            ("Web", "must start with a letter"),
            ("wEb", "has 'E'"),
            ("a.b", "has '.'"),
            ("a b", "has ' '"),
            ("naïve", "has 'ï'"),
            ("a/../b", "has '/'"),
            ("a,if=x", "has ','"),
            ("a-", "end with a hyphen"),
            ("abcdef01-0000-4000-8000-000000000001", "looks like an id"),
            ("abcdef0100004000800000000000000a", "looks like an id"),
        ];
        for (bad, reason) in table {
            let text = VmName::new(bad).unwrap_err().to_string();
            assert!(text.contains(reason), "{bad}: {text}");
        }
        assert!(VmName::new("a".repeat(64)).is_err());
    }

    #[test]
    fn json_goes_through_the_same_check() {
        assert_eq!(serde_json::from_str::<PoolName>("\"nfs\"").unwrap().as_str(), "nfs");
        let error = serde_json::from_str::<PoolName>("\"a b\"").unwrap_err().to_string();
        assert!(error.contains("invalid pool name"), "{error}");
    }

    proptest! {
        #[test]
        fn a_name_shows_what_it_was_made_of(text in ".{0,70}") {
            if let Ok(name) = VmName::new(text.clone()) {
                prop_assert_eq!(name.to_string().parse::<VmName>().unwrap(), name.clone());
                prop_assert_eq!(name.as_str(), text);
            }
        }

        #[test]
        fn every_label_that_starts_with_a_letter_is_a_name(text in "[a-z]([a-z0-9-]{0,25}[a-z0-9])?") {
            prop_assert!(VmName::new(text).is_ok());
        }
    }
}
