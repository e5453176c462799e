//! One server: its address, and the connection to it once there is one.

use std::fmt;
use std::time::Duration;

use tokio::sync::Mutex;
use tonic::transport::{Channel, Endpoint};

use super::causes;

/// Of a connection that says nothing. Tells a host that lost its power from one that has nothing to say.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);

/// A server of the list.
#[derive(Debug)]
pub struct Server {
    /// HOST:PORT, as it was given.
    address: String,
    endpoint: Endpoint,
    channel: Mutex<Option<Channel>>,
}

impl Server {
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The connection, made if there is none. An error says why not, and that nothing was sent.
    pub(super) async fn channel(&self, within: Duration) -> Result<Channel, String> {
        let mut kept = self.channel.lock().await;
        if let Some(channel) = &*kept {
            return Ok(channel.clone());
        }
        match tokio::time::timeout(within, self.endpoint.connect()).await {
            Ok(Ok(channel)) => {
                *kept = Some(channel.clone());
                Ok(channel)
            }
            Ok(Err(error)) => Err(causes(&error)),
            Err(_) => Err(format!(
                "no connection within {}",
                humantime::format_duration(whole_ms(within))
            )),
        }
    }

    /// The next call connects anew.
    pub(super) async fn forget(&self) {
        *self.channel.lock().await = None;
    }
}

fn whole_ms(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// Reads HOST:PORT, where the host is a name, an IPv4 or a bracketed IPv6 address.
pub fn parse_server(text: &str) -> Result<Server, String> {
    let wrong = |why: &str| format!("{text:?} {why}; write HOST:PORT, such as 10.0.0.1:50051");
    if text.contains("://") {
        return Err(wrong("is a URL"));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("has no port"))?;
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@' | ',')) {
        return Err(wrong("has no host"));
    }
    if host.contains(':') && !is_bracketed {
        return Err(wrong("has an IPv6 address without brackets"));
    }
    match port.parse::<u16>() {
        Ok(1..) => {}
        _ => return Err(wrong("has no valid port")),
    }
    let endpoint = Endpoint::from_shared(format!("http://{text}")).map_err(|_| wrong("is no address"))?;
    let endpoint = endpoint
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_EVERY)
        .keep_alive_while_idle(true);
    Ok(Server {
        address: text.to_owned(),
        endpoint,
        channel: Mutex::new(None),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for good in ["127.0.0.1:50051", "host-1.example:1", "[::1]:65535"] {
            assert_eq!(parse_server(good).map(|server| server.to_string()).as_deref(), Ok(good));
        }
    }

    #[test]
    fn what_is_no_address_is_told_why() {
        let table = [
            ("", "has no port"),
            ("h1", "has no port"),
            (":50051", "has no host"),
            ("h 1:50051", "has no host"),
            ("h1:0", "has no valid port"),
            ("h1:70000", "has no valid port"),
            ("::1:50051", "without brackets"),
            ("http://h1:50051", "is a URL"),
        ];
        for (text, says) in table {
            let error = parse_server(text).unwrap_err();
            assert!(error.contains(says) && error.contains("HOST:PORT"), "{text}: {error}");
        }
    }
}
