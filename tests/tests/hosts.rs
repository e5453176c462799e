//! The lab itself: power cuts, partitions, disks, and that nothing of it outlives its owner.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use plasmavmc_tests::hosts::{DiskPlan, Host, Lab, LabPlan, Program};

const SOON: Duration = Duration::from_secs(10);

fn lab(hosts: usize) -> Lab {
    let disk = DiskPlan::Limited { mib: 4 };
    Lab::build(LabPlan { hosts, disk }).expect("a lab")
}

/// Waits for a condition that nobody announces.
#[expect(clippy::disallowed_methods, reason = "polled, up to a deadline")]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < end, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn shell(script: &str) -> Program {
    Program::new("bash").args(["-c", script])
}

#[test]
fn a_power_cut_ends_every_process_and_spares_the_disk() {
    let lab = lab(1);
    let host = &lab[0];
    let file = host.disk().join("written");
    let script = format!(
        "echo data >{}; setsid sleep 999 & setsid sleep 999 & wait",
        file.display()
    );
    let process = host.spawn(&shell(&script)).expect("a process");
    until("bash, two sleeps and PID 1 run", || host.processes().len() == 4);
    let before = host.processes();

    host.power_cut().expect("a power cut");

    assert!(!host.has_power());
    assert!(process.exit().is_some());
    for pid in before {
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "process {pid} survived the power cut"
        );
    }
    assert!(host.spawn(&shell("true")).is_err(), "a program started without power");

    host.power_on().expect("power");
    assert_eq!(host.processes().len(), 1, "a fresh host runs its PID 1 only");
    let seen = host.disk_from_outside().join("written");
    assert_eq!(std::fs::read_to_string(seen).expect("the file"), "data\n");
}

#[test]
fn orphans_are_reaped() {
    let lab = lab(1);
    let host = &lab[0];
    host.spawn(&Program::new("setsid").args(["--fork", "sleep", "0.1"]))
        .expect("a process");
    until("only PID 1 is left", || host.processes().len() == 1);
}

#[test]
fn a_paused_process_stays_and_a_killed_one_goes() {
    let lab = lab(1);
    let ticks = lab[0].disk_from_outside().join("ticks");
    let script = format!(
        "while true; do echo >>{}; read -rt 0.01 <> <(:); done",
        lab[0].disk().join("ticks").display()
    );
    let process = lab[0].spawn(&shell(&script)).expect("a process");
    let size = || std::fs::metadata(&ticks).map_or(0, |file| file.len());
    until("it ticks", || size() > 0);

    process.pause();
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap_or_default();
        stat.rsplit(") ").next().and_then(|rest| rest.chars().next())
    };
    until("it is stopped", || state() == Some('T'));
    let stopped_at = size();
    assert!(process.exit().is_none());

    process.resume();
    until("it goes on", || size() > stopped_at);

    process.kill();
    assert!(process.exit().is_some());
}

/// A socket on every host, and whether a packet from one arrives at another.
struct Probes<'a> {
    hosts: &'a [Host],
    sockets: Vec<UdpSocket>,
    round: u64,
}

impl<'a> Probes<'a> {
    fn on(lab: &'a Lab, address: fn(&Host) -> IpAddr) -> Self {
        let open = |host: &Host| {
            let socket = host
                .on_network(|| UdpSocket::bind((address(host), 0)))
                .expect("the network");
            let socket = socket.expect("a socket");
            socket
                .set_read_timeout(Some(Duration::from_millis(300)))
                .expect("a timeout");
            socket
        };
        Self {
            hosts: lab.hosts(),
            sockets: lab.hosts().iter().map(open).collect(),
            round: 0,
        }
    }

