//! What is acknowledged has been synced: proved by watching the system calls of all members.
//!
//! For every put there must be, on a quorum of members, a write of the put's bytes to a file of the member
//! and a later sync of that file that returned before the reply to the client was sent.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chainfire::kv::{Key, Value};
use hyper_util::rt::TokioIo;
use plasmavmc_tests::members::{Local, MemberClient, MemberEnv};
use plasmavmc_tests::torture::Sabotage;
use plasmavmc_tests::trace::{Clock, SystemCall, Tracer, now};
use tokio::net::TcpStream;
use tonic::transport::Endpoint;

const MEMBERS: usize = 3;
const QUORUM: usize = 2;
const PUTS: usize = 60;

/// One put, as its client saw it.
struct Put {
    /// Bytes that are in no other put.
    mark: String,
    sent: Clock,
    answered: Clock,
}

/// What one member did.
struct Evidence {
    dir: PathBuf,
    calls: Vec<SystemCall>,
}

impl Evidence {
    /// Whether the bytes were written to a file of this member and synced before a moment.
    fn synced(&self, mark: &str, before: Clock) -> bool {
        let is_ours = |call: &SystemCall| PathBuf::from(&call.target).starts_with(&self.dir) && call.succeeded;
        let writes = self
            .calls
            .iter()
            .filter(|call| is_ours(call) && call.arguments.contains(mark));
        let mut writes = writes.filter(|call| !call.is_sync());
        writes.any(|write| {
            let later = |call: &&SystemCall| call.is_sync() && is_ours(call) && call.target == write.target;
            let mut syncs = self.calls.iter().filter(later);
            syncs.any(|sync| sync.began >= write.returned && sync.returned <= before)
        })
    }

    /// When the reply to the client behind a port was sent: its last packet before the client had it.
    fn replied(&self, client_port: u16, put: &Put) -> Option<Clock> {
        let to_client = format!("->127.0.0.1:{client_port}]");
        let sends = self.calls.iter().filter(|call| call.target.ends_with(&to_client));
        let times = sends
            .map(|call| call.began)
            .filter(|began| (put.sent..put.answered).contains(began));
        times.reduce(Clock::max)
    }
}

/// Puts one at a time through one member under a trace of all. Answers, for each put, how many members had
/// synced it before the reply was sent.
fn synced_members_of_each_put(env: MemberEnv) -> Vec<usize> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let local = Local::found(MEMBERS, env).await.expect("a cluster");
        let (client, port) = client_with_known_port(&local.members[1].address).await;
        let tracers: Vec<Tracer> = local
            .members
            .iter()
            .map(|member| {
                let pid = member.process.as_ref().expect("it runs").pid();
                Tracer::attach(pid, &local.folder().join(format!("{}.trace", member.name))).expect("a trace")
            })
            .collect();

        let mut puts = Vec::new();
        for number in 0..PUTS {
            let mark = format!("mark-{number:04}-{}", std::process::id());
            let sent = now();
            client
                .put(&Key::from("traced"), &Value::from(mark.clone()))
                .await
                .expect("a put");
            puts.push(Put {
                mark,
                sent,
                answered: now(),
            });
        }

        let port = port.lock().expect("no panic").expect("the client has connected");
        let members = local.members.iter().zip(tracers);
        let evidence: Vec<Evidence> = members
            .map(|(member, tracer)| Evidence {
                dir: member.dir.clone(),
                calls: tracer.finish().expect("system calls"),
            })
            .collect();
        puts.iter()
            .map(|put| {
                let replied = evidence[1]
                    .replied(port, put)
                    .unwrap_or_else(|| panic!("no reply to {} was seen", put.mark));
                evidence
                    .iter()
                    .filter(|member| member.synced(&put.mark, replied))
                    .count()
            })
            .collect()
    })
}

type Port = Arc<Mutex<Option<u16>>>;

async fn client_with_known_port(address: &str) -> (MemberClient, Port) {
    let port = Port::default();
    let (seen, target) = (Arc::clone(&port), address.to_owned());
    let connect = tower::service_fn(move |_| {
        let (seen, target) = (Arc::clone(&seen), target.clone());
        async move {
            let stream = TcpStream::connect(target).await?;
            *seen.lock().expect("no panic") = Some(stream.local_addr()?.port());
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let channel = endpoint.connect_with_connector(connect).await.expect("a connection");
    (MemberClient::over(address, channel, Duration::from_secs(10)), port)
}

#[test]
fn every_acknowledged_put_was_synced_on_a_quorum_before_the_reply() {
    let synced = synced_members_of_each_put(Vec::new());
    let breaches = synced.iter().filter(|members| **members < QUORUM).count();
    assert_eq!(breaches, 0, "members that had synced, by put: {synced:?}");
}

#[test]
fn acknowledging_before_the_sync_is_seen() {
    let synced = synced_members_of_each_put(Sabotage::AckBeforeFsync.env());
    let breaches = synced.iter().filter(|members| **members < QUORUM).count();
    assert!(
        breaches > PUTS / 2,
        "a member that acknowledges before it syncs passed for an honest one (is the binary built with \
         --features faults?): {synced:?}"
    );
}
