//! The cluster and its members.

use plasmavmc_proto::api::{ClusterMember, ClusterStatus, SetTimingsResponse};

use super::age::milliseconds;
use super::detail::Detail;
use super::table::{Cell, Table, Tone};

pub fn status_text(status: &ClusterStatus, colours: bool) -> String {
    let mut detail = Detail::new();
    detail.line("cluster", &status.cluster_id);
    let quorum = if status.has_quorum {
        "yes: changes are possible"
    } else {
        "NO: nothing can be changed until a majority of the members reach each other"
    };
    let leader = if status.leader.is_empty() {
        "none"
    } else {
        status.leader.as_str()
    };
    detail
        .line("quorum", quorum)
        .line("leader", format!("{leader} (term {})", status.term));
    detail.line("hosts", format!("{} of {} alive", status.hosts_alive, status.hosts));
    if status.witnesses > 0 {
        detail.line("witnesses", status.witnesses.to_string());
    }
    detail.line("vms", format!("{} of {} running", status.vms_running, status.vms));
    detail.line("revision", status.revision.to_string());
    if status.commit_latency_ms > 0.0 {
        let latency = format!("{:.1} ms", status.commit_latency_ms);
        let of_lease = match status.freeze_after_ms {
            0 => String::new(),
            lease_ms => format!(", of {} for which a lease lasts", milliseconds(lease_ms)),
        };
        detail.line("commit latency", latency + &of_lease);
    }
    timings_lines(&mut detail, status);
    protection_lines(&mut detail, status);
    detail
        .line("answered by", &status.answered_by)
        .line("version", &status.version);
    detail.lines("warnings", status.warnings.iter());
    if status.members.is_empty() {
        return detail.written();
    }
    format!("{}\n\n{}", detail.written(), members_table(&status.members, colours))
}

/// How long silence may last, and whose beats say something else.
fn timings_lines(detail: &mut Detail, status: &ClusterStatus) {
    // A server of an earlier version does not say all of them.
    if status.beat_ms > 0 {
        let [beat, freeze, failover] =
            [status.beat_ms, status.freeze_after_ms, status.failover_after_ms].map(milliseconds);
        detail.line(
            "timings",
            format!("beat {beat}, freeze after {freeze}, failover after {failover}"),
        );
    }
    let others = status.other_timings.iter().map(|other| {
        let [freeze, failover] = [other.freeze_after_ms, other.failover_after_ms].map(milliseconds);
        format!("{}: freeze after {freeze}, failover after {failover}", other.host)
    });
    detail.lines("other timings", others);
}

/// What was changed, old and new.
pub fn timings_table(answer: &SetTimingsResponse, colours: bool) -> String {
    let (before, after) = (answer.before.unwrap_or_default(), answer.after.unwrap_or_default());
    let mut table = Table::new(&["TIMING", "WAS", "IS"]);
    let rows = [
        ("beat", before.beat_ms, after.beat_ms),
        ("freeze-after", before.freeze_after_ms, after.freeze_after_ms),
        ("failover-after", before.failover_after_ms, after.failover_after_ms),
    ];
    for (name, was, is) in rows {
        let tone = if was == is { Tone::Plain } else { Tone::Good };
        table.row(vec![
            name.to_owned().into(),
            milliseconds(was).into(),
            Cell::toned(milliseconds(is), tone),
        ]);
    }
    table.written(colours)
}

/// What a failure would cost. Of long lists the beginning: the API has them whole.
fn protection_lines(detail: &mut Detail, status: &ClusterStatus) {
    const MOST: usize = 10;
    let leases = status.leases.iter().map(|lease| {
        let (vms, host, left) = (lease.leased_vms, &lease.host, milliseconds(lease.left_ms));
        format!("{vms} on {host}, which has {left} left")
    });
    detail.lines("leased vms", leases);
    let more = |all: usize| (all > MOST).then(|| format!("and {} more", all - MOST));
    let unprotected = status.unprotected.iter().take(MOST);
    let unprotected = unprotected.map(|told| format!("{} on {}: {}", told.vm, told.host, told.reason));
    detail.lines("not leased", unprotected.chain(more(status.unprotected.len())));
    let losses = status.losses.iter().take(MOST);
    let losses = losses.map(|loss| format!("after losing {}: {}", loss.host, loss.homeless.join(", ")));
    detail.lines("would not fit", losses.chain(more(status.losses.len())));
}

fn role_text(member: &ClusterMember) -> String {
    match member.is_witness {
        true => format!("{}, witness", member.role),
        false => member.role.clone(),
    }
}

pub fn members_table(members: &[ClusterMember], colours: bool) -> String {
    let mut table = Table::new(&["MEMBER", "NAME", "ROLE", "REACHABLE", "ADDRESS"]);
    for member in members {
        let role = if member.role == "leader" {
            Tone::Good
        } else {
            Tone::Plain
        };
        let reachable = if member.is_reachable {
            Cell::toned("yes", Tone::Plain)
        } else {
            Cell::toned("no", Tone::Bad)
        };
        table.row(vec![
            Cell::number(member.id),
            member.name.clone().into(),
            Cell::toned(role_text(member), role),
            reachable,
            member.address.clone().into(),
        ]);
    }
    table.written(colours)
}
