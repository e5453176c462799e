//! The service: from messages to calls.

use futures::StreamExt;
use futures::stream::BoxStream;
use plasmavmc_proto::api::vm_service_server::VmService;
use plasmavmc_proto::api::{
    self, ConsoleInput, ConsoleOutput, CreateVmRequest, DeleteVmRequest, ExplainVmRequest, ExplainVmResponse,
    GetVmRequest, ListVmsRequest, ListVmsResponse, Operation, PauseVmRequest, RebootVmRequest, ResetVmRequest,
    RestartVmRequest, ResumeVmRequest, StartVmRequest, StopVmRequest, UpdateVmRequest, Vm, WatchVmsRequest,
    WatchVmsResponse,
};
use plasmavmc_types::OperationKind;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::act::{Order, act};
use super::{create, read, update, watch};
use crate::api::caller::Caller;
use crate::api::requests::Asked;
use crate::api::{Api, console};

/// An order from a request that has an id, and may wait and be repeated.
macro_rules! order {
    ($self:ident, $request:ident, $method:literal, $kind:expr, $timeout_s:expr, $edit:expr) => {{
        let caller = Caller::of(&$request);
        let request = $request.into_inner();
        let mut content = request.clone();
        content.wait = false;
        content.request_id.clear();
        let asked = Asked::new($method, &request.request_id, &content)?;
        let mut order = Order::new(request.id.clone(), $kind(&request), request.wait, $timeout_s(&request));
        $edit(&mut order, &request);
        Ok(Response::new(act(&$self.backend()?, order, asked, caller).await?))
    }};
    ($self:ident, $request:ident, $method:literal, $kind:expr, $timeout_s:expr) => {
        order!($self, $request, $method, $kind, $timeout_s, |_: &mut Order, _: &_| {})
    };
}

#[tonic::async_trait]
impl VmService for Api {
    async fn create_vm(&self, request: Request<CreateVmRequest>) -> Result<Response<Vm>, Status> {
        let caller = Caller::of(&request);
        let vm = create::create(&self.backend()?, request.into_inner(), caller).await?;
        Ok(Response::new(vm))
    }

    async fn get_vm(&self, request: Request<GetVmRequest>) -> Result<Response<Vm>, Status> {
        Ok(Response::new(read::get(&self.backend()?, request.into_inner()).await?))
    }

    async fn list_vms(&self, request: Request<ListVmsRequest>) -> Result<Response<ListVmsResponse>, Status> {
        Ok(Response::new(read::list(&self.backend()?, request.into_inner()).await?))
    }

    async fn update_vm(&self, request: Request<UpdateVmRequest>) -> Result<Response<Vm>, Status> {
        Ok(Response::new(
            update::update(&self.backend()?, request.into_inner()).await?,
        ))
    }

    async fn delete_vm(&self, request: Request<DeleteVmRequest>) -> Result<Response<Operation>, Status> {
        order!(
            self,
            request,
            "DeleteVm",
            |_: &DeleteVmRequest| OperationKind::Delete,
            |_: &DeleteVmRequest| 0,
            |order: &mut Order, request: &DeleteVmRequest| {
                order.force_delete = request.force;
                order.generation = request.generation;
            }
        )
    }

    async fn start_vm(&self, request: Request<StartVmRequest>) -> Result<Response<Operation>, Status> {
        let kind = |_: &StartVmRequest| OperationKind::Start;
        order!(self, request, "StartVm", kind, |request: &StartVmRequest| request
            .timeout_s)
    }

    async fn stop_vm(&self, request: Request<StopVmRequest>) -> Result<Response<Operation>, Status> {
        let kind = |request: &StopVmRequest| OperationKind::Stop { force: request.force };
        order!(self, request, "StopVm", kind, |request: &StopVmRequest| request
            .timeout_s)
    }

    async fn reboot_vm(&self, request: Request<RebootVmRequest>) -> Result<Response<Operation>, Status> {
        let kind = |_: &RebootVmRequest| OperationKind::Reboot;
        order!(self, request, "RebootVm", kind, |request: &RebootVmRequest| request
            .timeout_s)
    }

    async fn restart_vm(&self, request: Request<RestartVmRequest>) -> Result<Response<Operation>, Status> {
        let kind = |request: &RestartVmRequest| OperationKind::Restart { force: request.force };
        order!(self, request, "RestartVm", kind, |request: &RestartVmRequest| request
            .timeout_s)
    }

    async fn reset_vm(&self, request: Request<ResetVmRequest>) -> Result<Response<Operation>, Status> {
        order!(
            self,
            request,
            "ResetVm",
            |_: &ResetVmRequest| OperationKind::Reset,
            |_: &_| 0
        )
    }

    async fn pause_vm(&self, request: Request<PauseVmRequest>) -> Result<Response<Operation>, Status> {
        order!(
            self,
            request,
            "PauseVm",
            |_: &PauseVmRequest| OperationKind::Pause,
            |_: &_| 0
        )
    }

    async fn resume_vm(&self, request: Request<ResumeVmRequest>) -> Result<Response<Operation>, Status> {
        order!(
            self,
            request,
            "ResumeVm",
            |_: &ResumeVmRequest| OperationKind::Resume,
            |_: &_| 0
        )
    }

    type WatchVmsStream = BoxStream<'static, Result<WatchVmsResponse, Status>>;

    async fn watch_vms(&self, request: Request<WatchVmsRequest>) -> Result<Response<Self::WatchVmsStream>, Status> {
        let messages = watch::watch(self.backend()?, request.into_inner()).await?;
        Ok(Response::new(ReceiverStream::new(messages).boxed()))
    }

    async fn explain_vm(&self, request: Request<ExplainVmRequest>) -> Result<Response<ExplainVmResponse>, Status> {
        let explained: api::ExplainVmResponse = read::explain(&self.backend()?, request.into_inner()).await?;
        Ok(Response::new(explained))
    }

    type ConsoleStream = BoxStream<'static, Result<ConsoleOutput, Status>>;

    async fn console(
        &self,
        request: Request<Streaming<ConsoleInput>>,
    ) -> Result<Response<Self::ConsoleStream>, Status> {
        let output = console::anywhere(self.place()?, request.into_inner()).await?;
        Ok(Response::new(output))
    }
}
