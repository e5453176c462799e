//! A small cluster for tests: hosts of 8 processors and 8192 MB, VMs of 1 and 1024.

use plasmavmc_types::{
    Address, AgentHealth, AttemptId, Beat, BeatFields, BeatSequence, BootId, Capacity, Departure, Epoch, HostFacts,
    HostId, HostMode, HostName, HostRecord, Incarnation, InstanceNonce, Leaving, ObservedState, Operation, OperationId,
    OperationKind, OperationState, Placement, PowerWanted, QemuProcess, Session, SessionState, Usage, VmId, VmName,
    VmNumber, VmRecord, VmSpec, VmSpecFields, VmStatus, VmStatusFields,
};

use crate::view::{ClusterView, Heard, Stored};

/// An id made of a number: a type of ours from its text.
fn uuid_text(kind: u8, number: u32) -> String {
    format!("{kind:08x}-0000-4000-8000-{number:012x}")
}

pub fn vm_id(number: u32) -> VmId {
    uuid_text(1, number).parse().unwrap()
}

pub fn host_id(number: u32) -> HostId {
    uuid_text(2, number).parse().unwrap()
}

pub fn operation_id(number: u32) -> OperationId {
    uuid_text(3, number).parse().unwrap()
}

pub fn attempt(number: u32) -> AttemptId {
    uuid_text(4, number).parse().unwrap()
}

pub fn process() -> QemuProcess {
    QemuProcess {
        pid: 4711,
        start_time_ticks: 1,
    }
}

/// The wall clock of every test.
pub const NOW_MS: u64 = 1_000_000_000;

/// A cluster in the making.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    pub view: ClusterView,
    pub heard: Heard,
}

impl Cluster {
    pub fn of_hosts(count: u32) -> Self {
        (1..=count).fold(Self::default(), |cluster, number| cluster.with_host(number, |_| ()))
    }

    fn revision(&mut self) -> u64 {
        self.view.revision += 1;
        self.view.revision
    }

    pub fn with_host(mut self, number: u32, edit: impl FnOnce(&mut BeatFields)) -> Self {
        let id = host_id(number);
        let name = HostName::new(format!("h{number}")).unwrap();
        let address: Address = format!("h{number}:50051").parse().unwrap();
        let record = HostRecord::new(id, name, vec![address]).unwrap();
        let mut fields = BeatFields {
            epoch: Epoch::FIRST,
            instance: uuid_text(5, number).parse::<InstanceNonce>().unwrap(),
            boot_id: uuid_text(6, number).parse::<BootId>().unwrap(),
            sequence: BeatSequence(1),
            lease_ms: 4000,
            failover_ms: 6000,
            capacity: Capacity {
                vcpus: 8,
                memory_mb: 8192,
            },
            usage: Usage::default(),
            facts: HostFacts::default(),
        };
        edit(&mut fields);
        let session = Session {
            epoch: fields.epoch,
            instance: fields.instance,
            boot_id: fields.boot_id,
            state: SessionState::Open,
        };
        let (first, second, third) = (self.revision(), self.revision(), self.revision());
        let host = self.view.hosts.entry(id).or_default();
        host.record = Some(Stored::new(record, first));
        host.session = Some(Stored::new(session, second));
        host.beat = Some(Stored::new(Beat::new(fields).unwrap(), third));
        self.heard.ago_ms.insert(id, 500);
        self
    }

    pub fn mode(mut self, host: u32, mode: HostMode) -> Self {
        let revision = self.revision();
        let record = &mut self.view.hosts.get_mut(&host_id(host)).unwrap().record;
        let changed = record.as_ref().unwrap().value.with_mode(mode);
        *record = Some(Stored::new(changed, revision));
        self
    }

    /// It is about to be switched off.
    pub fn departing(mut self, host: u32, leaving: Leaving, until_ms: u64) -> Self {
        let revision = self.revision();
        let known = self.view.hosts.get_mut(&host_id(host)).unwrap();
        let departure = Departure {
            instance: known.session.as_ref().unwrap().value.instance,
            leaving,
            until_ms,
        };
        let changed = known.record.take().unwrap().value.with_departure(Some(departure));
        known.record = Some(Stored::new(changed, revision));
        self
    }

    /// It booted again, and opened its next session.
    pub fn booted(mut self, host: u32) -> Self {
        let revision = self.revision();
        let session = &mut self.view.hosts.get_mut(&host_id(host)).unwrap().session;
        let before = session.take().unwrap().value;
        let next = Session {
            epoch: before.epoch.next().unwrap(),
            instance: uuid_text(7, host).parse::<InstanceNonce>().unwrap(),
            boot_id: uuid_text(8, host).parse::<BootId>().unwrap(),
            state: SessionState::Open,
        };
        *session = Some(Stored::new(next, revision));
        self
    }

    /// A member that votes and runs no VMs.
    pub fn with_witness(mut self, number: u32) -> Self {
        self = self.with_host(number, |_| ());
        let host = self.view.hosts.get_mut(&host_id(number)).unwrap();
        let record = host.record.take().unwrap();
        host.record = Some(Stored::new(record.value.with_witness(true), record.revision));
        (host.session, host.beat) = (None, None);
        self.heard.ago_ms.remove(&host_id(number));
        self
    }

