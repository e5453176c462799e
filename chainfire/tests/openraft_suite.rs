//! openraft's own suite for logs and state machines, on ours.

use std::sync::Arc;

use chainfire::kv::Limits;
use chainfire::log::{LogOptions, LogStore};
use chainfire::metrics::Metrics;
use chainfire::raft::types::{StorageError, TypeConfig};
use chainfire::state::{FlushLimits, LogExtent, StateMachine, StateOptions};
use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError> {
        let folder = tempfile::tempdir().expect("a folder");
        let options = LogOptions::new(folder.path().join("log"), folder.path().join("watermark"));
        let log = LogStore::open(options).expect("a log");
        let options = StateOptions {
            folder: folder.path().to_owned(),
            limits: Limits::default(),
            flush: FlushLimits::default(),
        };
        let metrics = Arc::clone(&Metrics::default().state);
        let opened = chainfire::state::open(&options, LogExtent::default(), metrics).expect("a state");
        Ok((folder, log, opened.machine))
    }
}

#[test]
fn openrafts_suite_passes() {
    Suite::test_all(Builder).expect("every test of the suite");
}
