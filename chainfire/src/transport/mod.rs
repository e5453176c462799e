//! Where connections come from: addresses, outgoing channels, listeners.
//!
//! Everything that opens a socket goes through here, clients and members alike, so that what holds for one
//! connection (no delay, keep-alive, deadlines, later TLS) holds for all.

mod wire;

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};

pub use wire::{Wire, WireError};

/// `host:port`, where the host is a name, an IPv4 or a bracketed IPv6 address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Without brackets.
    host: String,
    port: u16,
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("an address is empty; write host:port, such as 10.0.0.1:50061, [::1]:50061 or name:50061")]
    Empty,
    #[error("the address {text:?} asks for {scheme}, which is not spoken here; leave it out or write http")]
    Scheme { text: String, scheme: String },
    #[error("the address {text:?} has no port; write host:port, such as {text}:50061")]
    NoPort { text: String },
    #[error("the address {text:?} has the port {port:?}; a port is a number from 0 to 65535")]
    BadPort { text: String, port: String },
    #[error("the address {text:?} is IPv6 without brackets; write [address]:port, such as [::1]:50061")]
    Unbracketed { text: String },
    #[error("the address {text:?} has {host:?} in brackets, which is no IPv6 address")]
    BadIpv6 { text: String, host: String },
    #[error("the address {text:?} has the host {host:?}; a host is a name, an IPv4 or a bracketed IPv6 address")]
    BadHost { text: String, host: String },
}

impl Address {
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(given: &str) -> Result<Self, AddressError> {
        let text = || given.trim().to_owned();
        let mut rest = given.trim();
        if let Some((scheme, after)) = rest.split_once("://") {
            if scheme != "http" {
                let scheme = scheme.to_owned();
                return Err(AddressError::Scheme { text: text(), scheme });
            }
            rest = after;
        }
        rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.is_empty() {
            return Err(AddressError::Empty);
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(bracketed) => split_bracketed(bracketed, &text)?,
            None => split_plain(rest, &text)?,
        };
        match port.parse() {
            // Digits only: a plus sign would parse too.
            Ok(number) if port.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Self {
                host: host.to_owned(),
                port: number,
            }),
            _ => Err(AddressError::BadPort {
                text: text(),
                port: port.to_owned(),
            }),
        }
    }
}

fn split_bracketed<'a>(rest: &'a str, text: &impl Fn() -> String) -> Result<(&'a str, &'a str), AddressError> {
    let (host, after) = rest.split_once(']').ok_or_else(|| AddressError::BadIpv6 {
        text: text(),
        host: rest.to_owned(),
    })?;
    if host.parse::<Ipv6Addr>().is_err() {
        return Err(AddressError::BadIpv6 {
            text: text(),
            host: host.to_owned(),
        });
    }
    let port = after
        .strip_prefix(':')
        .ok_or_else(|| AddressError::NoPort { text: text() })?;
    Ok((host, port))
}

fn split_plain<'a>(rest: &'a str, text: &impl Fn() -> String) -> Result<(&'a str, &'a str), AddressError> {
    let (host, port) = rest
        .rsplit_once(':')
        .ok_or_else(|| AddressError::NoPort { text: text() })?;
    if host.contains(':') {
        return Err(AddressError::Unbracketed { text: text() });
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if host.is_empty() || host.len() > 253 || !host.bytes().all(legal) {
        return Err(AddressError::BadHost {
            text: text(),
            host: host.to_owned(),
        });
    }
    Ok((host, port))
}

/// How a connection behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// For name resolution and TCP together.
    pub connect_timeout: Duration,
    /// How often a silent peer is asked for a sign of life.
    pub keepalive_interval: Duration,
    /// How long it has to give one; then every call on the connection fails.
    pub keepalive_timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            keepalive_interval: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(2),
        }
    }
}

/// A channel that connects when it is first used, and again after every loss. Must be called inside a
/// runtime, on which its work is done.
pub fn connect(address: &str, options: &ConnectOptions) -> Result<Channel, AddressError> {
    let address: Address = address.parse()?;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| AddressError::BadHost {
        text: address.to_string(),
        host: address.host.clone(),
    })?;
    Ok(endpoint
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true)
        .connect_lazy())
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("cannot find the host of {address}: {source}")]
    Resolve { address: Address, source: io::Error },
    #[error("cannot listen on {address}: {source}")]
    Bind { address: Address, source: io::Error },
}

/// A socket that accepts connections.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
}

impl Listener {
    /// Where it listens: the port that was given out, if port 0 was asked for.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Its connections, for a gRPC server.
    pub fn into_incoming(self) -> TcpIncoming {
        TcpIncoming::from(self.inner).with_nodelay(Some(true))
    }

    /// The bare listener, for whoever counts or filters connections.
    pub fn into_inner(self) -> TcpListener {
        self.inner
    }
}

/// Listens on an address; of a name with several, on the first that can be had.
pub async fn bind(address: &str) -> Result<Listener, BindError> {
    let address: Address = address.parse()?;
    let found = tokio::net::lookup_host((address.host(), address.port())).await;
    let found: Vec<SocketAddr> = match found.map(Iterator::collect) {
        Ok(found) => found,
        Err(source) => return Err(BindError::Resolve { address, source }),
    };
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in found {
        match TcpListener::bind(candidate).await {
            Ok(inner) => return Ok(Listener { inner }),
            Err(error) => failure = error,
        }
    }
    Err(BindError::Bind {
        address,
        source: failure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        for (text, printed) in [
            ("127.0.0.1:50061", "127.0.0.1:50061"),
            ("http://127.0.0.1:50061", "127.0.0.1:50061"),
            (" http://host-1.lan:1/ ", "host-1.lan:1"),
            ("[::1]:50061", "[::1]:50061"),
            ("http://[fd00::a:1]:7", "[fd00::a:1]:7"),
            ("localhost:0", "localhost:0"),
        ] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), printed);
            assert_eq!(printed.parse::<Address>(), Ok(address), "what is printed can be read");
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        for (text, expected) in [
            ("", "empty"),
            ("http://", "empty"),
            ("https://a:1", "asks for https"),
            ("10.0.0.1", "has no port"),
            ("[::1]", "has no port"),
            ("::1:50061", "IPv6 without brackets"),
            ("[::1:50061", "no IPv6 address"),
            ("[host]:1", "no IPv6 address"),
            ("host:", "a port is a number"),
            ("host:+1", "a port is a number"),
            ("host:65536", "a port is a number"),
            (":50061", "a host is a name"),
            ("a b:1", "a host is a name"),
            ("user@host:1", "a host is a name"),
        ] {
            let error = text.parse::<Address>().expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn a_name_and_an_ipv6_address_can_be_listened_on() {
        for text in ["localhost:0", "[::1]:0", "127.0.0.1:0"] {
            let listener = bind(text).await.expect(text);
            assert_ne!(listener.local_addr().expect("an address").port(), 0);
        }
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let taken = bind("127.0.0.1:0").await.expect("a listener");
        let address = taken.local_addr().expect("an address").to_string();
        let error = bind(&address).await.expect_err("it is taken").to_string();
        assert!(error.contains(&address), "{error}");
    }
}
