//! What can be asked on the command line, and the help that teaches it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::bytes_text::TextForm;
use crate::serve;

const EXAMPLES: &str = "\
Examples:
  chainfire serve --dir /var/lib/chainfire --init     run a cluster of one on 127.0.0.1:50061
  chainfire put /greeting hello                       write a key
  chainfire get /greeting                             read it
  chainfire range / --keys-only                       list keys
  chainfire watch /                                   see every change
  chainfire status                                    who leads, and how far everybody is

Exit status: 0 done, 1 failed, 2 wrong usage, 3 no such key (get), 4 a compare did not hold (txn, put),
5 no member or no quorum answered: nothing was changed, 6 nobody knows whether the write was carried out.";

/// A replicated, revisioned key-value store: its server and its client.
#[derive(Debug, Parser)]
#[command(name = "chainfire", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// How answers are printed
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value = "table",
        help_heading = "Output"
    )]
    pub output: OutputFormat,
    /// Keys and values are hexadecimal, on the command line and in tables
    #[arg(long, global = true, conflicts_with = "base64", help_heading = "Output")]
    hex: bool,
    /// Keys and values are base64, on the command line and in tables
    #[arg(long, global = true, help_heading = "Output")]
    base64: bool,
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    pub fn text_form(&self) -> TextForm {
        match (self.hex, self.base64) {
            (true, _) => TextForm::Hex,
            (_, true) => TextForm::Base64,
            _ => TextForm::Escaped,
        }
    }
}

#[derive(Debug, Args)]
pub struct ConnectionArgs {
    /// Members to talk to; the first that answers is used
    ///
    /// HOST:PORT, where the host is a name, an IPv4 or a bracketed IPv6 address.
    #[arg(
        short,
        long,
        global = true,
        env = "CHAINFIRE_SERVER",
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        default_value = "127.0.0.1:50061",
        help_heading = "Connection"
    )]
    pub server: Vec<String>,
    /// How long a call may take, with all its attempts (such as 500ms, 5s, 1m)
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        default_value = "5s",
        value_parser = parse_timeout,
        help_heading = "Connection"
    )]
    pub timeout: Duration,
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if timeout.is_zero() || timeout > Duration::from_secs(24 * 3600) {
        return Err("a timeout is longer than nothing and at most a day".to_owned());
    }
    Ok(timeout)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people
    Table,
    /// For programs: one object, or one per line where there is no end (watch). Bytes are a string where
    /// they are printable UTF-8, else {"base64": "..."}
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    // Its own module documents it.
    Serve(serve::Args),
    Get(GetArgs),
    Put(PutArgs),
    Del(DelArgs),
    Range(RangeArgs),
    Txn(TxnArgs),
    Watch(WatchArgs),
    Status(StatusArgs),
    /// List and change the members of a cluster
    Member {
        #[command(subcommand)]
        command: MemberCommand,
    },
    /// Back up and restore a store
    Snapshot {
        #[command(subcommand)]
        command: SnapshotCommand,
    },
    FeatureLevel(FeatureLevelArgs),
}

/// Read one key
///
///   chainfire get /greeting
///   chainfire get /greeting --raw > file
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct GetArgs {
    pub key: OsString,
    /// Print the value's bytes and nothing else
    #[arg(long)]
    pub raw: bool,
    /// Answer from the state of the member that is asked, which may lag; works without a quorum
    #[arg(long)]
    pub stale: bool,
}

/// Write one key
///
///   chainfire put /greeting hello
///   chainfire put /image - < file          the value is what comes on standard input
///   chainfire put /lock me --if-revision 0    only if the key is not there
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct PutArgs {
    pub key: OsString,
    /// The value; - reads it from standard input, byte for byte
    #[arg(allow_hyphen_values = true)]
    pub value: OsString,
    /// Only if the key's last change was at this revision (0: the key is not there); else exit status 4
    #[arg(long, value_name = "REVISION")]
    pub if_revision: Option<u64>,
}

/// Delete one key, or all under a prefix
///
/// Deleting what is not there is no error: the answer says how many keys were deleted.
#[derive(Debug, Args)]
pub struct DelArgs {
    pub key: OsString,
    /// Delete every key that begins with KEY, in one transaction
    #[arg(long)]
    pub prefix: bool,
}

/// List the keys under a prefix, in byte order, all at one revision
///
///   chainfire range /vms/
///   chainfire range --limit 0 --keys-only      the whole store
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct RangeArgs {
    /// [default: the whole store]
    pub prefix: Option<OsString>,
    /// How many keys at most; 0: all there are
    #[arg(long, default_value_t = 1000)]
    pub limit: usize,
    /// Start after this key
    #[arg(long, value_name = "KEY")]
    pub after: Option<OsString>,
    /// Show the store as it was at this revision; 0: now
    #[arg(long, default_value_t = 0)]
    pub revision: u64,
    /// Leave out the values
    #[arg(long)]
    pub keys_only: bool,
    /// Answer from the state of the member that is asked, which may lag; works without a quorum
    #[arg(long)]
    pub stale: bool,
}

