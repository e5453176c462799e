//! The other members, as a leader asks them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parking_lot::Mutex;
use plasmavmc_types::Address;

use crate::control::OtherMembers;

/// What a member says.
#[derive(Debug, Clone, Copy)]
pub enum Says {
    Since(u64),
    /// It never answers.
    Nothing,
}

/// Members that were told what to say; the others do not know.
#[derive(Debug, Default)]
pub struct Members {
    pub says: Mutex<BTreeMap<String, Says>>,
    asked: Mutex<BTreeMap<String, usize>>,
}

impl Members {
    pub fn say(&self, address: &str, says: Says) {
        self.says.lock().insert(address.to_owned(), says);
    }

    /// How often each was asked, and forgets it.
    pub fn asked(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut self.asked.lock())
    }
}

#[async_trait]
impl OtherMembers for Members {
    async fn listens_since(&self, address: &Address) -> Option<u64> {
        *self.asked.lock().entry(address.to_string()).or_default() += 1;
        let says = self.says.lock().get(address.as_str()).copied();
        match says? {
            Says::Since(revision) => Some(revision),
            Says::Nothing => std::future::pending().await,
        }
    }
}
