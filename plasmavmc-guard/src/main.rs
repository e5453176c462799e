//! The program `plasmavmc-guard`; see the library for what it does and why.

use std::path::PathBuf;
use std::process::ExitCode;

use plasmavmc_guard::daemon::{CAN_RESUME, Guard, GuardError, Options};
use plasmavmc_guard::starting::{self, HELD};
use plasmavmc_guard::{claims, daemon, launch, sentinel};

const USAGE: &str = "\
The parent of every QEMU on this host.

  plasmavmc-guard start --dir FOLDER [--leave-running]   start one in the background, unless one serves FOLDER
  plasmavmc-guard run --dir FOLDER [--leave-running]     be one, in the foreground
  plasmavmc-guard --help | --version

FOLDER belongs on a tmpfs, as /run/plasmavmc/guard. It holds guard.sock, guard.lock, guard.log and a record for
each child. SIGHUP replaces the program in place and keeps all children. SIGTERM ends a guard that holds no
running child; with --leave-running it ends in any case, the children go on, and the next guard adopts them.
Leased children are stopped by its end, however it comes, until the next guard has a lease and an order to thaw.
`launch`, `resume`, `can-resume`, `read-claims` and `stop-on-death` are orders of a guard to itself.
";

enum Invocation {
    Run(Options),
    Start(Options),
    Launch,
    Resume,
    CanResume(String),
    ReadClaims,
    Watch,
    Help,
    Version,
}

fn main() -> ExitCode {
    let invocation = match parse(std::env::args().skip(1)) {
        Ok(invocation) => invocation,
        Err(problem) => {
            eprintln!("plasmavmc-guard: {problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match invocation {
        Invocation::Launch => launch::run(),
        Invocation::CanResume(version) if daemon::can_resume(&version) => ExitCode::from(CAN_RESUME),
        Invocation::CanResume(_) => ExitCode::FAILURE,
        Invocation::Watch => sentinel::run(),
        Invocation::ReadClaims => claims::run(std::env::args().skip(2)),
        Invocation::Help => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        Invocation::Version => {
            println!("plasmavmc-guard {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Invocation::Run(options) => finish(Guard::start(options).and_then(|mut guard| {
            starting::announce();
            guard.run()
        })),
        Invocation::Resume => finish(Guard::resume().and_then(|mut guard| guard.run())),
        Invocation::Start(options) => finish(starting::start(&options)),
    }
}

fn finish<E: Into<anyhow::Error>>(outcome: Result<(), E>) -> ExitCode {
    let Err(error) = outcome.map_err(Into::into) else {
        return ExitCode::SUCCESS;
    };
    eprintln!("plasmavmc-guard: {error:#}");
    let held = matches!(
        error.downcast_ref(),
        Some(GuardError::Folder(daemon::FolderError::Held))
    );
    if held { ExitCode::from(HELD) } else { ExitCode::FAILURE }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Invocation, String> {
    let command = arguments.next().ok_or("what should it do?")?;
    match command.as_str() {
        "run" => parse_options(arguments).map(Invocation::Run),
        "start" => parse_options(arguments).map(Invocation::Start),
        launch::COMMAND => Ok(Invocation::Launch),
        daemon::RESUME_COMMAND => Ok(Invocation::Resume),
        daemon::CHECK_COMMAND => Ok(Invocation::CanResume(arguments.next().unwrap_or_default())),
        sentinel::COMMAND => Ok(Invocation::Watch),
        claims::COMMAND => Ok(Invocation::ReadClaims),
        "--help" | "-h" | "help" => Ok(Invocation::Help),
        "--version" | "-V" => Ok(Invocation::Version),
        other => Err(format!("{other:?} is no command")),
    }
}

fn parse_options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut folder = None;
    let mut leave_running = false;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--dir" => folder = Some(arguments.next().ok_or("--dir wants a folder")?),
            "--leave-running" => leave_running = true,
            other => return Err(format!("{other:?} is no option")),
        }
    }
    let folder = folder.ok_or("--dir FOLDER is missing")?;
    // The guard enters its folder: what it keeps of its own place has to be absolute.
    let folder = std::path::absolute(PathBuf::from(folder)).map_err(|error| format!("--dir: {error}"))?;
    Ok(Options { folder, leave_running })
}
