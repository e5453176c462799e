//! Asking whether it is really meant: on a terminal only, since a script has nobody to answer.

use std::io::{BufRead, IsTerminal, Write};

use crate::failure::Failure;

/// Goes on if the answer is yes, or nobody is there to be asked.
pub fn confirm(question: &str) -> Result<(), Failure> {
    if !is_asked() {
        return Ok(());
    }
    let mut answer = String::new();
    let asked =
        write!(std::io::stderr(), "{question} [y/N] ").and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    asked.map_err(|error| Failure::io("ask for confirmation; --yes goes without", error))?;
    if is_yes(&answer) {
        Ok(())
    } else {
        Err(Failure::NotConfirmed)
    }
}

pub fn is_asked() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        assert!(is_yes("y\n") && is_yes(" YES\n"));
        for no in ["", "\n", "n", "no", "yep", "j", "web"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
