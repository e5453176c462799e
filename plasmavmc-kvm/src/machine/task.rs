//! The task that owns a machine: it alone changes what the machine is.

use std::sync::Arc;

use plasmavmc_guard::wire::Key;
use plasmavmc_types::QemuRunState;
use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior};

use super::course::{Answer, Outcome, Pending, UnderWay, carry_out, poll, reply};
use super::devices::Ledger;
use super::error::MachineError;
use super::handle::{Done, Machine, Order, Work};
use super::hands::{Channels, Hands, last_words, query_status};
use super::lease::{Thaw, poll_thaw};
use super::phase::{Signal, admit, follow};
use super::start::{clear, reach};
use super::{Action, Host, MachineState, Phase, patience};
use crate::keeper::Lifeline;
use crate::qmp::{ConnectError, Connection, Event, EventsError, QmpError};
use crate::runtime::{RuntimeFolder, StartRecord, file};

/// Orders that wait while one is looked at.
const QUEUE: usize = 16;

/// The way to QEMU.
pub(super) enum Monitor {
    Connected(Connection),
    Lost,
}

pub(super) struct Task {
    host: Arc<Host>,
    pub(super) folder: Arc<RuntimeFolder>,
    record: StartRecord,
    pub(super) key: Key,
    lifeline: Lifeline,
    pub(super) monitor: Monitor,
    pub(super) channels: Arc<Channels>,
    pub(super) state: watch::Sender<MachineState>,
    seen: watch::Receiver<MachineState>,
    orders: mpsc::Receiver<Order>,
    under_way: Option<UnderWay>,
    /// A question what QEMU does. Asked again if something happens meanwhile.
    question: Pending<Result<QemuRunState, QmpError>>,
    is_outdated: bool,
    reconnect: Pending<Result<(Connection, QemuRunState), ConnectError>>,
    /// Who waits for the guest to go on. It begins as soon as the monitor answers.
    pub(super) thaw: Option<Thaw>,
    heartbeat: Interval,
}

/// What the task wakes up for.
enum Wake {
    ProcessEnded,
    Order(Option<Order>),
    Action(Outcome),
    Event(Result<Event, EventsError>),
    Answered(Result<QemuRunState, QmpError>),
    Reached(Result<(Connection, QemuRunState), ConnectError>),
    Thawed(Result<QemuRunState, QmpError>),
    Heartbeat,
}

