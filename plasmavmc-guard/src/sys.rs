//! The few system calls that have no safe name anywhere. The only unsafe code of this crate.
//!
//! None of them keeps a pointer after the call, and none touches an object that safe code owns in a way it
//! could notice: they set a scheduling class, a signal mask and a flag on descriptors, and replace the whole
//! program. (std's own `exec` changes the handling of SIGPIPE before it fails; here a failure changes nothing.)

#![expect(unsafe_code, reason = "each block states why it is sound")]

use std::ffi::{CStr, c_char};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

/// Schedules this process before everything ordinary. Its children start out ordinary again.
pub fn schedule_round_robin() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the pointer is to a live, initialised value that the kernel only reads during the call.
    let outcome = unsafe { libc::sched_setscheduler(0, policy, &parameter) };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Holds these signals back until [`let_signals_through`]; also across an exec.
pub fn hold_signals_back(signals: &[i32]) -> io::Result<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set it is given; sigaddset is given that initialised set, and an
    // invalid signal number makes it fail, not misbehave; pthread_sigmask reads the set and accepts a null
    // pointer for the old mask.
    let outcome = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut())
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(outcome))
    }
}

/// Lets all signals through that wait or come.
pub fn let_signals_through() -> io::Result<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: as above: the set is initialised by sigemptyset before it is read.
    let outcome = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut())
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(outcome))
    }
}

/// Replaces the program of this process, with the same environment. Returns only if that failed, with nothing
/// changed.
pub fn replace_program(program: &CStr, arguments: &[&CStr]) -> io::Error {
    let own_name = [program.as_ptr()];
    let arguments = arguments.iter().map(|argument| argument.as_ptr());
    let argv: Vec<*const c_char> = own_name.into_iter().chain(arguments).chain([ptr::null()]).collect();
    // SAFETY: `program` and all of `argv` are strings that end in zero and live through the call, and `argv`
    // ends in a null pointer. This process has one thread, so nobody changes the environment meanwhile.
    unsafe { libc::execv(program.as_ptr(), argv.as_ptr()) };
    io::Error::last_os_error()
}

/// Marks every descriptor from `lowest` on to be closed by the next exec, whoever opened it.
pub fn close_on_exec_from(lowest: u32) -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed now; only a flag is set, which no owner of a
    // descriptor relies on for soundness. No pointer is passed.
    let outcome = unsafe { libc::syscall(libc::SYS_close_range, lowest, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
