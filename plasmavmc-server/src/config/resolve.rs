//! Flags, file and defaults merged into one [`Config`], with every problem collected.

use std::path::{Path, PathBuf};

use plasmavmc_kvm::accel::Wanted;
use plasmavmc_types::{Address, HostName, PoolName};

use super::file::{self, FileSettings, Placed, PoolKind};
use super::owner::{self, UserFiles};
use super::transport::{TransportSecurity, is_unspecified, transport_security};
use super::{Beginning, Config, ConfigErrors, Flags, Folders, LogSettings, NetworkSettings, PoolSettings, VmSettings};

const SYSTEM_FILE: &str = "/etc/plasmavmc/server.toml";
const SYSTEM_STATE: &str = "/var/lib/plasmavmc";
const SYSTEM_RUN: &str = "/run/plasmavmc";
/// What the libraries under the store tell is for those who ask for it.
const DEFAULT_FILTER: &str = "info,openraft=off,chunked_wal=warn,raft_log=warn";
const DEFAULT_LISTEN: &str = "127.0.0.1:50051";
const DEFAULT_CLUSTER_LISTEN: &str = "127.0.0.1:50052";
const WITNESS_FOUNDS: &str = "a witness cannot found a cluster: it runs no VMs; begin with --init on a host that does";
/// For this program, the guard and the page cache.
const DEFAULT_RESERVE_MEMORY_MB: u64 = 512;
const DEFAULT_VCPUS_PER_CPU: u32 = 16;

/// A value and what to call the place it comes from.
struct Setting<T> {
    value: T,
    origin: String,
}

struct Merge {
    path: PathBuf,
    problems: Vec<String>,
}

pub fn load(flags: &Flags) -> Result<Config, ConfigErrors> {
    let working = std::env::current_dir()
        .map_err(|error| ConfigErrors(vec![format!("the working folder is unknown: {error}")]))?;
    let dir = flags.dir.as_ref().map(|dir| working.join(dir));
    let (path, text) = text_of(flags, dir.as_deref())?;
    let (file, problems) = file::read(&path, &text);
    let mut merge = Merge { path, problems };
    let base = merge.path.parent().map(|base| working.join(base)).unwrap_or(working);
    let config = merge.config(flags, file, dir, &base);
    if merge.problems.is_empty() {
        Ok(config)
    } else {
        Err(ConfigErrors(merge.problems))
    }
}

/// The file that counts. One that was named must be there; the usual ones need not.
fn text_of(flags: &Flags, dir: Option<&Path>) -> Result<(PathBuf, String), ConfigErrors> {
    let usual = || dir.map_or_else(|| PathBuf::from(SYSTEM_FILE), |dir| dir.join("server.toml"));
    let path = flags.config.clone().unwrap_or_else(usual);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && flags.config.is_none() => {
            Ok((path, String::new()))
        }
        Err(error) => Err(ConfigErrors(vec![format!("cannot read {}: {error}", path.display())])),
    }
}

