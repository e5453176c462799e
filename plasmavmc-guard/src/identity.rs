//! Whether a process is the one that a record is about.
//!
//! A pid alone says nothing: it is given again. Pid and start time name one process of one boot; the VM's id
//! on its command line says that it is the process of that VM and not one that a damaged record points to.

use std::fs;
use std::io;

use plasmavmc_types::VmId;

/// The start time of a process in clock ticks since boot: field 22 of its stat file. An exec keeps it.
pub fn start_ticks(pid: i32) -> io::Result<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat"))?;
    parse_start_ticks(&stat).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("/proc/{pid}/stat is not understood"),
        )
    })
}

/// What a command line says about a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandLine {
    NamesVm,
    Other,
    /// That of a process that has ended and is not reaped, or is just executing another program.
    Empty,
}

/// Whether the VM's id stands on the command line of a process.
pub fn command_line(pid: i32, vm: VmId) -> io::Result<CommandLine> {
    let found = fs::read(format!("/proc/{pid}/cmdline"))?;
    let id = vm.to_string();
    Ok(match found.windows(id.len()).any(|window| window == id.as_bytes()) {
        true => CommandLine::NamesVm,
        false if found.is_empty() => CommandLine::Empty,
        false => CommandLine::Other,
    })
}

/// The id of this boot: pids and start times of another one mean nothing.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The second field is the program's name in parentheses and may contain anything, also parentheses.
fn parse_start_ticks(stat: &[u8]) -> Option<u64> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let after_name = str::from_utf8(&stat[name_end + 1..]).ok()?;
    // Field 3 is the first after the name.
    after_name.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_whatever_the_program_is_called() {
        let rest = "S 1 2 3 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 2269184 100 18446744073709551615";
        for name in ["(sh)", "(a b)", "()) 1 (x)", "(\u{e9})", "()"] {
            let stat = format!("42 {name} {rest}\n");
            assert_eq!(parse_start_ticks(stat.as_bytes()), Some(987_654), "{name}");
        }
        assert_eq!(parse_start_ticks(b"\xff(\xff) S"), None);
        assert_eq!(parse_start_ticks(b""), None);
    }

    #[test]
    fn this_process_is_itself_and_no_vm() {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        assert!(start_ticks(pid).expect("own stat") > 0);
        let stranger = VmId::from_uuid(uuid::Uuid::new_v4());
        assert_eq!(
            command_line(pid, stranger).expect("own command line"),
            CommandLine::Other
        );
    }
}
