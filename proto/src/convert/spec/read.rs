//! Reading a specification: every field is looked at, whatever is wrong with others.
//!
//! What cannot be read is replaced by something harmless, so that the rest can still be checked as a whole;
//! a problem that only the replacement has is not told.

use plasmavmc_types::{
    Affinity, AgentPolicy, Checks, Cpu, CpuModel, Dependency, DependencyReached, DirectBoot, Display, Firmware,
    GuestWatchdog, HaPolicy, HostName, Invalid, Label, MacAddress, MachineType, RestartPolicy, VmId, VmName, VmSpec,
    VmSpecFields,
};
use uuid::Uuid;

use super::super::read_enum;
use crate::api;

/// Reads the specification; `find` answers which VM a text means, `new_mac` makes an address where it may.
pub(super) fn read(
    spec: api::VmSpec,
    find: &dyn Fn(&str) -> Result<VmId, String>,
    new_mac: &mut dyn FnMut() -> Option<MacAddress>,
) -> Result<VmSpec, Invalid> {
    let mut reader = SpecReader {
        checks: Checks::of("VM spec"),
        find,
        new_mac,
        replaced: 0,
    };
    let checked = reader.fields(spec).map(VmSpec::new);
    let SpecReader { mut checks, .. } = reader;
    match checked {
        Some(Ok(spec)) => checks.finish(spec),
        Some(Err(invalid)) => {
            for problem in invalid.problems() {
                let field = as_in_api(&problem.field);
                if !is_told(&checks, &field) {
                    checks.refuse(field, problem.problem.clone());
                }
            }
            checks.finish(()).and(Err(invalid))
        }
        None => checks
            .finish(())
            .and_then(|()| Err(Invalid::whole("VM spec", "cannot be read"))),
    }
}

/// The name that a field of the specification has in the message, where it differs.
fn as_in_api(field: &str) -> String {
    field.replace("restart.on_crash.", "restart.")
}

/// Whether something is known to be wrong with the field, what it belongs to, or a part of it.
fn is_told(checks: &Checks, field: &str) -> bool {
    let is_part = |part: &str, whole: &str| {
        part.strip_prefix(whole)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let mut told = checks.problems().iter();
    told.any(|problem| is_part(&problem.field, field) || is_part(field, &problem.field))
}

pub(super) struct SpecReader<'a> {
    pub checks: Checks,
    find: &'a dyn Fn(&str) -> Result<VmId, String>,
    new_mac: &'a mut dyn FnMut() -> Option<MacAddress>,
    /// How many values were replaced: each by another one, so that none seems to repeat another.
    replaced: u32,
}

