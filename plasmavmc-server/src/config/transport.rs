//! How connections are protected. Everything that listens or connects asks here, so that TLS has one place
//! to come to.

use std::net::{IpAddr, Ipv4Addr};

/// What protects the connections of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportSecurity {
    /// Nobody outside of this machine can connect.
    LoopbackOnly,
    /// Nothing does, and the operator has said that this is fine.
    NoneByConsent,
}

/// The protection of a server that listens on these addresses (each with its name for people), or why there
/// is none.
pub fn transport_security(listens: &[(&str, &str)], consent: bool) -> Result<TransportSecurity, Vec<String>> {
    let beyond: Vec<_> = listens
        .iter()
        .filter(|(_, address)| !is_loopback(address))
        .map(|(setting, address)| {
            format!(
                "{setting}: {address} can be reached from other machines, and nothing is encrypted and nobody has to \
                 log in: whoever can connect controls every VM. Listen on 127.0.0.1, or, on a network where that is \
                 acceptable, give --insecure-i-accept-that-anyone-on-this-network-controls-my-vms"
            )
        })
        .collect();
    match (beyond.is_empty(), consent) {
        (true, _) => Ok(TransportSecurity::LoopbackOnly),
        (false, true) => Ok(TransportSecurity::NoneByConsent),
        (false, false) => Err(beyond),
    }
}

/// A name other than localhost may lead anywhere tomorrow.
fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether an address means "every address of this machine", which no peer can connect to.
pub fn is_unspecified(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<IpAddr>()
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
        .is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_needs_no_consent() {
        for (address, safe) in [
            ("127.0.0.1:50051", true),
            ("127.9.9.9:1", true),
            ("[::1]:50051", true),
            ("localhost:50051", true),
            ("0.0.0.0:50051", false),
            ("[::]:50051", false),
            ("10.0.0.1:50051", false),
            ("myhost:50051", false),
            ("127.0.0.1.example:1", false),
        ] {
            let listens = [("--listen", address)];
            assert_eq!(transport_security(&listens, false).is_ok(), safe, "{address}");
            assert!(transport_security(&listens, true).is_ok());
        }
        let refused = transport_security(&[("a", "10.0.0.1:1"), ("b", "10.0.0.1:2")], false).unwrap_err();
        assert_eq!(refused.len(), 2);
        assert!(refused[0].contains("--insecure-i-accept"));
    }
}
