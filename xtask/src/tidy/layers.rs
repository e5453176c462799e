//! Rule: who may depend on whom.
//!
//! types <- core, guard, proto; types, guard <- kvm; chainfire knows nothing of VMs; only the server joins them; only the
//! tests depend on the server. Besides, the pure crates list every outside crate they may use, and some
//! crates must never reach certain others, not even through a third.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

use super::Breach;

/// What one crate of ours may depend on.
struct Layer {
    name: &'static str,
    /// Crates of this workspace, whatever the kind of dependency.
    workspace: &'static [&'static str],
    /// Outside crates, outside of tests; `None`: any that is not in `never`.
    external: Option<&'static [&'static str]>,
    /// Crates that must not be reached, directly or through others, outside of tests.
    never: &'static [&'static str],
}

const TYPES: &str = "plasmavmc-types";
const EVERYTHING_BELOW_SERVER: &[&str] = &[
    TYPES,
    "plasmavmc-core",
    "plasmavmc-kvm",
    "plasmavmc-guard",
    "plasmavmc-agent",
    "plasmavmc-proto",
    "chainfire",
];
const RUNTIMES_AND_STORES: &[&str] = &["tokio", "mio", "tonic", "hyper", "openraft", "raft-log", "sled", "rand"];
const STORES_AND_SERVERS: &[&str] = &["tonic", "hyper", "openraft", "raft-log", "sled", "rand"];
const STORES: &[&str] = &["openraft", "raft-log", "sled"];

const LAYERS: &[Layer] = &[
    Layer {
        name: TYPES,
        workspace: &[],
        external: Some(&["serde", "thiserror", "uuid"]),
        never: RUNTIMES_AND_STORES,
    },
    Layer {
        name: "plasmavmc-core",
        workspace: &[TYPES],
        external: Some(&["serde", "thiserror"]),
        never: RUNTIMES_AND_STORES,
    },
    Layer {
        name: "plasmavmc-kvm",
        // Its machines are started and ended through the guard's client.
        workspace: &[TYPES, "plasmavmc-guard"],
        external: None,
        never: STORES,
    },
    Layer {
        name: "plasmavmc-guard",
        workspace: &[TYPES],
        external: None,
        // Single-threaded, synchronous, no network. Its client library may use tokio; a test of the crate sees
        // that the guard itself does not.
        never: STORES_AND_SERVERS,
    },
    Layer {
        name: "plasmavmc-agent",
        workspace: &["plasmavmc-proto"],
        external: None,
        never: STORES,
    },
    Layer {
        name: "plasmavmc-proto",
        workspace: &[TYPES],
        external: None,
        never: STORES,
    },
    Layer {
        name: "base2histogram",
        workspace: &[],
        external: Some(&[]),
        never: &[],
    },
    Layer {
        name: "chainfire",
        workspace: &[],
        external: None,
        never: &["qapi"],
    },
    Layer {
        name: "plasmavmc-cli",
        workspace: &["plasmavmc-proto", TYPES],
        external: None,
        never: STORES,
    },
    Layer {
        name: "plasmavmc-server",
        workspace: EVERYTHING_BELOW_SERVER,
        external: None,
        never: &[],
    },
    Layer {
        name: "plasmavmc-sim",
        // It plays what ships: the decisions and the rule of the deadman, and nothing that does I/O.
        workspace: &[TYPES, "plasmavmc-core", "plasmavmc-guard"],
        external: None,
        // As the guard, whose client nobody here uses.
        never: STORES_AND_SERVERS,
    },
    Layer {
        name: "plasmavmc-tests",
        workspace: &[
            TYPES,
            "plasmavmc-core",
            "plasmavmc-kvm",
            "plasmavmc-guard",
            "plasmavmc-agent",
            "plasmavmc-proto",
            "chainfire",
            "plasmavmc-cli",
            "plasmavmc-server",
        ],
        external: None,
        never: &[],
    },
    Layer {
        name: "xtask",
        workspace: &[],
        external: None,
        never: &["tokio", "tonic"],
    },
];

/// Who depends on whom, by name. Two versions of one outside crate count as one.
#[derive(Debug, Default)]
pub struct Graph {
    ours: BTreeSet<String>,
    /// Direct dependencies of our crates, tests and build scripts included.
    any_kind: BTreeMap<String, BTreeSet<String>>,
    /// Dependencies of all crates outside of tests and build scripts.
    shipped: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    pub fn of_workspace(root: &Path) -> Result<Self> {
        let metadata = MetadataCommand::new()
            .manifest_path(root.join("Cargo.toml"))
            // Crates of other systems are no part of what we ship.
            .other_options(["--filter-platform".to_owned(), "x86_64-unknown-linux-gnu".to_owned()])
            .exec()
            .context("cargo metadata failed")?;
        Self::from_metadata(&metadata)
    }

    fn from_metadata(metadata: &Metadata) -> Result<Self> {
        let names: BTreeMap<_, _> = metadata
            .packages
            .iter()
            .map(|package| (&package.id, package.name.to_string()))
            .collect();
        let mut graph = Graph {
            ours: metadata.workspace_members.iter().map(|id| names[id].clone()).collect(),
            ..Graph::default()
        };
        let resolve = metadata.resolve.as_ref().context("cargo metadata resolved nothing")?;
        for node in &resolve.nodes {
            for dependency in &node.deps {
                let kinds: Vec<_> = dependency.dep_kinds.iter().map(|kind| kind.kind).collect();
                graph.add(&names[&node.id], &names[&dependency.pkg], &kinds);
            }
        }
        Ok(graph)
    }