impl SpecReader<'_> {
    fn fields(&mut self, spec: api::VmSpec) -> Option<VmSpecFields> {
        let name = self.checks.take("name", VmName::new(spec.name));
        let name = name.or_else(|| VmName::new("unreadable").ok())?;
        Some(VmSpecFields {
            vcpus: spec.vcpus,
            memory_mb: spec.memory_mb,
            cpu: self.cpu(spec.cpu.unwrap_or_default()),
            machine: self.machine(&spec.machine),
            firmware: self.firmware(spec.firmware),
            direct_boot: spec.direct_boot.map(direct_boot),
            disks: self.each("disks", spec.disks, Self::disk),
            cdroms: self.each("cdroms", spec.cdroms, Self::cdrom),
            nics: self.each("nics", spec.nics, Self::nic),
            boot_order: self.each("boot_order", spec.boot_order, Self::label),
            display: self.display(spec.display),
            rng: spec.rng.unwrap_or(true),
            balloon: spec.balloon.unwrap_or(true),
            pvpanic: spec.pvpanic.unwrap_or(true),
            watchdog: self.watchdog(spec.watchdog),
            agent: self.agent(spec.agent),
            ha: self.ha(spec.ha),
            priority: self.priority(spec.priority),
            restart: self.restart(spec.restart),
            depends_on: self.each("depends_on", spec.depends_on, Self::dependency),
            start_delay_s: spec.start_delay_s,
            start_paused: spec.start_paused,
            affinity: self.affinity(spec.affinity.unwrap_or_default()),
            ..VmSpecFields::new(name, 0, 0)
        })
    }

    /// Reads each entry of a list under its own name.
    pub fn each<M, T>(
        &mut self,
        field: &str,
        entries: Vec<M>,
        read: impl Fn(&mut Self, &str, M) -> Option<T>,
    ) -> Vec<T> {
        let mut values = Vec::with_capacity(entries.len());
        for (index, entry) in entries.into_iter().enumerate() {
            values.extend(read(self, &format!("{field}[{index}]"), entry));
        }
        values
    }

    /// A number for the next replacement.
    pub fn replacement(&mut self) -> u32 {
        self.replaced += 1;
        self.replaced
    }

    /// A new address, if this reader may make one.
    pub fn make_mac(&mut self) -> Option<MacAddress> {
        (self.new_mac)()
    }

    pub fn label(&mut self, field: &str, text: String) -> Option<Label> {
        let label = self.checks.take(field, Label::new(text));
        label.or_else(|| Label::new(format!("unreadable-{}", self.replacement())).ok())
    }

    fn vm(&mut self, field: &str, text: &str) -> VmId {
        (self.find)(text).unwrap_or_else(|problem| {
            self.checks.refuse(field, problem);
            VmId::from_uuid(Uuid::from_u128(u128::MAX - u128::from(self.replacement())))
        })
    }

    fn cpu(&mut self, cpu: api::Cpu) -> Cpu {
        let model = (!cpu.model.is_empty()).then_some(cpu.model);
        Cpu {
            sockets: cpu.sockets.max(1),
            model: model.and_then(|model| self.checks.take("cpu.model", CpuModel::new(model))),
        }
    }

    fn machine(&mut self, machine: &str) -> MachineType {
        if machine.is_empty() {
            return MachineType::default();
        }
        let machine = self.checks.take("machine", MachineType::new(machine));
        machine.unwrap_or_default()
    }

    fn firmware(&mut self, number: i32) -> Firmware {
        match read_enum(&mut self.checks, "firmware", number) {
            None | Some(api::Firmware::Bios) => Firmware::Bios,
            Some(api::Firmware::Uefi) => Firmware::Uefi { secure_boot: false },
            Some(api::Firmware::UefiSecureBoot) => Firmware::Uefi { secure_boot: true },
        }
    }

    fn display(&mut self, number: i32) -> Display {
        match read_enum(&mut self.checks, "display", number) {
            None | Some(api::Display::Vnc) => Display::Vnc,
            Some(api::Display::None) => Display::None,
        }
    }

    fn watchdog(&mut self, number: i32) -> GuestWatchdog {
        match read_enum(&mut self.checks, "watchdog", number) {
            None | Some(api::GuestWatchdog::None) => GuestWatchdog::None,
            Some(api::GuestWatchdog::I6300esb) => GuestWatchdog::I6300esb,
        }
    }

    fn agent(&mut self, number: i32) -> AgentPolicy {
        match read_enum(&mut self.checks, "agent", number) {
            None | Some(api::AgentPolicy::Required) => AgentPolicy::Required,
            Some(api::AgentPolicy::Optional) => AgentPolicy::Optional,
            Some(api::AgentPolicy::None) => AgentPolicy::None,
        }
    }

    fn ha(&mut self, number: i32) -> HaPolicy {
        match read_enum(&mut self.checks, "ha", number) {
            None | Some(api::HaPolicy::Auto) => HaPolicy::Auto,
            Some(api::HaPolicy::On) => HaPolicy::On,
            Some(api::HaPolicy::Off) => HaPolicy::Off,
        }
    }

    fn priority(&mut self, priority: Option<u32>) -> u8 {
        let Some(priority) = priority else {
            return VmSpecFields::DEFAULT_PRIORITY;
        };
        self.checks.require_range("priority", priority, 0..=u32::from(u8::MAX));
        u8::try_from(priority).unwrap_or(u8::MAX)
    }

    fn restart(&mut self, restart: Option<api::RestartPolicy>) -> RestartPolicy {
        let Some(api::RestartPolicy { never, tries, window_s }) = restart else {
            return RestartPolicy::default();
        };
        if never {
            let contradicts = || "is given, but restart.never says that there are none".to_owned();
            self.checks.require(tries == 0, "restart.tries", contradicts);
            self.checks.require(window_s == 0, "restart.window_s", contradicts);
            return RestartPolicy::Never;
        }
        let or_default = |number, default| if number == 0 { default } else { number };
        RestartPolicy::OnCrash {
            tries: or_default(tries, RestartPolicy::DEFAULT_TRIES),
            window_s: or_default(window_s, RestartPolicy::DEFAULT_WINDOW_S),
        }
    }

    fn dependency(&mut self, field: &str, dependency: api::Dependency) -> Option<Dependency> {
        let vm = self.vm(&format!("{field}.vm"), &dependency.vm);
        let until = match read_enum(&mut self.checks, &format!("{field}.until"), dependency.until) {
            None | Some(api::DependencyReached::Ready) => DependencyReached::Ready,
            Some(api::DependencyReached::Running) => DependencyReached::Running,
        };
        Some(Dependency { vm, until })
    }

    fn affinity(&mut self, affinity: api::Affinity) -> Affinity {
        let vm = |reader: &mut Self, field: &str, text: String| Some(reader.vm(field, &text));
        let host = |reader: &mut Self, field: &str, text: String| {
            let host = reader.checks.take(field, HostName::new(text));
            host.or_else(|| HostName::new(format!("unreadable-{}", reader.replacement())).ok())
        };
        Affinity {
            hosts: self.each("affinity.hosts", affinity.hosts, host),
            apart_from: self.each("affinity.apart_from", affinity.apart_from, vm),
            together_with: self.each("affinity.together_with", affinity.together_with, vm),
            prefer_hosts: self.each("affinity.prefer_hosts", affinity.prefer_hosts, host),
            prefer_apart_from: self.each("affinity.prefer_apart_from", affinity.prefer_apart_from, vm),
            prefer_together_with: self.each("affinity.prefer_together_with", affinity.prefer_together_with, vm),
        }
    }
}

fn direct_boot(boot: api::DirectBoot) -> DirectBoot {
    DirectBoot {
        kernel: boot.kernel.into(),
        initrd: (!boot.initrd.is_empty()).then(|| boot.initrd.into()),
        cmdline: boot.cmdline,
    }
}
