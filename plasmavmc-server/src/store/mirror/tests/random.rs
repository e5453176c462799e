//! Thousands of random changes with everything that can happen in between: whatever the mirror went through,
//! it ends up as one that has just listed the store, and its changes tell the way there.

use std::collections::BTreeMap;

use plasmavmc_types::{HostId, OperationId, Placement, RequestId, VmName, VmNumber};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;
use crate::store::keys::decision_id;
use crate::store::mirror::replica::Replica;
use crate::store::samples::*;
use chainfire::kv::Op;

const CHANGES: usize = 10_000;

/// Draws values; the same seed draws the same.
struct Dice(TestRunner);

impl Dice {
    fn new(seed: u8) -> Self {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
        let config = Config {
            failure_persistence: None,
            ..Config::default()
        };
        Self(TestRunner::new_with_rng(config, rng))
    }

    fn draw<T: std::fmt::Debug>(&mut self, strategy: impl Strategy<Value = T>) -> T {
        strategy.new_tree(&mut self.0).unwrap().current()
    }

    fn below(&mut self, bound: usize) -> usize {
        self.draw(0..bound)
    }

    /// A key and a value for it, of a few of each kind.
    fn pair(&mut self) -> (ParsedKey, StoredValue) {
        let n = u128::try_from(self.below(5)).unwrap() + 1;
        let (vm, host) = (vm_id(n), HostId::from_uuid(uuid(n)));
        match self.below(13) {
            0 => (ParsedKey::Config, StoredValue::Config(config())),
            1 => (
                ParsedKey::HostRecord(host),
                StoredValue::HostRecord(self.draw(any_host())),
            ),
            2 => (ParsedKey::Session(host), StoredValue::Session(self.draw(any_session()))),
            3 => (ParsedKey::Beat(host), StoredValue::Beat(self.draw(any_beat()))),
            4 => (ParsedKey::VmRecord(vm), StoredValue::VmRecord(record(n))),
            5 => {
                let incarnation = plasmavmc_types::Incarnation::from_raw(self.draw(1u64..9));
                (
                    ParsedKey::Placement(vm),
                    StoredValue::Placement(Placement { host, incarnation }),
                )
            }
            6 => (ParsedKey::Status(vm), StoredValue::Status(self.draw(any_status()))),
            7 => (
                ParsedKey::Name(VmName::new(format!("vm-{n}")).unwrap()),
                StoredValue::Pointer(vm),
            ),
            8 => {
                let number = VmNumber::new(u32::try_from(n).unwrap()).unwrap();
                (ParsedKey::Number(number), StoredValue::Pointer(vm))
            }
            9 => {
                let id = RequestId::new(format!("r{n}")).unwrap();
                (ParsedKey::Request(id), StoredValue::Request(self.draw(any_request())))
            }
            10 => {
                let id = OperationId::from_uuid(uuid(n));
                (
                    ParsedKey::Operation(id),
                    StoredValue::Operation(self.draw(any_operation())),
                )
            }
            11 => {
                let at_ms = self.draw(0u64..2000);
                (
                    ParsedKey::Decision(decision_id(at_ms, 0)),
                    StoredValue::Decision(decision(at_ms)),
                )
            }
            _ => {
                let id = plasmavmc_types::TokenId::new(format!("t{n}")).unwrap();
                (ParsedKey::Token(id), StoredValue::Token(token()))
            }
        }
    }

    fn op(&mut self) -> Op {
        let (key, value) = self.pair();
        match self.below(20) {
            0..4 => Op::Delete { key: key.key() },
            4 => Op::Put {
                key: key.key(),
                value: "\u{ff}".into(),
            },
            5 => Op::Put {
                key: format!("/foreign/{}", self.below(3)).into(),
                value: "x".into(),
            },
            6 if self.below(50) == 0 => Op::DeletePrefix {
                prefix: "/decisions/".into(),
            },
            _ => Op::Put {
                key: key.key(),
                value: encode(&value),
            },
        }
    }
}

/// All that changes have told, which must be all that is known.
#[derive(Default)]
struct Told {
    values: BTreeMap<ParsedKey, StoredValue>,
    revision: Revision,
}

impl Told {
    fn hear(&mut self, batch: &[Change]) {
        for change in batch {
            assert!(
                change.revision >= self.revision,
                "{change:?} comes after {}",
                self.revision
            );
            self.revision = change.revision;
            let known = self.values.get(&change.key);
            assert_eq!(
                known,
                change.before.as_ref(),
                "before {:?} at {}",
                change.key,
                change.revision
            );
            match &change.after {
                Some(value) => self.values.insert(change.key.clone(), value.clone()),
                None => self.values.remove(&change.key),
            };
        }
    }
}

fn state(mirror: &Mirror) -> Replica {
    let mut state = mirror.shared.replica.read().clone();
    state.heard.clear();
    state.flow = Default::default();
    state
}

async fn play(seed: u8) {
    let (mut dice, site) = (Dice::new(seed), Site::started().await);
    let (mut changes, mut told) = (site.mirror.changes(), Told::default());
    let (mut done, mut unfollowed) = (0, 0);
    while done < CHANGES {
        let ops = dice.below(4) + 1;
        let txn = (0..ops).fold(Txn::default(), |txn, _| txn.then(dice.op()));
        site.store().txn(txn).await.unwrap();
        (done, unfollowed) = (done + ops, unfollowed + 1);
        match dice.below(200) {
            // What the mirror has not heard of yet is compacted away.
            0 => {
                let now = site.store().get("/".into(), Consistency::Stale).await.unwrap().revision;
                site.store().compact(now).unwrap();
            }
            1 => site.link.cut(),
            2..12 => site.link.heal(),
            // Lets the mirror work, or not for a while.
            12..40 => {
                tokio::time::sleep(Duration::from_millis(u64::try_from(dice.below(100)).unwrap())).await;
            }
            _ => {}
        }
        if unfollowed > 500 {
            unfollowed = 0;
            site.link.heal();
            site.caught_up().await;
            while let Ok(batch) = changes.batches.try_recv() {
                told.hear(&batch);
            }
        }
    }
    site.link.heal();
    site.caught_up().await;
    while let Ok(batch) = changes.batches.try_recv() {
        told.hear(&batch);
    }
    let stop = CancellationToken::new();
    let fresh = Mirror::start(site.store(), stop.clone());
    fresh.listed(SOON).await.unwrap();
    assert_eq!(state(&site.mirror), state(&fresh));
    let listed = state(&fresh);
    for (key, value) in &told.values {
        assert_eq!(listed.get(key).as_ref(), Some(value), "{key}");
    }
    assert_eq!(listed.keys() - listed.unreadable.len(), told.values.len());
    let figures = site.mirror.figures();
    assert!(figures.listings > 2 && figures.batches > 10, "{figures:?}");
    stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_changes_end_as_a_fresh_listing() {
    for seed in 0..4 {
        play(seed).await;
    }
}
