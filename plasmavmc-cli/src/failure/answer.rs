//! What a server says when it says no: gRPC's code and message, and the details that come with them.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A refusal, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub code: Code,
    pub message: String,
    /// For programs: `AGENT_SILENT`.
    pub reason: String,
    /// Each field that is wrong, and how.
    pub fields: Vec<(String, String)>,
    /// What to do about it.
    pub remedies: Vec<String>,
    /// When the server thinks that it could be asked again.
    pub retry_after: Option<Duration>,
}

impl Answer {
    pub fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let mut answer = Answer {
            code: status.code(),
            message: status.message().to_owned(),
            reason: String::new(),
            fields: Vec::new(),
            remedies: Vec::new(),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
        };
        if answer.message.is_empty() {
            answer.message = status.code().description().to_owned();
        }
        if let Some(info) = details.error_info() {
            answer.reason.clone_from(&info.reason);
            answer.remedies.extend(info.metadata.get("remedy").cloned());
        }
        if let Some(request) = details.bad_request() {
            let fields = request.field_violations.iter();
            answer.fields = fields
                .map(|field| (field.field.clone(), field.description.clone()))
                .collect();
        }
        if let Some(failure) = details.precondition_failure() {
            let violations = failure.violations.iter();
            answer
                .remedies
                .extend(violations.map(|violation| violation.description.clone()));
        }
        if let Some(help) = details.help() {
            for link in &help.links {
                let space = if link.url.is_empty() { "" } else { " " };
                answer.remedies.push(format!("{}{space}{}", link.description, link.url));
            }
        }
        answer.drop_repetitions();
        answer
    }

    /// Servers like to say a thing in more than one place; a person reads it once.
    fn drop_repetitions(&mut self) {
        let mut kept: Vec<String> = Vec::new();
        for remedy in std::mem::take(&mut self.remedies) {
            let is_news = !remedy.is_empty() && !self.message.contains(&remedy) && !kept.contains(&remedy);
            if is_news {
                kept.push(remedy);
            }
        }
        self.remedies = kept;
        let message = &self.message;
        self.fields
            .retain(|(field, problem)| !message.contains(&format!("{field} {problem}")));
    }
}

/// The name of a code as every other tool writes it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
