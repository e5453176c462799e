//! What `plasmavmc` alone says: the way from nothing to a VM that runs.

use crate::failure::Failure;
use crate::show;

const TEXT: &str = "\
PlasmaVMC runs virtual machines on a handful of hosts. First steps:

  1  plasmavmc doctor                          is this machine fit for it?
  2  plasmavmc cluster init                    found a cluster, on the first host
  3  plasmavmc cluster token                   on it: a token for each further host, and what to type there
  4  plasmavmc cluster status                  who is there
  5  plasmavmc vm create hello --vcpus 1 --memory 512M --disk pool=default,size=2G --nic user
  6  plasmavmc vm list                         what runs where
     plasmavmc vm console hello                its terminal; Ctrl-] leaves it
     plasmavmc vm explain hello                why it is as it is
     plasmavmc vm delete hello --force

Commands talk to 127.0.0.1:50051; another server: --server HOST:PORT, or PLASMAVMC_SERVER.
Every command explains itself: plasmavmc --help, plasmavmc vm create --help.";

pub fn print() -> Result<(), Failure> {
    show::print(TEXT)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn every_first_step_is_a_command() {
        let steps = TEXT
            .lines()
            .filter_map(|line| line.find("plasmavmc ").map(|at| &line[at..]));
        let steps: Vec<&str> = steps.filter(|step| !step.contains(", plasmavmc")).collect();
        assert!(steps.len() > 5);
        for step in steps {
            let command = step.split("   ").next().unwrap_or(step);
            assert!(Cli::try_parse_from(command.split_whitespace()).is_ok(), "{command}");
        }
    }
}
