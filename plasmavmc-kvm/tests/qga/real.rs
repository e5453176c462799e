//! qemu-ga in the micro guest, booted under TCG.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use plasmavmc_kvm::channel::{Channel, ChannelOptions, Console};
use plasmavmc_kvm::qga::{Agent, AgentOptions, Exec, ExecEnd, FreezeState, QgaError, ShutdownMode};
use rustix::process::Signal;

use crate::qemu::Qemu;

/// Booting under TCG on a busy machine.
const BOOT: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(20);

/// The folder with the guest's kernel and initrd.
fn micro() -> PathBuf {
    let guests = match std::env::var_os("PLASMAVMC_GUESTS") {
        Some(given) => PathBuf::from(given),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/guests"),
    };
    let folder = guests.join("micro");
    assert!(
        folder.join("kernel").exists() && folder.join("initrd").exists(),
        "no test guest in {folder:?}: build it with `cargo xtask guest-image micro`, or name the folder that holds \
         micro/ in PLASMAVMC_GUESTS"
    );
    folder
}

struct Guest {
    qemu: Qemu,
    agent: Agent,
    console: Console,
}

impl Guest {
    async fn boot() -> Self {
        let folder = tempfile::Builder::new().prefix("kvm-test-").tempdir().unwrap();
        let listen = |name: &str| Channel::listen(&folder.path().join(name), ChannelOptions::default()).unwrap();
        let options = AgentOptions {
            sync_within: Duration::from_secs(1),
        };
        let agent = Agent::attach(listen("qga.sock"), "micro", options);
        let console = Console::attach(listen("console.sock"), 256 * 1024);
        let (kernel, initrd) = (micro().join("kernel"), micro().join("initrd"));
        let mut args = vec!["-m", "256", "-no-shutdown", "-append", "console=ttyS0 quiet panic=-1"];
        args.extend(["-kernel", kernel.to_str().unwrap(), "-initrd", initrd.to_str().unwrap()]);
        args.extend([
            "-chardev",
            "socket,id=console,path=console.sock,reconnect=1",
            "-serial",
            "chardev:console",
        ]);
        args.extend([
            "-device",
            "virtio-serial-pci",
            "-chardev",
            "socket,id=qga,path=qga.sock,reconnect=1",
        ]);
        args.extend(["-device", "virtserialport,chardev=qga,name=org.qemu.guest_agent.0"]);
        let qemu = Qemu::start_in(folder, &args);
        Self { qemu, agent, console }
    }

    /// Asks until the agent answers, as whoever waits for a guest does.
    async fn ready(&self) {
        let start = Instant::now();
        loop {
            match self.agent.health(SOON).await {
                Ok(_) => return,
                Err(error) => assert!(
                    start.elapsed() < BOOT,
                    "{error}; the console said: {}",
                    String::from_utf8_lossy(&self.console.scrollback())
                ),
            }
            // QEMU's connection is not there yet: it fails without waiting.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn close(self) {
        self.agent.close().await;
        self.console.close().await;
        drop(self.qemu);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_agent_does_all_that_is_asked_of_it() {
    let guest = Guest::boot().await;
    guest.ready().await;
    let agent = &guest.agent;
    let info = agent.info(SOON).await.unwrap();
    assert!(
        info.supported_commands
            .iter()
            .any(|command| command.name == "guest-exec"),
        "{info:?}"
    );
    agent.os_info(SOON).await.unwrap();
    let interfaces = agent.network_interfaces(SOON).await.unwrap();
    assert!(
        interfaces.iter().any(|interface| interface.name == "lo"),
        "{interfaces:?}"
    );

    let echo = Exec::new("/bin/sh").args(["-c", "cat; echo trouble >&2; exit 3"]);
    let echo = Exec {
        input: b"through the guest".to_vec(),
        ..echo
    };
    let outcome = agent.exec(&echo, SOON).await.unwrap();
    assert_eq!(outcome.end, ExecEnd::Exited(3));
    assert_eq!(outcome.stdout.bytes, b"through the guest");
    assert_eq!(outcome.stderr.bytes, b"trouble\n");
    let many = Exec::new("/bin/sh").args(["-c", "head -c 300000 /dev/zero"]);
    let outcome = agent
        .exec(
            &Exec {
                output_limit_bytes: 1000,
                ..many
            },
            SOON,
        )
        .await
        .unwrap();
    assert_eq!((outcome.stdout.bytes.len(), outcome.stdout.truncated), (1000, true));
    let sleep = Exec::new("/bin/sleep").args(["30"]);
    let error = agent.exec(&sleep, Duration::from_secs(1)).await.unwrap_err();
    assert!(
        matches!(error, QgaError::StillRunning { .. } | QgaError::NoAnswer { .. }),
        "{error}"
    );
    let error = agent.exec(&Exec::new("/no/such/program"), SOON).await.unwrap_err();
    assert!(matches!(error, QgaError::Refused { .. }), "{error}");

    assert_files_round_trip(agent).await;

    agent
        .set_time(Some(Duration::from_secs(2_000_000_000)), SOON)
        .await
        .unwrap();
    let date = agent.exec(&Exec::new("/bin/date").args(["+%s"]), SOON).await.unwrap();
    let seconds: u64 = String::from_utf8(date.stdout.bytes).unwrap().trim().parse().unwrap();
    assert!((2_000_000_000..2_000_001_000).contains(&seconds), "{seconds}");
    assert_eq!(agent.freeze_state(SOON).await.unwrap(), FreezeState::Thawed);
    guest.close().await;
}

async fn assert_files_round_trip(agent: &Agent) {
    let bytes: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
    agent.write_file("/tmp/file", &bytes, SOON).await.unwrap();
    let content = agent.read_file("/tmp/file", bytes.len(), SOON).await.unwrap();
    assert!(content.bytes == bytes && !content.truncated);
    let content = agent.read_file("/tmp/file", 100_000, SOON).await.unwrap();
    assert!(content.bytes == bytes[..100_000] && content.truncated);
    let error = agent.read_file("/no/such/file", 10, SOON).await.unwrap_err();
    assert!(matches!(error, QgaError::Refused { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_found_again_after_its_guest_stood_still_and_is_told_to_power_off() {
    let guest = Guest::boot().await;
    let mut connection = guest.qemu.connect().await;
    guest.ready().await;
    guest.qemu.stop().await;
    let error = guest.agent.health(SOON).await.unwrap_err();
    assert!(matches!(error, QgaError::NotAnswering { .. }), "{error}");
    guest.qemu.signal(Signal::CONT);
    guest.ready().await;

    guest
        .agent
        .shutdown(ShutdownMode::PowerDown, Duration::from_secs(5))
        .await
        .unwrap();
    let mut seen = Vec::new();
    while seen.last().is_none_or(|name| name != "SHUTDOWN") {
        let event = tokio::time::timeout(BOOT, connection.events.next())
            .await
            .expect("it powers off");
        seen.push(event.unwrap().name);
    }
    guest.close().await;
}
