//! What happens around every call: it gets an id, is measured, and leaves a line in the log. While this server
//! belongs to no cluster, the store's own services are answered here.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use tonic::{Code, Status};
use tracing::Instrument;
use uuid::Uuid;

use super::metrics::Metrics;
use crate::api::{Seat, place_of};

/// Callers may give an id of their own, which then is in the log.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const LONGEST_ID: usize = 64;
/// A call that takes longer without being a stream is worth a line.
const SLOW: Duration = Duration::from_millis(500);

/// What calls are watched with.
#[derive(Debug, Clone)]
pub struct Calls {
    pub metrics: Metrics,
    pub seat: Seat,
}

pub async fn around(State(calls): State<Calls>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let id = request_id(request.headers());
    let is_of_store = path.starts_with("/chainfire.");
    if is_of_store && let Err(error) = place_of(&calls.seat) {
        return Status::from(error).into_http::<axum::body::Body>();
    }
    let span = tracing::info_span!("call", id = %id, method = %path);
    let began = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let took = began.elapsed();
    if is_counted(&path) {
        // A call that fails at once has its status in the head; a stream may fail later.
        let status = Status::from_header_map(response.headers());
        let code = status.as_ref().map_or(Code::Ok, Status::code);
        calls.metrics.note_call(&path, code_word(code), took);
        span.in_scope(|| log(status.as_ref(), took));
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let is_fit = |id: &&str| !id.is_empty() && id.len() <= LONGEST_ID && id.bytes().all(|byte| byte.is_ascii_graphic());
    match given.filter(is_fit) {
        Some(id) => id.to_owned(),
        None => Uuid::new_v4().simple().to_string()[..16].to_owned(),
    }
}

/// Only methods that exist are counted: the labels of a metric must be few.
fn is_counted(path: &str) -> bool {
    path.starts_with("/plasmavmc.") || path.starts_with("/chainfire.")
}

fn log(status: Option<&Status>, took: Duration) {
    let took_ms = took.as_millis();
    match status.filter(|status| status.code() != Code::Ok) {
        Some(status) if matches!(status.code(), Code::Internal | Code::Unknown) => {
            tracing::warn!(code = code_word(status.code()), message = status.message(), %took_ms, "failed");
        }
        Some(status) => {
            tracing::info!(code = code_word(status.code()), message = status.message(), %took_ms, "refused");
        }
        None if took >= SLOW => tracing::info!(%took_ms, "answered"),
        None => tracing::debug!(%took_ms, "answered"),
    }
}

fn code_word(code: Code) -> &'static str {
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

/// The page of metrics.
pub async fn metrics(State((calls, store)): State<(Calls, std::sync::Arc<chainfire::metrics::Metrics>)>) -> Response {
    if let Ok(place) = place_of(&calls.seat) {
        place.backend.look(|view, heard| calls.metrics.show(view, heard));
    }
    let text = calls.metrics.render_after(&store.render());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(http::header::CONTENT_TYPE, kind)], text).into_response()
}
