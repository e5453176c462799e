//! Which request goes to which call, and which of them carry a request id.

use std::time::Duration;

use plasmavmc_proto::api::cluster_service_client::ClusterServiceClient;
use plasmavmc_proto::api::event_service_client::EventServiceClient;
use plasmavmc_proto::api::host_service_client::HostServiceClient;
use plasmavmc_proto::api::operation_service_client::OperationServiceClient;
use plasmavmc_proto::api::vm_service_client::VmServiceClient;
use plasmavmc_proto::api::{
    ActivateHostRequest, CancelOperationRequest, ClusterStatus, ClusterStatusRequest, CreateTokenRequest,
    CreateTokenResponse, CreateVmRequest, DeleteVmRequest, DrainHostRequest, Event, ExplainVmRequest,
    ExplainVmResponse, GetHostRequest, GetOperationRequest, GetVmRequest, Host, InitRequest, JoinRequest,
    ListHostsRequest, ListHostsResponse, ListOperationsRequest, ListOperationsResponse, ListVmsRequest,
    ListVmsResponse, Operation, PauseVmRequest, PrepareHostShutdownRequest, RebootVmRequest, RemoveHostRequest,
    ResetVmRequest, RestartVmRequest, ResumeVmRequest, SetTimingsRequest, SetTimingsResponse, StartVmRequest,
    StopVmRequest, UpdateVmRequest, Vm, WatchEventsRequest, WatchVmsRequest, WatchVmsResponse,
};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// A page of VMs with large specifications is more than gRPC's default of 4 MiB.
pub const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// A request with one answer.
pub trait Ask: Clone {
    type Answer;

    /// What makes repeating it safe, if it changes anything.
    fn request_id(&self) -> Option<&str>;

    /// The server is told how long anybody waits for it.
    fn send(self, channel: Channel, within: Duration) -> impl Future<Output = Result<Self::Answer, Status>>;
}

/// A request with a stream of answers.
pub trait Follow: Clone {
    type Item;

    fn open(self, channel: Channel) -> impl Future<Output = Result<Streaming<Self::Item>, Status>>;
}

macro_rules! asks {
    ($($request:ident => $answer:ident, $client:ident::$call:ident $(, $id:ident)?;)*) => {$(
        impl Ask for $request {
            type Answer = $answer;

            fn request_id(&self) -> Option<&str> {
                asks!(@id self $($id)?)
            }

            async fn send(self, channel: Channel, within: Duration) -> Result<$answer, Status> {
                let mut request = Request::new(self);
                request.set_timeout(within);
                let mut client = $client::new(channel).max_decoding_message_size(LARGEST_ANSWER);
                Ok(client.$call(request).await?.into_inner())
            }
        }
    )*};
    (@id $self:ident) => { None };
    (@id $self:ident $id:ident) => { Some($self.$id.as_str()) };
}

macro_rules! follows {
    ($($request:ident => $item:ident, $client:ident::$call:ident;)*) => {$(
        impl Follow for $request {
            type Item = $item;

            async fn open(self, channel: Channel) -> Result<Streaming<$item>, Status> {
                let mut client = $client::new(channel).max_decoding_message_size(LARGEST_ANSWER);
                Ok(client.$call(self).await?.into_inner())
            }
        }
    )*};
}

asks! {
    CreateVmRequest => Vm, VmServiceClient::create_vm, request_id;
    GetVmRequest => Vm, VmServiceClient::get_vm;
    ListVmsRequest => ListVmsResponse, VmServiceClient::list_vms;
    UpdateVmRequest => Vm, VmServiceClient::update_vm, request_id;
    DeleteVmRequest => Operation, VmServiceClient::delete_vm, request_id;
    StartVmRequest => Operation, VmServiceClient::start_vm, request_id;
    StopVmRequest => Operation, VmServiceClient::stop_vm, request_id;
    RebootVmRequest => Operation, VmServiceClient::reboot_vm, request_id;
    RestartVmRequest => Operation, VmServiceClient::restart_vm, request_id;
    ResetVmRequest => Operation, VmServiceClient::reset_vm, request_id;
    PauseVmRequest => Operation, VmServiceClient::pause_vm, request_id;
    ResumeVmRequest => Operation, VmServiceClient::resume_vm, request_id;
    ExplainVmRequest => ExplainVmResponse, VmServiceClient::explain_vm;
    ListHostsRequest => ListHostsResponse, HostServiceClient::list_hosts;
    GetHostRequest => Host, HostServiceClient::get_host;
    // What is drained stays drained, however often it is said.
    DrainHostRequest => Host, HostServiceClient::drain_host;
    ActivateHostRequest => Host, HostServiceClient::activate_host;
    // Said again, its time begins again.
    PrepareHostShutdownRequest => Host, HostServiceClient::prepare_host_shutdown;
    ClusterStatusRequest => ClusterStatus, ClusterServiceClient::status;
    // These two go to one server only: see `Reach::only_server`.
    InitRequest => ClusterStatus, ClusterServiceClient::init;
    JoinRequest => ClusterStatus, ClusterServiceClient::join;
    // A token that nobody saw opens nothing, and expires.
    CreateTokenRequest => CreateTokenResponse, ClusterServiceClient::create_token;
    RemoveHostRequest => ClusterStatus, ClusterServiceClient::remove_host;
    // What is so already is not changed again.
    SetTimingsRequest => SetTimingsResponse, ClusterServiceClient::set_timings;
    GetOperationRequest => Operation, OperationServiceClient::get_operation;
    ListOperationsRequest => ListOperationsResponse, OperationServiceClient::list_operations;
    CancelOperationRequest => Operation, OperationServiceClient::cancel_operation;
}

follows! {
    WatchVmsRequest => WatchVmsResponse, VmServiceClient::watch_vms;
    GetOperationRequest => Operation, OperationServiceClient::watch_operation;
    WatchEventsRequest => Event, EventServiceClient::watch_events;
}
