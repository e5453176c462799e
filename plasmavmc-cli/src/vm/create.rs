//! Making a VM.

use plasmavmc_proto::api::{
    Affinity, Cdrom, Cpu, CreateVmRequest, DirectBoot, DiskLocation, Firmware, GetOperationRequest, GetVmRequest, Vm,
    disk_location,
};

use super::file::read_over;
use crate::args::{BoardArgs, CreateArgs, Form, PolicyArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::show::vm_line;
use crate::{ops, progress, show};

pub async fn run(context: &Context, args: CreateArgs) -> Result<(), Failure> {
    let no_wait = args.wait.no_wait;
    let request = CreateVmRequest {
        request_id: context.request_id(),
        wait: false,
        ..request(args)?
    };
    let is_to_run = !request.powered_off;
    let vm = context
        .reach
        .ask(&format!("create vm {}", request.name), request)
        .await?;
    if !is_to_run || no_wait {
        return shown(context, &vm);
    }
    let Some(operation) = operation_of(context, &vm).await? else {
        return shown(context, &vm);
    };
    progress::to_end(context, operation).await?;
    let request = GetVmRequest {
        id: vm.id.clone(),
        stale: false,
    };
    let vm = context.reach.ask(&format!("look at vm {}", vm.name), request).await?;
    shown(context, &vm)
}

fn shown(context: &Context, vm: &Vm) -> Result<(), Failure> {
    if context.screen.quiet && context.screen.form == Form::Table {
        return show::print(&vm.id);
    }
    context.screen.one(vm, || format!("{}\nid {}", vm_line(vm), vm.id))
}

/// The operation that starts it: the VM names it, or else it is the newest of this VM.
async fn operation_of(context: &Context, vm: &Vm) -> Result<Option<plasmavmc_proto::api::Operation>, Failure> {
    if uuid::Uuid::try_parse(&vm.operation).is_ok() {
        let request = GetOperationRequest {
            id: vm.operation.clone(),
        };
        return context.reach.ask("look at the operation", request).await.map(Some);
    }
    Ok(ops::all(context, &vm.id, true, 1).await?.into_iter().next())
}

/// The file first, the flags over it.
fn request(args: CreateArgs) -> Result<CreateVmRequest, Failure> {
    let mut request = CreateVmRequest::default();
    if let Some(file) = &args.file {
        request = read_over(&request, file)?;
    }
    if let Some(name) = args.name {
        request.name = name;
    }
    if request.name.is_empty() {
        return Err(Failure::Usage(
            "the VM has no name; plasmavmc vm create NAME, or name: in the file".to_owned(),
        ));
    }
    set(&mut request.vcpus, args.vcpus);
    set(&mut request.memory_mb, args.memory);
    set(&mut request.vmid, args.vmid);
    request.powered_off |= args.stopped;
    if request.vcpus == 0 {
        return Err(Failure::Usage(
            "it is not said how many processors; --vcpus 1".to_owned(),
        ));
    }
    if request.memory_mb == 0 {
        return Err(Failure::Usage(
            "it is not said how much memory; --memory 512M".to_owned(),
        ));
    }
    for disk in args.disks {
        let disk = disk.named(&request.name, request.disks.len());
        request.disks.push(disk);
    }
    for mut nic in args.nics {
        if nic.name.is_empty() {
            nic.name = format!("net{}", request.nics.len());
        }
        request.nics.push(nic);
    }
    for iso in args.cdroms {
        let image = DiskLocation {
            location: Some(disk_location::Location::Path(iso)),
        };
        let name = format!("cdrom{}", request.cdroms.len());
        request.cdroms.push(Cdrom {
            name,
            image: Some(image),
        });
    }
    set_board(&mut request, args.board);
    set_policy(&mut request, args.policy);
    Ok(request)
}

fn set<T>(field: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *field = given;
    }
}

fn set_board(request: &mut CreateVmRequest, args: BoardArgs) {
    if let Some(kernel) = args.kernel {
        request.direct_boot = Some(DirectBoot {
            kernel,
            initrd: args.initrd.unwrap_or_default(),
            cmdline: args.cmdline.unwrap_or_default(),
        });
    }
    if args.secure_boot {
        request.set_firmware(Firmware::UefiSecureBoot);
    } else if args.uefi {
        request.set_firmware(Firmware::Uefi);
    }
    set(&mut request.machine, args.machine);
    if args.cpu.is_some() || args.sockets.is_some() {
        let cpu = request.cpu.get_or_insert_with(Cpu::default);
        set(&mut cpu.model, args.cpu);
        set(&mut cpu.sockets, args.sockets);
    }
    if !args.boot_order.is_empty() {
        request.boot_order = args.boot_order;
    }
    set(&mut request.display, args.display.map(i32::from));
}

