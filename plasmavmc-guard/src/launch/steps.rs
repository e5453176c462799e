//! What a launcher sets up, one function a step.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use rustix::thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::OriginalLimits;
use crate::cgroup;
use crate::records::CgroupMark;
use crate::wire::{Cgroup, DeathSignal, Output, Owner, SpawnOrder};

/// From linux/magic.h; what statfs says of a cgroup v2 folder.
const CGROUP2_MAGIC: rustix::fs::FsWord = 0x6367_7270;

pub fn open_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// The guard raised its own limits; what it runs gets the original ones, or what the order says.
pub fn set_limits(order: &SpawnOrder, original: OriginalLimits) -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    setrlimit(Resource::Memlock, original.locked_memory.into())?;
    let mut open_files: Rlimit = original.open_files.into();
    if let Some(wanted) = order.open_files {
        open_files.current = Some(wanted);
        open_files.maximum = open_files.maximum.map(|maximum| maximum.max(wanted));
    }
    setrlimit(Resource::Nofile, open_files)?;
    Ok(())
}

/// Lowering takes a privilege that not every guard has; a note says so.
pub fn set_oom_score(wanted: i16, notes: &mut Vec<String>) {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", wanted.to_string()) {
        notes.push(format!("its out-of-memory score is not {wanted}: {error}"));
    }
}

/// Joining is a must: whoever asks for confinement does not want to run without. The numbers are not: a
/// controller that is not delegated is common, and a note says so.
pub fn join_cgroup(wanted: &Cgroup, notes: &mut Vec<String>) -> io::Result<CgroupMark> {
    let folder = Path::new(&wanted.folder);
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if rustix::fs::statfs(folder)?.f_type != CGROUP2_MAGIC {
        let problem = format!("{} is no folder of a cgroup v2 hierarchy", folder.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    let limits = [
        ("cpu.weight", wanted.cpu_weight.map(u64::from)),
        ("memory.max", wanted.memory_max),
    ];
    for (file, value) in limits {
        let Some(value) = value else { continue };
        // Not created: in a folder that is no cgroup the file must not appear.
        let written = OpenOptions::new().write(true).open(folder.join(file));
        let written = written.and_then(|mut file| io::Write::write_all(&mut file, value.to_string().as_bytes()));
        if let Err(error) = written {
            notes.push(format!("{file} of its cgroup is not {value}: {error}"));
        }
    }
    let mut processes = OpenOptions::new().write(true).open(folder.join("cgroup.procs"))?;
    let mark = cgroup::mark(&wanted.folder);
    io::Write::write_all(&mut processes, b"0")?;
    Ok(mark)
}

pub fn open_output(order: &SpawnOrder, passed: &mut impl Iterator<Item = OwnedFd>) -> io::Result<OwnedFd> {
    match &order.output {
        Output::Discard => Ok(OpenOptions::new().write(true).open("/dev/null")?.into()),
        Output::File(path) => open_log(Path::new(path)),
        Output::Passed => passed
            .next()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no descriptor came for the output")),
    }
}

/// The folder may belong to the unprivileged user of a QEMU: nothing it can put there may lead elsewhere.
fn open_log(path: &Path) -> io::Result<OwnedFd> {
    // Without NONBLOCK a pipe put there would hold us.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() || found.nlink() != 1 {
        let problem = format!("{}: not a regular file with one name", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file.into())
}

pub fn redirect(output: &OwnedFd) -> io::Result<()> {
    let nothing = OpenOptions::new().read(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(output)?;
    rustix::stdio::dup2_stderr(output)?;
    Ok(())
}

/// Per thread is per process here: a launcher has one thread.
pub fn become_owner(owner: Option<&Owner>) -> io::Result<()> {
    use rustix::process::{Gid, Uid};
    if let Some(owner) = owner {
        let groups: Vec<Gid> = owner.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
    }
    // Whatever it executes: no setuid bit ever gives back what was given up.
    set_no_new_privs(true)?;
    Ok(())
}

pub fn set_death_signal(signal: Option<DeathSignal>, guard_pid: i32) -> io::Result<()> {
    let Some(signal) = signal else { return Ok(()) };
    let signal = match signal {
        DeathSignal::Stop => Signal::STOP,
        DeathSignal::Kill => Signal::KILL,
    };
    rustix::process::set_parent_process_death_signal(Some(signal))?;
    // The guard may have died before the line above; then no signal comes any more.
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if parent == Some(guard_pid) {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::NotConnected, "the guard is gone"))
    }
}
