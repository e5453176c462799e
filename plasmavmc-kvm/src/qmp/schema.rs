//! What this very QEMU understands, asked from itself instead of guessed from its version.
//!
//! Distributions patch features in and out; a version number tells neither. `device_add` and `object-add`
//! of old QEMUs take arguments that the schema does not describe: no answer about them is to be had here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::error::QmpError;
use super::handle::Qmp;

/// The commands, arguments, values and events of one QEMU.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// Command name to the type of its arguments.
    commands: BTreeMap<String, Option<String>>,
    events: BTreeSet<String>,
    objects: BTreeMap<String, Object>,
    /// Enumerations and what they contain.
    enums: BTreeMap<String, BTreeSet<String>>,
    /// Array types and what their elements are.
    arrays: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default)]
struct Object {
    members: BTreeMap<String, String>,
    variants: Vec<String>,
}

/// An entry as QEMU sends it. Whatever newer QEMUs add is skipped.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    name: String,
    meta_type: String,
    arg_type: Option<String>,
    element_type: Option<String>,
    #[serde(default)]
    members: Vec<Member>,
    #[serde(default)]
    variants: Vec<Variant>,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Deserialize)]
struct Member {
    /// Missing in members of alternates.
    name: Option<String>,
    r#type: Option<String>,
}

#[derive(Deserialize)]
struct Variant {
    r#type: String,
}

impl Schema {
    pub async fn query(qmp: &Qmp, within: Duration) -> Result<Self, QmpError> {
        let entries = qmp.execute_raw("query-qmp-schema", Value::Null, within).await?;
        Ok(Self::from_entries(entries))
    }

    /// Entries that cannot be understood are left out: what they describe counts as missing.
    fn from_entries(entries: Value) -> Self {
        let mut schema = Self::default();
        let Value::Array(entries) = entries else {
            return schema;
        };
        for entry in entries {
            if let Ok(entry) = Entry::deserialize(entry) {
                schema.add(entry);
            }
        }
        schema
    }

    fn add(&mut self, entry: Entry) {
        let name = entry.name;
        match entry.meta_type.as_str() {
            "command" => {
                self.commands.insert(name, entry.arg_type);
            }
            "event" => {
                self.events.insert(name);
            }
            "object" => {
                let named = entry
                    .members
                    .into_iter()
                    .filter_map(|member| member.name.zip(member.r#type));
                let members = named.collect();
                let variants = entry.variants.into_iter().map(|variant| variant.r#type).collect();
                self.objects.insert(name, Object { members, variants });
            }
            "enum" => {
                // QEMU 6.2 replaced `values` by `members`, and sends both for as long as it must.
                let members = entry.members.into_iter().filter_map(|member| member.name);
                self.enums
                    .insert(name, entry.values.into_iter().chain(members).collect());
            }
            "array" => {
                self.arrays.extend(entry.element_type.map(|element| (name, element)));
            }
            _ => {}
        }
    }

    pub fn has_command(&self, command: &str) -> bool {
        self.commands.contains_key(command)
    }

    pub fn has_event(&self, event: &str) -> bool {
        self.events.contains(event)
    }

    /// Whether a command takes an argument. Arguments inside of others are named with dots:
    /// `blockdev-add`, `cache.direct`. What only some variants take counts.
    pub fn has_argument(&self, command: &str, argument: &str) -> bool {
        self.argument_type(command, argument).is_some()
    }

    /// Whether an argument may have this value of an enumeration.
    pub fn accepts(&self, command: &str, argument: &str, value: &str) -> bool {
        let values = self.argument_type(command, argument).and_then(|of| self.enums.get(of));
        values.is_some_and(|values| values.contains(value))
    }

    fn argument_type(&self, command: &str, argument: &str) -> Option<&str> {
        let mut current = self.commands.get(command)?.as_deref()?;
        for part in argument.split('.') {
            let object = self.arrays.get(current).map_or(current, String::as_str);
            current = self.member_type(object, part)?;
        }
        Some(current)
    }

    fn member_type(&self, object: &str, member: &str) -> Option<&str> {
        let object = self.objects.get(object)?;
        if let Some(found) = object.members.get(member) {
            return Some(found);
        }
        // Variants are plain objects: QEMU's schema has none within variants.
        let variants = object.variants.iter().filter_map(|variant| self.objects.get(variant));
        variants
            .filter_map(|variant| variant.members.get(member))
            .map(String::as_str)
            .next()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> Schema {
        Schema::from_entries(json!([
            { "name": "blockdev-add", "meta-type": "command", "arg-type": "1", "ret-type": "0" },
            { "name": "quit", "meta-type": "command" },
            { "name": "STOP", "meta-type": "event", "arg-type": "0" },
            { "name": "1", "meta-type": "object", "tag": "driver", "members": [
                { "name": "driver", "type": "2" }, { "name": "cache", "type": "3" }, { "name": "all", "type": "[3]" } ],
              "variants": [ { "case": "qcow2", "type": "4" } ] },
            { "name": "2", "meta-type": "enum", "values": ["raw"], "members": [ { "name": "qcow2" } ] },
            { "name": "3", "meta-type": "object", "members": [ { "name": "direct", "type": "bool" } ] },
            { "name": "[3]", "meta-type": "array", "element-type": "3" },
            { "name": "4", "meta-type": "object", "members": [ { "name": "backing", "type": "5" } ] },
            { "name": "5", "meta-type": "alternate", "members": [ { "type": "str" }, { "type": "null" } ] },
            { "name": "9", "meta-type": "invented", "shape": 7 },
            { "surprise": true }, 7,
        ]))
    }

    #[test]
    fn commands_events_arguments_and_values_are_found() {
        let schema = sample();
        assert!(schema.has_command("quit") && !schema.has_command("quiet"));
        assert!(schema.has_event("STOP") && !schema.has_event("quit"));
        for (argument, there) in [
            ("driver", true),
            ("cache.direct", true),
            ("all.direct", true),
            ("backing", true),
            ("cache.no", false),
            ("driver.raw", false),
            ("", false),
        ] {
            assert_eq!(schema.has_argument("blockdev-add", argument), there, "{argument}");
        }
        assert!(!schema.has_argument("quit", "driver"));
        assert!(schema.accepts("blockdev-add", "driver", "raw"));
        assert!(schema.accepts("blockdev-add", "driver", "qcow2"));
        assert!(!schema.accepts("blockdev-add", "driver", "vhd"));
        assert!(!schema.accepts("blockdev-add", "cache", "raw"));
    }

    #[test]
    fn what_is_no_schema_has_nothing() {
        assert!(!Schema::from_entries(json!({ "name": "quit" })).has_command("quit"));
    }
}
