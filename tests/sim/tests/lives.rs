//! Lives from seeds: none may break a rule, each break has to be noticed, and a replay is exact.

use plasmavmc_sim::breaks::Break;
use plasmavmc_sim::log::Level;
use plasmavmc_sim::run::{Profile, catch, live, play};

/// So many seeds from the first one that is tried, for decisions that change.
const SEEDS: u64 = 400;

/// Breaks that need a rare schedule, and where one was found: the rest is noticed within the first seeds.
const RARE: [(Break, u64); 7] = [
    (Break::DeadlineFromAnswer, 408),
    (Break::FenceWithoutBeatGuard, 1118),
    (Break::ThawOrderWithoutEpoch, 1044),
    (Break::ClaimWithoutSession, 255),
    (Break::ClaimWithoutAttempt, 1415),
    (Break::LateAnswerExtends, 148),
    (Break::BeatRetried, 186),
];

#[test]
fn a_thousand_seeds_break_no_rule() {
    let (sum, failed) = play(1, 1000, None);
    assert!(failed.is_empty(), "{failed:#?}");
    let happened = sum.fences > 50 && sum.failovers > 50 && sum.thaws > 50;
    assert!(happened, "too little happened: {sum:?}");
}

#[test]
fn every_rule_that_is_taken_away_is_missed() {
    for broken in Break::ALL.iter().copied().filter(|it| !it.is_helper()) {
        let rare = RARE.iter().find(|(rare, _)| *rare == broken);
        let from = rare.map_or(1, |(_, seed)| *seed);
        let caught = catch(from, SEEDS, broken);
        assert!(caught.caught, "nothing notices {} within {SEEDS} seeds", broken.word());
    }
}

#[test]
fn rules_of_a_second_line_are_not_missed_while_the_first_holds() {
    for helper in [Break::NoQmpStop, Break::NoAnswerTimeout] {
        let caught = catch(1, 60, helper);
        assert!(!caught.caught, "{} alone breaks {:?}", helper.word(), caught.rule);
    }
}

#[test]
fn a_replay_is_exact() {
    for seed in [3, 6, 9, 17] {
        let (first, world) = live(seed, None, Some(Level::Detail));
        let (second, again) = live(seed, None, Some(Level::Detail));
        assert_eq!(world.log.lines, again.log.lines, "seed {seed}");
        assert_eq!(first.counts, second.counts, "seed {seed}");
        let (silent, _) = live(seed, None, None);
        assert_eq!(
            first.counts, silent.counts,
            "telling what happens changes it: seed {seed}"
        );
    }
}

#[test]
fn a_switch_that_reboots_makes_nobody_look_dead() {
    let gaps: Vec<u64> = (1..400)
        .filter(|seed| Profile::of(*seed, None) == Profile::Gaps)
        .collect();
    assert!(gaps.len() >= 30);
    for seed in gaps {
        let (lived, _) = live(seed, None, None);
        assert_eq!((lived.violations, lived.counts.fences), (Vec::new(), 0), "seed {seed}");
    }
}

#[test]
fn without_the_rule_of_gaps_live_hosts_are_fenced_in_masses() {
    let mut false_fences = 0;
    for seed in 1..30 {
        let (lived, _) = live(seed, Some(Break::FenceAfterGap), None);
        false_fences += lived.counts.false_fences;
    }
    assert!(false_fences >= 20, "{false_fences}");
}
