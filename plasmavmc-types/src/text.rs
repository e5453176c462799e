//! The one way to make a type of a checked text: names, words of command lines, ids that callers choose.
//!
//! There is no way to such a value around its check: not through serde, not through `FromStr`.

/// `checked_text!(/** docs */ Name, "what it is called in errors", refuse)`, where `refuse` gives the reason
/// against a text, or `None`.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $refuse:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Result<Self, $crate::Invalid> {
                let text = text.into();
                let refuse: fn(&str) -> Option<String> = $refuse;
                match refuse(&text) {
                    None => Ok(Self(text)),
                    Some(problem) => Err($crate::Invalid::whole($what, problem)),
                }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::Invalid;

            fn try_from(text: String) -> Result<Self, $crate::Invalid> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::Invalid;

            fn from_str(text: &str) -> Result<Self, $crate::Invalid> {
                Self::new(text)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

pub(crate) use checked_text;

/// Why a text is no word of letters, digits, dots, hyphens and underscores that begins with one of the first two.
pub(crate) fn refuse_word(text: &str, max_bytes: usize) -> Option<String> {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if text.is_empty() {
        Some("is empty".to_owned())
    } else if text.len() > max_bytes {
        Some(format!("has {} bytes, at most {max_bytes} are allowed", text.len()))
    } else if let Some(bad) = text.chars().find(|c| !is_inner(*c)) {
        Some(format!(
            "{text:?} has {bad:?}; letters, digits, dots, hyphens and underscores are allowed"
        ))
    } else if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Some(format!("{text:?} must start with a letter or a digit"))
    } else {
        None
    }
}
