//! `plasmavmc vm console`: a terminal on the serial port of a VM, wherever it runs.
//!
//! What it said before comes first. Ctrl-] leaves. The terminal is given back as it was on every way out: the end of
//! the session, a failure, a panic, a signal.

mod input;
mod session;
mod terminal;

use std::io::IsTerminal;

use tokio::signal::unix::{SignalKind, signal};

use crate::args::ConsoleArgs;
use crate::context::Context;
use crate::failure::Failure;
use session::{Left, Session};
use terminal::RawTerminal;

pub async fn run(context: &Context, args: ConsoleArgs) -> Result<(), Failure> {
    let is_terminal = std::io::stdin().is_terminal();
    // A VM that is not there is told before the terminal changes.
    let session = Session::open(&context.reach, &args.vm, args.no_history).await?;
    let keys = input::keys(is_terminal);
    let linger = (!is_terminal).then_some(args.linger);
    let raw = if is_terminal {
        context
            .screen
            .note(&format!("console of {}; Ctrl-] leaves it", args.vm));
        Some(RawTerminal::enter().map_err(|error| Failure::io("make the terminal raw", error))?)
    } else {
        None
    };
    let mut out = std::io::stdout();
    let left = tokio::select! {
        left = session.carry(&context.reach, keys, &mut out, linger) => left,
        signal = any_signal() => signal.map(|()| Left::ByUser),
    };
    drop(raw);
    if is_terminal {
        context.screen.note("");
        match &left {
            Ok(Left::ByUser) => context
                .screen
                .note(&format!("left the console of {}; the VM goes on", args.vm)),
            Ok(Left::Closed) => context.screen.note(&format!("the console of {} was closed", args.vm)),
            Err(_) => {}
        }
    }
    left.map(|_| ())
}

/// A signal that asks to end. In a raw terminal Ctrl-C is a key like any other.
async fn any_signal() -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::io("listen for signals", error));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut quit = listen(SignalKind::quit())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
        _ = interrupt.recv() => {}
        _ = quit.recv() => {}
    }
    Err(Failure::Interrupted { operation: None })
}
