//! What every command has at hand.

use std::time::Duration;

use crate::args::Global;
use crate::failure::Failure;
use crate::reach::{ANSWER_WITHIN, Reach, parse_server};
use crate::show::Screen;

/// The way to the cluster, and the way to whoever asked.
#[derive(Debug)]
pub struct Context {
    pub reach: Reach,
    pub screen: Screen,
    /// How long to wait for the end of what was asked, if somebody said so.
    pub timeout: Option<Duration>,
    request_id: Option<String>,
}

impl Context {
    pub fn new(global: &Global, screen: Screen) -> Result<Self, Failure> {
        let servers = global
            .servers
            .iter()
            .map(|text| text.trim())
            .filter(|text| !text.is_empty());
        let servers: Vec<_> = servers
            .map(parse_server)
            .collect::<Result<_, _>>()
            .map_err(Failure::Usage)?;
        if servers.is_empty() {
            return Err(Failure::Usage(
                "no server is given; --server HOST:PORT or PLASMAVMC_SERVER".to_owned(),
            ));
        }
        Ok(Self {
            reach: Reach::new(servers, global.timeout.unwrap_or(ANSWER_WITHIN)),
            screen,
            timeout: global.timeout,
            request_id: global.request_id.clone(),
        })
    }

    /// The id of the one change this command makes.
    pub fn request_id(&self) -> String {
        self.request_id
            .clone()
            .unwrap_or_else(|| uuid::Uuid::new_v4().to_string())
    }
}
