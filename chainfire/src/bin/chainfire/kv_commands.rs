//! Commands on keys.

use std::ffi::OsString;
use std::io::{Read, Write};

use bytes::Bytes;
use chainfire::client::Client;
use chainfire::kv::{Compare, Consistency, Kv, Limits, Op, RangeAnswer, RangeQuery, Relation, Txn};
use futures::StreamExt;

use crate::args::{DelArgs, GetArgs, PutArgs, RangeArgs, TxnArgs, WatchArgs};
use crate::failure::Failure;
use crate::output::Printer;
use crate::txn_text;

/// What is read from standard input: more than any store takes is not read to its end.
const MAX_INPUT_BYTES: u64 = 64 * 1024 * 1024;

fn consistency(stale: bool) -> Consistency {
    if stale {
        Consistency::Stale
    } else {
        Consistency::Linearizable
    }
}

pub async fn get(client: &Client, args: GetArgs, mut printer: Printer<impl Write>) -> Result<(), Failure> {
    let form = printer.text_form();
    let key = form.read(args.key)?;
    let answer = client.get(key.clone(), consistency(args.stale)).await?;
    match answer.kv {
        Some(row) if args.raw => printer.raw(&row.value),
        Some(row) => printer.row(answer.revision, &row),
        None => {
            if !args.raw {
                printer.no_row(answer.revision, &key)?;
            }
            Err(Failure::NotFound {
                key: form.show(&key),
                revision: answer.revision,
            })
        }
    }
}

pub async fn put(client: &Client, args: PutArgs, mut printer: Printer<impl Write>) -> Result<(), Failure> {
    let form = printer.text_form();
    let key = form.read(args.key)?;
    let value = match args.value == "-" {
        true => Bytes::from(read_input(&mut std::io::stdin().lock(), "standard input")?),
        false => form.read(args.value)?,
    };
    let Some(expected) = args.if_revision else {
        let revision = client.put(key, value).await?;
        return printer.written(revision);
    };
    let guard = Compare::mod_revision(key.clone(), Relation::Equal, expected);
    let answer = client.txn(Txn::put(key, value).when(guard)).await?;
    if answer.succeeded {
        return printer.written(answer.revision);
    }
    printer.txn(&answer)?;
    Err(Failure::CompareFailed)
}

pub async fn del(client: &Client, args: DelArgs, mut printer: Printer<impl Write>) -> Result<(), Failure> {
    let key = printer.text_form().read(args.key)?;
    let op = match args.prefix {
        true => Op::DeletePrefix { prefix: key },
        false => Op::Delete { key },
    };
    let answer = client.txn(Txn::default().then(op)).await?;
    printer.deleted(answer.revision, answer.touched())
}

pub async fn range(client: &Client, args: RangeArgs, mut printer: Printer<impl Write>) -> Result<(), Failure> {
    let form = printer.text_form();
    let read = |key: Option<OsString>| key.map_or(Ok(Bytes::new()), |key| form.read(key));
    let query = RangeQuery {
        prefix: read(args.prefix)?,
        after: read(args.after)?,
        revision: args.revision,
        consistency: consistency(args.stale),
        keys_only: args.keys_only,
        ..RangeQuery::default()
    };
    let wanted = if args.limit == 0 { usize::MAX } else { args.limit };
    let listed = list(client, query, wanted).await?;
    printer.range(&listed, args.keys_only)?;
    if let (true, Some(last)) = (listed.more, listed.kvs.last()) {
        let _ = writeln!(
            std::io::stderr(),
            "chainfire: there are more; go on with --after '{}' --revision {}, or ask for all with --limit 0",
            form.show(&last.key),
            listed.revision
        );
    }
    Ok(())
}

/// So many keys, from as many pages as it takes.
async fn list(client: &Client, query: RangeQuery, wanted: usize) -> Result<RangeAnswer, Failure> {
    let page_keys = Limits::default().page_keys;
    let mut query = RangeQuery {
        limit: wanted.min(page_keys),
        ..query
    };
    let mut listed = client.range(query.clone()).await?;
    while listed.kvs.len() < wanted {
        let Some(next) = query.next_page(&listed) else { break };
        query = RangeQuery {
            limit: (wanted - listed.kvs.len()).min(page_keys),
            ..next
        };
        let page = client.range(query.clone()).await?;
        listed.kvs.extend(page.kvs);
        listed.more = page.more;
    }
    Ok(listed)
}

pub async fn txn(client: &Client, args: TxnArgs, mut printer: Printer<impl Write>) -> Result<(), Failure> {
    let text = match args.file {
        None => read_input(&mut std::io::stdin().lock(), "standard input")?,
        Some(path) => {
            let what = path.display().to_string();
            let mut file = std::fs::File::open(&path).map_err(|source| Failure::Read {
                what: what.clone(),
                source,
            })?;
            read_input(&mut file, &what)?
        }
    };
    let text = String::from_utf8(text)
        .map_err(|_| Failure::Usage("the transaction is not UTF-8; write other bytes as \\xNN".to_owned()))?;
    let answer = client.txn(txn_text::read(&text)?).await?;
    printer.txn(&answer)?;
    if answer.succeeded {
        Ok(())
    } else {
        Err(Failure::CompareFailed)
    }
}

fn read_input(input: &mut impl Read, what: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = input.take(MAX_INPUT_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|source| Failure::Read {
        what: what.to_owned(),
        source,
    })?;
    if bytes.len() as u64 > MAX_INPUT_BYTES {
        return Err(Failure::Usage(format!("{what} has more than {MAX_INPUT_BYTES} bytes")));
    }
    Ok(bytes)
}

pub async fn watch(client: &Client, args: WatchArgs, mut printer: Printer<impl Write>) -> Result<(), Failure> {
    let prefix = args
        .prefix
        .map_or(Ok(Bytes::new()), |prefix| printer.text_form().read(prefix))?;
    let mut batches = client.watch(prefix, args.from).await?;
    let mut left = args.count;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        for event in &batch.events {
            printer.event(event)?;
            if args.count > 0 {
                left -= 1;
                if left == 0 {
                    return Ok(());
                }
            }
        }
        if args.bookmarks && batch.events.is_empty() {
            printer.bookmark(&batch)?;
        }
    }
    Ok(())
}