impl Merge {
    fn config(&mut self, flags: &Flags, file: FileSettings, dir: Option<PathBuf>, base: &Path) -> Config {
        let text = |value: &str| value.to_owned();
        let listen = self.pick(&flags.listen, "listen", &file.listen, || text(DEFAULT_LISTEN));
        let cluster_listen = self.pick(&flags.cluster_listen, "cluster-listen", &file.cluster_listen, || {
            text(DEFAULT_CLUSTER_LISTEN)
        });
        let name = self.pick(&flags.name, "name", &file.name, String::new);
        let (advertise, cluster_advertise) = self.advertised(flags, &file, &listen, &cluster_listen);
        let security = self.security(flags, &listen, &cluster_listen);
        let folders = folders(flags, &file, dir, base);
        let pools = self.pools(&file, &folders, base);
        let filter = self.pick(&flags.log, "log", &file.log_filter, || text(DEFAULT_FILTER));
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&filter.value) {
            self.refuse(&filter, &error);
        }
        Config {
            transport_security: security,
            advertise,
            cluster_advertise: cluster_advertise.unwrap_or_else(fallback_address),
            name: self.name(&name),
            vms: self.vms(flags, &file, base),
            networks: self.networks(&file),
            log: LogSettings {
                filter: filter.value,
                json: flags.log_json || file.log_json.as_ref().is_some_and(|json| json.value),
            },
            beginning: self.beginning(flags),
            witness: self.witness(flags, &file),
            listen: listen.value,
            cluster_listen: cluster_listen.value,
            folders,
            pools,
        }
    }

    fn pick<T: Clone>(
        &self,
        flag: &Option<T>,
        name: &str,
        file: &Option<Placed<T>>,
        default: impl FnOnce() -> T,
    ) -> Setting<T> {
        match (flag, file) {
            (Some(value), _) => Setting {
                value: value.clone(),
                origin: format!("--{name}"),
            },
            (None, Some(placed)) => Setting {
                value: placed.value.clone(),
                origin: format!("{}:{}: {}", self.path.display(), placed.line, name.replace('-', "_")),
            },
            (None, None) => Setting {
                value: default(),
                origin: format!("{name} (by default)"),
            },
        }
    }

    fn name(&mut self, name: &Setting<String>) -> Option<HostName> {
        if name.value.is_empty() {
            return None;
        }
        HostName::new(name.value.clone())
            .inspect_err(|invalid| self.refuse(name, invalid))
            .ok()
    }

    fn refuse<T>(&mut self, setting: &Setting<T>, problem: &dyn std::fmt::Display) {
        self.problems.push(format!("{}: {problem}", setting.origin));
    }

    /// The addresses to tell others, which must be some that they can connect to.
    fn advertised(
        &mut self,
        flags: &Flags,
        file: &FileSettings,
        listen: &Setting<String>,
        cluster_listen: &Setting<String>,
    ) -> (Option<Address>, Option<Address>) {
        let advertise = self.pick(&flags.advertise, "advertise", &file.advertise, || listen.value.clone());
        let cluster = self.pick(
            &flags.cluster_advertise,
            "cluster-advertise",
            &file.cluster_advertise,
            || cluster_listen.value.clone(),
        );
        let is_listen_ok = self.check_listen(listen, true);
        let is_cluster_ok = self.check_listen(cluster_listen, false);
        // A port that the system chooses is known once the server listens.
        let any_port = listen.value.ends_with(":0") && advertise.value == listen.value;
        let advertise = match is_listen_ok && !any_port {
            true => self.address_of(&advertise, "advertise"),
            false => None,
        };
        let cluster = match is_cluster_ok {
            true => self.address_of(&cluster, "cluster-advertise"),
            false => None,
        };
        (advertise, cluster)
    }

    fn check_listen(&mut self, listen: &Setting<String>, may_choose: bool) -> bool {
        let parsed = match listen.value.parse::<chainfire::transport::Address>() {
            Ok(address) => address,
            Err(error) => {
                self.refuse(listen, &error);
                return false;
            }
        };
        if parsed.port() == 0 && !may_choose {
            let problem = "port 0 would be another port at every start, and the cluster knows this server by it";
            self.refuse(listen, &problem);
            return false;
        }
        true
    }

    fn address_of(&mut self, setting: &Setting<String>, flag: &str) -> Option<Address> {
        if is_unspecified(&setting.value) {
            let problem = format!(
                "{} means every address of this machine, which nobody can connect to: say with --{flag} HOST:PORT \
                 where others reach it",
                setting.value
            );
            self.refuse(setting, &problem);
            return None;
        }
        match setting.value.parse() {
            Ok(address) => Some(address),
            Err(invalid) => {
                self.refuse(setting, &invalid);
                None
            }
        }
    }

    fn security(
        &mut self,
        flags: &Flags,
        listen: &Setting<String>,
        cluster_listen: &Setting<String>,
    ) -> TransportSecurity {
        let listens = [
            (listen.origin.as_str(), listen.value.as_str()),
            (cluster_listen.origin.as_str(), cluster_listen.value.as_str()),
        ];
        transport_security(&listens, flags.insecure).unwrap_or_else(|problems| {
            self.problems.extend(problems);
            TransportSecurity::LoopbackOnly
        })
    }

    fn vms(&mut self, flags: &Flags, file: &FileSettings, base: &Path) -> VmSettings {
        let accel = self.pick(&flags.accel, "accel", &file.accel, || "auto".to_owned());
        let wanted = match accel.value.as_str() {
            "auto" => Wanted::Auto,
            "kvm" => Wanted::Kvm,
            "tcg" => Wanted::Tcg,
            other => {
                self.refuse(&accel, &format!("{other:?} is none of auto, kvm and tcg"));
                Wanted::Auto
            }
        };
        let run_as = self.pick(
            &flags.run_as.clone().map(Some),
            "run-as",
            &file.run_as.clone().map(|placed| Placed {
                value: Some(placed.value),
                line: placed.line,
            }),
            || None,
        );
        let owner = run_as.value.as_deref().and_then(|user| {
            owner::find(user, &UserFiles::own())
                .inspect_err(|problem| self.refuse(&run_as, problem))
                .ok()
        });
        let whole = |setting: &Option<Placed<u32>>, default: u32| setting.as_ref().map_or(default, |s| s.value);
        let (vcpus_per_cpu, memory_percent) = (
            whole(&file.vcpus_per_cpu, DEFAULT_VCPUS_PER_CPU),
            whole(&file.memory_percent, 100),
        );
        self.check_range("vcpus_per_cpu", &file.vcpus_per_cpu, 1, 1000);
        self.check_range("memory_percent", &file.memory_percent, 1, 10_000);
        let reserve = |merge: &Self| {
            merge.pick(
                &flags.reserve_memory_mb,
                "reserve-memory-mb",
                &file.reserve_memory_mb,
                || DEFAULT_RESERVE_MEMORY_MB,
            )
        };
        VmSettings {
            // A bare name is looked for as a shell would.
            qemu: flags.qemu.clone().or_else(|| program(&file.qemu, base)),
            guard: flags.guard.clone().or_else(|| program(&file.guard, base)),
            accel: wanted,
            reserve_memory_mb: reserve(self).value,
            reserve_vcpus: self
                .pick(&flags.reserve_vcpus, "reserve-vcpus", &file.reserve_vcpus, || 0)
                .value,
            vcpus_per_cpu,
            memory_percent,
            run_as: owner,
            cgroup: file.cgroup.as_ref().map(|placed| base.join(&placed.value)),
        }
    }

    fn check_range(&mut self, key: &str, setting: &Option<Placed<u32>>, least: u32, most: u32) {
        let Some(placed) = setting.as_ref().filter(|s| !(least..=most).contains(&s.value)) else {
            return;
        };
        let (path, line, value) = (self.path.display(), placed.line, placed.value);
        self.problems
            .push(format!("{path}:{line}: {key} is {value}, allowed is {least} to {most}"));
    }

    fn pools(&mut self, file: &FileSettings, folders: &Folders, base: &Path) -> Vec<PoolSettings> {
        let mut pools: Vec<PoolSettings> = Vec::new();
        for table in &file.pools {
            let complaint = |problem: String| format!("{}:{}: {problem}", self.path.display(), table.line);
            let (Some(name), Some(path)) = (&table.name, &table.path) else {
                self.problems
                    .push(complaint("a pool needs a name and a path".to_owned()));
                continue;
            };
            let pool = PoolSettings {
                name: name.value.clone(),
                kind: table.kind.as_ref().map(|kind| kind.value).unwrap_or_default(),
                path: base.join(&path.value),
            };
            match pools.iter().find(|other| other.name == pool.name) {
                Some(_) => self
                    .problems
                    .push(complaint(format!("there are two pools {}", pool.name))),
                None => pools.push(pool),
            }
        }
        if file.pools.is_empty()
            && let Ok(name) = PoolName::new("default")
        {
            let path = folders.state.join("pools/default");
            let kind = PoolKind::Dir;
            pools.push(PoolSettings { name, kind, path });
        }
        pools
    }

    fn networks(&mut self, file: &FileSettings) -> Vec<NetworkSettings> {
        let mut networks: Vec<NetworkSettings> = Vec::new();
        for table in &file.networks {
            let complaint = |problem: String| format!("{}:{}: {problem}", self.path.display(), table.line);
            match (&table.name, &table.bridge) {
                (Some(name), _) if networks.iter().any(|other| other.name == name.value) => self
                    .problems
                    .push(complaint(format!("there are two networks {}", name.value))),
                (Some(name), Some(bridge)) => networks.push(NetworkSettings {
                    name: name.value.clone(),
                    bridge: bridge.value.clone(),
                }),
                _ => self
                    .problems
                    .push(complaint("a network needs a name and a bridge".to_owned())),
            }
        }
        networks
    }

    fn witness(&mut self, flags: &Flags, file: &FileSettings) -> bool {
        let witness = self.pick(&flags.witness.then_some(true), "witness", &file.witness, || false);
        if witness.value && flags.init {
            self.refuse(&witness, &WITNESS_FOUNDS);
        }
        witness.value
    }

    fn beginning(&mut self, flags: &Flags) -> Beginning {
        if flags.init {
            return Beginning::Init;
        }
        if flags.join.is_empty() {
            return Beginning::Wait;
        }
        let mut via = Vec::new();
        for address in &flags.join {
            match address.parse() {
                Ok(address) => via.push(address),
                Err(invalid) => self.problems.push(format!("--join: {invalid}")),
            }
        }
        match flags.token.clone().filter(|token| !token.is_empty()) {
            Some(token) => Beginning::Join { via, token },
            None => {
                let problem = "--join: needs --token; 'plasmavmc cluster token' on a server of that cluster prints one";
                self.problems.push(problem.to_owned());
                Beginning::Wait
            }
        }
    }
}

