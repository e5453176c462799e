//! The public API of one node, every call with a deadline.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plasmavmc_proto::api::cluster_service_client::ClusterServiceClient;
use plasmavmc_proto::api::host_service_client::HostServiceClient;
use plasmavmc_proto::api::operation_service_client::OperationServiceClient;
use plasmavmc_proto::api::vm_service_client::VmServiceClient;
use plasmavmc_proto::api::{
    ActivateHostRequest, ClusterStatus, ClusterStatusRequest, ClusterTimings, CreateTokenRequest, CreateVmRequest,
    DeleteVmRequest, DrainHostRequest, GetOperationRequest, GetVmRequest, Host, ListHostsRequest,
    ListOperationsRequest, ListVmsRequest, Operation, RemoveHostRequest, SetTimingsRequest, SetTimingsResponse,
    StartVmRequest, StopVmRequest, Vm, operation, vm,
};
use plasmavmc_proto::node::ListeningRequest;
use plasmavmc_proto::node::node_client::NodeClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::node::CLUSTER_PORT;
use super::until;

const CONNECT: Duration = Duration::from_secs(2);
/// Covers calls that wait for a guest to boot under TCG on a busy machine.
const CALL: Duration = Duration::from_secs(120);

const BEATS_WITHIN: Duration = Duration::from_secs(60);

/// Speaks to one node.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    /// Where the other members reach this one.
    member: Channel,
}

impl Client {
    pub fn new(address: &str) -> Result<Self> {
        Self::with_deadline(address, CALL)
    }

    pub fn with_deadline(address: &str, call: Duration) -> Result<Self> {
        let channel = |address: &str| {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
            anyhow::Ok(endpoint.connect_timeout(CONNECT).timeout(call).connect_lazy())
        };
        let (host, _) = address.rsplit_once(':').context("an address without a port")?;
        Ok(Self {
            channel: channel(address)?,
            member: channel(&format!("{host}:{CLUSTER_PORT}"))?,
        })
    }

    pub fn vms(&self) -> VmServiceClient<Channel> {
        VmServiceClient::new(self.channel.clone())
    }

    pub fn hosts(&self) -> HostServiceClient<Channel> {
        HostServiceClient::new(self.channel.clone())
    }

