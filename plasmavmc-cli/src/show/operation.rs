//! Operations.

use plasmavmc_proto::api::{Operation, operation::State};

use super::detail::Detail;
use super::table::{Cell, Table, Tone};
use super::{age, clock_time};

fn state_text(state: State) -> (&'static str, Tone) {
    match state {
        State::Unspecified => ("unspecified", Tone::Plain),
        State::Pending => ("pending", Tone::Warning),
        State::Running => ("running", Tone::Plain),
        State::Done => ("done", Tone::Good),
        State::Failed => ("failed", Tone::Bad),
        State::Cancelled => ("cancelled", Tone::Faint),
    }
}

/// What it does, or how it ended.
fn says(operation: &Operation) -> String {
    match &operation.error {
        Some(error) if error.reason.is_empty() => error.message.clone(),
        Some(error) => format!("{} ({})", error.message, error.reason),
        None => operation.step.clone(),
    }
}

pub fn operations_table(operations: &[Operation], colours: bool, now_ms: u64) -> String {
    let mut table = Table::new(&["ID", "KIND", "VM", "STATE", "HOST", "AGE", "STEP"]);
    for operation in operations {
        let (state, tone) = state_text(operation.state());
        table.row(vec![
            operation.id.clone().into(),
            operation.kind.clone().into(),
            vm_name(operation).into(),
            Cell::toned(state, tone),
            operation.host.clone().into(),
            age(now_ms, operation.created_at_ms).into(),
            says(operation).into(),
        ]);
    }
    table.written(colours)
}

/// The VM may be gone, and its name with it.
fn vm_name(operation: &Operation) -> String {
    if operation.vm_name.is_empty() {
        operation.vm_id.clone()
    } else {
        operation.vm_name.clone()
    }
}

pub fn operation_text(operation: &Operation, now_ms: u64) -> String {
    let mut detail = Detail::new();
    detail
        .line("id", &operation.id)
        .line("kind", &operation.kind)
        .line("vm", vm_name(operation));
    detail
        .line("state", state_text(operation.state()).0)
        .line("step", &operation.step);
    if let Some(error) = &operation.error {
        detail.line("error", &error.message).line("reason", &error.reason);
    }
    detail.line("host", &operation.host);
    detail.line(
        "begun",
        format!(
            "{} ({} ago)",
            clock_time(operation.created_at_ms),
            age(now_ms, operation.created_at_ms)
        ),
    );
    detail
        .line("updated", clock_time(operation.updated_at_ms))
        .line("deadline", clock_time(operation.deadline_ms));
    if operation.cancel_requested {
        detail.line("cancel", "requested");
    }
    detail.written()
}
