//! What a machine is told without having asked, and what it keeps short behind itself.

use plasmavmc_types::QemuRunState;

use super::DiskTrouble;
use super::task::Task;
use crate::qmp::Event;
use crate::runtime::file;

impl Task {
    /// What an event tells by itself is noted at once; the rest is asked for.
    pub(super) fn note(&mut self, event: &Event) {
        match event.name.as_str() {
            "SHUTDOWN" => self.report(QemuRunState::Shutdown),
            "RESET" => self.state.send_modify(|state| state.resets += 1),
            "BLOCK_IO_ERROR" => self.note_disk_trouble(event),
            _ => {}
        }
        let concerns_run_state = matches!(
            event.name.as_str(),
            "STOP" | "RESUME" | "RESET" | "SUSPEND" | "WAKEUP" | "GUEST_PANICKED" | "WATCHDOG" | "BLOCK_IO_ERROR"
        );
        if concerns_run_state {
            self.ask();
        }
    }

    fn note_disk_trouble(&self, event: &Event) {
        let trouble = DiskTrouble::told_by(event);
        tracing::warn!(vm = %self.key.vm, device = trouble.device, reason = trouble.reason, "a disk failed");
        self.state.send_modify(|state| state.disk_trouble = Some(trouble));
    }

    /// The console's is the guest's to fill, the other QEMU's own.
    pub(super) fn cap_logs(&self) {
        for name in [file::CONSOLE_LOG, file::QEMU_LOG] {
            match self.folder.cap_log(name) {
                Ok(0) => {}
                Ok(bytes) => tracing::info!(vm = %self.key.vm, name, bytes, "the beginning of a log was cut off"),
                Err(error) => tracing::warn!(vm = %self.key.vm, name, %error, "a log cannot be kept short"),
            }
        }
    }
}
