//! The one action that runs beside the task, from order to answer.

use std::future::Future;
use std::pin::Pin;

use plasmavmc_types::QemuRunState;
use tokio::sync::oneshot;

use super::devices::{self, Ledger};
use super::error::MachineError;
use super::handle::{Done, Plug, Work};
use super::hands::{Hands, query_status};
use super::{Action, Phase, act, patience};
use crate::runtime::StartRecord;

/// Something that may be waited for.
pub(super) type Pending<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;
pub(super) type Answer = oneshot::Sender<Result<Done, MachineError>>;

/// The action that runs beside the task.
pub(super) struct UnderWay {
    pub action: Action,
    pub answer: Option<Answer>,
    pub course: Pin<Box<dyn Future<Output = Outcome> + Send>>,
}

pub(super) struct Outcome {
    pub done: Result<Done, MachineError>,
    /// What QEMU says now, if the action has been through several states.
    pub qemu: Option<QemuRunState>,
    /// The VM's record, if the action may have changed it.
    pub record: Option<Box<StartRecord>>,
}

/// Tells who asked, if anybody still waits.
pub(super) fn reply(answer: Option<Answer>, done: Result<Done, MachineError>) {
    match (answer, done) {
        // Who asked may have gone.
        (Some(answer), done) => drop(answer.send(done)),
        (None, Err(error)) => tracing::warn!(%error, "what nobody waited for has failed"),
        (None, Ok(_)) => {}
    }
}

pub(super) async fn carry_out(hands: Hands, work: Work, mut ledger: Ledger) -> Outcome {
    let nothing = |result: Result<(), MachineError>| result.map(|()| Done::default());
    let is_off = matches!(hands.phase(), Phase::PoweredOff(_));
    let is_course = matches!(work, Work::Stop { .. } | Work::Reboot { .. } | Work::Reset);
    let done = match work {
        Work::Cont => nothing(act::cont(&hands, Action::Cont).await),
        Work::Stop { within } => nothing(act::stop(&hands, within).await),
        Work::Reboot { within } => nothing(act::reboot(&hands, within).await),
        Work::Reset => nothing(act::reset(&hands).await),
        Work::Pause => nothing(act::pause(&hands).await),
        Work::Resume => nothing(act::cont(&hands, Action::Resume).await),
        Work::Kill if is_off => nothing(act::finish(&hands, Action::Finish).await),
        Work::Kill => nothing(act::kill(&hands).await),
        Work::Screenshot => devices::screenshot(&hands, &ledger.folder)
            .await
            .map(|picture| Done { picture }),
        Work::Plug(plug) => {
            let done = nothing(change_devices(&hands, &mut ledger, *plug).await);
            return Outcome {
                done,
                qemu: None,
                record: Some(Box::new(ledger.record)),
            };
        }
        Work::Freeze | Work::NoteFrozen | Work::Thaw | Work::Close => Ok(Done::default()),
    };
    // Events may lag behind what the action has seen; an old word would be taken for the outcome.
    let qemu = match &hands.qmp {
        Some(qmp) if is_course => query_status(qmp, patience::COMMAND).await.ok(),
        _ => None,
    };
    Outcome {
        done,
        qemu,
        record: None,
    }
}

async fn change_devices(hands: &Hands, ledger: &mut Ledger, plug: Plug) -> Result<(), MachineError> {
    match plug {
        Plug::AddDisk { disk, images } => devices::add_disk(hands, ledger, disk, images).await,
        Plug::RemoveDisk { name } => devices::remove_disk(hands, ledger, &name).await,
        Plug::AddNic { nic, taps } => devices::add_nic(hands, ledger, nic, taps).await,
        Plug::RemoveNic { name } => devices::remove_nic(hands, ledger, &name).await,
        Plug::ResizeDisk { name, size_mb } => devices::resize_disk(hands, ledger, &name, size_mb).await,
    }
}

/// Waits for what is pending; for ever if nothing is.
pub(super) async fn poll<T>(pending: &mut Pending<T>) -> T {
    match pending {
        Some(future) => future.as_mut().await,
        None => std::future::pending().await,
    }
}
