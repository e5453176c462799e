//! What is kept has bounds: decisions, requests, tokens.

use plasmavmc_types::{Decision, RequestId, TokenId};

use crate::clock::wall_ms;
use crate::control::housekeeping::REQUESTS_KEPT;
use crate::played::Played;
use crate::store::{Mirror, Request, Token, Write, keys};

const HOUR_MS: u64 = 3600 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;
const KEPT: usize = crate::store::write::DECISIONS_KEPT;
/// Writes of one transaction of the test.
const AT_ONCE: u64 = 200;

fn decision(at_ms: u64) -> Decision {
    Decision {
        at_ms,
        kind: "place".to_owned(),
        vm: None,
        host: None,
        text: "placed".to_owned(),
        evidence: Vec::new(),
    }
}

async fn put_all(cluster: &Played, count: u64, put: impl Fn(Write, u64) -> Write) {
    for first in (0..count).step_by(200) {
        let last = (first + AT_ONCE).min(count);
        cluster.write((first..last).fold(Write::new(), &put)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_newest_decisions_are_kept() {
    let cluster = Played::of_hosts(1).await;
    put_all(&cluster, 1500, |write, number| {
        write.put_decision(&keys::decision_id(number, 0), &decision(number))
    })
    .await;
    let controller = cluster.controller(true);
    let is_kept = |mirror: &Mirror| mirror.surplus_decisions(1).is_empty().then_some(());
    cluster.until_mirror("forgotten", is_kept).await;
    cluster.mirror.read(|view| {
        assert_eq!(view.decisions.len(), KEPT);
        assert_eq!(*view.decisions.first_key_value().unwrap().0, keys::decision_id(500, 0));
    });
    controller.ends().await;
}

#[tokio::test(start_paused = true)]
async fn requests_and_tokens_are_kept_for_a_day() {
    let cluster = Played::of_hosts(1).await;
    let now_ms = wall_ms();
    let at_ms = |number: u64| match number {
        0..5 => now_ms - HOUR_MS,
        _ => now_ms - DAY_MS - HOUR_MS,
    };
    put_all(&cluster, 455, |write, number| {
        let request = Request {
            content_sha256: [0; 32],
            vm: None,
            operation: None,
            at_ms: at_ms(number),
        };
        write.put_request(&RequestId::new(format!("r{number}")).unwrap(), &request)
    })
    .await;
    put_all(&cluster, 255, |write, number| {
        let token = Token {
            secret_sha256: [0; 32],
            expires_at_ms: at_ms(number),
            uses_left: 1,
        };
        let id = TokenId::new(format!("{number:012x}")).unwrap();
        write.expect_absent(keys::token(&id)).put_token(&id, &token)
    })
    .await;
    let controller = cluster.controller(true);
    let kept = |mirror: &Mirror| (mirror.figures().requests, mirror.tokens().len());
    cluster
        .until_mirror("forgotten", |mirror| (kept(mirror) == (5, 5)).then_some(()))
        .await;
    for number in 0..5 {
        let id = RequestId::new(format!("r{number}")).unwrap();
        assert!(cluster.mirror.request(&id).is_some(), "{number}");
    }
    controller.ends().await;
}

#[tokio::test(start_paused = true)]
async fn no_more_requests_are_kept_than_there_is_room_for() {
    let cluster = Played::of_hosts(1).await;
    let now_ms = wall_ms();
    let count = u64::try_from(REQUESTS_KEPT).unwrap() + 450;
    put_all(&cluster, count, |write, number| {
        let request = Request {
            content_sha256: [0; 32],
            vm: None,
            operation: None,
            at_ms: now_ms - HOUR_MS + number,
        };
        write.put_request(&RequestId::new(format!("r{number}")).unwrap(), &request)
    })
    .await;
    let controller = cluster.controller(true);
    let has_room = |mirror: &Mirror| (mirror.figures().requests <= REQUESTS_KEPT).then_some(());
    cluster.until_mirror("forgotten", has_room).await;
    let oldest = |number: u64| cluster.mirror.request(&RequestId::new(format!("r{number}")).unwrap());
    assert!(oldest(449).is_none() && oldest(450).is_some());
    controller.ends().await;
}