    pub fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel.clone())
    }

    pub fn operations(&self) -> OperationServiceClient<Channel> {
        OperationServiceClient::new(self.channel.clone())
    }

    pub async fn status(&self) -> Result<ClusterStatus, Status> {
        let answer = self.cluster().status(ClusterStatusRequest {}).await;
        Ok(answer?.into_inner())
    }

    /// A token with which so many hosts may join.
    pub async fn token(&self, uses: u32) -> Result<String, Status> {
        let request = CreateTokenRequest { valid_s: 600, uses };
        Ok(self.cluster().create_token(request).await?.into_inner().token)
    }

    pub async fn list_hosts(&self) -> Result<Vec<Host>, Status> {
        let answer = self.hosts().list_hosts(ListHostsRequest::default()).await;
        Ok(answer?.into_inner().hosts)
    }

    /// Gives a host nothing new and lets go of what is stopped there.
    pub async fn drain(&self, host: &str) -> Result<(), Status> {
        let request = DrainHostRequest {
            id: host.to_owned(),
            ..Default::default()
        };
        self.hosts().drain_host(request).await.map(drop)
    }

    pub async fn activate(&self, host: &str) -> Result<(), Status> {
        let request = ActivateHostRequest { id: host.to_owned() };
        self.hosts().activate_host(request).await.map(drop)
    }

    /// Takes a host out that is off for good.
    pub async fn remove_dead(&self, host: &str) -> Result<(), Status> {
        let request = RemoveHostRequest {
            id: host.to_owned(),
            dead: true,
        };
        self.cluster().remove_host(request).await.map(drop)
    }

    pub async fn set_timings(&self, wanted: ClusterTimings) -> Result<SetTimingsResponse, Status> {
        let request = SetTimingsRequest {
            beat_ms: Some(wanted.beat_ms),
            freeze_after_ms: Some(wanted.freeze_after_ms),
            failover_after_ms: Some(wanted.failover_after_ms),
        };
        Ok(self.cluster().set_timings(request).await?.into_inner())
    }

    pub async fn create(&self, request: CreateVmRequest) -> Result<Vm, Status> {
        Ok(self.vms().create_vm(request).await?.into_inner())
    }

    /// Creates a VM and sees that it runs.
    pub async fn running(&self, mut request: CreateVmRequest) -> Result<Vm> {
        request.wait = true;
        let name = request.name.clone();
        let vm = self.create(request).await.with_context(|| format!("creating {name}"))?;
        ensure!(vm.state() == vm::State::Running, "{}", describe(&vm));
        ensure!(!vm.host.is_empty() && vm.pid > 0, "{vm:?}");
        Ok(vm)
    }

    pub async fn get(&self, id: &str) -> Result<Vm, Status> {
        let request = GetVmRequest {
            id: id.to_owned(),
            stale: false,
        };
        Ok(self.vms().get_vm(request).await?.into_inner())
    }

    /// All of them, page by page.
    pub async fn list(&self) -> Result<Vec<Vm>, Status> {
        let mut all = Vec::new();
        let mut request = ListVmsRequest::default();
        loop {
            let page = self.vms().list_vms(request.clone()).await?.into_inner();
            all.extend(page.vms);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Starts it and answers the operation as it ended.
    pub async fn start(&self, id: &str) -> Result<Operation, Status> {
        let request = StartVmRequest {
            id: id.to_owned(),
            wait: true,
            ..StartVmRequest::default()
        };
        Ok(self.vms().start_vm(request).await?.into_inner())
    }

    /// Stops it and answers the operation as it ended.
    pub async fn stop(&self, id: &str, force: bool) -> Result<Operation, Status> {
        let request = StopVmRequest {
            id: id.to_owned(),
            force,
            wait: true,
            ..StopVmRequest::default()
        };
        Ok(self.vms().stop_vm(request).await?.into_inner())
    }

    /// Deletes it and answers the operation as it ended.
    pub async fn delete(&self, id: &str, force: bool) -> Result<Operation, Status> {
        let request = DeleteVmRequest {
            id: id.to_owned(),
            force,
            wait: true,
            ..DeleteVmRequest::default()
        };
        Ok(self.vms().delete_vm(request).await?.into_inner())
    }

    pub async fn operation(&self, id: &str) -> Result<Operation, Status> {
        let request = GetOperationRequest { id: id.to_owned() };
        Ok(self.operations().get_operation(request).await?.into_inner())
    }

    /// Those that have not ended.
    pub async fn open_operations(&self) -> Result<Vec<Operation>, Status> {
        let answer = self
            .operations()
            .list_operations(ListOperationsRequest::default())
            .await;
        Ok(answer?.into_inner().operations)
    }

    /// Waits until this server has heard the next beat of a host: from then on it has known that host alive.
    pub async fn until_beats(&self, host: &str) -> Result<()> {
        // What was committed before it began is replayed first, and looks as if it were heard.
        until("it to listen", BEATS_WITHIN, async || {
            let answer = NodeClient::new(self.member.clone())
                .listening(ListeningRequest {})
                .await;
            let since = answer.map_err(|status| status.to_string())?.into_inner().since_revision;
            since.ok_or("it replays").map_err(str::to_owned)
        })
        .await?;
        let before = std::cell::Cell::new(0);
        until(&format!("a beat of {host}"), BEATS_WITHIN, async || {
            let hosts = self.list_hosts().await.map_err(|status| status.to_string())?;
            let known = hosts.into_iter().find(|known| known.name == host);
            let ago_ms = known.map(|known| known.last_heard_ms).unwrap_or_default();
            if before.replace(ago_ms) > ago_ms {
                Ok(())
            } else {
                Err(format!("the last one was {ago_ms} ms ago"))
            }
        })
        .await
    }

    /// Waits until the VM is in a state; answers it.
    pub async fn until_state(&self, id: &str, state: vm::State, within: Duration) -> Result<Vm> {
        self.until_vm(id, &format!("{id} to be {state:?}"), within, |vm| vm.state() == state)
            .await
    }

    /// Waits until the VM is as wanted; answers it.
    pub async fn until_vm(&self, id: &str, what: &str, within: Duration, wanted: impl Fn(&Vm) -> bool) -> Result<Vm> {
        until(what, within, async || {
            let vm = self.get(id).await.map_err(|status| status.to_string())?;
            if wanted(&vm) { Ok(vm) } else { Err(describe(&vm)) }
        })
        .await
    }

    /// Waits until an operation has ended; answers it.
    pub async fn until_ended(&self, id: &str, within: Duration) -> Result<Operation> {
        until(&format!("operation {id} to end"), within, async || {
            let operation = self.operation(id).await.map_err(|status| status.to_string())?;
            if has_ended(&operation) {
                Ok(operation)
            } else {
                Err(format!("{operation:?}"))
            }
        })
        .await
    }
}

/// Whether so many hosts are one cluster, alive, and all vote: one that was just taken in does not yet, and a cluster
/// that loses somebody then may have no quorum.
pub fn is_whole(status: &ClusterStatus, hosts: usize) -> bool {
    let all_vote = status.members.iter().all(|member| member.role != "learner");
    // A witness is no host, and sends no beats.
    let is_alive = usize::try_from(status.hosts_alive + status.witnesses) == Ok(hosts)
        && status
            .members
            .iter()
            .all(|member| member.is_reachable || !member.is_witness);
    status.has_quorum && status.members.len() == hosts && all_vote && is_alive
}

pub fn has_ended(operation: &Operation) -> bool {
    use operation::State;
    matches!(operation.state(), State::Done | State::Failed | State::Cancelled)
}

/// A VM in a line, for messages about failures.
pub fn describe(vm: &Vm) -> String {
    format!(
        "{} is {:?} ({}), host {:?}, power {}, agent {:?}, qemu {:?}, conditions {:?}",
        vm.name,
        vm.state(),
        vm.reason,
        vm.host,
        vm.power_on,
        vm.agent,
        vm.qemu_state,
        vm.conditions
    )
}

/// What programs go by.
pub fn code_and_reason(status: &Status) -> (Code, String) {
    let reason = status.get_details_error_info().map(|info| info.reason);
    (status.code(), reason.unwrap_or_default())
}
