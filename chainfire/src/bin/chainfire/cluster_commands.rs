//! Commands on the cluster and its members.

use std::io::Write;

use chainfire::client::Client;
use chainfire::proto::MemberAddRequest;

use crate::args::{FeatureLevelArgs, MemberCommand, StatusArgs};
use crate::failure::Failure;
use crate::output::Printer;

pub async fn status(client: &Client, args: StatusArgs, mut printer: Printer<impl Write>) -> Result<(), Failure> {
    if !args.all {
        return printer.status(&client.status().await?);
    }
    let answers = client.status_of_all().await;
    let nobody = answers.iter().all(|(_, answer)| answer.is_err());
    let told: Vec<_> = answers
        .iter()
        .map(|(address, answer)| (address.clone(), answer.clone().map_err(|error| error.to_string())))
        .collect();
    printer.statuses(&told)?;
    match answers.into_iter().next() {
        Some((_, Err(error))) if nobody => Err(error.into()),
        _ => Ok(()),
    }
}

pub async fn member(client: &Client, command: MemberCommand, mut printer: Printer<impl Write>) -> Result<(), Failure> {
    match command {
        MemberCommand::List => printer.members(&client.member_list().await?),
        MemberCommand::Add {
            name,
            address,
            cluster_id,
            lost_store,
        } => {
            // What the members cannot reach must not be written into their records.
            let address = address.parse::<chainfire::transport::Address>()?.to_string();
            let request = MemberAddRequest {
                name,
                address,
                cluster_id,
                lost_store,
            };
            printer.member_added(&client.member_add(request).await?)
        }
        MemberCommand::Promote { id } => printer.members(&client.member_promote(id).await?),
        MemberCommand::Remove { id } => printer.members(&client.member_remove(id).await?),
        MemberCommand::Replace { dead_id, learner_id } => {
            printer.members(&client.member_replace(dead_id, learner_id).await?)
        }
    }
}

pub async fn feature_level(
    client: &Client,
    args: FeatureLevelArgs,
    mut printer: Printer<impl Write>,
) -> Result<(), Failure> {
    let level = client.set_feature_level(args.level).await?;
    printer.number("feature_level", level.into(), "the feature level is")
}

pub async fn trigger_snapshot(client: &Client, mut printer: Printer<impl Write>) -> Result<(), Failure> {
    let index = client.trigger_snapshot().await?;
    printer.number("snapshot_index", index, "the snapshot holds the log up to entry")
}
