//! Completions and manual pages, made from the command line's own description.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::Failure;
use crate::show::{self, Screen};

pub fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "plasmavmc", &mut script);
    show::print(&String::from_utf8_lossy(&script))
}

pub fn pages(dir: &Path, screen: Screen) -> Result<(), Failure> {
    let doing = || format!("write manual pages to {}", dir.display());
    std::fs::create_dir_all(dir).map_err(|error| Failure::io(doing(), error))?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(|error| Failure::io(doing(), error))?;
    screen.note(&format!(
        "written; read them with: man -l {}",
        dir.join("plasmavmc.1").display()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_gets_a_page_and_every_shell_its_completions() {
        let dir = tempfile::tempdir().unwrap();
        clap_mangen::generate_to(Cli::command(), dir.path()).unwrap();
        for page in ["plasmavmc.1", "plasmavmc-vm-create.1", "plasmavmc-cluster-join.1"] {
            let text = std::fs::read_to_string(dir.path().join(page)).expect(page);
            assert!(text.contains(".SH") && text.contains("Example"), "{page}");
        }
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "plasmavmc", &mut script);
            assert!(String::from_utf8(script).unwrap().contains("support-bundle"), "{shell}");
        }
    }
}
