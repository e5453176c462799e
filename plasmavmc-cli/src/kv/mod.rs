//! `plasmavmc kv`: a look into the store of the cluster.
//!
//! It only looks. What is written there by hand breaks the promises the servers keep to each other; the program
//! `chainfire` can, for whoever knows what he does.

mod value;
mod wire;

use crate::args::KvCommand;
use crate::context::Context;
use crate::failure::{Answer, Failure};
use crate::fields::Node;
use crate::show::{Cell, Table};
use value::decoded;
use wire::{GetRequest, KeyValue, RangeRequest};

/// How many keys are asked for at once.
const PAGE: u32 = 500;

pub async fn run(context: &Context, command: KvCommand) -> Result<(), Failure> {
    match command {
        KvCommand::Get { key, stale } => get(context, &key, stale).await,
        KvCommand::List {
            prefix,
            keys_only,
            stale,
            limit,
        } => {
            let pairs = range(context, &prefix, keys_only, stale, limit as usize).await?;
            let node = Node::List(pairs.iter().map(|pair| node_of(pair, keys_only)).collect());
            context
                .screen
                .node(&node, || table(&pairs, keys_only, context.screen.colours))
        }
    }
}

async fn get(context: &Context, key: &str, stale: bool) -> Result<(), Failure> {
    let doing = format!("look at the key {key}");
    let response = context
        .reach
        .ask(
            &doing,
            GetRequest {
                key: key.as_bytes().to_vec(),
                stale,
            },
        )
        .await?;
    let Some(pair) = response.kv else {
        let status = tonic::Status::not_found(format!("it is not there (at revision {})", response.revision));
        return Err(Failure::Answered {
            doing,
            answer: Box::new(Answer::of(&status)),
        });
    };
    let node = node_of(&pair, false);
    context
        .screen
        .node(&node, || serde_yaml_ng::to_string(&node).unwrap_or_default())
}

async fn range(
    context: &Context,
    prefix: &str,
    keys_only: bool,
    stale: bool,
    limit: usize,
) -> Result<Vec<KeyValue>, Failure> {
    let mut pairs: Vec<KeyValue> = Vec::new();
    let mut revision = 0;
    loop {
        let request = RangeRequest {
            prefix: prefix.as_bytes().to_vec(),
            after: pairs.last().map(|pair| pair.key.clone()).unwrap_or_default(),
            limit: PAGE,
            // All pages show the store as the first one saw it.
            revision,
            stale,
            keys_only,
        };
        let page = context.reach.ask("list keys", request).await?;
        revision = page.revision;
        let is_last = !page.more || page.kvs.is_empty();
        pairs.extend(page.kvs);
        if is_last || pairs.len() >= limit {
            pairs.truncate(limit);
            return Ok(pairs);
        }
    }
}

fn node_of(pair: &KeyValue, keys_only: bool) -> Node {
    let mut fields = vec![
        ("key".to_owned(), Node::text(String::from_utf8_lossy(&pair.key))),
        ("mod_revision".to_owned(), Node::Unsigned(pair.mod_revision)),
        ("create_revision".to_owned(), Node::Unsigned(pair.create_revision)),
        ("version".to_owned(), Node::Unsigned(pair.version)),
    ];
    if !keys_only {
        fields.push(("value".to_owned(), decoded(&pair.key, &pair.value)));
    }
    Node::Map(fields)
}

fn table(pairs: &[KeyValue], keys_only: bool, colours: bool) -> String {
    let headings: &[&'static str] = if keys_only {
        &["REVISION", "VERSION", "KEY"]
    } else {
        &["REVISION", "VERSION", "KEY", "VALUE"]
    };
    let mut table = Table::new(headings);
    for pair in pairs {
        let mut row = vec![
            Cell::number(pair.mod_revision),
            Cell::number(pair.version),
            String::from_utf8_lossy(&pair.key).into_owned().into(),
        ];
        if !keys_only {
            let value = crate::fields::without_defaults(&decoded(&pair.key, &pair.value));
            row.push(serde_json::to_string(&value).unwrap_or_default().into());
        }
        table.row(row);
    }
    if table.is_empty() {
        String::new()
    } else {
        table.written(colours)
    }
}