/// Run a transaction: compares, then one of two branches, all at once
///
/// It is read from standard input or a file. One line each, in any order:
///
///   if KEY absent                         the key is not there
///   if KEY value = VALUE                  also: != > <
///   if KEY mod = 17                       also: create, version
///   then put KEY VALUE                    runs when every 'if' holds
///   then get KEY
///   else get KEY                          runs when one does not
///   else del KEY
///   else del-prefix PREFIX
///
/// Words with spaces are quoted: "two words"; \n \t \" \\ and \xNN stand for bytes, in quotes or not.
/// A line that begins with # is a remark.
///
///   printf 'if /lock absent\nthen put /lock me\nelse get /lock\n' | chainfire txn
///
/// What begins with { is read as JSON instead; bytes are strings or {"base64": "..."}:
///
///   {"compares": [{"key": "/lock", "target": "mod_revision", "relation": "=", "operand": 0}],
///    "success": [{"put": {"key": "/lock", "value": "me"}}],
///    "failure": [{"get": {"key": "/lock"}}]}
///
/// Exit status 4 says that a compare did not hold and 'else' ran.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct TxnArgs {
    /// Read it from here [default: standard input]
    pub file: Option<PathBuf>,
}

/// Print every change under a prefix as it happens
///
/// It goes on when a member dies, without a gap: another one is asked.
///
///   chainfire watch /vms/
///   chainfire watch /vms/ --from 17 --count 10
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct WatchArgs {
    /// [default: the whole store]
    pub prefix: Option<OsString>,
    /// The first revision wanted; 0: from the next change on
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    pub from: u64,
    /// End after so many changes; 0: never
    #[arg(long, default_value_t = 0)]
    pub count: u64,
    /// Also print how far the watch has got when nothing changed (JSON only)
    #[arg(long)]
    pub bookmarks: bool,
}

/// Show who leads, who is a member, and how far they are
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Ask every member in --server, not only the first that answers
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Subcommand)]
pub enum MemberCommand {
    /// List the members
    List,
    /// Give a new member an id and a place as a learner (a serving member that joins does this itself)
    Add {
        /// A name for people
        name: String,
        /// HOST:PORT where the others will reach it
        address: String,
        /// Refuse unless the cluster has this id
        #[arg(long, default_value = "")]
        cluster_id: String,
        /// It had a place at this address and lost what it stored: give it that place under a new id
        #[arg(long)]
        lost_store: bool,
    },
    /// Make a learner that has caught up a voter
    Promote { id: u64 },
    /// Take a member out; refused where that would lose the quorum
    Remove { id: u64 },
    /// Put a learner into the place of a dead voter
    Replace { dead_id: u64, learner_id: u64 },
}

#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    Save(SaveArgs),
    Restore(RestoreArgs),
    Verify(VerifyArgs),
    /// Have a member build a snapshot of its own and cut its log now (it does so by itself in time)
    Trigger,
}

/// Back up the store while it runs, and check the backup
#[derive(Debug, Args)]
pub struct SaveArgs {
    /// Where to; replaced only by a backup that is complete
    pub file: PathBuf,
}

/// Make an empty folder the first member of a NEW cluster that begins with a backup
///
///   chainfire snapshot restore backup.snap --dir /var/lib/chainfire --advertise host1:50061
///   chainfire serve --dir /var/lib/chainfire --listen host1:50061
///
/// Other members join it with empty folders.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct RestoreArgs {
    pub file: PathBuf,
    /// The folder of the member-to-be: empty, or not there yet
    #[arg(long)]
    pub dir: PathBuf,
    /// HOST:PORT where others will reach this member
    #[arg(long, default_value = "127.0.0.1:50061")]
    pub advertise: String,
    /// A name for people [default: the advertised address]
    #[arg(long)]
    pub name: Option<String>,
}

/// Read all of a backup and check it
#[derive(Debug, Args)]
pub struct VerifyArgs {
    pub file: PathBuf,
}

/// Raise the level of features that the members may use, once all of them run a version that knows it
#[derive(Debug, Args)]
pub struct FeatureLevelArgs {
    pub level: u32,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_go_before_and_after_the_command() {
        for line in [
            "chainfire -o json -s a:1,b:2 --timeout 500ms get k",
            "chainfire get k --server a:1,b:2 --timeout 500ms --output json",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).expect(line);
            assert_eq!(cli.output, OutputFormat::Json);
            assert_eq!(cli.connection.server, ["a:1", "b:2"]);
            assert_eq!(cli.connection.timeout, Duration::from_millis(500));
        }
    }

    #[test]
    fn a_value_may_begin_with_a_hyphen() {
        let cli = Cli::try_parse_from(["chainfire", "put", "k", "-5"]).expect("parses");
        assert!(matches!(cli.command, Command::Put(args) if args.value == "-5"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "chainfire",
            "chainfire get",
            "chainfire get k --hex --base64",
            "chainfire get k --timeout 0s",
            "chainfire get k --timeout soon",
            "chainfire member promote x",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
