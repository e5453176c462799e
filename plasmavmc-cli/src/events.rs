//! `plasmavmc events`.

use std::time::Duration;

use plasmavmc_proto::api::{ClusterStatusRequest, Event, WatchEventsRequest};

use crate::args::EventsArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::fields::node_of;
use crate::resume::{End, Next, resumed};
use crate::show::event_line;

/// The past ends where nothing came for so long: there need not be an event at the newest revision.
const PAST_IS_OVER_AFTER: Duration = Duration::from_secs(1);

pub async fn run(context: &Context, args: EventsArgs) -> Result<(), Failure> {
    let show = |event: &Event| context.screen.streamed(|| node_of(event), || event_line(event));
    if !args.follow {
        let past = past(context, &args, args.from, PAST_IS_OVER_AFTER).await?;
        if past.is_empty() {
            context
                .screen
                .note("nothing that is still known; -f shows what happens from now on");
        }
        return past.iter().try_for_each(show);
    }
    let mut from = args.from.unwrap_or(0);
    loop {
        let request = |from_revision| request(&args, from_revision);
        let each = |event: Event| {
            show(&event)?;
            Ok(Next::From(event.resume_from))
        };
        match resumed(&context.reach, "follow the events", from, request, each).await? {
            End::Enough => return Ok(()),
            End::Ended => {
                let why = "the server has ended it".to_owned();
                return Err(Failure::BrokeOff {
                    doing: "following the events".to_owned(),
                    why,
                });
            }
            End::Compacted if from == 0 => return Ok(()),
            End::Compacted => {
                context.screen.note(&format!(
                    "what happened since revision {from} is no longer known; from now on:"
                ));
                from = 0;
            }
        }
    }
}

fn request(args: &EventsArgs, from_revision: u64) -> WatchEventsRequest {
    WatchEventsRequest {
        from_revision,
        vm: args.vm.clone().unwrap_or_default(),
        host: args.host.clone().unwrap_or_default(),
    }
}

/// What happened up to now, as far back as it is known.
pub async fn past(
    context: &Context,
    args: &EventsArgs,
    from: Option<u64>,
    silence: Duration,
) -> Result<Vec<Event>, Failure> {
    let now = context
        .reach
        .ask("ask for the revision", ClusterStatusRequest {})
        .await?
        .revision;
    let mut events = Vec::new();
    // A store keeps some of its history; how much it does not say, so ever less is asked for.
    let mut back = from.map_or(now.saturating_sub(1), |from| now.saturating_sub(from));
    loop {
        let begin = now.saturating_sub(back).max(1);
        match read_past(context, args, begin, now, silence, &mut events).await? {
            End::Compacted if from.is_none() && back > 1 => back /= 2,
            End::Compacted => {
                let oldest = "the store does not go back so far; leave --from out".to_owned();
                return if from.is_some() {
                    Err(Failure::Usage(oldest))
                } else {
                    Ok(events)
                };
            }
            End::Enough | End::Ended => return Ok(events),
        }
    }
}

async fn read_past(
    context: &Context,
    args: &EventsArgs,
    begin: u64,
    now: u64,
    silence: Duration,
    events: &mut Vec<Event>,
) -> Result<End, Failure> {
    let opened = context.reach.follow("read the events", request(args, begin)).await;
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(Failure::Answered { answer, .. }) if answer.code == tonic::Code::OutOfRange => return Ok(End::Compacted),
        Err(failure) => return Err(failure),
    };
    loop {
        match tokio::time::timeout(silence, stream.message()).await {
            Err(_) | Ok(Ok(None)) => return Ok(End::Ended),
            Ok(Ok(Some(event))) if event.revision > now => return Ok(End::Enough),
            Ok(Ok(Some(event))) => events.push(event),
            Ok(Err(status)) if status.code() == tonic::Code::OutOfRange => return Ok(End::Compacted),
            Ok(Err(status)) => {
                let why = status.message().to_owned();
                return Err(Failure::BrokeOff {
                    doing: "reading the events".to_owned(),
                    why,
                });
            }
        }
    }
}
