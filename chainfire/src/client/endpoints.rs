//! The members that a client knows, and which of them it talks to.

use std::sync::atomic::{AtomicUsize, Ordering};

use tonic::transport::Channel;

use crate::transport::{self, Address, AddressError, ConnectOptions};

/// One channel per member, and the one that is preferred: calls stay with a member that serves.
#[derive(Debug)]
pub(super) struct Endpoints {
    all: Vec<Endpoint>,
    preferred: AtomicUsize,
}

#[derive(Debug)]
struct Endpoint {
    address: String,
    channel: Channel,
}

/// A member that was chosen for an attempt.
#[derive(Debug, Clone)]
pub(super) struct Chosen<'a> {
    index: usize,
    pub(super) address: &'a str,
    pub(super) channel: Channel,
}

impl Endpoints {
    pub(super) fn new<A: AsRef<str>>(
        addresses: impl IntoIterator<Item = A>,
        options: &ConnectOptions,
    ) -> Result<Self, AddressError> {
        let mut all: Vec<Endpoint> = Vec::new();
        for address in addresses {
            let address = address.as_ref().parse::<Address>()?.to_string();
            if all.iter().any(|known| known.address == address) {
                continue;
            }
            let channel = transport::connect(&address, options)?;
            all.push(Endpoint { address, channel });
        }
        if all.is_empty() {
            return Err(AddressError::Empty);
        }
        Ok(Self {
            all,
            preferred: AtomicUsize::new(0),
        })
    }

    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|endpoint| endpoint.address.as_str())
    }

    pub(super) fn preferred(&self) -> Chosen<'_> {
        self.at(self.preferred.load(Ordering::Relaxed))
    }

    pub(super) fn at(&self, index: usize) -> Chosen<'_> {
        let endpoint = &self.all[index];
        Chosen {
            index,
            address: &endpoint.address,
            channel: endpoint.channel.clone(),
        }
    }

    /// Prefers the next member from now on. Of many calls that fail at once with the same member, the
    /// first one moves and the others find it done.
    pub(super) fn move_on_from(&self, failed: &Chosen<'_>) {
        let next = (failed.index + 1) % self.all.len();
        let _ = self
            .preferred
            .compare_exchange(failed.index, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(addresses: &[&str]) -> Result<Endpoints, AddressError> {
        Endpoints::new(addresses, &ConnectOptions::default())
    }

    #[tokio::test]
    async fn calls_that_fail_together_move_on_once() {
        let endpoints = endpoints(&["a:1", "b:1", "c:1"]).expect("endpoints");
        let (one, other) = (endpoints.preferred(), endpoints.preferred());
        endpoints.move_on_from(&one);
        endpoints.move_on_from(&other);
        assert_eq!(endpoints.preferred().address, "b:1");
        for expected in ["c:1", "a:1"] {
            endpoints.move_on_from(&endpoints.preferred());
            assert_eq!(endpoints.preferred().address, expected);
        }
    }

    #[tokio::test]
    async fn an_address_given_twice_counts_once() {
        let endpoints = endpoints(&["a:1", "http://a:1", "b:1"]).expect("endpoints");
        assert_eq!(endpoints.addresses().collect::<Vec<_>>(), ["a:1", "b:1"]);
    }

    #[tokio::test]
    async fn no_address_is_an_error() {
        assert_eq!(endpoints(&[]).err(), Some(AddressError::Empty));
    }
}
