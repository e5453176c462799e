//! From a command line to an exit status.

use std::ffi::OsString;

use clap::{ColorChoice, CommandFactory, FromArgMatches};

use crate::args::{Cli, Command};
use crate::context::Context;
use crate::failure::{Exit, Failure};
use crate::show::Screen;
use crate::{bundle, cluster, doctor, events, first_steps, host, kv, manual, ops, vm};

/// Carries out one command line.
pub async fn run(line: impl IntoIterator<Item = OsString>) -> Exit {
    let line: Vec<OsString> = line.into_iter().collect();
    let cli = match parse(&line) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not mistakes. Where nobody listens there is nobody to tell.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok };
        }
    };
    let screen = Screen::of(&cli.global);
    match carry_out(cli, screen).await {
        Ok(()) => Exit::Ok,
        Err(failure) => {
            let exit = failure.exit();
            if exit != Exit::Ok {
                screen.failure(&failure);
            }
            exit
        }
    }
}

fn parse(line: &[OsString]) -> Result<Cli, clap::Error> {
    let plain = line.iter().any(|word| word == "--no-color");
    let colours = if plain { ColorChoice::Never } else { ColorChoice::Auto };
    let matches = Cli::command().color(colours).try_get_matches_from(line)?;
    Cli::from_arg_matches(&matches)
}

async fn carry_out(cli: Cli, screen: Screen) -> Result<(), Failure> {
    let command = match cli.command {
        None => return first_steps::print(),
        Some(Command::Completions { shell }) => return manual::completions(shell),
        Some(Command::Man { dir }) => return manual::pages(&dir, screen),
        Some(command) => command,
    };
    let context = Context::new(&cli.global, screen)?;
    match command {
        Command::Vm(command) => vm::run(&context, command).await,
        Command::Host(command) => host::run(&context, command).await,
        Command::Cluster(command) => cluster::run(&context, command).await,
        Command::Op(command) => ops::run(&context, command).await,
        Command::Events(args) => events::run(&context, args).await,
        Command::Kv(command) => kv::run(&context, command).await,
        Command::Doctor(args) => doctor::run(&context, args).await,
        Command::SupportBundle(args) => bundle::run(&context, args).await,
        Command::Completions { .. } | Command::Man { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests;
