//! The settings file. Every mistake in it is told at once, with its line: unknown sections and keys too.

use std::ops::Range;
use std::path::{Path, PathBuf};

use plasmavmc_types::{BridgeName, Label, PoolName};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

/// What kind of storage a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolKind {
    /// A folder of this host.
    #[default]
    Dir,
    /// The same folder on every host that has the pool.
    Shared,
}

/// A value with the place it was read at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed<T> {
    pub value: T,
    pub line: usize,
}

/// What is in the file, key by key.
#[derive(Debug, Default)]
pub struct FileSettings {
    pub listen: Option<Placed<String>>,
    pub cluster_listen: Option<Placed<String>>,
    pub advertise: Option<Placed<String>>,
    pub cluster_advertise: Option<Placed<String>>,
    pub name: Option<Placed<String>>,
    pub witness: Option<Placed<bool>>,
    pub dir: Option<Placed<PathBuf>>,
    pub run_dir: Option<Placed<PathBuf>>,
    pub qemu: Option<Placed<PathBuf>>,
    pub guard: Option<Placed<PathBuf>>,
    pub accel: Option<Placed<String>>,
    pub reserve_memory_mb: Option<Placed<u64>>,
    pub reserve_vcpus: Option<Placed<u32>>,
    pub vcpus_per_cpu: Option<Placed<u32>>,
    pub memory_percent: Option<Placed<u32>>,
    pub run_as: Option<Placed<String>>,
    pub cgroup: Option<Placed<PathBuf>>,
    pub log_filter: Option<Placed<String>>,
    pub log_json: Option<Placed<bool>>,
    pub pools: Vec<PoolTable>,
    pub networks: Vec<NetworkTable>,
}

#[derive(Debug)]
pub struct PoolTable {
    pub line: usize,
    pub name: Option<Placed<PoolName>>,
    pub kind: Option<Placed<PoolKind>>,
    pub path: Option<Placed<PathBuf>>,
}

#[derive(Debug)]
pub struct NetworkTable {
    pub line: usize,
    pub name: Option<Placed<Label>>,
    pub bridge: Option<Placed<BridgeName>>,
}

/// Reads a text. What can be understood of it is answered even where something cannot.
pub fn read(path: &Path, text: &str) -> (FileSettings, Vec<String>) {
    let mut reader = Reader {
        path,
        text,
        problems: Vec::new(),
    };
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        reader.complain(error.span(), error.message());
    }
    let mut root = Section {
        name: "",
        table: root.into_inner(),
        known: Vec::new(),
    };
    let mut settings = FileSettings::default();
    reader.server(&mut root, &mut settings);
    reader.vms(&mut root, &mut settings);
    if let Some(mut log) = reader.section(&mut root, "log") {
        settings.log_filter = reader.take(&mut log, "filter");
        settings.log_json = reader.take(&mut log, "json");
        reader.finish(log);
    }
    for (line, mut pool) in reader.sections(&mut root, "pool") {
        settings.pools.push(PoolTable {
            line,
            name: reader.take(&mut pool, "name"),
            kind: reader.take(&mut pool, "kind"),
            path: reader.take(&mut pool, "path"),
        });
        reader.finish(pool);
    }
    for (line, mut network) in reader.sections(&mut root, "network") {
        settings.networks.push(NetworkTable {
            line,
            name: reader.take(&mut network, "name"),
            bridge: reader.take(&mut network, "bridge"),
        });
        reader.finish(network);
    }
    reader.finish(root);
    (settings, reader.problems)
}

/// A table whose keys are taken out one after the other; what is left is unknown.
struct Section<'i> {
    name: &'static str,
    table: DeTable<'i>,
    known: Vec<&'static str>,
}

impl<'i> Section<'i> {
    fn remove(&mut self, key: &'static str) -> Option<Spanned<DeValue<'i>>> {
        self.known.push(key);
        self.table.remove(key)
    }
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn server(&mut self, root: &mut Section<'_>, settings: &mut FileSettings) {
        let Some(mut server) = self.section(root, "server") else {
            return;
        };
        settings.listen = self.take(&mut server, "listen");
        settings.cluster_listen = self.take(&mut server, "cluster_listen");
        settings.advertise = self.take(&mut server, "advertise");
        settings.cluster_advertise = self.take(&mut server, "cluster_advertise");
        settings.name = self.take(&mut server, "name");
        settings.witness = self.take(&mut server, "witness");
        settings.dir = self.take(&mut server, "dir");
        self.finish(server);
    }

    fn vms(&mut self, root: &mut Section<'_>, settings: &mut FileSettings) {
        let Some(mut vms) = self.section(root, "vms") else {
            return;
        };
        settings.run_dir = self.take(&mut vms, "run_dir");
        settings.qemu = self.take(&mut vms, "qemu");
        settings.guard = self.take(&mut vms, "guard");
        settings.accel = self.take(&mut vms, "accel");
        settings.reserve_memory_mb = self.take(&mut vms, "reserve_memory_mb");
        settings.reserve_vcpus = self.take(&mut vms, "reserve_vcpus");
        settings.vcpus_per_cpu = self.take(&mut vms, "vcpus_per_cpu");
        settings.memory_percent = self.take(&mut vms, "memory_percent");
        settings.run_as = self.take(&mut vms, "run_as");
        settings.cgroup = self.take(&mut vms, "cgroup");
        self.finish(vms);
    }

    fn line(&self, span: Option<Range<usize>>) -> usize {
        let end = span.map_or(0, |span| span.start).min(self.text.len());
        self.text.as_bytes()[..end]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1
    }

    fn complain(&mut self, span: Option<Range<usize>>, problem: &str) {
        let line = self.line(span);
        self.problems.push(format!("{}:{line}: {problem}", self.path.display()));
    }

    fn take<T: DeserializeOwned>(&mut self, section: &mut Section<'_>, key: &'static str) -> Option<Placed<T>> {
        let value = section.remove(key)?;
        let span = value.span();
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(Placed {
                value,
                line: self.line(Some(span)),
            }),
            Err(error) => {
                let problem = error.message();
                self.complain(Some(span), &format!("{key}: {problem}"));
                None
            }
        }
    }

    fn section<'i>(&mut self, root: &mut Section<'i>, name: &'static str) -> Option<Section<'i>> {
        let value = root.remove(name)?;
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Some(Section {
                name,
                table,
                known: Vec::new(),
            }),
            _ => {
                self.complain(Some(span), &format!("{name} must be a section: write [{name}]"));
                None
            }
        }
    }

    fn sections<'i>(&mut self, root: &mut Section<'i>, name: &'static str) -> Vec<(usize, Section<'i>)> {
        let Some(value) = root.remove(name) else {
            return Vec::new();
        };
        let span = value.span();
        let problem = format!("{name} may be there more than once: write [[{name}]]");
        let DeValue::Array(array) = value.into_inner() else {
            self.complain(Some(span), &problem);
            return Vec::new();
        };
        let mut found = Vec::new();
        for element in array {
            let span = element.span();
            match element.into_inner() {
                DeValue::Table(table) => {
                    let known = Vec::new();
                    found.push((self.line(Some(span)), Section { name, table, known }));
                }
                _ => self.complain(Some(span), &problem),
            }
        }
        found
    }

    /// Complains of what nobody took.
    fn finish(&mut self, section: Section<'_>) {
        let known = section.known.join(", ");
        for key in section.table.keys() {
            let what = match section.name {
                "" => format!("there is no section {}; there are {known}", key.get_ref()),
                name => format!("[{name}] has no {}; it has {known}", key.get_ref()),
            };
            self.complain(Some(key.span()), &what);
        }
    }
}