    fn arrives(&mut self, from: usize, to: usize) -> bool {
        self.round += 1;
        let target: SocketAddr = self.sockets[to].local_addr().expect("an address");
        self.sockets[from]
            .send_to(&self.round.to_be_bytes(), target)
            .expect("sending is not refused");
        let mut bytes = [0; 8];
        loop {
            match self.sockets[to].recv_from(&mut bytes) {
                Ok(_) if bytes == self.round.to_be_bytes() => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// All ordered pairs between which nothing arrives.
    fn dead_links(&mut self) -> Vec<(usize, usize)> {
        let all = 0..self.hosts.len();
        let pairs: Vec<_> = all
            .clone()
            .flat_map(|from| all.clone().map(move |to| (from, to)))
            .collect();
        pairs
            .into_iter()
            .filter(|(from, to)| from != to && !self.arrives(*from, *to))
            .collect()
    }
}

#[test]
fn partitions_cut_both_ways_one_way_and_heal() {
    let lab = lab(3);
    for address in [
        |host: &Host| host.ipv4().into(),
        |host: &Host| IpAddr::from(host.ipv6()),
    ] {
        let mut probes = Probes::on(&lab, address);
        assert_eq!(probes.dead_links(), []);
        lab.partition(&[&[0], &[1, 2]]).expect("a partition");
        assert_eq!(probes.dead_links(), [(0, 1), (0, 2), (1, 0), (2, 0)]);
        lab.partition(&[&[0, 1], &[1, 2]]).expect("a bridge");
        assert_eq!(probes.dead_links(), [(0, 2), (2, 0)]);
        lab.heal().expect("healing");
        lab.cut_one_way(1, 2).expect("a cut");
        assert_eq!(probes.dead_links(), [(1, 2)]);
        lab.heal().expect("healing");
        assert_eq!(probes.dead_links(), []);
    }
}

#[test]
fn the_tests_clients_reach_hosts_even_when_hosts_do_not_reach_each_other() {
    let lab = lab(2);
    let address = SocketAddr::from((lab[1].ipv4(), 7000));
    let listener = lab[1]
        .on_network(|| TcpListener::bind(address))
        .expect("the network")
        .expect("a listener");
    let echo = move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.write_all(b"hello").expect("a write");
    };
    let echo = std::thread::Builder::new().spawn(echo).expect("a thread");
    lab.partition(&[&[0], &[1]]).expect("a partition");
    let said = lab.run(async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let mut said = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut said).await?;
        Ok::<_, std::io::Error>(said)
    });
    assert_eq!(said.expect("an answer"), "hello");
    echo.join().expect("the host answered");
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let lab = lab(1);
    let host = &lab[0];
    let write = shell(&format!(
        "head -c 100000 /dev/zero >>{}",
        host.disk().join("file").display()
    ));
    let succeeds = |program| {
        let status = host.spawn(program).expect("a process").wait(SOON);
        status.expect("it ends").success()
    };
    assert!(succeeds(&write));
    host.fill_disk().expect("filling");
    assert!(!succeeds(&write), "a write to a full disk succeeded");
    host.free_disk().expect("freeing");
    assert!(succeeds(&write));
}

#[test]
fn nothing_outlives_an_owner_that_is_killed() {
    let mut owner = Command::new(env!("CARGO_BIN_EXE_plasmavmc-torture"))
        .args(["lab", "--hosts", "2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("an owner");
    let mut line = String::new();
    let mut stdout = BufReader::new(owner.stdout.take().expect("its output"));
    stdout.read_line(&mut line).expect("a line");
    let said: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let folder = PathBuf::from(said["folder"].as_str().expect("a folder"));
    let processes: Vec<u64> = said["processes"]
        .as_array()
        .expect("ids")
        .iter()
        .filter_map(|pid| pid.as_u64())
        .collect();
    assert!(folder.is_dir());
    assert!(
        processes.len() >= 4,
        "each host runs PID 1 and a sleeper: {processes:?}"
    );

    owner.kill().expect("SIGKILL");
    owner.wait().expect("its end");

    for pid in processes {
        until("the processes of the hosts end", || {
            !Path::new(&format!("/proc/{pid}")).exists()
        });
    }
    until("the folder is removed", || !folder.exists());
    // Every process that still had the output open is gone, too.
    stdout.read_to_end(&mut Vec::new()).expect("the end of the output");
}
