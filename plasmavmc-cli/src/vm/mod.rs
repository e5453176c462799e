//! `plasmavmc vm`.

mod change;
mod confirm;
mod console;
mod create;
mod file;
mod look;
mod power;
mod set;
mod watch;

use crate::args::VmCommand;
use crate::context::Context;
use crate::failure::Failure;

pub use confirm::confirm;
pub use look::all_vms;

pub async fn run(context: &Context, command: VmCommand) -> Result<(), Failure> {
    match command {
        VmCommand::Create(args) => create::run(context, *args).await,
        VmCommand::Get(args) => look::get(context, args).await,
        VmCommand::List(args) => look::list(context, args).await,
        VmCommand::Start(args) => power::start(context, args).await,
        VmCommand::Stop(args) => power::stop(context, args).await,
        VmCommand::Reboot(args) => power::reboot(context, args).await,
        VmCommand::Restart(args) => power::restart(context, args).await,
        VmCommand::Reset(args) => power::reset(context, args).await,
        VmCommand::Pause(args) => power::pause(context, args).await,
        VmCommand::Resume(args) => power::resume(context, args).await,
        VmCommand::Delete(args) => power::delete(context, args).await,
        VmCommand::Update(args) => change::run(context, args).await,
        VmCommand::Console(args) => console::run(context, args).await,
        VmCommand::Explain(args) => look::explain(context, args).await,
        VmCommand::Watch(args) => watch::run(context, args).await,
    }
}
