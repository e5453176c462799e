//! Answers, as tables for people and as JSON for programs.
//!
//! The names in the JSON are those of `proto/chainfire`; they are an interface and do not change.

mod json;

use std::io::Write;

use chainfire::backup::Summary;
use chainfire::kv::{Event, EventKind, KeyValue, OpResult, RangeAnswer, Revision, TxnAnswer, WatchBatch};
use chainfire::proto::{Member, StatusResponse};
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::args::OutputFormat;
use crate::bytes_text::{TextForm, json_bytes};
use crate::failure::Failure;

use json::{event_json, key_value_json, listed_json, member_json, status_json, txn_json};

/// Where answers go.
#[derive(Debug)]
pub struct Printer<W> {
    out: W,
    format: OutputFormat,
    text_form: TextForm,
}

impl<W: Write> Printer<W> {
    pub fn new(out: W, format: OutputFormat, text_form: TextForm) -> Self {
        Self { out, format, text_form }
    }

    pub fn text_form(&self) -> TextForm {
        self.text_form
    }

    fn is_json(&self) -> bool {
        self.format == OutputFormat::Json
    }

    fn show(&self, bytes: &[u8]) -> String {
        self.text_form.show(bytes)
    }

    fn line(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.out, "{text}")?;
        Ok(self.out.flush()?)
    }

    fn table<const N: usize>(&mut self, header: [&str; N], rows: Vec<[String; N]>) -> Result<(), Failure> {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(header)
            .add_rows(rows);
        for line in table.lines() {
            writeln!(self.out, "{}", line.trim())?;
        }
        Ok(self.out.flush()?)
    }

    fn json(&mut self, value: &Value) -> Result<(), Failure> {
        self.line(&value.to_string())
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes)?;
        Ok(self.out.flush()?)
    }

    pub fn row(&mut self, revision: Revision, row: &KeyValue) -> Result<(), Failure> {
        if self.is_json() {
            let mut object = key_value_json(row);
            object["revision"] = json!(revision);
            return self.json(&object);
        }
        self.rows_table(std::slice::from_ref(row), false)
    }

    pub fn no_row(&mut self, revision: Revision, key: &[u8]) -> Result<(), Failure> {
        match self.is_json() {
            true => self.json(&json!({ "revision": revision, "key": json_bytes(key), "value": null })),
            false => Ok(()),
        }
    }

    pub fn written(&mut self, revision: Revision) -> Result<(), Failure> {
        match self.is_json() {
            true => self.json(&json!({ "revision": revision })),
            false => self.line(&format!("written at revision {revision}")),
        }
    }

    pub fn deleted(&mut self, revision: Revision, deleted: u64) -> Result<(), Failure> {
        match self.is_json() {
            true => self.json(&json!({ "revision": revision, "deleted": deleted })),
            false => self.line(&format!("{deleted} deleted at revision {revision}")),
        }
    }

    pub fn range(&mut self, answer: &RangeAnswer, keys_only: bool) -> Result<(), Failure> {
        if self.is_json() {
            let kvs: Vec<Value> = answer.kvs.iter().map(|row| listed_json(row, keys_only)).collect();
            return self.json(&json!({ "revision": answer.revision, "kvs": kvs, "more": answer.more }));
        }
        self.rows_table(&answer.kvs, keys_only)
    }

    fn rows_table(&mut self, rows: &[KeyValue], keys_only: bool) -> Result<(), Failure> {
        let numbers = |row: &KeyValue| [row.create_revision, row.mod_revision, row.version].map(|n| n.to_string());
        if keys_only {
            let rows = rows.iter().map(|row| {
                let [created, modified, version] = numbers(row);
                [self.show(&row.key), created, modified, version]
            });
            let rows = rows.collect();
            return self.table(["KEY", "CREATED", "MODIFIED", "VERSION"], rows);
        }
        let rows = rows.iter().map(|row| {
            let [created, modified, version] = numbers(row);
            [self.show(&row.key), self.show(&row.value), created, modified, version]
        });
        let rows = rows.collect();
        self.table(["KEY", "VALUE", "CREATED", "MODIFIED", "VERSION"], rows)
    }

    pub fn txn(&mut self, answer: &TxnAnswer) -> Result<(), Failure> {
        if self.is_json() {
            return self.json(&txn_json(answer));
        }
        let branch = if answer.succeeded {
            "every compare held, 'then' ran"
        } else {
            "a compare did not hold, 'else' ran"
        };
        self.line(&format!("{branch}; the store is at revision {}", answer.revision))?;
        for result in &answer.results {
            let text = match result {
                OpResult::Touched(1) => "1 key changed".to_owned(),
                OpResult::Touched(count) => format!("{count} keys changed"),
                OpResult::Got(None) => "no such key".to_owned(),
                OpResult::Got(Some(row)) => format!("{} = {}", self.show(&row.key), self.show(&row.value)),
            };
            self.line(&text)?;
        }
        Ok(())
    }

    pub fn event(&mut self, event: &Event) -> Result<(), Failure> {
        let row = &event.kv;
        if self.is_json() {
            return self.json(&event_json(event));
        }
        let text = match event.kind {
            EventKind::Put => format!(
                "{} put {} {} (version {})",
                row.mod_revision,
                self.show(&row.key),
                self.show(&row.value),
                row.version
            ),
            EventKind::Delete => format!("{} delete {}", row.mod_revision, self.show(&row.key)),
        };
        self.line(&text)
    }

    /// How far a watch has got.
    pub fn bookmark(&mut self, batch: &WatchBatch) -> Result<(), Failure> {
        match self.is_json() {
            true => self.json(&json!({ "kind": "bookmark", "next_revision": batch.next_revision })),
            false => Ok(()),
        }
    }

    pub fn status(&mut self, status: &StatusResponse) -> Result<(), Failure> {
        if self.is_json() {
            return self.json(&status_json(status));
        }
        self.status_text(status)
    }

    /// One status for each member that was asked, or why there is none.
    pub fn statuses(&mut self, statuses: &[(String, Result<StatusResponse, String>)]) -> Result<(), Failure> {
        if self.is_json() {
            let all: Vec<Value> = statuses
                .iter()
                .map(|(address, answer)| match answer {
                    Ok(status) => json!({ "server": address, "status": status_json(status) }),
                    Err(error) => json!({ "server": address, "error": error }),
                })
                .collect();
            return self.json(&Value::Array(all));
        }
        let rows = statuses.iter().map(|(address, answer)| match answer {
            Ok(status) => {
                let member = status.member.clone().unwrap_or_default();
                [
                    address.clone(),
                    member.id.to_string(),
                    member.name,
                    status.state.clone(),
                    status.term.to_string(),
                    status.applied_index.to_string(),
                    status.revision.to_string(),
                    status.problem.clone(),
                ]
            }
            Err(error) => {
                let none = String::new;
                [
                    address.clone(),
                    none(),
                    none(),
                    "?".to_owned(),
                    none(),
                    none(),
                    none(),
                    error.clone(),
                ]
            }
        });
        let rows = rows.collect();
        self.table(
            [
                "SERVER", "ID", "NAME", "STATE", "TERM", "APPLIED", "REVISION", "PROBLEM",
            ],
            rows,
        )
    }

    fn status_text(&mut self, status: &StatusResponse) -> Result<(), Failure> {
        let member = status.member.clone().unwrap_or_default();
        let leader = match status.leader_id {
            0 => "none known".to_owned(),
            id => format!("member {id} at {}", status.leader_address),
        };
        self.line(&format!(
            "answered by  member {} {} at {}",
            member.id, member.name, member.address
        ))?;
        self.line(&format!("state        {} (version {})", status.state, status.version))?;
        self.line(&format!("leader       {leader}, term {}", status.term))?;
        self.line(&format!(
            "cluster      {}, feature level {}",
            status.cluster_id, status.feature_level
        ))?;
        self.line(&format!(
            "store        {} keys at revision {}, history after {}",
            status.keys, status.revision, status.compacted_revision
        ))?;
        self.line(&format!(
            "log          applied {} of {}, snapshot {}, purged {}",
            status.applied_index, status.last_log_index, status.snapshot_index, status.purged_index
        ))?;
        if !status.problem.is_empty() {
            self.line(&format!("problem      {}", status.problem))?;
        }
        let rows = status.members.iter().map(|member| {
            let leads = member.id == status.leader_id;
            let matched = status.matched_index.get(&member.id).map(u64::to_string);
            let matched = matched.unwrap_or_default();
            let [id, name, address, role] = member_cells(member);
            let role = if leads { "leader".to_owned() } else { role };
            [id, name, address, role, matched]
        });
        let rows = rows.collect();
        self.table(["ID", "NAME", "ADDRESS", "ROLE", "MATCHED"], rows)
    }

    pub fn members(&mut self, members: &[Member]) -> Result<(), Failure> {
        if self.is_json() {
            let members: Vec<Value> = members.iter().map(member_json).collect();
            return self.json(&json!({ "members": members }));
        }
        let rows = members.iter().map(member_cells).collect();
        self.table(["ID", "NAME", "ADDRESS", "ROLE"], rows)
    }

    pub fn member_added(&mut self, added: &chainfire::proto::MemberAddResponse) -> Result<(), Failure> {
        if self.is_json() {
            let members: Vec<Value> = added.members.iter().map(member_json).collect();
            return self.json(&json!({
                "cluster_id": added.cluster_id,
                "member_id": added.member_id,
                "members": members,
                "replaces": added.replaces,
            }));
        }
        self.line(&format!(
            "member {} of cluster {} was added",
            added.member_id, added.cluster_id
        ))?;
        let rows = added.members.iter().map(member_cells).collect();
        self.table(["ID", "NAME", "ADDRESS", "ROLE"], rows)
    }

    /// A single number, with a sentence for people.
    pub fn number(&mut self, name: &str, number: u64, sentence: &str) -> Result<(), Failure> {
        match self.is_json() {
            true => self.json(&json!({ name: number })),
            false => self.line(&format!("{sentence} {number}")),
        }
    }

    /// What a backup holds, and what was done with it.
    pub fn backup(&mut self, done: &str, summary: &Summary) -> Result<(), Failure> {
        if self.is_json() {
            return self.json(&json!(summary));
        }
        self.line(&format!(
            "{done}: {} keys at revision {}, {} bytes, of cluster {}",
            summary.keys, summary.revision, summary.bytes, summary.cluster_id
        ))
    }
}

fn member_cells(member: &Member) -> [String; 4] {
    let role = if member.voter { "voter" } else { "learner" };
    [
        member.id.to_string(),
        member.name.clone(),
        member.address.clone(),
        role.to_owned(),
    ]
}

#[cfg(test)]
mod tests;
