//! `chainfire`: a member of a cluster, or a client of one.
//!
//! This file only wires: [`args`] says what can be asked, the `*_commands` modules ask it, [`output`]
//! prints, and [`failure`] turns what went wrong into a sentence and an exit status that scripts may rely
//! on. A command never prints half an answer as if it were whole: it fails instead.

#![forbid(unsafe_code)]

mod args;
mod backup;
mod bytes_text;
mod cluster_commands;
mod failure;
mod kv_commands;
mod output;
mod serve;
mod txn_json;
mod txn_text;

use std::io::Write;
use std::process::ExitCode;

use chainfire::client::{Client, ClientOptions};
use clap::Parser;
use tracing_subscriber::EnvFilter;

use args::{Cli, Command, ConnectionArgs, SnapshotCommand};
use failure::Failure;
use output::Printer;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(sentence) = failure.sentence() {
                // Where nobody listens any more there is nobody to tell.
                let _ = writeln!(std::io::stderr(), "chainfire: {sentence}");
            }
            ExitCode::from(failure.exit_status())
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    log_to_stderr(matches!(cli.command, Command::Serve(_)));
    let printer = Printer::new(std::io::stdout().lock(), cli.output, cli.text_form());
    match cli.command {
        Command::Serve(args) => Ok(serve::run(args)?),
        Command::Snapshot {
            command: SnapshotCommand::Restore(args),
        } => backup::restore(args, printer),
        Command::Snapshot {
            command: SnapshotCommand::Verify(args),
        } => backup::verify(args, printer),
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(call(command, &cli.connection, printer))
        }
    }
}

async fn call(command: Command, connection: &ConnectionArgs, printer: Printer<impl Write>) -> Result<(), Failure> {
    let options = ClientOptions {
        timeout: connection.timeout,
        // One attempt of a read leaves time for a second.
        read_attempt_timeout: connection.timeout.mul_f64(0.4),
        ..ClientOptions::default()
    };
    let client = Client::new(&connection.server, options)?;
    match command {
        Command::Get(args) => kv_commands::get(&client, args, printer).await,
        Command::Put(args) => kv_commands::put(&client, args, printer).await,
        Command::Del(args) => kv_commands::del(&client, args, printer).await,
        Command::Range(args) => kv_commands::range(&client, args, printer).await,
        Command::Txn(args) => kv_commands::txn(&client, args, printer).await,
        Command::Watch(args) => kv_commands::watch(&client, args, printer).await,
        Command::Status(args) => cluster_commands::status(&client, args, printer).await,
        Command::Member { command } => cluster_commands::member(&client, command, printer).await,
        Command::FeatureLevel(args) => cluster_commands::feature_level(&client, args, printer).await,
        Command::Snapshot { command } => match command {
            SnapshotCommand::Save(args) => backup::save(&client, args, printer).await,
            SnapshotCommand::Trigger => cluster_commands::trigger_snapshot(&client, printer).await,
            SnapshotCommand::Restore(args) => backup::restore(args, printer),
            SnapshotCommand::Verify(args) => backup::verify(args, printer),
        },
        Command::Serve(args) => Ok(serve::run(args)?),
    }
}

/// A server tells what it does; a client speaks up only when something is odd.
fn log_to_stderr(is_server: bool) {
    let default = if is_server {
        "info,openraft=off,chunked_wal=warn,raft_log=warn"
    } else {
        "error"
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_env_filter(filter)
        .init();
}
