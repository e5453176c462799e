//! Where a host can be reached.

use std::fmt;
use std::str::FromStr;

use core::net::{Ipv4Addr, SocketAddrV6};

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// `host:port`; the host is a name, an IPv4 address or an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(String);

impl Address {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Address {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = |problem: &str| Err(Invalid::whole("address", format!("{text:?} {problem}")));
        let Some((host, port)) = text.rsplit_once(':') else {
            return refuse("has no port: write host:port");
        };
        // Digits only, because a number may also be written with a sign.
        let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
        if !is_port {
            return refuse("has no port from 1 to 65535");
        }
        if host.contains([':', '[', ']']) && text.parse::<SocketAddrV6>().is_err() {
            return refuse("has no IPv6 address in brackets: write [fd00::1]:50051");
        }
        if !host.starts_with('[') && host.parse::<Ipv4Addr>().is_err() && !is_dns_name(host) {
            return refuse("has no host name before the port");
        }
        Ok(Self(text.to_owned()))
    }
}

/// Letters, digits and hyphens between dots, with a letter in the last part: `10.0.0.256` is a mistake,
/// not a name.
fn is_dns_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= 253 && host.split('.').all(is_label) && last.bytes().any(|byte| byte.is_ascii_alphabetic())
}

impl TryFrom<String> for Address {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_both_kinds_of_addresses_are_taken() {
        for good in [
            "host1:50051",
            "10.0.0.7:1",
            "[fd00::7]:65535",
            "a.lan.example:80",
            "3com.example:80",
        ] {
            assert_eq!(good.parse::<Address>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let table = [
            "",
            "host1",
            "host1:",
            ":80",
            "host1:0",
            "host1:65536",
            "host1:+80",
            "fd00::7:80",
            "[fd00::7]",
            "[x]:80",
            "10.0.0.256:80",
            "a..b:80",
            "-a:80",
            "a b:80",
            "http://a:80",
        ];
        for bad in table {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
