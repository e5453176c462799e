//! `plasmavmc.OperationService`.

use futures::StreamExt;
use futures::stream::BoxStream;
use plasmavmc_core::view::ClusterView;
use plasmavmc_proto::api::operation_service_server::OperationService;
use plasmavmc_proto::api::{
    self, CancelOperationRequest, GetOperationRequest, ListOperationsRequest, ListOperationsResponse,
};
use plasmavmc_types::{Operation, OperationId};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::backend::Backend;
use super::error::ApiError;
use super::{Api, find_vm, show};
use crate::clock::wall_ms;
use crate::failpoint;
use crate::store::{Write, WriteError, keys};

const PAGE: u32 = 500;
const TRIES: u32 = 8;
/// Changes of one operation that a slow client may lag behind by.
const QUEUE: usize = 16;

fn parse(text: &str) -> Result<OperationId, ApiError> {
    text.parse()
        .map_err(|invalid: plasmavmc_types::Invalid| ApiError::Field {
            field: "id".to_owned(),
            problem: invalid.to_string(),
        })
}

pub(super) async fn get(backend: &Backend, id: &str) -> Result<api::Operation, ApiError> {
    let id = parse(id)?;
    backend.catch_up().await?;
    let found = backend.mirror.read(|view| show::operation_by_id(view, id));
    found.ok_or_else(|| ApiError::OperationNotFound(id.to_string()))
}

pub(super) async fn list(
    backend: &Backend,
    request: ListOperationsRequest,
) -> Result<ListOperationsResponse, ApiError> {
    backend.catch_up().await?;
    let size = match request.page_size {
        0 => PAGE,
        size => size.min(PAGE),
    };
    let before = match request.page_token.as_str() {
        "" => None,
        token => Some(place_of(token)?),
    };
    backend.mirror.read(|view| {
        let vm = match request.vm.as_str() {
            "" => None,
            vm => Some(find_vm(view, vm)?),
        };
        let is_wanted = |operation: &&Operation| {
            vm.is_none_or(|vm| operation.vm == vm)
                && (request.include_ended || !operation.is_ended())
                && before.is_none_or(|before| place(operation) < before)
        };
        let all = view.operations.values().map(|stored| &stored.value);
        let mut operations: Vec<&Operation> = all.filter(is_wanted).collect();
        operations.sort_by_key(|operation| std::cmp::Reverse(place(operation)));
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let next_page_token = match operations.len() > size {
            true => operations.get(size - 1).map(|last| token_of(last)).unwrap_or_default(),
            false => String::new(),
        };
        operations.truncate(size);
        let operations = operations.into_iter().map(|operation| show::operation(view, operation));
        Ok(ListOperationsResponse {
            operations: operations.collect(),
            next_page_token,
        })
    })
}

/// The order of pages: newest first, ids for those of the same moment.
fn place(operation: &Operation) -> (u64, OperationId) {
    (operation.created_at_ms, operation.id)
}

fn token_of(operation: &Operation) -> String {
    format!("{}.{}", operation.created_at_ms, operation.id)
}

fn place_of(token: &str) -> Result<(u64, OperationId), ApiError> {
    let parsed = token
        .split_once('.')
        .and_then(|(at, id)| Some((at.parse().ok()?, id.parse().ok()?)));
    parsed.ok_or_else(|| ApiError::Field {
        field: "page_token".to_owned(),
        problem: "is not one this server gave out: begin without one".to_owned(),
    })
}

pub(super) async fn cancel(backend: &Backend, id: &str) -> Result<api::Operation, ApiError> {
    let id = parse(id)?;
    for _ in 0..TRIES {
        backend.catch_up().await?;
        let seen = backend.mirror.read(|view| view.operations.get(&id).cloned());
        let seen = seen.ok_or_else(|| ApiError::OperationNotFound(id.to_string()))?;
        if seen.value.is_ended() || seen.value.cancel_requested {
            return Ok(backend.mirror.read(|view| show::operation(view, &seen.value)));
        }
        let next = Operation {
            cancel_requested: true,
            updated_at_ms: wall_ms(),
            ..seen.value
        };
        let write = Write::new()
            .expect(keys::operation(id), seen.revision)
            .put_operation(&next);
        match failpoint::CANCEL.around(write.commit(&*backend.kv)).await {
            Ok(_) => return Ok(backend.mirror.read(|view| show::operation(view, &next))),
            Err(WriteError::Raced) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(ApiError::Contended { tries: TRIES })
}

type Outcome = Result<api::Operation, Status>;

pub(super) async fn watch(backend: Backend, id: &str) -> Result<mpsc::Receiver<Outcome>, ApiError> {
    let id = parse(id)?;
    let permit = backend.watch_permit()?;
    backend.catch_up().await?;
    let first = find(&backend, id)?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let _permit = permit;
        tokio::select! {
            () = sender.closed() => {}
            () = follow(&backend, id, first, &sender) => {}
        }
    });
    Ok(receiver)
}

fn find(backend: &Backend, id: OperationId) -> Result<(u64, api::Operation), ApiError> {
    let found = backend.mirror.read(|view| newer(view, id, 0));
    found
        .unwrap_or(None)
        .ok_or_else(|| ApiError::OperationNotFound(id.to_string()))
}

/// The operation if it changed after a revision; `None` within if it is gone.
fn newer(view: &ClusterView, id: OperationId, after: u64) -> Option<Option<(u64, api::Operation)>> {
    match view.operations.get(&id) {
        None => Some(None),
        Some(stored) if stored.revision > after => Some(Some((stored.revision, show::operation(view, &stored.value)))),
        Some(_) => None,
    }
}

async fn follow(backend: &Backend, id: OperationId, first: (u64, api::Operation), sender: &mpsc::Sender<Outcome>) {
    let (mut revision, mut operation) = first;
    loop {
        let has_ended = operation.state() >= api::operation::State::Done;
        if sender.send(Ok(operation)).await.is_err() || has_ended {
            return;
        }
        let error = match backend.wait_for(|view| newer(view, id, revision)).await {
            Ok(Some(next)) => {
                (revision, operation) = next;
                continue;
            }
            Ok(None) => ApiError::OperationNotFound(id.to_string()),
            Err(error) => error,
        };
        // A client that is gone needs no reason.
        let _ = sender.send(Err(error.into())).await;
        return;
    }
}

#[tonic::async_trait]
impl OperationService for Api {
    async fn get_operation(&self, request: Request<GetOperationRequest>) -> Result<Response<api::Operation>, Status> {
        Ok(Response::new(get(&self.backend()?, &request.get_ref().id).await?))
    }

    async fn list_operations(
        &self,
        request: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        Ok(Response::new(list(&self.backend()?, request.into_inner()).await?))
    }

    async fn cancel_operation(
        &self,
        request: Request<CancelOperationRequest>,
    ) -> Result<Response<api::Operation>, Status> {
        Ok(Response::new(cancel(&self.backend()?, &request.get_ref().id).await?))
    }

    type WatchOperationStream = BoxStream<'static, Outcome>;

    async fn watch_operation(
        &self,
        request: Request<GetOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let changes = watch(self.backend()?, &request.get_ref().id).await?;
        Ok(Response::new(ReceiverStream::new(changes).boxed()))
    }
}
