//! Which vmid a new VM gets: the lowest free one from 100 up, unless others reach for the same.
//!
//! Creations under way on this server hold their numbers, so that they never collide with each other. Those of
//! other servers may: then the store says no, and the next try takes one at random from a window that grows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use plasmavmc_types::{VmId, VmNumber};

/// The first number that is allotted; lower ones can be asked for.
const FIRST: u32 = 100;
/// How many more free numbers each further try chooses from.
const WINDOW: usize = 16;

/// The numbers of creations that are under way here.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    held: Arc<Mutex<BTreeSet<VmNumber>>>,
}

/// A number that nobody else on this server gets meanwhile.
#[derive(Debug)]
pub struct HeldNumber {
    number: VmNumber,
    held: Arc<Mutex<BTreeSet<VmNumber>>>,
}

impl HeldNumber {
    pub fn get(&self) -> VmNumber {
        self.number
    }
}

impl Drop for HeldNumber {
    fn drop(&mut self) {
        self.held.lock().remove(&self.number);
    }
}

impl Numbers {
    /// A free number for the `tries`th try, or nothing if all are taken. `chance` chooses among equals.
    pub fn hold(&self, taken: &BTreeMap<VmNumber, VmId>, tries: u32, chance: u32) -> Option<HeldNumber> {
        let mut held = self.held.lock();
        let window = 1 + WINDOW * usize::try_from(tries).unwrap_or(0);
        let is_free = |number: &VmNumber| !taken.contains_key(number) && !held.contains(number);
        let free: Vec<VmNumber> = (FIRST..=VmNumber::MAX)
            .filter_map(|number| VmNumber::new(number).ok())
            .filter(is_free)
            .take(window)
            .collect();
        let at = usize::try_from(chance).unwrap_or(0) % free.len().max(1);
        let number = *free.get(at)?;
        held.insert(number);
        Some(HeldNumber {
            number,
            held: Arc::clone(&self.held),
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn taken(numbers: &[u32]) -> BTreeMap<VmNumber, VmId> {
        let id = VmId::from_uuid(Uuid::from_u128(1));
        let numbers = numbers.iter().map(|number| VmNumber::new(*number).unwrap());
        numbers.map(|number| (number, id)).collect()
    }

    #[test]
    fn the_lowest_free_number_is_allotted() {
        let numbers = Numbers::default();
        for (in_use, expected) in [(vec![], 100), (vec![100, 101, 103], 102), (vec![7, 200], 100)] {
            let held = numbers.hold(&taken(&in_use), 0, 5).unwrap();
            assert_eq!(held.get().get(), expected);
        }
    }

    #[test]
    fn what_is_held_here_is_not_given_twice() {
        let numbers = Numbers::default();
        let first = numbers.hold(&taken(&[]), 0, 0).unwrap();
        let second = numbers.hold(&taken(&[]), 0, 0).unwrap();
        assert_eq!((first.get().get(), second.get().get()), (100, 101));
        drop(first);
        assert_eq!(numbers.hold(&taken(&[]), 0, 0).unwrap().get().get(), 100);
    }

    #[test]
    fn later_tries_spread() {
        let numbers = Numbers::default();
        let chosen: BTreeSet<u32> = (0..64)
            .map(|chance| numbers.hold(&taken(&[]), 2, chance).unwrap().get().get())
            .collect();
        assert_eq!(chosen, (100..133).collect());
    }
}
