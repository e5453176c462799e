//! Hosts.

use plasmavmc_proto::api::{Host, host};

use super::detail::Detail;
use super::milliseconds;
use super::table::{Cell, Table, Tone};
use crate::words::show_size_mb;

fn state_text(host: &Host) -> (String, Tone) {
    match host.state() {
        host::State::Unspecified => ("unspecified".to_owned(), Tone::Plain),
        host::State::Alive => ("alive".to_owned(), Tone::Good),
        host::State::Silent => (format!("silent ({})", milliseconds(host.last_heard_ms)), Tone::Bad),
        host::State::New => ("new".to_owned(), Tone::Faint),
        host::State::Fenced => ("fenced".to_owned(), Tone::Bad),
        host::State::Witness => ("witness".to_owned(), Tone::Plain),
    }
}

fn mode_text(host: &Host) -> (&'static str, Tone) {
    match host.mode() {
        host::Mode::Unspecified => ("unspecified", Tone::Plain),
        host::Mode::Active => ("active", Tone::Plain),
        host::Mode::Draining => ("draining", Tone::Warning),
        host::Mode::Maintenance => ("maintenance", Tone::Warning),
        host::Mode::ShuttingDown => ("shutting down", Tone::Warning),
    }
}

pub fn hosts_table(hosts: &[Host], colours: bool) -> String {
    let mut table = Table::new(&[
        "NAME",
        "STATE",
        "MODE",
        "VMS",
        "VCPUS",
        "MEMORY",
        "ACCELERATOR",
        "ADDRESS",
    ]);
    for host in hosts {
        let (state, state_tone) = state_text(host);
        let (mode, mode_tone) = mode_text(host);
        let accelerator = host.accelerator.split([' ', ':', ',']).next().unwrap_or_default();
        // A witness carries nothing.
        let carried = |text: String| match host.state() {
            host::State::Witness => Cell::number("-"),
            _ => Cell::number(text),
        };
        let (used_mb, memory_mb) = (show_size_mb(host.memory_used_mb), show_size_mb(host.memory_mb));
        table.row(vec![
            host.name.clone().into(),
            Cell::toned(state, state_tone),
            Cell::toned(mode, mode_tone),
            carried(host.vms.to_string()),
            carried(format!("{}/{}", host.vcpus_used, host.vcpus)),
            carried(format!("{used_mb}/{memory_mb}")),
            accelerator.into(),
            host.addresses.join(",").into(),
        ]);
    }
    table.written(colours)
}

pub fn host_text(host: &Host) -> String {
    let mut detail = Detail::new();
    detail.line("name", &host.name).line("id", &host.id);
    detail.line("state", state_text(host).0).line("mode", mode_text(host).0);
    if host.state() == host::State::Witness {
        detail.line("addresses", host.addresses.join(", "));
        return detail.written();
    }
    detail.line("last heard", format!("{} ago", milliseconds(host.last_heard_ms)));
    detail
        .line("addresses", host.addresses.join(", "))
        .line("epoch", host.epoch.to_string());
    detail.line("vms", host.vms.to_string());
    detail.line("vcpus", format!("{} of {} used", host.vcpus_used, host.vcpus));
    let (used, all) = (show_size_mb(host.memory_used_mb), show_size_mb(host.memory_mb));
    detail.line("memory", format!("{used} of {all} used"));
    detail
        .line("pools", host.pools.join(", "))
        .line("shared pools", host.shared_pools.join(", "))
        .line("bridges", host.bridges.join(", "));
    detail
        .line("accelerator", &host.accelerator)
        .line("version", &host.version);
    detail.lines("warnings", host.warnings.iter());
    detail.written()
}
