//! One phase: clients and faults together, then mending, then judgement.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use chainfire::kv::{Key, Revision};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::clients::{CALL, Client, Desk};
use super::faults::{Mix, Tally};
use super::nemesis::Nemesis;
use super::watchers::Watcher;
use crate::history::reading::Scope;
use crate::history::{History, Reading, Verdict, Violation, WatchRun, judge};
use crate::members::{Expectation, Fleet, MemberClient};

const KEYS: u32 = 8;
const CLIENTS: u32 = 10;
const WATCHERS: usize = 3;
/// How long members may take to be whole, and clients to be served, once everything is mended.
const RECOVERY: Duration = Duration::from_secs(40);
const LAST_CALL: Duration = Duration::from_secs(10);
const PROGRESS: u64 = 20;

/// What happens in a phase.
#[derive(Debug)]
pub struct Plan {
    pub number: u64,
    pub seed: u64,
    pub mix: Mix,
    pub length: Duration,
    pub voters: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub verdict: Verdict,
    pub tally: Tally,
    pub unknown: usize,
    pub recovered_in: Duration,
    /// Members that could not show the whole phase again, their history being compacted.
    pub compacted_replays: usize,
}

type Watched = (Vec<WatchRun>, Result<(), String>);

/// Everybody at work in a phase.
struct Crew {
    desk: Arc<Desk>,
    from: Revision,
    clients: JoinSet<(Vec<crate::history::Op>, Vec<Reading>)>,
    watchers: JoinSet<Watched>,
    until: watch::Sender<Option<Revision>>,
}

/// Runs a phase.
pub async fn run(fleet: &Fleet<'_>, plan: &Plan) -> anyhow::Result<Outcome> {
    let mut crew = hire(fleet, plan).await?;
    let mut outcome = Outcome::default();
    let mut problems = Vec::new();

    rage(fleet, plan, &mut outcome.tally, &mut problems).await;
    problems.extend(fleet.deserters().into_iter().map(|(_, words)| words));
    Nemesis::mend(fleet)?;

    let mended = Instant::now();
    problems.extend(recover(fleet, plan, &crew.desk).await.err());
    outcome.recovered_in = mended.elapsed();
    crew.desk.stop.cancel();

    let mut history = History {
        from: crew.from,
        ..History::default()
    };
    while let Some(seen) = crew.clients.join_next().await {
        let (ops, readings) = seen.context("a client panicked")?;
        history.ops.extend(ops);
        history.readings.extend(readings);
    }
    outcome.unknown = history.ops.iter().filter(|op| op.is_unknown()).count();
    let diverged = agree(fleet, plan).await;

    match last_reading(fleet, &crew.desk).await {
        Ok(last) => {
            let _ = crew.until.send(Some(last.revision));
            history.last = Some(last);
        }
        Err(problem) => {
            problems.push(problem);
            crew.watchers.abort_all();
        }
    }
    let replays = replay(
        fleet,
        &crew.desk,
        crew.from,
        history.last.as_ref().map(|last| last.revision),
    )
    .await?;
    outcome.compacted_replays = replays.iter().filter(|(runs, _)| runs.len() > 1).count();
    let mut watched = replays;
    while let Some(seen) = crew.watchers.join_next().await {
        match seen {
            Err(error) if error.is_cancelled() => {}
            seen => watched.push(seen.context("a watcher panicked")?),
        }
    }
    for (runs, end) in watched {
        history.watches.extend(runs);
        problems.extend(end.err());
    }

    outcome.verdict = tokio::task::spawn_blocking(move || judge(&history)).await?;
    let late = problems.into_iter().map(|detail| Violation::NotConverged { detail });
    outcome.verdict.violations.extend(late);
    outcome.verdict.violations.extend(diverged);
    Ok(outcome)
}

fn clients_of(fleet: &Fleet<'_>) -> anyhow::Result<Vec<MemberClient>> {
    fleet
        .enrolled()
        .into_iter()
        .map(|host| fleet.client(host, CALL))
        .collect()
}

fn random(plan: &Plan, stream: u64) -> StdRng {
    StdRng::seed_from_u64(plan.seed ^ (plan.number << 32) ^ stream)
}