impl Task {
    #[expect(
        clippy::too_many_arguments,
        reason = "all that a machine consists of, handed over once"
    )]
    pub fn spawn(
        host: Arc<Host>,
        folder: Arc<RuntimeFolder>,
        record: StartRecord,
        channels: Arc<Channels>,
        key: Key,
        lifeline: Lifeline,
        monitor: Monitor,
        state: MachineState,
    ) -> Machine {
        let (orders, taken) = mpsc::channel(QUEUE);
        let (state, seen) = watch::channel(state);
        let mut heartbeat = tokio::time::interval(patience::HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let task = Self {
            host,
            folder,
            record,
            key,
            lifeline,
            monitor,
            channels: Arc::clone(&channels),
            state,
            seen: seen.clone(),
            orders: taken,
            under_way: None,
            question: None,
            is_outdated: false,
            reconnect: None,
            thaw: None,
            heartbeat,
        };
        tokio::spawn(task.run());
        Machine {
            key,
            orders,
            state: seen,
            channels,
        }
    }

    async fn run(mut self) {
        self.seek_monitor();
        loop {
            match self.wake().await {
                Wake::ProcessEnded => return self.end().await,
                Wake::Order(None) => return,
                Wake::Order(Some(Order {
                    work: Work::Close,
                    answer,
                })) => {
                    self.close().await;
                    let _ = answer.send(Ok(Done::default()));
                    return;
                }
                Wake::Order(Some(Order { work, answer })) => match work {
                    Work::Freeze => self.freeze(answer),
                    Work::NoteFrozen => self.note_frozen(answer),
                    Work::Thaw => self.begin_thaw(answer),
                    work => self.take_order(Order { work, answer }),
                },
                Wake::Action(outcome) => self.action_ended(outcome),
                Wake::Event(Ok(event)) => self.note(&event),
                Wake::Event(Err(EventsError::Lagged { missed })) => {
                    tracing::warn!(vm = %self.key.vm, missed, "events of QEMU were lost");
                    self.ask();
                }
                Wake::Event(Err(EventsError::Closed)) => self.lose_monitor("it closed"),
                Wake::Answered(Ok(state)) => self.answered(state),
                Wake::Answered(Err(error)) => self.lose_monitor(&error.to_string()),
                Wake::Reached(Ok((connection, state))) => {
                    tracing::info!(vm = %self.key.vm, "QEMU answers again");
                    self.monitor = Monitor::Connected(connection);
                    self.report(state);
                    self.go_on_thawing();
                }
                Wake::Thawed(result) => self.thawed(result),
                Wake::Reached(Err(_)) => self.seek_monitor(),
                Wake::Heartbeat => {
                    // What is stopped answers nobody.
                    if !self.state.borrow().frozen {
                        self.ask();
                    }
                    self.cap_logs();
                }
            }
            self.finish_if_due();
        }
    }

    async fn wake(&mut self) -> Wake {
        let Self {
            lifeline,
            orders,
            under_way,
            monitor,
            question,
            reconnect,
            thaw,
            heartbeat,
            ..
        } = self;
        let action = async {
            match under_way {
                Some(under_way) => under_way.course.as_mut().await,
                None => std::future::pending().await,
            }
        };
        let event = async {
            match monitor {
                Monitor::Connected(connection) => connection.events.next().await,
                Monitor::Lost => std::future::pending().await,
            }
        };
        let woken = tokio::select! {
            biased;
            () = lifeline.ended() => Wake::ProcessEnded,
            outcome = action => Wake::Action(outcome),
            event = event => Wake::Event(event),
            order = orders.recv() => Wake::Order(order),
            answer = poll(question) => Wake::Answered(answer),
            reached = poll(reconnect) => Wake::Reached(reached),
            thawed = poll_thaw(thaw) => Wake::Thawed(thawed),
            _ = heartbeat.tick() => Wake::Heartbeat,
        };
        match &woken {
            Wake::Answered(_) => self.question = None,
            Wake::Reached(_) => self.reconnect = None,
            _ => {}
        }
        woken
    }

    fn signal(&self, signal: &Signal) {
        self.state.send_if_modified(|state| {
            let phase = follow(state.phase, signal);
            let is_new = phase != state.phase;
            state.phase = phase;
            is_new
        });
    }

    pub(super) fn report(&self, qemu: QemuRunState) {
        self.state.send_if_modified(|state| {
            let phase = follow(state.phase, &Signal::Reported(qemu.clone()));
            let is_new = phase != state.phase || qemu != state.qemu;
            state.phase = phase;
            state.qemu = qemu;
            is_new
        });
    }

    /// Asks QEMU what it does. An answer to a question from before the newest event could be out of date.
    pub(super) fn ask(&mut self) {
        if self.question.is_some() {
            self.is_outdated = true;
        } else if let Monitor::Connected(connection) = &self.monitor {
            let qmp = connection.qmp.clone();
            self.question = Some(Box::pin(async move { query_status(&qmp, patience::COMMAND).await }));
        }
    }

    fn answered(&mut self, state: QemuRunState) {
        if std::mem::take(&mut self.is_outdated) {
            self.ask();
        } else {
            self.report(state);
        }
    }

    pub(super) fn lose_monitor(&mut self, why: &str) {
        if matches!(self.monitor, Monitor::Connected(_)) {
            tracing::warn!(vm = %self.key.vm, why, "QEMU's monitor is lost");
        }
        self.monitor = Monitor::Lost;
        self.question = None;
        self.is_outdated = false;
        self.signal(&Signal::MonitorLost);
        self.seek_monitor();
    }

    fn seek_monitor(&mut self) {
        if self.reconnect.is_some() || matches!(self.monitor, Monitor::Connected(_)) {
            return;
        }
        let path = self.folder.path().join(file::QMP_SOCKET);
        self.reconnect = Some(Box::pin(async move {
            tokio::time::sleep(patience::RECONNECT).await;
            reach(&path, patience::COMMAND).await
        }));
    }

    fn take_order(&mut self, Order { work, answer }: Order) {
        let Some(action) = work.action() else { return };
        let phase = self.state.borrow().phase;
        let refused = match admit(phase, action) {
            Err(reason) => Some(MachineError::NotNow { action, reason }),
            Ok(()) => match &self.under_way {
                Some(other) if action != Action::Kill || other.action == Action::Kill => Some(MachineError::Busy {
                    action,
                    other: other.action,
                }),
                _ => None,
            },
        };
        if let Some(error) = refused {
            let _ = answer.send(Err(error));
            return;
        }
        if let Some(overtaken) = self.under_way.take() {
            let error = MachineError::Overtaken {
                action: overtaken.action,
            };
            reply(overtaken.answer, Err(error));
        }
        self.begin(action, work, Some(answer));
    }

    fn begin(&mut self, action: Action, work: Work, answer: Option<Answer>) {
        self.state.send_modify(|state| {
            state.phase = follow(state.phase, &Signal::Began(action));
            state.action = Some(action);
        });
        let hands = Hands {
            host: Arc::clone(&self.host),
            key: self.key,
            qmp: match &self.monitor {
                Monitor::Connected(connection) => Some(connection.qmp.clone()),
                Monitor::Lost => None,
            },
            channels: Arc::clone(&self.channels),
            policy: self.record.spec.agent,
            seen: self.seen.clone(),
        };
        let ledger = Ledger {
            folder: Arc::clone(&self.folder),
            record: self.record.clone(),
        };
        self.under_way = Some(UnderWay {
            action,
            answer,
            course: Box::pin(carry_out(hands, work, ledger)),
        });
    }

    fn action_ended(&mut self, outcome: Outcome) {
        let Some(UnderWay { action, answer, .. }) = self.under_way.take() else {
            return;
        };
        if let Some(record) = outcome.record {
            self.record = *record;
        }
        self.state.send_modify(|state| {
            if let Some(qemu) = outcome.qemu {
                state.qemu = qemu;
            }
            state.phase = follow(state.phase, &Signal::Ended(action, state.qemu.clone()));
            state.action = None;
        });
        reply(answer, outcome.done);
        self.ask();
    }

    /// A guest that has powered off while nobody waited for it leaves a process to end.
    fn finish_if_due(&mut self) {
        let is_off = matches!(self.state.borrow().phase, Phase::PoweredOff(_));
        if is_off && self.under_way.is_none() {
            self.begin(Action::Finish, Work::Kill, None);
        }
    }

    /// The process is gone: says so when nothing holds its folder any more.
    async fn end(mut self) {
        let exit = self.host.keeper.collect(self.key, patience::COLLECT).await;
        // A SHUTDOWN that came just before the end tells why it ended.
        if let Monitor::Connected(connection) = &mut self.monitor {
            let rest = tokio::time::timeout(patience::COMMAND, async {
                let mut events = Vec::new();
                while let Ok(event) = connection.events.next().await {
                    events.push(event);
                }
                events
            });
            for event in rest.await.unwrap_or_default() {
                self.note(&event);
            }
        }
        let said = last_words(&self.folder.path());
        clear(Arc::clone(&self.folder)).await;
        self.state.send_modify(|state| {
            state.phase = follow(state.phase, &Signal::ProcessEnded(exit));
            state.last_words = said;
        });
        let cause = self.state.borrow().phase;
        tracing::info!(vm = %self.key.vm, ?cause, "its process is gone");
        if let Some(UnderWay { action, answer, course }) = self.under_way.take() {
            let reason = super::NotNow::Gone;
            let outcome = tokio::time::timeout(patience::COMMAND, course).await;
            let done = outcome.map_or(Err(MachineError::NotNow { action, reason }), |outcome| outcome.done);
            reply(answer, done);
        }
        self.state.send_modify(|state| state.action = None);
    }

    async fn close(&mut self) {
        self.under_way = None;
        self.question = None;
        self.reconnect = None;
        if let Monitor::Connected(connection) = std::mem::replace(&mut self.monitor, Monitor::Lost) {
            let _ = tokio::time::timeout(patience::COMMAND, connection.qmp.close()).await;
        }
    }
}
