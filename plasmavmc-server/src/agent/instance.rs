//! Which life of this host this is.
//!
//! The file holds a nonce, headed by the id of the boot it was drawn in. Read in another boot it is history:
//! a new nonce is drawn, and the old lives are kept behind it, each with the machine it was lived on. So a host
//! that was rebooted can show that an old session was its own, which [`super::session`] asks for.
//!
//! Must never happen: two boots, or two machines, with one nonce.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use plasmavmc_types::{BootId, InstanceNonce};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

const MAX_PAST: usize = 32;
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// A group address bit pattern that some boards carry instead of an id of their own.
const BOGUS_PRODUCT_IDS: [&str; 3] = [
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "03000200-0400-0500-0006-000700080009",
];

#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    #[error("cannot {what} {}", path.display())]
    Io {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} does not name this boot", path.display())]
    NoBootId { path: PathBuf },
}

/// One life of a host, from boot to boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Life {
    pub boot_id: BootId,
    pub nonce: InstanceNonce,
    /// What tells this machine from another one with a copy of its disk; absent where nothing does.
    pub machine: Option<String>,
}

/// This life, and those before it, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    pub life: Life,
    #[serde(default)]
    pub past: Vec<Life>,
}

impl Instance {
    /// Whether the session of this nonce was opened by an earlier boot of this very machine, so that all it
    /// ran ended with that boot.
    pub fn outlived(&self, nonce: InstanceNonce, boot_id: BootId) -> bool {
        let is_it = |life: &&Life| life.nonce == nonce && life.boot_id == boot_id && boot_id != self.life.boot_id;
        let earlier = self.past.iter().find(is_it);
        earlier.is_some_and(|life| life.machine.is_some() && life.machine == self.life.machine)
    }

    /// The instance in the file, or a new one if it is of another boot, or there is none.
    pub fn load(file: &Path, boot_id: BootId, machine: Option<String>) -> Result<Self, InstanceError> {
        let stored = match std::fs::metadata(file).map(|metadata| metadata.len()) {
            Ok(bytes) if bytes <= MAX_FILE_BYTES => std::fs::read(file).map_err(io_error("read", file))?,
            Ok(_) => Vec::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io_error("read", file)(error)),
        };
        let stored = serde_json::from_slice::<Self>(&stored).ok();
        if let Some(same) = stored.as_ref().filter(|stored| stored.life.boot_id == boot_id) {
            return Ok(same.clone());
        }
        let mut past = Vec::new();
        if let Some(stored) = stored {
            past = stored.past;
            past.push(stored.life);
            past.drain(..past.len().saturating_sub(MAX_PAST));
        }
        let nonce = InstanceNonce::from_uuid(Uuid::new_v4());
        let life = Life {
            boot_id,
            nonce,
            machine,
        };
        let drawn = Self { life, past };
        drawn.store(file)?;
        Ok(drawn)
    }

    /// On the disk as a whole before anybody hears of the nonce: else a crash would draw another one.
    fn store(&self, file: &Path) -> Result<(), InstanceError> {
        let failed = |source| io_error("write", file)(source);
        let folder = file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(failed)?;
        let new = file.with_extension("new");
        let write = || -> io::Result<()> {
            let mut open = std::fs::File::create(&new)?;
            open.write_all(&serde_json::to_vec_pretty(self)?)?;
            open.sync_all()?;
            std::fs::rename(&new, file)?;
            std::fs::File::open(folder)?.sync_all()
        };
        write().map_err(failed)
    }
}

/// The boot this process runs in.
pub fn boot_id() -> Result<BootId, InstanceError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(path).map_err(io_error("read", path))?;
    let missing = || InstanceError::NoBootId { path: path.to_owned() };
    text.trim().parse().map_err(|_| missing())
}

/// What tells this machine from a copy of it: what is soldered to it, never what lies on its disk.
pub fn machine() -> Option<String> {
    machine_at(Path::new("/sys"))
}