async fn hire(fleet: &Fleet<'_>, plan: &Plan) -> anyhow::Result<Crew> {
    let prefix = Key::from(format!("/torture/{}/", plan.number));
    let members = clients_of(fleet)?;
    let desk = Arc::new(Desk {
        prefix: prefix.clone(),
        keys: KEYS,
        started: Instant::now(),
        stop: CancellationToken::new(),
        acknowledged: AtomicU64::new(0),
        transactions: AtomicU64::new(0),
    });
    let first = last_reading(fleet, &desk).await.map_err(anyhow::Error::msg)?;
    anyhow::ensure!(
        first.rows.is_empty(),
        "the keys of phase {} are there already",
        plan.number
    );
    let from = first.revision + 1;

    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let client = Client::new(
            number,
            Arc::clone(&desk),
            clients_of(fleet)?,
            random(plan, number.into()),
        );
        clients.spawn(client.work());
    }
    let (until, target) = watch::channel(None);
    let mut watchers = JoinSet::new();
    for number in 0..WATCHERS {
        let mut members = members.clone();
        let count = members.len();
        members.rotate_left(number % count);
        let watcher = Watcher {
            name: format!("watcher {number}"),
            prefix: prefix.clone(),
            from,
            members,
        };
        watchers.spawn(watcher.watch(target.clone()));
    }
    Ok(Crew {
        desk,
        from,
        clients,
        watchers,
        until,
    })
}

async fn rage(fleet: &Fleet<'_>, plan: &Plan, tally: &mut Tally, problems: &mut Vec<String>) {
    let nemesis = |stream| Nemesis {
        fleet,
        random: random(plan, stream),
        tally: Tally::default(),
    };
    let (mut first, mut second) = (nemesis(1 << 20), nemesis(1 << 21));
    let end = Instant::now() + plan.length;
    let (one, two) = tokio::join!(
        first.rage(&plan.mix.in_turn, end),
        second.rage(&plan.mix.meanwhile, end)
    );
    for (nemesis, done) in [(first, one), (second, two)] {
        tally.add(&nemesis.tally);
        problems.extend(done.err().map(|error| format!("{error:#}")));
    }
}

/// Waits until members are whole and clients are served again.
async fn recover(fleet: &Fleet<'_>, plan: &Plan, desk: &Desk) -> Result<(), String> {
    let whole = Expectation {
        voters: plan.voters,
        same_state: false,
    };
    fleet
        .await_whole(whole, RECOVERY)
        .await
        .map_err(|error| format!("{error:#}"))?;
    let before = desk.acknowledged.load(Ordering::Relaxed);
    let end = Instant::now() + RECOVERY;
    while desk.acknowledged.load(Ordering::Relaxed) < before + PROGRESS {
        if Instant::now() > end {
            return Err(format!(
                "members are whole, yet clients were not served within {RECOVERY:?}"
            ));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// With nobody writing, all members must come to one state.
async fn agree(fleet: &Fleet<'_>, plan: &Plan) -> Option<Violation> {
    let same = Expectation {
        voters: plan.voters,
        same_state: true,
    };
    let error = fleet.await_whole(same, RECOVERY).await.err()?;
    let detail = format!("{error:#}");
    Some(match detail.starts_with("after ") {
        true => Violation::NotConverged { detail },
        false => Violation::Diverged { detail },
    })
}

async fn last_reading(fleet: &Fleet<'_>, desk: &Desk) -> Result<Reading, String> {
    let members = clients_of(fleet).map_err(|error| error.to_string())?;
    let end = Instant::now() + LAST_CALL;
    let mut last = String::new();
    for turn in 0.. {
        let member = &members[turn % members.len()];
        let invoked = desk.now();
        match member.list(&desk.prefix, 0, false).await {
            Ok(listing) => {
                return Ok(Reading {
                    reader: format!("the last reading at {}", member.address),
                    invoked,
                    returned: desk.now(),
                    linearizable: true,
                    scope: Scope::Prefix(desk.prefix.clone()),
                    revision: listing.revision,
                    rows: listing.rows,
                });
            }
            Err(failure) => last = failure.to_string(),
        }
        if Instant::now() > end {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("no member could be read within {LAST_CALL:?}: {last}"))
}

/// Has every member show the phase once more.
async fn replay(fleet: &Fleet<'_>, desk: &Desk, from: Revision, to: Option<Revision>) -> anyhow::Result<Vec<Watched>> {
    let Some(to) = to else { return Ok(Vec::new()) };
    let (_sender, until) = watch::channel(Some(to));
    let watchers = clients_of(fleet)?.into_iter().map(|member| Watcher {
        name: format!("the replay of {}", member.address),
        prefix: desk.prefix.clone(),
        from,
        members: vec![member],
    });
    Ok(futures::future::join_all(watchers.map(|watcher| watcher.watch(until.clone()))).await)
}
