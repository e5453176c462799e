//! VMs: in a table, one by one, in a stream, and explained.

use plasmavmc_proto::api::{ExplainVmResponse, HostVerdict, Vm, VmSpec, vm::State};

use super::detail::{Detail, on_one_line};
use super::operation::operations_table;
use super::table::{Cell, Table, Tone, printable};
use super::{age, clock_time, milliseconds};
use crate::fields::{Node, node_of, without_defaults};
use crate::words::show_size_mb;

/// The state in a word.
pub fn state_word(state: State) -> &'static str {
    match state {
        State::Unspecified => "unspecified",
        State::Pending => "pending",
        State::Starting => "starting",
        State::Running => "running",
        State::Paused => "paused",
        State::Frozen => "frozen",
        State::Stopping => "stopping",
        State::Stopped => "stopped",
        State::Migrating => "migrating",
        State::Failed => "failed",
        State::Unknown => "unknown",
    }
}

/// The state, with how old the news is where there is no newer.
fn state_text(vm: &Vm) -> String {
    let word = state_word(vm.state());
    if vm.deleting {
        format!("{word} (deleting)")
    } else if vm.state() == State::Unknown && vm.last_heard_ms > 0 {
        format!("{word} ({} ago)", milliseconds(vm.last_heard_ms))
    } else {
        word.to_owned()
    }
}

fn tone(state: State) -> Tone {
    match state {
        State::Running => Tone::Good,
        State::Failed => Tone::Bad,
        State::Unknown | State::Frozen | State::Pending => Tone::Warning,
        State::Stopped => Tone::Faint,
        _ => Tone::Plain,
    }
}

pub fn vms_table(vms: &[Vm], wide: bool, colours: bool, now_ms: u64) -> String {
    if vms.is_empty() {
        return String::new();
    }
    let mut headings = vec!["VMID", "NAME", "STATE", "HOST", "VCPUS", "MEMORY", "AGENT", "AGE"];
    if wide {
        headings.extend(["ID", "REASON"]);
    }
    let mut table = Table::new(&headings);
    for vm in vms {
        let spec = vm.spec.clone().unwrap_or_default();
        let mut row = vec![
            Cell::number(vm.vmid),
            vm.name.clone().into(),
            Cell::toned(state_text(vm), tone(vm.state())),
            vm.host.clone().into(),
            Cell::number(spec.vcpus),
            Cell::number(show_size_mb(spec.memory_mb)),
            vm.agent.replace('_', " ").into(),
            age(now_ms, vm.created_at_ms).into(),
        ];
        if wide {
            row.extend([vm.id.clone().into(), vm.reason.clone().into()]);
        }
        table.row(row);
    }
    table.written(colours)
}

/// One VM, with everything that was chosen.
pub fn vm_text(vm: &Vm, now_ms: u64) -> String {
    let mut detail = Detail::new();
    detail
        .line("name", &vm.name)
        .line("vmid", vm.vmid.to_string())
        .line("id", &vm.id);
    detail
        .line("state", state_text(vm))
        .line("reason", &vm.reason)
        .line("host", &vm.host);
    detail.line("wanted", if vm.power_on { "on" } else { "off" });
    detail
        .line("agent", vm.agent.replace('_', " "))
        .line("qemu", qemu_text(vm))
        .line("last exit", &vm.last_exit);
    detail.lines(
        "conditions",
        vm.conditions
            .iter()
            .map(|condition| format!("{}: {}", condition.name, condition.text)),
    );
    detail.line("operation", &vm.operation);
    detail.line("generation", vm.generation.to_string());
    detail.line("incarnation", vm.incarnation.to_string());
    if vm.created_at_ms > 0 {
        detail.line(
            "created",
            format!(
                "{} ({} ago)",
                clock_time(vm.created_at_ms),
                age(now_ms, vm.created_at_ms)
            ),
        );
    }
    if let Some(spec) = &vm.spec {
        spec_lines(&mut detail, spec);
    }
    detail.written()
}

fn qemu_text(vm: &Vm) -> String {
    match (vm.qemu_state.as_str(), vm.pid) {
        ("", 0) => String::new(),
        (state, 0) => state.to_owned(),
        (state, pid) => format!("{state} (pid {pid})").trim_start().to_owned(),
    }
}

fn spec_lines(detail: &mut Detail, spec: &VmSpec) {
    detail
        .line("vcpus", spec.vcpus.to_string())
        .line("memory", show_size_mb(spec.memory_mb));
    let Node::Map(fields) = without_defaults(&node_of(spec)) else {
        return;
    };
    for (name, value) in fields
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "name" | "vcpus" | "memory_mb"))
    {
        let label = match name.as_str() {
            // `agent` above is how it is, this is what is asked of it.
            "agent" => "agent policy",
            name => name,
        };
        match value {
            Node::List(items) => detail.lines(label, items.iter().map(on_one_line)),
            value => detail.line(label, on_one_line(value)),
        };
    }
}

/// One VM on one line, as it is told after a change.
pub fn vm_line(vm: &Vm) -> String {
    let mut line = format!("{} (vmid {}) is {}", vm.name, vm.vmid, state_text(vm));
    if !vm.host.is_empty() {
        line.push_str(&format!(" on {}", vm.host));
    }
    if !vm.reason.is_empty() {
        line.push_str(&format!(": {}", vm.reason));
    }
    printable(&line)
}

/// Why a VM is as it is.
pub fn explain_text(explained: &ExplainVmResponse, colours: bool, now_ms: u64) -> String {
    let vm = explained.vm.clone().unwrap_or_default();
    let mut parts = vec![vm_line(&vm)];
    if !explained.summary.is_empty() {
        parts.push(explained.summary.clone());
    }
    if !explained.hosts.is_empty() {
        parts.push(format!(
            "Where it could go:\n{}",
            verdicts_table(&explained.hosts, colours)
        ));
    }
    if !explained.decisions.is_empty() {
        let mut lines = vec!["What was decided:".to_owned()];
        for decision in &explained.decisions {
            let when = age(now_ms, decision.at_ms);
            lines.push(format!(
                "{when:>5} ago  {}: {} (revision {})",
                decision.kind, decision.text, decision.revision
            ));
            lines.extend(
                decision
                    .evidence
                    .iter()
                    .map(|fact| format!("           because {fact}")),
            );
        }
        parts.push(lines.join("\n"));
    }
    if !explained.operations.is_empty() {
        let table = operations_table(&explained.operations, colours, now_ms);
        parts.push(format!("What was asked of it:\n{table}"));
    }
    parts.join("\n\n")
}

fn verdicts_table(verdicts: &[HostVerdict], colours: bool) -> String {
    let mut table = Table::new(&["HOST", "FITS", "SCORE", "WHY NOT"]);
    for verdict in verdicts {
        let fits = if verdict.fits {
            Cell::toned("yes", Tone::Good)
        } else {
            Cell::toned("no", Tone::Bad)
        };
        let score = if verdict.fits {
            verdict.score.to_string()
        } else {
            String::new()
        };
        table.row(vec![
            verdict.host.clone().into(),
            fits,
            Cell::number(score),
            verdict.reasons.join("; ").into(),
        ]);
    }
    table.written(colours)
}