fn machine_at(sys: &Path) -> Option<String> {
    let mut marks: Vec<String> = Vec::new();
    let product = std::fs::read_to_string(sys.join("class/dmi/id/product_uuid")).unwrap_or_default();
    let product = product.trim().to_ascii_lowercase();
    if !product.is_empty() && !BOGUS_PRODUCT_IDS.contains(&product.as_str()) {
        marks.push(product);
    }
    let interfaces = std::fs::read_dir(sys.join("class/net")).into_iter().flatten().flatten();
    let real = interfaces.filter(|interface| interface.path().join("device").exists());
    let addresses = real.filter_map(|interface| std::fs::read_to_string(interface.path().join("address")).ok());
    let mut addresses: Vec<String> = addresses.map(|address| address.trim().to_owned()).collect();
    addresses.sort_unstable();
    marks.extend(addresses);
    if marks.is_empty() {
        return None;
    }
    let hash = Sha256::digest(marks.join("\n"));
    Some(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstanceError {
    let path = path.to_owned();
    move |source| InstanceError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(number: u128) -> BootId {
        BootId::from_uuid(Uuid::from_u128(number))
    }

    fn here() -> Option<String> {
        Some("this machine".to_owned())
    }

    #[test]
    fn a_restarted_server_is_the_same_instance_and_a_rebooted_host_another() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/instance");
        let first = Instance::load(&file, boot(1), here()).unwrap();
        assert_eq!(Instance::load(&file, boot(1), here()).unwrap(), first);
        let second = Instance::load(&file, boot(2), here()).unwrap();
        assert_ne!(second.life.nonce, first.life.nonce);
        assert!(second.outlived(first.life.nonce, boot(1)));
        assert!(!second.outlived(second.life.nonce, boot(2)), "that is this life");
        assert!(!second.outlived(first.life.nonce, boot(9)));
        let third = Instance::load(&file, boot(3), here()).unwrap();
        assert!(third.outlived(first.life.nonce, boot(1)) && third.outlived(second.life.nonce, boot(2)));
    }

    #[test]
    fn a_copy_of_the_disk_in_another_machine_has_outlived_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("instance");
        let first = Instance::load(&file, boot(1), here()).unwrap();
        let copy = Instance::load(&file, boot(2), Some("another".to_owned())).unwrap();
        assert!(!copy.outlived(first.life.nonce, boot(1)));
        std::fs::remove_file(&file).unwrap();
        let nameless = Instance::load(&file, boot(1), None).unwrap();
        let reborn = Instance::load(&file, boot(2), None).unwrap();
        assert!(!reborn.outlived(nameless.life.nonce, boot(1)));
    }

    #[test]
    fn a_spoilt_file_is_a_new_life_without_a_past() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("instance");
        std::fs::write(&file, b"{\"life\":").unwrap();
        assert!(Instance::load(&file, boot(1), here()).unwrap().past.is_empty());
    }

    #[test]
    fn a_machine_is_known_by_its_board_and_real_cards_only() {
        let sys = tempfile::tempdir().unwrap();
        let at = |path: &str| sys.path().join(path);
        assert_eq!(machine_at(sys.path()), None);
        std::fs::create_dir_all(at("class/net/eth0/device")).unwrap();
        std::fs::create_dir_all(at("class/net/veth0")).unwrap();
        std::fs::write(at("class/net/veth0/address"), "52:54:00:00:00:02\n").unwrap();
        assert_eq!(machine_at(sys.path()), machine_at(sys.path()));
        std::fs::write(at("class/net/eth0/address"), "52:54:00:00:00:01\n").unwrap();
        let by_card = machine_at(sys.path()).unwrap();
        std::fs::write(at("class/net/veth0/address"), "52:54:00:00:00:03\n").unwrap();
        assert_eq!(machine_at(sys.path()), Some(by_card.clone()));
        std::fs::create_dir_all(at("class/dmi/id")).unwrap();
        std::fs::write(at("class/dmi/id/product_uuid"), BOGUS_PRODUCT_IDS[2]).unwrap();
        assert_eq!(machine_at(sys.path()), Some(by_card.clone()));
        std::fs::write(
            at("class/dmi/id/product_uuid"),
            "4C4C4544-0042-3510-8052-B4C04F4D3732\n",
        )
        .unwrap();
        assert_ne!(machine_at(sys.path()), Some(by_card));
    }
}
