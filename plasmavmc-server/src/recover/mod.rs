//! `plasmavmc-server recover`: the majority of the cluster is lost for good, and what one member knows goes on as a new
//! cluster of that one. Or what a backup knows.
//!
//! Offline: the server of this folder is stopped. Explicit: without the operator's word only what would be done is said.
//!
//! Must never: go on while the others could; begin without saying what may be lost; let the old members back in.

mod changes;

use std::path::PathBuf;

use chainfire::kv::Limits;
use chainfire::node::{KnownMember, RecoverError as StoreError, Survivor, finish_begun};
use plasmavmc_types::{Address, Invalid};

use crate::clock::wall_ms;
use crate::cluster::own_record;
use crate::config::{Config, RecoverFlags};
use crate::serve::{GroundError, HostIdentity, IdentityError, claim_folder, identity_of};
use changes::{ChangesError, Known};

#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(transparent)]
    Ground(#[from] GroundError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Changes(#[from] ChangesError),
    #[error(
        "refused: {answering} of the {voters} voters answer ({who}), and with this one they are a majority: start this \
         server instead, and nothing is lost"
    )]
    Majority {
        answering: usize,
        voters: usize,
        who: String,
    },
    #[error(
        "nothing was changed. If the others are off and will never come back, say so:\n  {0} \
         --i-accept-that-what-only-the-lost-members-knew-is-lost"
    )]
    NotAccepted(String),
    #[error("the address it listens on is none that can be advertised; say with --advertise where clients reach it")]
    Advertise(#[from] Invalid),
    #[error("{0} belongs to no cluster: name the folder of a member that is left, or a --backup")]
    NoMember(PathBuf),
}

/// Does what is asked for, and tells it on standard output.
pub async fn recover(config: &Config, flags: &RecoverFlags) -> Result<(), RecoverError> {
    let root = &config.folders.chainfire;
    if flags.backup.is_none() && !config.folders.is_member() {
        return Err(RecoverError::NoMember(config.folders.state.clone()));
    }
    let _claim = claim_folder(config)?;
    let identity = identity_of(config)?;
    if let Some(cluster) = finish_begun(root)? {
        say_done(&identity, &cluster, &[]);
        return Ok(());
    }
    let survivor = match &flags.backup {
        Some(file) => Survivor::of_backup(file, root)?,
        None => Survivor::of_member(root, Limits::default()).await?,
    };
    let known = Known::of(&survivor.values()?)?;
    let answering = survivor.answering().await?;
    let members = survivor.members()?;
    say_plan(&survivor, &members, &answering, &known, &identity);
    refuse_majority(&members, &answering)?;
    if !flags.accept {
        return Err(RecoverError::NotAccepted(command_line(config, flags)));
    }
    let own = own_record(&identity, config, &api_address(config)?)?;
    let changes = known.changes(&own, wall_ms())?;
    let cluster = survivor.recover(identity.name.as_str(), config.cluster_advertise.as_str(), changes)?;
    let lost: Vec<&str> = lost_hosts(&known, &identity);
    say_done(&identity, &cluster, &lost);
    Ok(())
}

fn api_address(config: &Config) -> Result<Address, Invalid> {
    match &config.advertise {
        Some(address) => Ok(address.clone()),
        None => config.listen.parse(),
    }
}

/// The member that goes on would have started with them; a backup is put in the place of all of them.
fn refuse_majority(members: &[KnownMember], answering: &[KnownMember]) -> Result<(), RecoverError> {
    let voters = members.iter().filter(|member| member.votes).count();
    let theirs = answering.iter().filter(|member| member.votes).count();
    let own = members.iter().filter(|member| member.is_own && member.votes).count();
    if theirs == 0 || (theirs + own) * 2 <= voters {
        return Ok(());
    }
    let names: Vec<&str> = answering.iter().map(|member| member.name.as_str()).collect();
    Err(RecoverError::Majority {
        answering: theirs,
        voters,
        who: names.join(", "),
    })
}

fn lost_hosts<'a>(known: &'a Known, identity: &HostIdentity) -> Vec<&'a str> {
    let others = known.hosts.iter().filter(|(id, _)| **id != identity.host_id);
    others.map(|(_, record)| record.name().as_str()).collect()
}

fn say_plan(
    survivor: &Survivor,
    members: &[KnownMember],
    answering: &[KnownMember],
    known: &Known,
    identity: &HostIdentity,
) {
    println!(
        "cluster {}, as known here up to revision {}",
        survivor.cluster_id(),
        survivor.revision()
    );
    for member in members {
        let state = match member {
            member if member.is_own => "this one, which goes on",
            member if answering.contains(member) => "ANSWERS",
            _ => "does not answer",
        };
        println!("  member {} {} at {}: {state}", member.id, member.name, member.address);
    }
    let at = |id| {
        known
            .placements
            .values()
            .filter(|placement| placement.host == id)
            .count()
    };
    for (id, record) in &known.hosts {
        let (name, vms) = (record.name(), at(*id));
        match *id == identity.host_id {
            true => println!("  host {name}: this one, {vms} VMs; those that are leased start anew"),
            false => println!("  host {name}: {vms} VMs, which wait until you take it out as dead"),
        }
    }
    println!(
        "It becomes a new cluster of one. Changes that were acknowledged and have not come here are lost. VMs on hosts \
         that do not answer may still run: see that those are off. Their members can never come back as they are."
    );
}

fn say_done(identity: &HostIdentity, cluster: &str, lost: &[&str]) {
    println!(
        "recovered: {} is cluster {cluster}; the old store was set aside in its folder",
        identity.name
    );
    println!("now start this server as ever; then, for each host that is off:");
    for host in lost {
        println!("  plasmavmc cluster remove {host} --dead");
    }
    println!("and let hosts join with an empty folder: plasmavmc cluster token");
}

fn command_line(config: &Config, flags: &RecoverFlags) -> String {
    let dir = config.folders.state.display();
    match &flags.backup {
        Some(file) => format!("plasmavmc-server recover --dir {dir} --backup {}", file.display()),
        None => format!("plasmavmc-server recover --dir {dir}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, votes: bool) -> KnownMember {
        KnownMember {
            id,
            name: format!("h{id}"),
            address: format!("127.0.0.{id}:1"),
            votes,
            is_own: id == 1,
        }
    }

    fn check(voters: u64, answering: &[u64], is_refused: bool) {
        let mut members: Vec<_> = (1..=voters).map(|id| member(id, true)).collect();
        members.push(member(9, false));
        let answering: Vec<_> = members.iter().filter(|m| answering.contains(&m.id)).cloned().collect();
        assert_eq!(
            refuse_majority(&members, &answering).is_err(),
            is_refused,
            "{answering:?}"
        );
    }

    #[test]
    fn nobody_is_recovered_who_has_a_majority() {
        check(3, &[], false);
        check(3, &[2], true);
        check(3, &[9], false);
        check(5, &[2], false);
        check(5, &[2, 3], true);
        check(2, &[], false);
        check(2, &[2], true);
        // Alone it needs no recovery, but may have it: from a store that is as it should be nothing is lost.
        check(1, &[], false);
    }
}
