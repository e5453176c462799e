//! Folders and processes that go away with their owner, even when it is killed with SIGKILL.
//!
//! A [`LastWill`] is a small process that waits for the end of a pipe from its owner. The end comes when
//! the owner drops it, and just so when the owner dies: there is one way of cleaning up, and every run of
//! every test takes it. Should somebody kill that process too, the next owner sweeps: each folder has a
//! lock file that the owner holds, and a lock that can be had belongs to nobody alive.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::LabError;
use super::process::wait_exit;

/// Set to keep the folders (logs, data) of labs for a look.
pub const KEEP_ENV: &str = "PLASMAVMC_KEEP";

/// Lines `+ PID` and `- PID` say which processes end with the owner. Deaf to Ctrl-C, which reaches the
/// owner and this process alike.
const WILL: &str = r#"
trap '' INT TERM HUP
declare -A living
while read -r change pid; do
    case $change in
        +) living[$pid]=1 ;;
        -) unset "living[$pid]" ;;
    esac
done
if ((${#living[@]})); then kill -9 "${!living[@]}" 2>/dev/null; fi
# Without its lock file, no sweep takes a kept folder.
if [[ -n $3 ]]; then rm -f -- "$2"; exit; fi
for _ in {1..100}; do rm -rf -- "$1" 2>/dev/null && break; sleep 0.1; done
rm -f -- "$2"
"#;

const CLEAN_UP: Duration = Duration::from_secs(30);

/// Ends processes and removes a folder when its owner is gone.
#[derive(Debug)]
pub struct LastWill {
    executor: Mutex<Child>,
}

impl LastWill {
    fn write(folder: &Path, lock: &Path) -> Result<Self, LabError> {
        let keep = if std::env::var_os(KEEP_ENV).is_some() {
            "keep"
        } else {
            ""
        };
        let executor = Command::new("bash")
            .args(["-c", WILL, "plasmavmc-last-will"])
            .args([folder.as_os_str(), lock.as_os_str(), keep.as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|source| LabError::Start {
                program: "bash".into(),
                source,
            })?;
        Ok(Self {
            executor: Mutex::new(executor),
        })
    }

    /// This process shall not outlive the owner.
    pub fn include(&self, pid: u32) {
        self.tell(format_args!("+ {pid}\n"));
    }

    /// Must come before the process is waited for: until then its id cannot be another's.
    pub fn exclude(&self, pid: u32) {
        self.tell(format_args!("- {pid}\n"));
    }

    fn tell(&self, line: std::fmt::Arguments<'_>) {
        if let Some(pipe) = self.executor.lock().stdin.as_mut() {
            // One short write to a pipe is atomic. If the executor is gone, sweeping takes its place.
            let _ = pipe.write_all(line.to_string().as_bytes());
        }
    }
}

impl Drop for LastWill {
    fn drop(&mut self) {
        let mut executor = self.executor.lock();
        drop(executor.stdin.take());
        if wait_exit(&mut executor, CLEAN_UP).is_none() {
            let _ = executor.kill();
            let _ = executor.wait();
        }
    }
}

/// A new folder under the system's temporary folder that is removed when this value or its process ends.
#[derive(Debug)]
pub struct OwnedFolder {
    path: PathBuf,
    // Dropped in this order: the will removes folder and lock file while the lock is still held.
    will: LastWill,
    _lock: File,
}

impl OwnedFolder {
    /// Makes the folder, after removing those whose owners are dead.
    pub fn create(purpose: &str) -> Result<Self, LabError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let base = std::env::temp_dir().join("plasmavmc-labs");
        std::fs::create_dir_all(&base).map_err(LabError::file(&base))?;
        sweep(&base)?;
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("{purpose}-{}-{number}", std::process::id()));
            let lock_path = path.with_extension("lock");
            let Some(lock) = claim(&lock_path)? else { continue };
            std::fs::create_dir(&path).map_err(LabError::file(&path))?;
            return Ok(Self {
                will: LastWill::write(&path, &lock_path)?,
                path,
                _lock: lock,
            });
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What else ends with the owner.
    pub fn will(&self) -> &LastWill {
        &self.will
    }
}

/// Creates a lock file and locks it; `None` when the name is taken, or a sweep was faster.
fn claim(path: &Path) -> Result<Option<File>, LabError> {
    let lock = match File::create_new(path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(LabError::file(path)(error)),
    };
    match lock.try_lock() {
        Ok(()) if path.exists() => Ok(Some(lock)),
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(LabError::file(path)(error)),
    }
}

/// Removes the folders of owners that are dead and had no time for their last will.
fn sweep(base: &Path) -> Result<(), LabError> {
    for entry in std::fs::read_dir(base).map_err(LabError::file(base))?.flatten() {
        let lock_path = entry.path();
        if lock_path.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let Ok(lock) = File::open(&lock_path) else { continue };
        if lock.try_lock().is_ok() {
            // A last will may be at the same work: what is gone already is no error.
            let _ = std::fs::remove_dir_all(lock_path.with_extension(""));
            let _ = std::fs::remove_file(&lock_path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_lives_as_long_as_its_owner() {
        let folder = OwnedFolder::create("folder-test").expect("a folder");
        let path = folder.path().to_owned();
        std::fs::write(path.join("file"), "content").expect("a file");
        // Another owner's sweep leaves it alone.
        sweep(path.parent().expect("the base")).expect("a sweep");
        assert!(path.join("file").exists());
        drop(folder);
        assert!(!path.exists());
        assert!(!path.with_extension("lock").exists());
    }

    #[test]
    fn the_folder_of_a_dead_owner_is_swept() {
        let base = OwnedFolder::create("sweep-test").expect("a folder");
        let orphan = base.path().join("orphan");
        std::fs::create_dir(&orphan).expect("a folder");
        std::fs::write(orphan.with_extension("lock"), "").expect("a lock file");
        sweep(base.path()).expect("a sweep");
        assert!(!orphan.exists());
        assert!(!orphan.with_extension("lock").exists());
    }

    #[test]
    fn processes_in_the_will_end_with_it() {
        let folder = OwnedFolder::create("will-test").expect("a folder");
        let mut heir = Command::new("sleep").arg("60").spawn().expect("sleep");
        let mut spared = Command::new("sleep").arg("60").spawn().expect("sleep");
        folder.will().include(heir.id());
        folder.will().include(spared.id());
        folder.will().exclude(spared.id());
        drop(folder);
        assert!(wait_exit(&mut heir, Duration::from_secs(5)).is_some());
        assert!(spared.try_wait().expect("a status").is_none());
        spared.kill().expect("a kill");
        spared.wait().expect("a status");
    }
}
