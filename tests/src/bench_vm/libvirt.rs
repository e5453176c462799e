//! The peer: a libvirt daemon of the run's own, in a mount namespace, so that nothing of the host's is touched.

use std::io::BufRead;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{MEMORY_MB, millis};

const READY: Duration = Duration::from_secs(30);

/// Its folders are laid over the host's. Debian's daemon wants its users to exist, whomever it is told to use.
const SCRIPT: &str = r#"
set -e
cd "$1"
mkdir -p lv/etc lv/lib lv/log lv/cache
mkdir -p /etc/libvirt /run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt
mount --bind lv/etc /etc/libvirt
mount -t tmpfs tmpfs /run/libvirt
for name in lib log cache; do mount --bind "lv/$name" "/var/$name/libvirt"; done
cat >/etc/libvirt/qemu.conf <<CONF
user = "root"
group = "root"
security_driver = "none"
stdio_handler = "file"
cgroup_controllers = [ ]
namespaces = [ ]
remember_owner = 0
CONF
printf 'listen_tls = 0\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n' >/etc/libvirt/libvirtd.conf
(cat /etc/passwd; echo 'libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin') >lv/passwd
(cat /etc/group; echo 'libvirt-qemu:x:64055:'; grep -q '^kvm:' /etc/group || echo 'kvm:x:64056:') >lv/group
mount --bind lv/passwd /etc/passwd
mount --bind lv/group /etc/group
echo ready
exec /usr/sbin/libvirtd --timeout 0 --pid-file "$1/lv/pid" >lv/log/daemon 2>&1
"#;

/// A running libvirt. It ends when dropped.
#[derive(Debug)]
pub struct Libvirt {
    daemon: Child,
    domain: String,
}

impl Libvirt {
    pub async fn start(folder: &Path, image: &Path) -> Result<Self> {
        let mut daemon = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--", "sh", "-c", SCRIPT, "sh"])
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting libvirt: `cargo xtask setup --bench` installs it")?;
        let stdout = daemon.stdout.take().context("its output")?;
        let domain = folder.join("domain.xml");
        std::fs::write(&domain, description(image))?;
        let peer = Self {
            daemon,
            domain: domain.to_string_lossy().into_owned(),
        };
        let mut line = String::new();
        std::io::BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line == "ready\n", "libvirt's namespace was not made");
        let deadline = Instant::now() + READY;
        while peer.virsh(&["version"]).is_err() {
            let log = || std::fs::read_to_string(folder.join("lv/log/daemon")).unwrap_or_default();
            ensure!(Instant::now() < deadline, "libvirt does not answer: {}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(peer)
    }

    fn virsh(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new("nsenter")
            .args(["--mount", "--target", &self.daemon.id().to_string(), "--", "virsh"])
            .args(["--quiet", "--connect", "qemu:///system"])
            .args(arguments)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "virsh {arguments:?}: {said}");
        Ok(())
    }

    pub async fn round(&self) -> Result<(f64, f64)> {
        self.round_of(&["create", "--paused", &self.domain])
    }

    /// The same, with a guest that executes.
    pub async fn running_round(&self) -> Result<(f64, f64)> {
        self.round_of(&["create", &self.domain])
    }

    fn round_of(&self, create: &[&str]) -> Result<(f64, f64)> {
        let begun = Instant::now();
        self.virsh(create)?;
        let start = millis(begun.elapsed());
        let begun = Instant::now();
        self.virsh(&["destroy", "bench"])?;
        Ok((start, millis(begun.elapsed())))
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        // What it may still run is in the folder of the place, which ends it.
        let _ = self.virsh(&["destroy", "bench"]);
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// The devices that our VM has.
fn description(image: &Path) -> String {
    format!(
        "<domain type='qemu'><name>bench</name><memory unit='MiB'>{MEMORY_MB}</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features><devices>\
         <disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/><source file='{}'/>\
         <target dev='vda' bus='virtio'/></disk><controller type='usb' model='none'/>\
         <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\
         <channel type='unix'><target type='virtio' name='org.plasmavmc.agent.0'/></channel>\
         <serial type='pty'/><rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\
         <memballoon model='virtio'/><panic model='isa'/>\
         <graphics type='vnc' socket='{}'/><video><model type='vga'/></video></devices></domain>",
        image.display(),
        image.with_extension("vnc").display(),
    )
}
