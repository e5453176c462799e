//! Names that people choose.
//!
//! All are DNS labels, so that a VM's name can become its guest's host name, and a name can never be
//! taken for a number or an id (see [`crate::VmRef`]).

use uuid::Uuid;

use crate::text::{checked_text, refuse_word};

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

checked_text!(
    /// The name of a VM, unique in the cluster.
    VmName,
    "VM name",
    refuse_label
);
checked_text!(
    /// The name of a host, unique in the cluster.
    HostName,
    "host name",
    refuse_label
);
checked_text!(
    /// The name of a storage pool.
    PoolName,
    "pool name",
    refuse_label
);
checked_text!(
    /// The name of something inside a VM (a disk, a NIC) or of a network.
    Label,
    "name",
    refuse_label
);
checked_text!(
    /// What a caller names its request by, so that a repetition is answered like the first.
    RequestId,
    "request id",
    |text| refuse_word(text, 128)
);
checked_text!(
    /// The public half of a join token.
    TokenId,
    "token id",
    |text| refuse_word(text, 64)
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
