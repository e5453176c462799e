//! Which threads serve a connection, and the calls that come over it.
//!
//! A write that arrives on the threads of replication is carried out there; from any other thread it is handed over
//! and back, which is a tenth of the time that a lone client waits for it. But what else is done on those threads
//! delays heartbeats, and with enough of it a member that lives looks dead. So there are few seats:
//!
//! ```text
//! connection ─┬─ a seat is free ─► threads of replication ─ its calls ─┬─ a seat is free ─► there too
//!             │                                                        └─ none ───────────► threads of clients
//!             └─ none ───────────► threads of clients
//! ```
//! Never does a call wait for a seat. The other members mostly connect before any client does, and sit there too.

use std::future::Future;
use std::sync::Arc;

use hyper::rt::Executor;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections on the threads of replication: those of the members, and of the clients of a small cluster.
const CONNECTIONS: usize = 8;
/// Calls that all of these may have under way there.
const CALLS: usize = 32;

/// Hands out places to connections.
#[derive(Debug)]
pub struct Seats {
    others: Handle,
    near: Option<Near>,
}

#[derive(Debug)]
struct Near {
    threads: Handle,
    connections: Arc<Semaphore>,
    calls: Arc<Semaphore>,
}

/// Where one connection is served. The seat is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    pub threads: Handle,
    pub calls: CallExecutor,
    _seat: Option<OwnedSemaphorePermit>,
}

impl Seats {
    /// Seats on `near`, and room for all others on the current runtime.
    pub fn new(near: Option<Handle>) -> Self {
        Self {
            others: Handle::current(),
            near: near.map(|threads| Near {
                threads,
                connections: Arc::new(Semaphore::new(CONNECTIONS)),
                calls: Arc::new(Semaphore::new(CALLS)),
            }),
        }
    }

    /// A place for a connection that has just come.
    pub fn place(&self) -> Place {
        let others = self.others.clone();
        let seated = self.near.as_ref().and_then(|near| {
            let seat = Arc::clone(&near.connections).try_acquire_owned().ok()?;
            Some((near, seat))
        });
        match seated {
            Some((near, seat)) => Place {
                threads: near.threads.clone(),
                calls: CallExecutor {
                    others,
                    near: Some((near.threads.clone(), Arc::clone(&near.calls))),
                },
                _seat: Some(seat),
            },
            None => Place {
                threads: others.clone(),
                calls: CallExecutor { others, near: None },
                _seat: None,
            },
        }
    }
}

/// Carries out the calls of one connection.
#[derive(Debug, Clone)]
pub struct CallExecutor {
    others: Handle,
    near: Option<(Handle, Arc<Semaphore>)>,
}

impl<F> Executor<F> for CallExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, call: F) {
        let seated = self.near.as_ref().and_then(|(threads, seats)| {
            let seat = Arc::clone(seats).try_acquire_owned().ok()?;
            Some((threads, seat))
        });
        match seated {
            Some((threads, seat)) => drop(threads.spawn(async move {
                call.await;
                drop(seat);
            })),
            None => drop(self.others.spawn(call)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, Runtime};
    use tokio::sync::{mpsc, watch};

    use super::*;

    fn threads(name: &str) -> Runtime {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).thread_name(name).build().unwrap()
    }

    fn name() -> String {
        std::thread::current().name().unwrap_or_default().to_owned()
    }

    /// Two runtimes, and seats on the first.
    fn seats() -> (Runtime, Runtime, Seats) {
        let (near, others) = (threads("near"), threads("others"));
        let seats = others.block_on(async { Seats::new(Some(near.handle().clone())) });
        (near, others, seats)
    }

    fn where_served(place: &Place) -> String {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        place.threads.spawn(async move { sender.send(name()) });
        receiver.recv().unwrap()
    }

    #[test]
    fn connections_beyond_the_seats_are_served_elsewhere_until_one_is_free() {
        let (_near, _others, seats) = seats();
        let mut seated: Vec<Place> = (0..CONNECTIONS).map(|_| seats.place()).collect();
        assert!(seated.iter().all(|place| where_served(place) == "near"));
        assert_eq!(where_served(&seats.place()), "others");
        seated.pop();
        assert_eq!(where_served(&seats.place()), "near");
    }

    #[test]
    fn calls_beyond_the_seats_are_carried_out_elsewhere_and_none_waits() {
        let (_near, others, seats) = seats();
        let places = [seats.place(), seats.place()];
        let (release, released) = watch::channel(false);
        let (sender, mut receiver) = mpsc::channel(2 * CALLS + 20);
        for number in 0..CALLS + 5 {
            let (mut released, sender) = (released.clone(), sender.clone());
            places[number % 2].calls.execute(async move {
                sender.send(name()).await.unwrap();
                released.wait_for(|released| *released).await.unwrap();
                sender.send(name()).await.unwrap();
            });
        }
        let mut next = || others.block_on(receiver.recv()).unwrap();
        let begun: Vec<String> = (0..CALLS + 5).map(|_| next()).collect();
        assert_eq!(begun.iter().filter(|name| *name == "near").count(), CALLS);
        release.send_replace(true);
        for _ in 0..CALLS + 5 {
            next();
        }
        // A seat is free a moment after its call has said its last word.
        let free = Arc::clone(&seats.near.as_ref().unwrap().calls);
        drop(
            others
                .block_on(free.acquire_many(u32::try_from(CALLS).unwrap()))
                .unwrap(),
        );
        let sender = sender.clone();
        places[0]
            .calls
            .execute(async move { sender.send(name()).await.unwrap() });
        assert_eq!(next(), "near");
    }

    #[test]
    fn without_threads_of_replication_all_are_served_here() {
        let others = threads("others");
        let seats = others.block_on(async { Seats::new(None) });
        assert_eq!(where_served(&seats.place()), "others");
    }
}
