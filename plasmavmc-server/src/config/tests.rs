//! What people write, and what they are told.

use clap::Parser;

use super::*;

struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new(file: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("server.toml"), file).unwrap();
        Self { folder }
    }

    fn load(&self, flags: &[&str]) -> Result<Config, ConfigErrors> {
        let dir = self.folder.path().to_str().unwrap();
        let line = ["plasmavmc-server", "--dir", dir]
            .into_iter()
            .chain(flags.iter().copied());
        Config::load(&Flags::try_parse_from(line).unwrap())
    }
}

/// Loads a file with flags and looks for each of these texts in what is said about it.
fn check(file: &str, flags: &[&str], expected: &[&str]) {
    let errors = Site::new(file).load(flags).unwrap_err();
    let text = errors.to_string();
    for part in expected {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    assert_eq!(errors.0.len(), expected.len(), "{text}");
}

#[test]
fn one_folder_holds_everything_by_default() {
    let site = Site::new("");
    let config = site.load(&[]).unwrap();
    let dir = site.folder.path();
    assert_eq!(config.listen, "127.0.0.1:50051");
    assert_eq!(config.cluster_advertise.as_str(), "127.0.0.1:50052");
    assert_eq!(config.folders.chainfire, dir.join("chainfire"));
    assert_eq!(config.folders.vms, dir.join("run/vms"));
    assert_eq!(config.folders.guard, dir.join("guard"));
    assert_eq!(config.pools.len(), 1);
    assert_eq!(config.pools[0].path, dir.join("pools/default"));
    assert_eq!(config.beginning, Beginning::Wait);
    assert_eq!(config.transport_security, TransportSecurity::LoopbackOnly);
}

#[test]
fn a_witness_joins_and_never_founds() {
    let join = ["--join", "127.0.0.1:50051", "--token", "t"];
    assert!(!Site::new("").load(&join).unwrap().witness);
    assert!(
        Site::new("")
            .load(&[&join[..], &["--witness"]].concat())
            .unwrap()
            .witness
    );
    let file = "[server]\nwitness = true\n";
    assert!(Site::new(file).load(&join).unwrap().witness);
    check(file, &["--init"], &["a witness cannot found a cluster"]);
    let both = Flags::try_parse_from(["plasmavmc-server", "--init", "--witness"]).unwrap_err();
    assert!(both.to_string().contains("cannot be used with"), "{both}");
}

#[test]
fn flags_count_more_than_the_file() {
    let site = Site::new("[server]\nlisten = \"127.0.0.1:1000\"\nname = \"filed\"\n[vms]\naccel = \"tcg\"\n");
    let config = site.load(&["--listen", "127.0.0.1:2000", "--init"]).unwrap();
    assert_eq!(config.listen, "127.0.0.1:2000");
    assert_eq!(config.advertise.unwrap().as_str(), "127.0.0.1:2000");
    assert_eq!(config.name.unwrap().as_str(), "filed");
    assert_eq!(config.vms.accel, plasmavmc_kvm::accel::Wanted::Tcg);
    assert_eq!(config.beginning, Beginning::Init);
}

#[test]
fn pools_and_networks_are_read() {
    let file = "[[pool]]\nname = \"a\"\npath = \"disks\"\n[[pool]]\nname = \"b\"\nkind = \"shared\"\npath = \"/mnt/b\"\n\
                [[network]]\nname = \"lan\"\nbridge = \"br0\"\n";
    let site = Site::new(file);
    let config = site.load(&[]).unwrap();
    let kinds: Vec<_> = config.pools.iter().map(|pool| pool.kind).collect();
    assert_eq!(kinds, [PoolKind::Dir, PoolKind::Shared]);
    assert_eq!(config.pools[0].path, site.folder.path().join("disks"));
    assert_eq!(config.networks[0].bridge.as_str(), "br0");
}

#[test]
fn every_mistake_is_told_with_its_line() {
    check(
        "[server]\nlisten = 7\nlissten = \"x\"\n\n[vms]\nreserve_memory_mb = -1\n[vmss]\n[[pool]]\nname = \"A\"\n",
        &[],
        &[
            "server.toml:2: listen: ",
            "server.toml:3: [server] has no lissten; it has listen, cluster_listen",
            "server.toml:6: reserve_memory_mb: ",
            "server.toml:7: there is no section vmss; there are server, vms, log, pool, network",
            "server.toml:9: name: invalid pool name",
            "server.toml:8: a pool needs a name and a path",
        ],
    );
    check("listen = ", &[], &["server.toml:1: ", "no section listen"]);
    check("pool = 3", &[], &["server.toml:1: pool may be there more than once"]);
    check("[vms]\nvcpus_per_cpu = 0", &[], &["server.toml:2: vcpus_per_cpu is 0"]);
}

#[test]
fn what_does_not_go_together_is_refused() {
    let insecure = "--insecure-i-accept-that-anyone-on-this-network-controls-my-vms";
    check(
        "",
        &["--listen", "0.0.0.0:1", "--cluster-listen", "10.0.0.1:2"],
        &[
            "--listen: 0.0.0.0:1 can be reached",
            "--cluster-listen: 10.0.0.1:2 can be",
            "say with --advertise",
        ],
    );
    check("", &["--listen", "0.0.0.0:1", insecure], &["say with --advertise"]);
    check("", &["--cluster-listen", "127.0.0.1:0"], &["port 0 would be another"]);
    check(
        "",
        &["--listen", "nonsense"],
        &["has no port", "nonsense can be reached"],
    );
    check("", &["--accel", "xen"], &["--accel: \"xen\" is none of"]);
    check("", &["--name", "Ä"], &["--name: invalid host name"]);
    check("", &["--log", "a=b=c"], &["--log: "]);
    check("", &["--run-as", "no-such-user"], &["--run-as: there is no user"]);
    check("", &["--join", "x", "--token", "t"], &["--join: invalid address"]);
    let config = Site::new("")
        .load(&["--listen", "0.0.0.0:1", "--advertise", "10.0.0.1:1", insecure])
        .unwrap();
    assert_eq!(config.transport_security, TransportSecurity::NoneByConsent);
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let flags = Flags::try_parse_from(["plasmavmc-server", "--config", "/nowhere/x.toml"]).unwrap();
    assert!(
        Config::load(&flags)
            .unwrap_err()
            .to_string()
            .contains("/nowhere/x.toml")
    );
}

#[test]
fn joining_needs_a_token() {
    assert!(Flags::try_parse_from(["plasmavmc-server", "--join", "a:1"]).is_err());
    let config = Site::new("").load(&["--join", "a:1,b:2", "--token", "t"]).unwrap();
    let Beginning::Join { via, token } = config.beginning else {
        panic!("no join");
    };
    assert_eq!((via.len(), token.as_str()), (2, "t"));
}
