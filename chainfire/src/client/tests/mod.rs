//! The client against real servers on loopback, over stores in memory.

mod errors;
mod lost_members;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::{Client, ClientOptions};
use crate::kv::conformance::{Compactable, PATIENCE, Subject, differential};
use crate::kv::memory::MemoryKv;
use crate::kv::{Kv, Limits};
use crate::service::KvService;
use crate::transport;

/// A member of its own runtime, so that it can be killed with all its connections.
struct Member {
    address: String,
    runtime: Option<Runtime>,
    shutdown: CancellationToken,
    finished: tokio::task::JoinHandle<()>,
}

impl Member {
    fn start(kv: Arc<dyn Kv>) -> Self {
        Self::start_at("127.0.0.1:0", kv)
    }

    fn start_at(address: &str, kv: Arc<dyn Kv>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let shutdown = CancellationToken::new();
        let (bound, address_of_it) = std::sync::mpsc::sync_channel(1);
        let (wanted, token) = (address.to_owned(), shutdown.clone());
        let finished = runtime.spawn(async move {
            let listener = transport::bind(&wanted).await.expect("a listener");
            let address = listener.local_addr().expect("an address").to_string();
            bound.send(address).expect("somebody waits for the address");
            let service = KvService::new(kv, token.clone()).into_server();
            let server = tonic::transport::Server::builder().add_service(service);
            let served = server.serve_with_incoming_shutdown(listener.into_incoming(), token.cancelled_owned());
            served.await.expect("the server ends well");
        });
        let address = address_of_it.recv_timeout(PATIENCE).expect("the server starts");
        Self {
            address,
            runtime: Some(runtime),
            shutdown,
            finished,
        }
    }

    /// Like a power cut: no goodbye.
    fn kill(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        // A runtime that is dropped waits for its threads, which an asynchronous test must not do itself.
        let ending = std::thread::Builder::new().spawn(move || drop(runtime));
        ending.expect("a thread").join().expect("it ends well");
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Impatient, so that tests of giving up are quick.
fn options() -> ClientOptions {
    ClientOptions {
        timeout: Duration::from_millis(1500),
        read_attempt_timeout: Duration::from_millis(300),
        resume_timeout: Duration::from_secs(20),
        ..ClientOptions::default()
    }
}

fn client(members: &[&Member]) -> Client {
    client_of(members.iter().map(|member| member.address.as_str()))
}

fn client_of<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Client {
    Client::new(addresses, options()).expect("a client")
}

async fn start(limits: Limits) -> Subject {
    let kv = Arc::new(MemoryKv::new(limits));
    let member = Member::start(Arc::clone(&kv) as _);
    let patient = ClientOptions {
        timeout: PATIENCE,
        read_attempt_timeout: PATIENCE,
        ..ClientOptions::default()
    };
    let client = Client::new([&member.address], patient).expect("a client");
    Subject::new(Arc::new(client), limits)
        .with_compaction(kv as Arc<dyn Compactable>)
        .within(Mutex::new(member))
}

async fn start_in_memory(limits: Limits) -> Subject {
    Subject::new(Arc::new(MemoryKv::new(limits)), limits)
}

crate::kv_conformance!(start);
crate::kv_compaction_conformance!(start);

#[test]
fn a_client_does_not_differ_from_its_store() {
    differential(32, start_in_memory, start);
}

#[tokio::test]
async fn a_member_is_reached_by_name_and_over_ipv6() {
    for address in ["localhost:0", "[::1]:0"] {
        let member = Member::start_at(address, Arc::new(MemoryKv::default()));
        let port = member.address.rsplit(':').next().expect("a port");
        let host = address.strip_suffix(":0").expect("a host");
        let client = client_of([format!("http://{host}:{port}").as_str()]);
        assert_eq!(client.put("a".into(), "1".into()).await, Ok(1), "{host}");
    }
}
