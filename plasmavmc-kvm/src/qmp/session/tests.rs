//! The conversation under every order of events that a peer, a clock and a socket can bring about.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::super::refusal::ErrorClass;
use super::*;

const LONG: Duration = Duration::from_secs(3600);

fn request(token: usize, deadline: Instant) -> Request<usize> {
    Request {
        name: format!("command-{token}"),
        arguments: json!({ "token": token }),
        oob: false,
        fd: None,
        deadline,
        token,
    }
}

/// Writes everything that may be written, and tells the commands that QEMU would read.
fn flush(session: &mut Session<usize>) -> Vec<Value> {
    let written = write_all(session);
    let lines = written.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

fn write_all(session: &mut Session<usize>) -> Vec<u8> {
    let mut written = Vec::new();
    while let Some((bytes, _)) = session.transmit() {
        written.extend_from_slice(bytes);
        let count = bytes.len();
        session.transmitted(count);
    }
    written
}

fn receive(session: &mut Session<usize>, text: &str) -> Vec<Output<usize>> {
    let mut outputs = Vec::new();
    session.receive(text.as_bytes(), &mut outputs).unwrap();
    outputs
}

fn reply(command: &Value) -> String {
    format!(
        "{}\n",
        json!({ "return": command["arguments"]["token"], "id": command["id"] })
    )
}

fn answered(token: usize) -> Output<usize> {
    Output::Done {
        token,
        outcome: Outcome::Answered(Ok(json!(token))),
    }
}

#[test]
fn no_more_than_the_window_is_ever_unanswered() {
    let later = Instant::now() + LONG;
    let mut session = Session::new();
    for token in 0..20 {
        session.submit(request(token, later));
    }
    let mut seen = flush(&mut session);
    assert_eq!(seen.len(), WINDOW);
    for token in 0..20 {
        let outputs = receive(&mut session, &reply(&seen[token]));
        assert_eq!(outputs, [answered(token)]);
        seen.extend(flush(&mut session));
        assert!(seen.len() <= token + 1 + WINDOW);
    }
}

#[test]
fn out_of_band_passes_commands_that_hang() {
    let later = Instant::now() + LONG;
    let mut session = Session::new();
    session.enable_oob();
    for token in 0..WINDOW + 3 {
        session.submit(request(token, later));
    }
    assert_eq!(flush(&mut session).len(), WINDOW);
    session.submit(Request {
        oob: true,
        ..request(99, later)
    });
    let seen = flush(&mut session);
    assert_eq!(seen[0]["exec-oob"], "command-99");
    assert_eq!(receive(&mut session, &reply(&seen[0])), [answered(99)]);
}

#[test]
fn without_out_of_band_such_a_command_goes_in_its_turn() {
    let mut session = Session::new();
    session.submit(Request {
        oob: true,
        ..request(1, Instant::now() + LONG)
    });
    assert_eq!(flush(&mut session)[0]["execute"], "command-1");
}

#[test]
fn a_late_reply_is_nobodys_and_frees_its_place() {
    let start = Instant::now();
    let mut session = Session::new();
    for token in 0..WINDOW {
        session.submit(request(token, start));
    }
    let seen = flush(&mut session);
    session.submit(request(50, start + LONG));
    let mut outputs = Vec::new();
    session.expire(start, &mut outputs);
    assert_eq!(outputs.len(), WINDOW);
    assert!(outputs.iter().all(|output| matches!(
        output,
        Output::Done {
            outcome: Outcome::NoAnswer,
            ..
        }
    )));
    assert!(flush(&mut session).is_empty(), "QEMU still holds the places");

    assert_eq!(receive(&mut session, &reply(&seen[3])), [Output::Late { id: 4 }]);
    let next = flush(&mut session);
    assert_eq!(next[0]["execute"], "command-50");
    assert!(
        matches!(receive(&mut session, &reply(&seen[3]))[..], [Output::Stray(_)]),
        "a second time"
    );
    assert_eq!(receive(&mut session, &reply(&next[0])), [answered(50)]);
}

#[test]
fn what_was_not_sent_is_told_from_what_was() {
    let start = Instant::now();
    let mut session = Session::new();
    session.submit(request(1, start));
    session.submit(request(2, start));
    // One byte of the first is with QEMU: the rest has to follow, or the stream is broken.
    assert!(session.transmit().is_some());
    session.transmitted(1);
    let mut outputs = Vec::new();
    session.expire(start, &mut outputs);
    let done = |token, outcome| Output::Done { token, outcome };
    assert_eq!(outputs, [done(2, Outcome::NotSent), done(1, Outcome::NoAnswer)]);
    let rest = session.transmit().map(|(bytes, _)| bytes.to_vec()).unwrap();
    assert_eq!(
        rest,
        br#""arguments":{"token":1},"execute":"command-1","id":1}"#
            .iter()
            .chain(b"\n")
            .copied()
            .collect::<Vec<u8>>()
    );
}

#[test]
fn a_command_of_which_nothing_was_written_is_taken_back() {
    let start = Instant::now();
    let mut session = Session::new();
    session.submit(request(1, start));
    assert!(session.transmit().is_some());
    let mut outputs = Vec::new();
    session.expire(start, &mut outputs);
    assert_eq!(
        outputs,
        [Output::Done {
            token: 1,
            outcome: Outcome::NotSent
        }]
    );
    assert!(session.transmit().is_none());
    assert_eq!(session.next_deadline(), None);
}

#[test]
fn a_reply_before_the_command_was_sent_is_not_believed() {
    let mut session = Session::new();
    session.submit(request(1, Instant::now() + LONG));
    assert!(matches!(
        receive(&mut session, "{\"return\":0,\"id\":1}\n")[..],
        [Output::Stray(_)]
    ));
    assert!(session.transmit().is_some());
    session.transmitted(3);
    assert!(matches!(
        receive(&mut session, "{\"return\":0,\"id\":1}\n")[..],
        [Output::Stray(_)]
    ));
    write_all(&mut session);
    assert_eq!(receive(&mut session, "{\"return\":1,\"id\":1}\n"), [answered(1)]);
}

#[test]
fn descriptors_go_one_at_a_time_and_with_the_first_byte() {
    let later = Instant::now() + LONG;
    let descriptor = || Some(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
    let mut session = Session::new();
    for token in 0..2 {
        session.submit(Request {
            fd: descriptor(),
            ..request(token, later)
        });
    }
    assert!(session.transmit().unwrap().1.is_some());
    session.transmitted(1);
    assert!(session.transmit().unwrap().1.is_none(), "passed twice");
    write_all(&mut session);
    assert!(session.transmit().is_none(), "the second overtook the first's answer");
    assert_eq!(receive(&mut session, "{\"return\":0,\"id\":1}\n").len(), 1);
    assert!(session.transmit().unwrap().1.is_some());
}

#[test]
fn at_the_end_everybody_learns_whether_his_command_was_sent() {
    let later = Instant::now() + LONG;
    let mut session = Session::new();
    for token in 0..3 {
        session.submit(request(token, later));
    }
    let first = session.transmit().unwrap().0.len();
    session.transmitted(first);
    assert!(session.transmit().is_some());
    let mut ends: Vec<(usize, bool)> = session.end().collect();
    ends.sort_unstable();
    assert_eq!(ends, [(0, true), (1, false), (2, false)]);
}

/// What happens to a session, in any order.
#[derive(Debug, Clone)]
enum Step {
    Submit {
        oob: bool,
        short: bool,
    },
    Write(usize),
    /// Answers the n-th of the commands that were read and not answered.
    Reply {
        which: usize,
        refuse: bool,
    },
    Duplicate(usize),
    Garbage(Vec<u8>),
    Event,
    Expire,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (any::<bool>(), any::<bool>()).prop_map(|(oob, short)| Step::Submit { oob, short }),
        4 => (1_usize..200).prop_map(Step::Write),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, refuse)| Step::Reply { which, refuse }),
        1 => any::<usize>().prop_map(Step::Duplicate),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Garbage),
        1 => Just(Step::Event),
        1 => Just(Step::Expire),
    ];
    prop::collection::vec(step, 0..150)
}