fn folders(flags: &Flags, file: &FileSettings, dir: Option<PathBuf>, base: &Path) -> Folders {
    let filed = file.dir.as_ref().map(|placed| base.join(&placed.value));
    let state = dir.clone().or(filed).unwrap_or_else(|| PathBuf::from(SYSTEM_STATE));
    let given = flags
        .run_dir
        .clone()
        .map(|run| std::path::absolute(&run).unwrap_or(run));
    let given = given.or_else(|| file.run_dir.as_ref().map(|placed| base.join(&placed.value)));
    let run = given.unwrap_or_else(|| match &dir {
        Some(dir) => dir.join("run"),
        None => PathBuf::from(SYSTEM_RUN),
    });
    Folders {
        chainfire: state.join("chainfire"),
        vms: run.join("vms"),
        instance: dir.as_deref().unwrap_or(&run).join("instance"),
        guard: dir.map_or_else(|| run.join("guard"), |dir| dir.join("guard")),
        state,
        run,
    }
}

fn program(setting: &Option<Placed<PathBuf>>, base: &Path) -> Option<PathBuf> {
    let path = &setting.as_ref()?.value;
    let is_name = path.components().count() == 1;
    Some(if is_name { path.clone() } else { base.join(path) })
}

/// Stands in for an address that was refused: the problem is noted already, and no config comes of it.
fn fallback_address() -> Address {
    #[expect(clippy::expect_used, reason = "a literal")]
    DEFAULT_CLUSTER_LISTEN.parse().expect("an address")
}
