//! The terminal while it belongs to the guest: every key goes through, nothing is echoed here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Raw as long as this is held.
pub struct RawTerminal {
    /// A descriptor of its own: standard input may be closed before.
    terminal: OwnedFd,
    before: Termios,
}

impl RawTerminal {
    pub fn enter() -> io::Result<Self> {
        Self::on(io::stdin().as_fd())
    }

    fn on(terminal: BorrowedFd<'_>) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Now, &raw)?;
        Ok(Self {
            terminal: terminal.try_clone_to_owned()?,
            before,
        })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing to give back.
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::LocalModes;

    use super::*;

    fn terminal() -> (OwnedFd, OwnedFd) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let slave = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
        (master, slave)
    }

    fn is_cooked(terminal: &OwnedFd) -> bool {
        let modes = tcgetattr(terminal).unwrap().local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    #[test]
    fn the_terminal_is_given_back_as_it_was() {
        let (_master, slave) = terminal();
        assert!(is_cooked(&slave));
        let raw = RawTerminal::on(slave.as_fd()).unwrap();
        let modes = tcgetattr(&slave).unwrap().local_modes;
        assert!(!modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
        drop(raw);
        assert!(is_cooked(&slave));
    }

    #[test]
    fn a_panic_gives_it_back_too() {
        let (_master, slave) = terminal();
        let panicked = std::panic::catch_unwind(|| {
            let _raw = RawTerminal::on(slave.as_fd()).unwrap();
            panic!("on purpose");
        });
        assert!(panicked.is_err() && is_cooked(&slave));
    }
}
