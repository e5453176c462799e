//! What the run found, as the one line of JSON that ends it.

use serde_json::{Map, Value};

use super::lab::Side;

/// The keys that every run prints, `null` where it did not measure them.
const ALWAYS: [&str; 37] = [
    "put_ops_ratio_1",
    "put_ops_ratio_16",
    "put_ops_ratio_64",
    "put_ops_ratio_256",
    "put_p99_ratio_64",
    "get_ops_ratio_1",
    "get_ops_ratio_16",
    "get_ops_ratio_64",
    "get_ops_ratio_256",
    "txn_ops_ratio_64",
    "watch_1000_p99_ms",
    "put_1m_vs_1k_ratio",
    "put_ops_64_5ms",
    "put_ops_256_5ms",
    "rss_mb",
    "peer_rss_mb",
    "rss_restart_mb",
    "peer_rss_restart_mb",
    "leader_loss_p50_s",
    "leader_loss_p99_s",
    "leader_loss_max_s",
    "peer_leader_loss_p50_s",
    "peer_leader_loss_p99_s",
    "peer_leader_loss_max_s",
    "leader_pause_p50_s",
    "leader_pause_p99_s",
    "leader_pause_max_s",
    "peer_leader_pause_p50_s",
    "peer_leader_pause_p99_s",
    "peer_leader_pause_max_s",
    "follower_term_changes",
    "follower_failed_writes",
    "restart_100k_s",
    "peer_restart_100k_s",
    "restart_one_100k_s",
    "peer_restart_one_100k_s",
    "catchup_s",
];

/// The figures so far.
#[derive(Debug)]
pub struct Report {
    figures: Map<String, Value>,
}

impl Default for Report {
    fn default() -> Self {
        let figures = ALWAYS.iter().map(|key| ((*key).to_owned(), Value::Null)).collect();
        Self { figures }
    }
}

impl Report {
    /// Notes a figure to four significant digits.
    pub fn set(&mut self, key: impl Into<String>, figure: impl Into<Option<f64>>) {
        let figure = figure.into().map(four_digits);
        self.figures.insert(key.into(), figure.into());
    }

    /// Notes a figure of one side: the peer's keys begin with `peer_`.
    pub fn set_for(&mut self, side: Side, key: &str, figure: impl Into<Option<f64>>) {
        self.set(format!("{}{key}", side.key_prefix()), figure);
    }

    pub fn set_text(&mut self, key: &str, text: impl Into<String>) {
        self.figures.insert(key.to_owned(), Value::String(text.into()));
    }

    pub fn to_json(&self) -> String {
        Value::Object(self.figures.clone()).to_string()
    }
}

fn four_digits(figure: f64) -> f64 {
    if figure == 0.0 || !figure.is_finite() {
        return figure;
    }
    let places = 3 - figure.abs().log10().floor() as i32;
    let scale = 10f64.powi(places.max(0));
    (figure * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_null() {
        let mut report = Report::default();
        report.set("put_ops_ratio_64", 1.234_56);
        report.set_for(Side::Peer, "rss_mb", 7.0);
        let json: Value = serde_json::from_str(&report.to_json()).expect("valid");
        assert_eq!(json["put_ops_ratio_64"], 1.235);
        assert_eq!(json["peer_rss_mb"], 7.0);
        assert!(json.as_object().expect("an object").contains_key("restart_100k_s"));
        assert!(json["restart_100k_s"].is_null());
    }

    #[test]
    fn figures_keep_four_digits() {
        assert_eq!(four_digits(0.012_345_6), 0.012_35);
        assert_eq!(four_digits(123_456.7), 123_457.0);
        assert_eq!(four_digits(0.0), 0.0);
    }
}
