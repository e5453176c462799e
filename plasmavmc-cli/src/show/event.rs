//! Events, one a line.

use plasmavmc_proto::api::Event;

use super::clock_time;
use super::table::printable;

/// Time, kind, what it is about, and the sentence.
pub fn event_line(event: &Event) -> String {
    let about = [event.vm_name.as_str(), event.host.as_str()];
    let about: Vec<&str> = about.into_iter().filter(|name| !name.is_empty()).collect();
    let line = format!(
        "{}  {:<18} {:<20} {}",
        clock_time(event.at_ms),
        event.kind,
        about.join("@"),
        event.text
    );
    printable(line.trim_end())
}
