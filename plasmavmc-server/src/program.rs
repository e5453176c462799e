//! The program: settings, log, signals, and then [`serve`](crate::serve).
//!
//! It is not in `main.rs` so that the tests have a program of their own that is the same and can be told to die.

use std::process::ExitCode;
use std::time::Duration;

use crate::config::{Command, Config, Flags, LogSettings, RecoverFlags};
use crate::serve;
use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// As sysexits has it: the settings are wrong.
const WRONG_SETTINGS: u8 = 78;
/// What is left after a stop is not waited for.
const LEAVE_WITHIN: Duration = Duration::from_millis(100);

/// Runs until a signal ends it.
pub fn main() -> ExitCode {
    let mut flags = Flags::parse();
    // Whatever is done instead of running a server listens to nobody.
    flags.insecure |= flags.command.is_some();
    let config = match Config::load(&flags) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(WRONG_SETTINGS);
        }
    };
    if flags.check_config {
        println!("the settings are fine");
        return ExitCode::SUCCESS;
    }
    log_to_stderr(&config.log);
    let outcome = match &flags.command {
        Some(Command::Recover(how)) => recover(&config, how),
        Some(Command::EndVms) => end_vms(&config),
        None => run(config),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("plasmavmc")
        .enable_all()
        .build()
        .context("threads cannot be started")?;
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn(stop_on_signal(stop.clone())?);
        Ok(serve::run(config, stop).await?)
    });
    runtime.shutdown_timeout(LEAVE_WITHIN);
    outcome
}

fn recover(config: &Config, how: &RecoverFlags) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("threads cannot be started")?;
    let outcome = runtime.block_on(crate::recover::recover(config, how));
    runtime.shutdown_timeout(LEAVE_WITHIN);
    Ok(outcome?)
}

fn end_vms(config: &Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("threads cannot be started")?;
    match runtime.block_on(crate::ending::end_vms(&config.folders.guard))? {
        0 => tracing::info!("no QEMU was left"),
        ended => tracing::warn!("killed what had not powered off: {ended}"),
    }
    Ok(())
}

fn stop_on_signal(stop: CancellationToken) -> anyhow::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be waited for")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be waited for")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; VMs run on");
        stop.cancel();
    })
}

fn log_to_stderr(log: &LogSettings) {
    // Checked when the settings were read.
    let filter = tracing_subscriber::EnvFilter::new(&log.filter);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if log.json {
        builder.json().flatten_event(true).init();
    } else {
        builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init();
    }
}
