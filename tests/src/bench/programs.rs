//! Finds the programs to compare and says how a member of either is started.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Which store a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    ChainFire,
    Etcd,
}

impl fmt::Display for Product {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Product::ChainFire => "chainfire",
            Product::Etcd => "etcd",
        })
    }
}

/// Finds the program of `product`. One that is named in the environment wins.
pub fn find(product: Product) -> Result<PathBuf> {
    match product {
        Product::ChainFire => find_chainfire().context(
            "no `chainfire` program beside this one: build it with `cargo build --release -p chainfire`, or name it in \
             CHAINFIRE_BIN",
        ),
        Product::Etcd => find_etcd()
            .context("etcd is not installed: run `cargo xtask setup --bench`, or name the program in ETCD_BIN"),
    }
}

/// Finds a ChainFire that was built with the feature `faults`.
pub fn find_with_faults() -> Result<PathBuf> {
    from_env("CHAINFIRE_FAULTS_BIN").map_or_else(|| find(Product::ChainFire), Ok)
}

fn from_env(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

fn find_chainfire() -> Option<PathBuf> {
    from_env("CHAINFIRE_BIN").or_else(|| {
        let beside = std::env::current_exe().ok()?.parent()?.join("chainfire");
        beside.is_file().then_some(beside)
    })
}

fn find_etcd() -> Option<PathBuf> {
    if let Some(named) = from_env("ETCD_BIN") {
        return Some(named);
    }
    let installed = target_folders()
        .into_iter()
        .map(|target| target.join("tools/etcd/usr/bin/etcd"));
    let on_path = std::env::var_os("PATH")
        .map(|path| {
            std::env::split_paths(&path)
                .map(|dir| dir.join("etcd"))
                .collect::<Vec<_>>()
        })
        .unwrap_or_default();
    installed.chain(on_path).find(|candidate| candidate.is_file())
}

/// Cargo's target folder as this program's place tells it, and the one of the folder it was started in.
fn target_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Ok(program) = std::env::current_exe() {
        folders.extend(program.parent().and_then(Path::parent).map(Path::to_path_buf));
    }
    folders.push(PathBuf::from("target"));
    folders
}

/// Where scratch folders go unless told otherwise: on the disk that the build is on.
pub fn default_scratch() -> PathBuf {
    target_folders().swap_remove(0).join("bench")
}

/// Where a member lives.
#[derive(Debug, Clone)]
pub struct Address {
    pub name: String,
    pub dir: PathBuf,
    /// host:port for clients.
    pub client: String,
    /// host:port for other members, where that differs.
    pub peer: String,
}

/// How a member comes into its cluster.
#[derive(Debug, Clone)]
pub enum Entrance {
    /// One of the first members, all of which are listed.
    Founder(Vec<Address>),
    /// Added later; the present members are listed.
    Joiner(Vec<Address>),
    /// Was there before.
    Returning,
}

/// The arguments that start a member of `product`.
pub fn arguments(product: Product, own: &Address, entrance: &Entrance) -> Vec<OsString> {
    match product {
        Product::ChainFire => chainfire_arguments(own, entrance),
        Product::Etcd => etcd_arguments(own, entrance),
    }
}

fn chainfire_arguments(own: &Address, entrance: &Entrance) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["serve".into(), "--dir".into(), own.dir.clone().into()];
    arguments.extend(["--listen", &own.client, "--name", &own.name].map(OsString::from));
    match entrance {
        Entrance::Founder(all) if all.first().is_some_and(|first| first.name == own.name) => {
            arguments.push("--init".into());
        }
        Entrance::Founder(all) => arguments.extend(["--join".into(), all[0].client.clone().into()]),
        Entrance::Joiner(present) => {
            let addresses: Vec<_> = present.iter().map(|member| member.client.as_str()).collect();
            arguments.extend(["--join".into(), addresses.join(",").into()]);
        }
        Entrance::Returning => {}
    }
    arguments
}

/// etcd's defaults, but for a quota that holds a million keys with their history.
fn etcd_arguments(own: &Address, entrance: &Entrance) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--data-dir".into(), own.dir.clone().into()];
    let client_url = format!("http://{}", own.client);
    let peer_url = format!("http://{}", own.peer);
    let mut flag = |name: &str, value: &str| arguments.extend([name.into(), value.into()]);
    flag("--name", &own.name);
    flag("--listen-client-urls", &client_url);
    flag("--advertise-client-urls", &client_url);
    flag("--listen-peer-urls", &peer_url);
    flag("--initial-advertise-peer-urls", &peer_url);
    flag("--quota-backend-bytes", "8589934592");
    flag("--logger", "zap");
    flag("--log-level", "warn");
    let (members, state) = match entrance {
        Entrance::Founder(all) => (all.clone(), "new"),
        Entrance::Joiner(present) => (present.iter().chain([own]).cloned().collect(), "existing"),
        Entrance::Returning => return arguments,
    };
    let list: Vec<_> = members
        .iter()
        .map(|member| format!("{}=http://{}", member.name, member.peer))
        .collect();
    flag("--initial-cluster", &list.join(","));
    flag("--initial-cluster-state", state);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(name: &str, port: u16) -> Address {
        Address {
            name: name.into(),
            dir: PathBuf::from("/data").join(name),
            client: format!("127.0.0.1:{port}"),
            peer: format!("127.0.0.1:{}", port + 1),
        }
    }

    fn last_two(arguments: &[OsString]) -> Vec<&str> {
        arguments[arguments.len() - 2..]
            .iter()
            .filter_map(|a| a.to_str())
            .collect()
    }

    #[test]
    fn the_first_founder_makes_the_cluster_and_the_others_join_it() {
        let all = vec![address("m1", 10), address("m2", 20)];
        let founder = Entrance::Founder(all.clone());
        assert_eq!(chainfire_arguments(&all[0], &founder).last(), Some(&"--init".into()));
        assert_eq!(
            last_two(&chainfire_arguments(&all[1], &founder)),
            ["--join", "127.0.0.1:10"]
        );
        let returning = chainfire_arguments(&all[0], &Entrance::Returning);
        assert_eq!(last_two(&returning), ["--name", "m1"]);
    }

    #[test]
    fn a_joining_etcd_lists_itself_and_the_present() {
        let joiner = Entrance::Joiner(vec![address("m1", 10)]);
        let arguments = etcd_arguments(&address("m2", 20), &joiner);
        assert!(arguments.contains(&"m1=http://127.0.0.1:11,m2=http://127.0.0.1:21".into()));
        assert_eq!(last_two(&arguments), ["--initial-cluster-state", "existing"]);
    }
}
