//! `tidy`: the rules of this tree that no compiler knows.
//!
//! Each rule is a pure function from what was read to what breaks it, so that its tests can feed it an
//! offending sample. A rule never repairs anything; only `--bless` writes, and only xtask/sizes.toml.

mod layers;
mod leftovers;
mod purity;
mod sizes;
mod source;

use std::fmt;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::checkout::Checkout;
use crate::step;
use source::Source;

/// One place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Breach {
    rule: &'static str,
    /// A crate, a path, or a path with a line.
    place: String,
    /// What is wrong and what to do instead.
    problem: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.rule, self.problem)
    }
}

const SIZES_FILE: &str = "xtask/sizes.toml";

pub fn run(checkout: &Checkout, bless: bool) -> Result<ExitCode> {
    if bless {
        let sources = source::read_all(&checkout.root)?;
        let measured = sizes::measure(&sources)?;
        std::fs::write(checkout.root.join(SIZES_FILE), measured.to_listing().to_string())
            .with_context(|| format!("cannot write {SIZES_FILE}"))?;
        step::announce(&format!("{SIZES_FILE} holds today's sizes"));
    }
    check_and_report(checkout)?;
    Ok(ExitCode::SUCCESS)
}

/// Checks all rules, prints every breach, fails if there is one.
pub fn check_and_report(checkout: &Checkout) -> Result<()> {
    step::announce("tidy");
    let breaches = check(checkout)?;
    for breach in &breaches {
        eprintln!("{breach}");
    }
    if !breaches.is_empty() {
        bail!("tidy found {}", plural(breaches.len()));
    }
    Ok(())
}

fn plural(count: usize) -> String {
    if count == 1 {
        "1 breach".to_owned()
    } else {
        format!("{count} breaches")
    }
}

fn check(checkout: &Checkout) -> Result<Vec<Breach>> {
    let sources = source::read_all(&checkout.root)?;
    let listing = std::fs::read_to_string(checkout.root.join(SIZES_FILE))
        .with_context(|| format!("cannot read {SIZES_FILE}"))?
        .parse()
        .with_context(|| SIZES_FILE.to_owned())?;

    let mut breaches = layers::check(&layers::Graph::of_workspace(&checkout.root)?);
    breaches.extend(sizes::check(&sizes::measure(&sources)?, &listing));
    for source in &sources {
        breaches.extend(leftovers::check(source));
        if purity::applies_to(&source.path) {
            breaches.extend(purity::check(source)?);
        }
    }
    breaches.sort();
    Ok(breaches)
}

/// Parses a Rust file; a file that does not parse is an error, not a breach: the compiler says it better.
fn parse(source: &Source) -> Result<syn::File> {
    syn::parse_file(&source.text).map_err(|error| {
        let line = error.span().start().line;
        anyhow::anyhow!("{}:{line}: {error}", source.path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_tree_is_tidy() {
        let breaches = check(&Checkout::find().unwrap()).unwrap();
        let lines: Vec<String> = breaches.iter().map(Breach::to_string).collect();
        assert!(lines.is_empty(), "{}", lines.join("\n"));
    }
}
