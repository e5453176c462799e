//! The words of a failure, for people and as one JSON object for programs.

use std::time::Duration;

use plasmavmc_proto::api::{Operation, operation};
use serde_json::{Value, json};
use tonic::Code;

use super::answer::code_name;
use super::{Answer, Exit, Failure, Tried, Why};

impl Failure {
    /// What a person is told on standard error: the failure, then every line that helps.
    pub fn for_people(&self) -> String {
        let mut lines = vec![format!("plasmavmc: {self}")];
        if let Some(answer) = self.answer() {
            lines.extend(
                answer
                    .fields
                    .iter()
                    .map(|(field, problem)| format!("  {field} {problem}")),
            );
        }
        if let Failure::Nobody { tried, .. } = self {
            lines.extend(tried.iter().map(|tried| format!("  {}: {}", tried.server, tried.why)));
        }
        lines.extend(self.remedies().into_iter().map(|remedy| format!("  -> {remedy}")));
        if let Some(reason) = self.reason() {
            lines.push(format!("  ({reason})"));
        }
        lines.join("\n")
    }

    /// The same for programs.
    pub fn for_programs(&self) -> Value {
        let fields = self.answer().map(|answer| answer.fields.clone()).unwrap_or_default();
        let fields: Vec<Value> = fields
            .into_iter()
            .map(|(field, problem)| json!({"field": field, "problem": problem}))
            .collect();
        let tried: Vec<Value> = match self {
            Failure::Nobody { tried, .. } => tried
                .iter()
                .map(|tried| json!({"server": tried.server, "why": tried.why.to_string()}))
                .collect(),
            _ => Vec::new(),
        };
        json!({"error": {
            "exit_status": self.exit() as u8,
            "code": self.code().map(code_name),
            "reason": self.reason(),
            "message": self.to_string(),
            "fields": fields,
            "remedies": self.remedies(),
            "servers_tried": tried,
            "operation": self.operation().map(|operation| operation.id.clone()),
        }})
    }

    fn answer(&self) -> Option<&Answer> {
        match self {
            Failure::Answered { answer, .. } => Some(answer),
            _ => None,
        }
    }

    fn operation(&self) -> Option<&Operation> {
        match self {
            Failure::Operation { operation } | Failure::StillRunning { operation, .. } => Some(operation),
            Failure::Interrupted { operation } => operation.as_deref(),
            _ => None,
        }
    }

    fn code(&self) -> Option<Code> {
        match self {
            Failure::Answered { answer, .. } => Some(answer.code),
            Failure::Operation { operation } => Some(code_of(operation)),
            _ => None,
        }
    }

    fn reason(&self) -> Option<String> {
        let reason = match self {
            Failure::Answered { answer, .. } => answer.reason.clone(),
            Failure::Operation { operation } => operation.error.clone().unwrap_or_default().reason,
            _ => String::new(),
        };
        (!reason.is_empty()).then_some(reason)
    }

    fn remedies(&self) -> Vec<String> {
        match self {
            Failure::Answered { answer, .. } => remedies_of(answer),
            Failure::Nobody { tried, request_id, .. } => remedies_of_nobody(tried, self.exit(), request_id.as_deref()),
            Failure::StillRunning { operation, .. } => vec![
                format!("it goes on; wait for it: plasmavmc op wait {}", operation.id),
                format!("or give it up: plasmavmc op cancel {}", operation.id),
            ],
            Failure::StillThere { host, .. } => vec![
                format!("see what keeps them: plasmavmc vm list --host {host}"),
                format!("or leave the host as it is: plasmavmc host activate {host}"),
            ],
            Failure::Interrupted {
                operation: Some(operation),
            } => vec![
                format!(
                    "{} {} goes on: plasmavmc op wait {}",
                    operation.kind,
                    vm_of(operation),
                    operation.id
                ),
                format!("or give it up: plasmavmc op cancel {}", operation.id),
            ],
            Failure::BrokeOff { .. } => vec!["see who is there: plasmavmc cluster status".to_owned()],
            _ => Vec::new(),
        }
    }
}

