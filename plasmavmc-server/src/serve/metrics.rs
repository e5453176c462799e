//! What this server counts, for Prometheus. Numbers that are in the store are read from the mirror when they
//! are asked for; nothing is kept twice.

use std::time::Duration;

use plasmavmc_core::view::{ClusterView, Heard};
use plasmavmc_core::visible;
use plasmavmc_types::{OperationState, VmState};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    method: String,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// All metrics of a server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: std::sync::Arc<Registry>,
    calls: Family<Call, Counter>,
    seconds: Family<Method, Histogram>,
    vms: Family<State, Gauge>,
    hosts: Family<State, Gauge>,
    operations: Family<State, Gauge>,
    revision: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("plasmavmc");
        let seconds = Family::new_with_constructor(seconds as fn() -> Histogram);
        let (calls, vms, hosts, operations) = Default::default();
        let revision = Gauge::default();
        registry.register("api_calls", "Calls answered, by their status", Family::clone(&calls));
        let help = "Time from a call to its answer, or to the beginning of its stream";
        registry.register("api_seconds", help, Family::clone(&seconds));
        registry.register("vms", "VMs by the state clients see", Family::clone(&vms));
        registry.register("hosts", "Hosts by state", Family::clone(&hosts));
        registry.register(
            "operations",
            "Operations that are kept, by state",
            Family::clone(&operations),
        );
        let help = "Revision of the store that this server's answers show";
        registry.register("mirror_revision", help, revision.clone());
        Self {
            registry: std::sync::Arc::new(registry),
            calls,
            seconds,
            vms,
            hosts,
            operations,
            revision,
        }
    }
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 16))
}

impl Metrics {
    pub fn note_call(&self, method: &str, code: &str, took: Duration) {
        let (method, code) = (method.to_owned(), code.to_owned());
        let labels = Method { method: method.clone() };
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
        self.calls.get_or_create(&Call { method, code }).inc();
    }

    /// In the text format of OpenMetrics, after another text in that format.
    pub fn render_after(&self, other: &str) -> String {
        let mut text = other.trim_end().trim_end_matches("# EOF").to_owned();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Takes over the numbers that a view shows.
    pub fn show(&self, view: &ClusterView, heard: &Heard) {
        self.revision.set(i64::try_from(view.revision).unwrap_or(i64::MAX));
        let count = |family: &Family<State, Gauge>, state: &'static str, count: usize| {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            family.get_or_create(&State { state }).set(count);
        };
        let shown: Vec<VmState> = view
            .vms
            .iter()
            .filter(|(_, vm)| vm.record.is_some())
            .map(|(id, _)| visible::vm(view, heard, *id).state)
            .collect();
        for state in VmState::ALL {
            let matching = shown.iter().filter(|shown| **shown == state);
            count(&self.vms, state.as_str(), matching.count());
        }
        let hosts: Vec<_> = view
            .hosts
            .keys()
            .map(|id| visible::host(view, heard, *id).state)
            .collect();
        for (word, state) in HOST_STATES {
            count(&self.hosts, word, hosts.iter().filter(|shown| **shown == state).count());
        }
        for word in ["pending", "running", "done", "failed", "cancelled"] {
            let operations = view.operations.values();
            let matching = operations.filter(|operation| operation_word(&operation.value.state) == word);
            count(&self.operations, word, matching.count());
        }
    }
}

const HOST_STATES: [(&str, visible::HostState); 5] = [
    ("alive", visible::HostState::Alive),
    ("silent", visible::HostState::Silent),
    ("new", visible::HostState::New),
    ("fenced", visible::HostState::Fenced),
    ("witness", visible::HostState::Witness),
];

fn operation_word(state: &OperationState) -> &'static str {
    match state {
        OperationState::Pending => "pending",
        OperationState::Running => "running",
        OperationState::Done => "done",
        OperationState::Failed(_) => "failed",
        OperationState::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_registries_make_one_text() {
        let metrics = Metrics::default();
        metrics.note_call("/plasmavmc.VmService/GetVm", "0", Duration::from_millis(3));
        metrics.show(&ClusterView::default(), &Heard::default());
        let text = metrics.render_after("# HELP a b\na 1\n# EOF\n");
        assert!(text.starts_with("# HELP a b\na 1\n"), "{text}");
        assert!(text.contains("plasmavmc_api_calls_total{method=\"/plasmavmc.VmService/GetVm\",code=\"0\"} 1"));
        assert!(text.contains("plasmavmc_vms{state=\"running\"} 0"));
        assert_eq!(text.matches("# EOF").count(), 1);
        assert!(text.ends_with("# EOF\n"));
    }
}