    fn add(&mut self, from: &str, to: &str, kinds: &[DependencyKind]) {
        if self.ours.contains(from) {
            self.any_kind.entry(from.to_owned()).or_default().insert(to.to_owned());
        }
        if kinds.contains(&DependencyKind::Normal) {
            self.shipped.entry(from.to_owned()).or_default().insert(to.to_owned());
        }
    }

    fn shipped_by(&self, name: &str) -> impl Iterator<Item = &str> {
        self.shipped.get(name).into_iter().flatten().map(String::as_str)
    }

    /// The shortest way from one crate to another, both included.
    fn way(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut reached_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(here) = queue.pop_front() {
            for next in self.shipped_by(here) {
                if next != from && !reached_from.contains_key(next) {
                    reached_from.insert(next, here);
                    queue.push_back(next);
                }
            }
        }
        let mut way = vec![to.to_owned()];
        let mut here = to;
        while here != from {
            here = reached_from.get(here)?;
            way.push(here.to_owned());
        }
        way.reverse();
        Some(way)
    }
}

pub fn check(graph: &Graph) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for name in &graph.ours {
        match LAYERS.iter().find(|layer| layer.name == name) {
            Some(layer) => breaches.extend(
                check_layer(graph, layer)
                    .into_iter()
                    .map(|problem| breach(name, problem)),
            ),
            None => breaches.push(breach(
                name,
                "has no place among the layers: give it one in xtask/src/tidy/layers.rs".to_owned(),
            )),
        }
    }
    breaches
}

fn check_layer(graph: &Graph, layer: &Layer) -> Vec<String> {
    let mut problems = Vec::new();
    let direct = graph.any_kind.get(layer.name).into_iter().flatten();
    for ours in direct.filter(|dependency| graph.ours.contains(*dependency)) {
        if !layer.workspace.contains(&ours.as_str()) {
            problems.push(format!(
                "must not depend on {ours} (allowed: {})",
                list(layer.workspace)
            ));
        }
    }
    if let Some(allowed) = layer.external {
        let shipped = graph.shipped_by(layer.name);
        for outside in shipped.filter(|dependency| !graph.ours.contains(*dependency)) {
            if !allowed.contains(&outside) {
                problems.push(format!("must not use {outside} (allowed: {})", list(allowed)));
            }
        }
    }
    for banned in layer.never {
        if let Some(way) = graph.way(layer.name, banned) {
            problems.push(format!("must not reach {banned}, but does: {}", way.join(" -> ")));
        }
    }
    problems
}

fn list(names: &[&str]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

fn breach(name: &str, problem: String) -> Breach {
    Breach {
        rule: "layers",
        place: name.to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A graph of our crates with these extra edges.
    fn problems(edges: &[(&str, &str, DependencyKind)]) -> Vec<String> {
        let mut graph = Graph {
            ours: LAYERS.iter().map(|layer| layer.name.to_owned()).collect(),
            ..Graph::default()
        };
        for (from, to, kind) in edges {
            graph.add(from, to, &[*kind]);
        }
        check(&graph).iter().map(Breach::to_string).collect()
    }

    #[test]
    fn forbidden_edges_between_our_crates_are_caught() {
        let forbidden = [
            (TYPES, "plasmavmc-core"),
            ("plasmavmc-core", "chainfire"),
            ("plasmavmc-core", "plasmavmc-kvm"),
            ("plasmavmc-kvm", "plasmavmc-proto"),
            ("plasmavmc-guard", "plasmavmc-core"),
            ("plasmavmc-agent", TYPES),
            ("chainfire", TYPES),
            ("plasmavmc-cli", "plasmavmc-core"),
            ("plasmavmc-cli", "plasmavmc-server"),
            ("plasmavmc-server", "plasmavmc-cli"),
            ("plasmavmc-server", "plasmavmc-tests"),
            ("plasmavmc-tests", "xtask"),
            ("xtask", "chainfire"),
        ];
        for (from, to) in forbidden {
            for kind in [
                DependencyKind::Normal,
                DependencyKind::Development,
                DependencyKind::Build,
            ] {
                let found = problems(&[(from, to, kind)]);
                assert_eq!(found.len(), 1, "{from} -> {to}: {found:?}");
                assert!(
                    found[0].starts_with(&format!("{from}: layers: must not depend on {to}")),
                    "{found:?}"
                );
            }
        }
    }

    #[test]
    fn allowed_edges_are_not() {
        let normal = DependencyKind::Normal;
        let found = problems(&[
            ("plasmavmc-core", TYPES, normal),
            ("plasmavmc-kvm", TYPES, normal),
            ("plasmavmc-agent", "plasmavmc-proto", normal),
            ("plasmavmc-cli", "plasmavmc-proto", normal),
            ("plasmavmc-server", "chainfire", normal),
            ("plasmavmc-tests", "plasmavmc-server", normal),
            ("chainfire", "openraft", normal),
            ("plasmavmc-core", "proptest", DependencyKind::Development),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn an_outside_crate_that_is_not_listed_is_caught() {
        let found = problems(&[("plasmavmc-core", "chrono", DependencyKind::Normal)]);
        assert_eq!(
            found,
            ["plasmavmc-core: layers: must not use chrono (allowed: serde, thiserror)"]
        );
    }

    #[test]
    fn a_banned_crate_is_caught_behind_others() {
        let normal = DependencyKind::Normal;
        let found = problems(&[("plasmavmc-guard", "innocent", normal), ("innocent", "tonic", normal)]);
        assert_eq!(
            found,
            ["plasmavmc-guard: layers: must not reach tonic, but does: plasmavmc-guard -> innocent -> tonic"]
        );
    }

    #[test]
    fn a_crate_without_a_layer_is_caught() {
        let mut graph = Graph::default();
        graph.ours.insert("plasmavmc-surprise".to_owned());
        assert_eq!(check(&graph).len(), 1);
    }
}