/// Runs the steps, cutting what is received into pieces, and checks every output.
#[derive(Default)]
struct World {
    written: Vec<u8>,
    unanswered: Vec<Value>,
    answered: Vec<Value>,
    outcomes: BTreeMap<usize, usize>,
    events: usize,
}

impl World {
    fn take_in(&mut self, session: &mut Session<usize>, bytes: &[u8], piece: usize) {
        let mut outputs = Vec::new();
        for piece in bytes.chunks(piece) {
            session.receive(piece, &mut outputs).unwrap();
        }
        self.judge(outputs);
    }

    fn judge(&mut self, outputs: Vec<Output<usize>>) {
        for output in outputs {
            match output {
                Output::Done { token, outcome } => {
                    *self.outcomes.entry(token).or_default() += 1;
                    match outcome {
                        Outcome::Answered(Ok(value)) => assert_eq!(value, json!(token), "another's answer"),
                        Outcome::Answered(Err(refusal)) => {
                            assert_eq!(refusal.class, ErrorClass::Other("Invented".to_owned()));
                            assert_eq!(refusal.text, token.to_string(), "another's refusal");
                        }
                        Outcome::NotSent | Outcome::NoAnswer => {}
                    }
                }
                Output::Event(_) => self.events += 1,
                Output::Late { .. } | Output::Stray(_) => {}
            }
        }
    }

