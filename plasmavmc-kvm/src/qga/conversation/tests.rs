use proptest::prelude::*;
use serde_json::json;

use super::*;

const LIMIT: usize = 1000;

/// What is heard, however the bytes are cut.
fn hear(conversation: &mut Conversation, bytes: &[u8], piece: usize) -> Vec<Heard> {
    bytes
        .chunks(piece)
        .flat_map(|piece| conversation.receive(piece))
        .collect()
}

fn echo(id: u64) -> Vec<u8> {
    [&[MARK][..], format!("{{\"return\": {id}}}\n").as_bytes()].concat()
}

#[test]
fn answers_of_the_past_are_not_heard_after_a_sync() {
    let mut conversation = Conversation::new(LIMIT);
    let frame = conversation.sync(7);
    assert_eq!(frame[0], MARK);
    assert_eq!(hear(&mut conversation, b"{\"return\": {}}\n{\"error\": {}}\n", 3), []);
    assert_eq!(hear(&mut conversation, &echo(6), 2), [], "an earlier sync");
    assert_eq!(hear(&mut conversation, b"{\"return\": 7}\n", 5), [], "without its mark");
    assert_eq!(hear(&mut conversation, &echo(7), 1), [Heard::Synced]);
    conversation.expect_answer();
    assert_eq!(hear(&mut conversation, &echo(7), 4), [], "the echo, doubled");
    let answer = hear(&mut conversation, b"{\"return\": {\"x\": 1}}\n{\"return\": 2}\n", 4);
    assert_eq!(
        answer,
        [Heard::Answer(Ok(json!({ "x": 1 })))],
        "and the next line is nobody's"
    );
}

#[test]
fn a_half_line_before_the_mark_does_not_spoil_the_echo() {
    let mut conversation = Conversation::new(LIMIT);
    conversation.sync(7);
    let bytes = [b"{\"return\": {\"half".as_slice(), &echo(7)].concat();
    assert_eq!(hear(&mut conversation, &bytes, 6), [Heard::Synced]);
}

#[test]
fn silence_with_an_echo_is_success_and_a_refusal_is_heard() {
    let mut conversation = Conversation::new(LIMIT);
    conversation.confirm(9);
    assert_eq!(hear(&mut conversation, b"{\"return\": 9}\n", 3), [Heard::Confirmed]);
    conversation.confirm(10);
    let heard = hear(
        &mut conversation,
        b"{\"error\": {\"desc\": \"no\"}}\n{\"return\": 10}\n",
        3,
    );
    assert!(
        matches!(&heard[..], [Heard::Answer(Err(refusal))] if refusal.text == "no"),
        "{heard:?}"
    );
}

#[test]
fn an_endless_answer_ends_at_the_limit_and_the_next_sync_works() {
    let mut conversation = Conversation::new(LIMIT);
    conversation.expect_answer();
    let endless = vec![b'['; 5 * LIMIT];
    assert_eq!(hear(&mut conversation, &endless, 100), [Heard::TooLong]);
    conversation.sync(1);
    assert_eq!(hear(&mut conversation, &endless, 100), []);
    assert_eq!(hear(&mut conversation, &echo(1), 100), [Heard::Synced]);
}

#[test]
fn an_answer_with_a_hole_is_not_heard() {
    let mut conversation = Conversation::new(LIMIT);
    conversation.expect_answer();
    assert_eq!(conversation.receive(b"{\"return\":"), []);
    conversation.lost();
    assert_eq!(conversation.receive(b" 1}\n"), []);
    assert_eq!(conversation.receive(b"1}\n"), []);
}

proptest! {
    #[test]
    fn whatever_came_before_a_sync_the_next_answer_is_the_right_one(
        noise in prop::collection::vec(any::<u8>(), 0..300),
        stale in prop::collection::vec(0_u64..5, 0..5),
        piece in 1_usize..40,
    ) {
        let mut conversation = Conversation::new(LIMIT);
        conversation.sync(99);
        let past: Vec<u8> = stale.iter().flat_map(|&id| echo(id)).collect();
        prop_assert_eq!(hear(&mut conversation, &noise, piece), []);
        prop_assert_eq!(hear(&mut conversation, &past, piece), []);
        prop_assert_eq!(hear(&mut conversation, &echo(99), piece), [Heard::Synced]);
        conversation.expect_answer();
        prop_assert_eq!(hear(&mut conversation, b"{\"return\": \"mine\"}\n", piece), [Heard::Answer(Ok(json!("mine")))]);
    }
}