fn set_policy(request: &mut CreateVmRequest, args: PolicyArgs) {
    set(&mut request.agent, args.agent.map(i32::from));
    set(&mut request.ha, args.ha.map(i32::from));
    request.priority = args.priority.or(request.priority);
    request.restart = args.restart.or(request.restart);
    request.depends_on.extend(args.depends_on);
    set(
        &mut request.start_delay_s,
        args.start_delay
            .map(|delay| u32::try_from(delay.as_secs()).unwrap_or(u32::MAX)),
    );
    request.start_paused |= args.start_paused;
    let given = Affinity {
        hosts: args.hosts,
        apart_from: args.apart_from,
        together_with: args.together_with,
        prefer_hosts: args.prefer_host,
        prefer_apart_from: args.prefer_apart_from,
        prefer_together_with: args.prefer_together_with,
    };
    if given != Affinity::default() {
        let affinity = request.affinity.get_or_insert_with(Affinity::default);
        affinity.hosts.extend(given.hosts);
        affinity.apart_from.extend(given.apart_from);
        affinity.together_with.extend(given.together_with);
        affinity.prefer_hosts.extend(given.prefer_hosts);
        affinity.prefer_apart_from.extend(given.prefer_apart_from);
        affinity.prefer_together_with.extend(given.prefer_together_with);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use plasmavmc_proto::api::{AgentPolicy, Dependency, Disk, HaPolicy, Nic, RestartPolicy, Volume, nic};

    use super::*;
    use crate::args::{Cli, Command, VmCommand};

    fn made(line: &str) -> Result<CreateVmRequest, String> {
        let words = format!("plasmavmc vm create {line}");
        let cli = Cli::try_parse_from(words.split_whitespace()).map_err(|error| error.to_string())?;
        let Some(Command::Vm(VmCommand::Create(args))) = cli.command else {
            return Err("no create".to_owned());
        };
        request(*args).map_err(|failure| failure.to_string())
    }

    fn minimal() -> CreateVmRequest {
        CreateVmRequest {
            name: "web".to_owned(),
            vcpus: 2,
            memory_mb: 4096,
            ..CreateVmRequest::default()
        }
    }

    #[test]
    fn flags_become_a_request() {
        assert_eq!(made("web --vcpus 2 --memory 4G"), Ok(minimal()));
        let line = "web --vcpus 2 -m 4G --vmid 101 --stopped --disk pool=p,size=1G --disk path=/b,size=2G --nic user \
                    --cdrom /a.iso --kernel /k --initrd /i --cmdline quiet --uefi --machine q35 --cpu max --sockets 2 \
                    --agent optional --ha --priority 200 --restart never --depends-on db:running --start-delay 5s \
                    --start-paused --host h1 --apart-from db";
        let disk = |name: &str, size_mb, location| Disk {
            name: name.to_owned(),
            size_mb,
            location: Some(DiskLocation {
                location: Some(location),
            }),
            ..Disk::default()
        };
        let volume = Volume {
            pool: "p".to_owned(),
            volume: "web-disk0".to_owned(),
        };
        let iso = disk_location::Location::Path("/a.iso".to_owned());
        let expected = CreateVmRequest {
            vmid: 101,
            powered_off: true,
            disks: vec![
                disk("disk0", 1024, disk_location::Location::Volume(volume)),
                disk("disk1", 2048, disk_location::Location::Path("/b".to_owned())),
            ],
            nics: vec![Nic {
                name: "net0".to_owned(),
                network: Some(nic::Network::User(true)),
                ..Nic::default()
            }],
            cdroms: vec![Cdrom {
                name: "cdrom0".to_owned(),
                image: Some(DiskLocation { location: Some(iso) }),
            }],
            direct_boot: Some(DirectBoot {
                kernel: "/k".to_owned(),
                initrd: "/i".to_owned(),
                cmdline: "quiet".to_owned(),
            }),
            firmware: Firmware::Uefi.into(),
            machine: "q35".to_owned(),
            cpu: Some(Cpu {
                sockets: 2,
                model: "max".to_owned(),
            }),
            agent: AgentPolicy::Optional.into(),
            ha: HaPolicy::On.into(),
            priority: Some(200),
            restart: Some(RestartPolicy {
                never: true,
                ..RestartPolicy::default()
            }),
            depends_on: vec![Dependency {
                vm: "db".to_owned(),
                until: 1,
            }],
            start_delay_s: 5,
            start_paused: true,
            affinity: Some(Affinity {
                hosts: vec!["h1".to_owned()],
                apart_from: vec!["db".to_owned()],
                ..Affinity::default()
            }),
            ..minimal()
        };
        assert_eq!(made(line), Ok(expected));
    }

    #[test]
    fn flags_go_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.yaml");
        std::fs::write(
            &path,
            "name: web\nvcpus: 1\nmemory_mb: 4G\nnics: [{name: net0, user: true}]\n",
        )
        .unwrap();
        let request = made(&format!("--file {} --vcpus 2 --nic bridge=br0", path.display())).unwrap();
        assert_eq!(
            (request.name.as_str(), request.vcpus, request.memory_mb),
            ("web", 2, 4096)
        );
        assert_eq!(
            request.nics.iter().map(|nic| nic.name.as_str()).collect::<Vec<_>>(),
            ["net0", "net1"]
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let table = [
            ("--vcpus 1 --memory 1G", "no name; plasmavmc vm create NAME"),
            ("web --memory 1G", "--vcpus 1"),
            ("web --vcpus 1", "--memory 512M"),
        ];
        for (line, says) in table {
            let error = made(line).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