    /// It was taken out of the cluster.
    pub fn without_host(mut self, host: u32) -> Self {
        self.view.hosts.remove(&host_id(host));
        self.heard.ago_ms.remove(&host_id(host));
        self
    }

    pub fn silent(mut self, host: u32, ago_ms: u64) -> Self {
        self.heard.ago_ms.insert(host_id(host), ago_ms);
        self
    }

    /// The reader has led for so long.
    pub fn leading_for(mut self, led_ms: u64) -> Self {
        self.heard.leading_for_ms = Some(led_ms);
        self
    }

    pub fn with_vm(self, number: u32) -> Self {
        self.with_vm_of(number, |_| ())
    }

    /// A VM that is wanted on and placed nowhere.
    pub fn with_vm_of(mut self, number: u32, edit: impl FnOnce(&mut VmSpecFields)) -> Self {
        let name = VmName::new(format!("vm{number}")).unwrap();
        let mut fields = VmSpecFields::new(name.clone(), 1, 1024);
        edit(&mut fields);
        let number_of_vm = VmNumber::new(100 + number).unwrap();
        let record = VmRecord::create(vm_id(number), number_of_vm, VmSpec::new(fields).unwrap()).unwrap();
        let revision = self.revision();
        self.view.names.insert(name, vm_id(number));
        self.view.numbers.insert(number_of_vm, vm_id(number));
        self.view.vms.entry(vm_id(number)).or_default().record = Some(Stored::new(record, revision));
        self
    }

    pub fn change(mut self, vm: u32, change: impl FnOnce(&VmRecord) -> VmRecord) -> Self {
        let revision = self.revision();
        let record = &mut self.view.vms.get_mut(&vm_id(vm)).unwrap().record;
        let changed = change(&record.as_ref().unwrap().value);
        *record = Some(Stored::new(changed, revision));
        self
    }

    pub fn off(self, vm: u32) -> Self {
        self.change(vm, |record| record.with_power(PowerWanted::Off).unwrap())
    }

    pub fn on(self, vm: u32) -> Self {
        self.change(vm, |record| record.with_power(PowerWanted::On).unwrap())
    }

    pub fn deleted(self, vm: u32) -> Self {
        self.change(vm, |record| record.delete().unwrap())
    }

    pub fn placed(mut self, vm: u32, host: u32) -> Self {
        let revision = self.revision();
        let placement = &mut self.view.vms.get_mut(&vm_id(vm)).unwrap().placement;
        let next = match placement {
            None => Placement::first(host_id(host)),
            Some(before) => before.value.next(host_id(host)).unwrap(),
        };
        *placement = Some(Stored::new(next, revision));
        self
    }

    /// Its host says so. What runs has a process.
    pub fn says(self, vm: u32, state: ObservedState) -> Self {
        let runs = matches!(
            state,
            ObservedState::Running | ObservedState::Paused { .. } | ObservedState::Frozen | ObservedState::Stopping
        );
        self.says_of(vm, |fields| {
            fields.state = state;
            fields.process = runs.then(process);
        })
    }

    pub fn says_of(mut self, vm: u32, edit: impl FnOnce(&mut VmStatusFields)) -> Self {
        let revision = self.revision();
        let view = self.view.vms.get_mut(&vm_id(vm)).unwrap();
        let incarnation = view
            .placement
            .as_ref()
            .map_or(Incarnation::FIRST, |at| at.value.incarnation);
        let generation = view.record.as_ref().unwrap().value.generation().get();
        let mut fields = VmStatusFields {
            incarnation,
            leased: false,
            attempt: attempt(vm),
            state: ObservedState::Starting,
            process: None,
            qemu: None,
            agent: AgentHealth::NotAsked,
            last_exit: None,
            conditions: Vec::new(),
            crashes_at_ms: Vec::new(),
            generation,
            since_ms: NOW_MS - 60_000,
        };
        edit(&mut fields);
        view.status = Some(Stored::new(VmStatus::new(fields).unwrap(), revision));
        self
    }

    /// An operation that has just begun.
    pub fn with_operation(self, number: u32, vm: u32, kind: OperationKind) -> Self {
        self.with_operation_of(number, vm, kind, |_| ())
    }

    pub fn with_operation_of(
        mut self,
        number: u32,
        vm: u32,
        kind: OperationKind,
        edit: impl FnOnce(&mut Operation),
    ) -> Self {
        let mut operation = Operation {
            id: operation_id(number),
            kind,
            vm: vm_id(vm),
            vm_name: VmName::new(format!("vm{vm}")).unwrap(),
            state: OperationState::Pending,
            step: String::new(),
            created_at_ms: NOW_MS,
            updated_at_ms: NOW_MS,
            deadline_ms: NOW_MS + 60_000,
            cancel_requested: false,
            runner: None,
        };
        edit(&mut operation);
        let revision = self.revision();
        self.view
            .operations
            .insert(operation.id, Stored::new(operation, revision));
        self
    }
}
