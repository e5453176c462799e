//! `plasmavmc cluster`.
//!
//! Founding and joining are about one host, which no other may stand in for: they take one server, never a list.

use std::io::Read;

use plasmavmc_proto::api::{
    ClusterStatus, ClusterStatusRequest, CreateTokenRequest, InitRequest, JoinRequest, RemoveHostRequest,
    SetTimingsRequest,
};

use crate::args::{ClusterCommand, JoinArgs, RemoveArgs, TimingsArgs, TokenArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::reach::parse_server;
use crate::show::{self, clock_time, members_table, status_text, timings_table};
use crate::vm::confirm;

/// Longer than any token is.
const MAX_TOKEN_BYTES: u64 = 4096;

pub async fn run(context: &Context, command: ClusterCommand) -> Result<(), Failure> {
    match command {
        ClusterCommand::Init => init(context).await,
        ClusterCommand::Join(args) => join(context, args).await,
        ClusterCommand::Token(args) => token(context, args).await,
        ClusterCommand::Status => {
            let status = status(context).await?;
            show(context, &status)
        }
        ClusterCommand::Members => {
            let members = status(context).await?.members;
            context
                .screen
                .list(&members, || members_table(&members, context.screen.colours))
        }
        ClusterCommand::Remove(args) => remove(context, args).await,
        ClusterCommand::SetTimings(args) => set_timings(context, args).await,
    }
}

async fn status(context: &Context) -> Result<ClusterStatus, Failure> {
    context
        .reach
        .ask("ask how the cluster is", ClusterStatusRequest {})
        .await
}

fn show(context: &Context, status: &ClusterStatus) -> Result<(), Failure> {
    context
        .screen
        .one(status, || status_text(status, context.screen.colours))
}

async fn init(context: &Context) -> Result<(), Failure> {
    let server = context.reach.only_server("cluster init")?;
    let status = context
        .reach
        .ask(&format!("found a cluster on {server}"), InitRequest {})
        .await?;
    show(context, &status)?;
    context
        .screen
        .note("\nFounded. A VM: plasmavmc vm create --help. Another host: plasmavmc cluster token");
    Ok(())
}

async fn join(context: &Context, args: JoinArgs) -> Result<(), Failure> {
    let server = context.reach.only_server("cluster join")?;
    for via in &args.via {
        parse_server(via).map_err(|problem| Failure::Usage(format!("--via {problem}")))?;
    }
    let token = if args.token == "-" {
        token_from_input()?
    } else {
        args.token.trim().to_owned()
    };
    if token.is_empty() {
        return Err(Failure::Usage(
            "the token is empty; plasmavmc cluster token on a member makes one".to_owned(),
        ));
    }
    let doing = format!("make {server} part of the cluster of {}", args.via.join(", "));
    let status = context.reach.ask(&doing, JoinRequest { via: args.via, token }).await?;
    show(context, &status)
}

fn token_from_input() -> Result<String, Failure> {
    let mut token = String::new();
    let read = std::io::stdin().lock().take(MAX_TOKEN_BYTES).read_to_string(&mut token);
    read.map_err(|error| Failure::io("read the token from standard input", error))?;
    Ok(token.trim().to_owned())
}

async fn token(context: &Context, args: TokenArgs) -> Result<(), Failure> {
    let valid_s = u32::try_from(args.valid.as_secs()).unwrap_or(u32::MAX).max(1);
    let made = context
        .reach
        .ask(
            "make a token",
            CreateTokenRequest {
                valid_s,
                uses: args.uses,
            },
        )
        .await?;
    if context.screen.quiet {
        return show::print(&made.token);
    }
    let via: Vec<&str> = context.reach.servers().iter().map(|server| server.address()).collect();
    context.screen.one(&made, || {
        format!(
            "{}\n\nGood until {}. On the new host, which must reach the address after --via:\n  \
             plasmavmc --server 127.0.0.1:50051 cluster join --via {} --token {}",
            made.token,
            clock_time(made.expires_at_ms),
            via.join(","),
            made.token
        )
    })
}

async fn remove(context: &Context, args: RemoveArgs) -> Result<(), Failure> {
    if !args.yes {
        let dead = if args.dead {
            ", which is off and will never come back,"
        } else {
            ""
        };
        confirm(&format!("Take host {}{dead} out of the cluster?", args.host))?;
    }
    let request = RemoveHostRequest {
        id: args.host.clone(),
        dead: args.dead,
    };
    let status = context
        .reach
        .ask(&format!("take host {} out", args.host), request)
        .await?;
    show(context, &status)
}

async fn set_timings(context: &Context, args: TimingsArgs) -> Result<(), Failure> {
    let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let request = SetTimingsRequest {
        beat_ms: args.beat.map(ms),
        freeze_after_ms: args.freeze_after.map(ms),
        failover_after_ms: args.failover_after.map(ms),
    };
    let answer = context.reach.ask("change the timings", request).await?;
    context
        .screen
        .one(&answer, || timings_table(&answer, context.screen.colours))?;
    context
        .screen
        .note("\nHosts take them up with their next beats: plasmavmc cluster status names those that have not yet");
    Ok(())
}