fn remedies_of(answer: &Answer) -> Vec<String> {
    if !answer.remedies.is_empty() {
        return answer.remedies.clone();
    }
    // Only where the server has left it open.
    let remedy = match answer.code {
        Code::Unimplemented => "the server is older than this command; upgrade it, or use its own plasmavmc",
        Code::Aborted => "somebody changed it meanwhile: look at it again, then repeat",
        _ => return Vec::new(),
    };
    vec![remedy.to_owned()]
}

fn remedies_of_nobody(tried: &[Tried], exit: Exit, request_id: Option<&str>) -> Vec<String> {
    let mut remedies = Vec::new();
    for tried in tried {
        if let Why::Cannot(answer) = &tried.why {
            for remedy in remedies_of(answer) {
                if !remedies.contains(&remedy) {
                    remedies.push(remedy);
                }
            }
        }
    }
    let is_unknown = |tried: &Tried| matches!(tried.why, Why::Silent(_) | Why::Broken(_));
    match request_id {
        Some(id) if tried.iter().any(is_unknown) => remedies.push(format!(
            "it may have been done; repeat it with --request-id {id}, which does it once at most"
        )),
        _ => {}
    }
    if tried.iter().all(|tried| matches!(tried.why, Why::NotReached(_))) {
        remedies.push("is plasmavmc-server running there? On that host: systemctl status plasmavmc-server".to_owned());
        remedies.push("another server: --server HOST:PORT, or PLASMAVMC_SERVER; several with commas".to_owned());
    } else if exit == Exit::TimedOut {
        remedies.push("try again, or with a longer --timeout".to_owned());
    } else if remedies.is_empty() {
        remedies.push("see who is there: plasmavmc cluster status".to_owned());
    }
    remedies
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::NotReached(why) => write!(f, "{why}"),
            Why::Broken(why) => write!(f, "the connection broke: {why}"),
            Why::Silent(after) => write!(f, "no answer within {}", round(*after)),
            Why::Cannot(answer) if answer.reason.is_empty() => write!(f, "{}", answer.message),
            Why::Cannot(answer) => write!(f, "{} ({})", answer.message, answer.reason),
        }
    }
}

/// The code an operation failed with.
pub(super) fn code_of(operation: &Operation) -> Code {
    if operation.state() == operation::State::Cancelled {
        return Code::Cancelled;
    }
    let code = operation.error.as_ref().map_or(0, |error| error.code);
    match i32::try_from(code).map(Code::from_i32) {
        // A failure without a code is a failure still.
        Ok(Code::Ok) | Err(_) => Code::Unknown,
        Ok(code) => code,
    }
}

/// The VM may be gone, and its name with it.
pub(super) fn vm_of(operation: &Operation) -> &str {
    if operation.vm_name.is_empty() {
        &operation.vm_id
    } else {
        &operation.vm_name
    }
}

pub(super) fn end_of(operation: &Operation) -> String {
    match (&operation.error, operation.state()) {
        (Some(error), operation::State::Cancelled) => format!("cancelled: {}", error.message),
        (None, operation::State::Cancelled) => "cancelled".to_owned(),
        (Some(error), _) => error.message.clone(),
        (None, _) => "failed, and it is not said why".to_owned(),
    }
}

/// Milliseconds below a second, whole seconds above.
pub(super) fn vms(count: usize) -> String {
    match count {
        1 => "a VM".to_owned(),
        _ => format!("{count} VMs"),
    }
}

pub(super) fn round(duration: Duration) -> String {
    let rounded = if duration < Duration::from_secs(1) {
        Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    } else {
        Duration::from_secs(duration.as_secs())
    };
    humantime::format_duration(rounded).to_string()
}
