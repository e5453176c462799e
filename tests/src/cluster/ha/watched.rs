//! A test of a whole cluster, and what looks at it from outside meanwhile.

use std::sync::Arc;

use anyhow::{Result, ensure};

use super::Sampler;
use crate::cluster::HostedCluster;

/// Forms the cluster, the last member as it is told, and runs the test in it. Panics if that fails, or if a VM ran twice
/// meanwhile, whatever the test says.
pub fn watched<F: Future<Output = Result<()>>>(
    cluster: Result<HostedCluster>,
    last: &[&str],
    test: impl FnOnce(Arc<HostedCluster>, Arc<Sampler>) -> F + Send,
) {
    let run = || {
        let cluster = Arc::new(cluster?);
        let sampler = Arc::new(Sampler::start(cluster.lab().folder()));
        let outcome = cluster.run(async || {
            cluster.form_with(last).await?;
            test(Arc::clone(&cluster), Arc::clone(&sampler)).await
        });
        let doubles = sampler.doubles();
        ensure!(doubles.is_empty(), "VMs ran twice: {doubles:?}; {outcome:?}");
        ensure!(sampler.looks() > 0, "nobody looked");
        outcome
    };
    if let Err(error) = run() {
        panic!("{error:?}");
    }
}
