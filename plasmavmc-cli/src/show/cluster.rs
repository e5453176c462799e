//! The cluster and its members.

use plasmavmc_proto::api::{ClusterMember, ClusterStatus};

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