    fn write(&mut self, session: &mut Session<usize>, count: usize) {
        let Some((bytes, _)) = session.transmit() else { return };
        let count = count.min(bytes.len());
        self.written.extend_from_slice(&bytes[..count]);
        session.transmitted(count);
        while let Some(end) = self.written.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.written.drain(..=end).collect();
            self.unanswered.push(serde_json::from_slice(&line).unwrap());
        }
    }
}

fn answer_to(command: &Value, refuse: bool) -> String {
    if refuse {
        let text = command["arguments"]["token"].to_string();
        return format!(
            "{}\n",
            json!({ "error": { "class": "Invented", "desc": text }, "id": command["id"] })
        );
    }
    reply(command)
}

proptest! {
    #[test]
    fn every_command_gets_one_outcome_and_its_own(steps in steps(), piece in 1_usize..50) {
        let start = Instant::now();
        let mut session = Session::new();
        session.enable_oob();
        let mut world = World::default();
        let mut submitted = 0;
        let mut events_sent = 0;
        for step in steps {
            match step {
                Step::Submit { oob, short } if session.has_room() => {
                    let deadline = if short { start } else { start + LONG };
                    session.submit(Request { oob, ..request(submitted, deadline) });
                    submitted += 1;
                }
                Step::Submit { .. } => {}
                Step::Write(count) => world.write(&mut session, count),
                Step::Reply { which, refuse } if !world.unanswered.is_empty() => {
                    let command = world.unanswered.remove(which % world.unanswered.len());
                    world.take_in(&mut session, answer_to(&command, refuse).as_bytes(), piece);
                    world.answered.push(command);
                }
                Step::Duplicate(which) if !world.answered.is_empty() => {
                    let command = &world.answered[which % world.answered.len()];
                    let again = answer_to(command, true);
                    world.take_in(&mut session, again.as_bytes(), piece);
                }
                Step::Reply { .. } | Step::Duplicate(_) => {}
                Step::Garbage(mut bytes) => {
                    bytes.push(b'\n');
                    world.take_in(&mut session, &bytes, piece);
                }
                Step::Event => {
                    world.take_in(&mut session, b"{\"event\":\"INVENTED\",\"data\":{}}\n", piece);
                    events_sent += 1;
                }
                Step::Expire => {
                    let mut outputs = Vec::new();
                    session.expire(start, &mut outputs);
                    world.judge(outputs);
                }
            }
        }
        prop_assert_eq!(world.events, events_sent);
        // Whatever happened: a QEMU that now answers everything brings every command to its end.
        loop {
            while session.transmit().is_some() {
                world.write(&mut session, usize::MAX);
            }
            let Some(command) = world.unanswered.pop() else { break };
            world.take_in(&mut session, reply(&command).as_bytes(), piece);
        }
        prop_assert_eq!(session.next_deadline(), None);
        prop_assert!(world.outcomes.values().all(|&count| count == 1), "{:?}", world.outcomes);
        prop_assert_eq!(world.outcomes.len(), submitted);
    }
}
