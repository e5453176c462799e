//! The links between hosts. What is cut is dropped silently in the switch, like a pulled cable: nobody
//! is told, in no protocol, and established connections hang.
//!
//! Cuts have a direction, so a link can be dead one way. Only traffic between hosts can be cut: the
//! test's own clients sit in the switch and reach everybody.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::LabError;
use super::namespace::Network;

const RULES: &str = "
add table bridge links
add set bridge links cut { type ifname . ifname; }
add chain bridge links passing { type filter hook forward priority 0; }
add rule bridge links passing iifname . oifname @cut drop
";

/// The cuts of one lab, as (from, to).
#[derive(Debug, Default)]
pub(super) struct Links {
    cuts: BTreeSet<(usize, usize)>,
}

impl Links {
    pub fn lay(switch: &Network) -> Result<Self, LabError> {
        switch.feed("nft", "nftables", &["-f", "-"], RULES)?;
        Ok(Self::default())
    }

    pub fn set(&mut self, switch: &Network, cuts: BTreeSet<(usize, usize)>) -> Result<(), LabError> {
        let mut change = String::from("flush set bridge links cut\n");
        for (from, to) in &cuts {
            let (from, to) = (port(*from), port(*to));
            // Writing to a String cannot fail.
            let _ = writeln!(change, "add element bridge links cut {{ {from} . {to} }}");
        }
        switch.feed("nft", "nftables", &["-f", "-"], &change)?;
        self.cuts = cuts;
        Ok(())
    }

    pub fn cuts(&self) -> &BTreeSet<(usize, usize)> {
        &self.cuts
    }
}

/// The name of a host's port in the switch.
pub(super) fn port(host: usize) -> String {
    format!("h{host}")
}

/// Every link between hosts of different groups; a host in several groups keeps its links to all of them.
pub(super) fn between(groups: &[&[usize]]) -> BTreeSet<(usize, usize)> {
    let all: BTreeSet<usize> = groups.iter().flat_map(|group| group.iter().copied()).collect();
    let together = |a: usize, b: usize| groups.iter().any(|group| group.contains(&a) && group.contains(&b));
    let pairs = all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b)));
    pairs.filter(|(a, b)| a != b && !together(*a, *b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_cut_from_each_other_both_ways() {
        assert_eq!(
            between(&[&[0], &[1, 2]]),
            BTreeSet::from([(0, 1), (1, 0), (0, 2), (2, 0)])
        );
    }

    #[test]
    fn a_host_in_two_groups_is_a_bridge() {
        assert_eq!(between(&[&[0, 1], &[1, 2]]), BTreeSet::from([(0, 2), (2, 0)]));
    }
}
