//! One session on a console: bytes both ways, taken up again at another server where the connection breaks.

use std::io::Write;
use std::time::{Duration, Instant};

use plasmavmc_proto::api::vm_service_client::VmServiceClient;
use plasmavmc_proto::api::{ConsoleInput, ConsoleOutput};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::input::Key;
use crate::failure::{Answer, Failure};
use crate::reach::{Reach, may_go_on};

/// Input on its way to the server.
const WAITING: usize = 16;
/// How long to look for a server that knows the console; the VM's own may be starting again.
const RECONNECT_WITHIN: Duration = Duration::from_secs(30);
const RECONNECT_PAUSE: Duration = Duration::from_millis(250);

/// How long the reason for an end may take.
const LAST_WORD_WITHIN: Duration = Duration::from_secs(5);

/// How a session came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    ByUser,
    /// By the server: the VM is gone.
    Closed,
}

/// An open console.
#[derive(Debug)]
pub struct Session {
    vm: String,
    to_guest: mpsc::Sender<ConsoleInput>,
    from_guest: Streaming<ConsoleOutput>,
}

/// What is still to be sent.
struct Input {
    keys: mpsc::Receiver<Key>,
    has_ended: bool,
    /// Sent when the server takes it; until then no more is read, but what the guest says is still shown.
    pending: Option<Vec<u8>>,
}

impl Session {
    pub async fn open(reach: &Reach, vm: &str, no_history: bool) -> Result<Self, Failure> {
        let doing = format!("open the console of {vm}");
        let attempt = |channel, _| async move {
            let (to_guest, input) = mpsc::channel(WAITING);
            let first = ConsoleInput {
                id: vm.to_owned(),
                no_history,
                data: Vec::new(),
            };
            let sent = to_guest.try_send(first);
            sent.map_err(|_| Status::internal("the queue of the console is closed"))?;
            let mut client = VmServiceClient::new(channel);
            let from_guest = client.console(ReceiverStream::new(input)).await?.into_inner();
            Ok((to_guest, from_guest))
        };
        let (to_guest, from_guest) = reach.go_round(&doing, None, attempt).await?;
        Ok(Self {
            vm: vm.to_owned(),
            to_guest,
            from_guest,
        })
    }

    /// Carries bytes both ways until somebody ends it, over breaks of the connection. `linger`: after the end of the
    /// input leave once the guest was silent for so long.
    pub async fn carry(
        mut self,
        reach: &Reach,
        keys: mpsc::Receiver<Key>,
        out: &mut impl Write,
        linger: Option<Duration>,
    ) -> Result<Left, Failure> {
        let mut input = Input {
            keys,
            has_ended: false,
            pending: None,
        };
        loop {
            match self.carry_until_break(&mut input, out, linger).await? {
                Some(left) => return Ok(left),
                None => self = self.taken_up_again(reach, out).await?,
            }
        }
    }

    /// `None`: the connection broke.
    async fn carry_until_break(
        &mut self,
        input: &mut Input,
        out: &mut impl Write,
        linger: Option<Duration>,
    ) -> Result<Option<Left>, Failure> {
        loop {
            let silence = if input.has_ended { linger } else { None };
            tokio::select! {
                key = input.keys.recv(), if !input.has_ended && input.pending.is_none() => {
                    match key.unwrap_or(Key::End) {
                        Key::Leave => return Ok(Some(Left::ByUser)),
                        Key::End if linger.is_none() => return Ok(Some(Left::ByUser)),
                        Key::End => input.has_ended = true,
                        Key::Bytes(data) => input.pending = Some(data),
                    }
                }
                place = self.to_guest.reserve(), if input.pending.is_some() => match place {
                    Ok(place) => {
                        let data = input.pending.take().unwrap_or_default();
                        place.send(ConsoleInput { data, ..ConsoleInput::default() });
                    }
                    // The server has closed its ear; its mouth tells why.
                    Err(_) => break,
                },
                output = self.from_guest.message() => match output {
                    Ok(Some(output)) => show(out, &output)?,
                    end => return self.end_of(end.err()),
                },
                () = silent_for(silence) => return Ok(Some(Left::ByUser)),
            }
        }
        self.last_word(out).await
    }

    /// What still comes when nothing can be sent any more.
    async fn last_word(&mut self, out: &mut impl Write) -> Result<Option<Left>, Failure> {
        loop {
            match tokio::time::timeout(LAST_WORD_WITHIN, self.from_guest.message()).await {
                Ok(Ok(Some(output))) => show(out, &output)?,
                Ok(end) => return self.end_of(end.err()),
                Err(_) => return Ok(None),
            }
        }
    }

    fn end_of(&self, status: Option<Status>) -> Result<Option<Left>, Failure> {
        match status {
            None => Ok(Some(Left::Closed)),
            Some(status) if may_go_on(&status) => Ok(None),
            Some(status) => Err(refused(&self.vm, &status)),
        }
    }

    async fn taken_up_again(self, reach: &Reach, out: &mut impl Write) -> Result<Self, Failure> {
        tell(out, "the connection broke, looking for another server")?;
        let begun = Instant::now();
        loop {
            tokio::time::sleep(RECONNECT_PAUSE).await;
            match Self::open(reach, &self.vm, true).await {
                Ok(session) => {
                    tell(out, "connected again; something may be missing")?;
                    return Ok(session);
                }
                Err(Failure::Nobody { .. }) if begun.elapsed() < RECONNECT_WITHIN => {}
                Err(failure) => return Err(failure),
            }
        }
    }
}

fn refused(vm: &str, status: &Status) -> Failure {
    Failure::Answered {
        doing: format!("go on with the console of {vm}"),
        answer: Box::new(Answer::of(status)),
    }
}

async fn silent_for(silence: Option<Duration>) {
    match silence {
        Some(silence) => tokio::time::sleep(silence).await,
        None => std::future::pending().await,
    }
}

fn show(out: &mut impl Write, output: &ConsoleOutput) -> Result<(), Failure> {
    if output.lost_bytes > 0 {
        tell(
            out,
            &format!("{} bytes were lost: this terminal is too slow", output.lost_bytes),
        )?;
    }
    write(out, &output.data)
}

/// A line of ours among the guest's, which may be in a raw terminal.
fn tell(out: &mut impl Write, text: &str) -> Result<(), Failure> {
    write(out, format!("\r\n[plasmavmc: {text}]\r\n").as_bytes())
}

fn write(out: &mut impl Write, bytes: &[u8]) -> Result<(), Failure> {
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|error| Failure::io("write to standard output", error))
}

#[cfg(test)]
mod tests;
