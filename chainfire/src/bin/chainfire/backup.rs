//! Backups: fetching one from a running member, checking it, making a new cluster of it.
//!
//! A file under the name that was asked for is always a whole, checked backup: it is written under another
//! name beside it, synced, checked, and only then renamed.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use chainfire::backup::{self, Summary};
use chainfire::client::Client;
use futures::StreamExt;

use crate::args::{RestoreArgs, SaveArgs, VerifyArgs};
use crate::failure::Failure;
use crate::output::Printer;

pub async fn save(client: &Client, args: SaveArgs, mut printer: Printer<impl Write>) -> Result<(), Failure> {
    let unfinished = Unfinished::beside(&args.file)?;
    let mut file = unfinished.create()?;
    let mut parts = client.backup().await?;
    while let Some(part) = parts.next().await {
        file.write_all(&part?).map_err(|source| unfinished.failure(source))?;
    }
    file.sync_all().map_err(|source| unfinished.failure(source))?;
    let summary = backup::verify(&unfinished.path)?;
    unfinished.finish(&args.file)?;
    printer.backup(&format!("saved to {}", args.file.display()), &summary)
}

pub fn verify(args: VerifyArgs, mut printer: Printer<impl Write>) -> Result<(), Failure> {
    let summary: Summary = backup::verify(&args.file)?;
    printer.backup(&format!("{} is whole", args.file.display()), &summary)
}

pub fn restore(args: RestoreArgs, mut printer: Printer<impl Write>) -> Result<(), Failure> {
    let advertise = args.advertise.parse::<chainfire::transport::Address>()?.to_string();
    let name = args.name.unwrap_or_else(|| advertise.clone());
    let summary = backup::restore(&args.file, &args.dir, &name, &advertise)?;
    printer.backup(&format!("restored into {}", args.dir.display()), &summary)
}

/// A file that is removed again unless it gets its final name.
struct Unfinished {
    path: PathBuf,
    folder: PathBuf,
}

impl Unfinished {
    fn beside(target: &Path) -> Result<Self, Failure> {
        let name = target
            .file_name()
            .ok_or_else(|| Failure::Usage(format!("{} is no name for a file", target.display())))?;
        let folder = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut unfinished = name.to_owned();
        unfinished.push(format!(".unfinished-{}", std::process::id()));
        Ok(Self {
            path: folder.join(unfinished),
            folder,
        })
    }

    fn failure(&self, source: io::Error) -> Failure {
        Failure::Write {
            what: self.path.display().to_string(),
            source,
        }
    }

    fn create(&self) -> Result<File, Failure> {
        File::create_new(&self.path).map_err(|source| self.failure(source))
    }

    fn finish(self, target: &Path) -> Result<(), Failure> {
        std::fs::rename(&self.path, target).map_err(|source| self.failure(source))?;
        // Without this a power cut could take the name back.
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| self.failure(source))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finished_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("backup");
        std::fs::write(&target, "the last good one").expect("a file");
        let unfinished = Unfinished::beside(&target).expect("a name");
        unfinished
            .create()
            .expect("a file")
            .write_all(b"half")
            .expect("written");
        drop(unfinished);
        assert_eq!(std::fs::read(&target).expect("a file"), b"the last good one");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn what_is_finished_takes_the_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("backup");
        std::fs::write(&target, "the last good one").expect("a file");
        let unfinished = Unfinished::beside(&target).expect("a name");
        unfinished
            .create()
            .expect("a file")
            .write_all(b"whole")
            .expect("written");
        unfinished.finish(&target).expect("renamed");
        assert_eq!(std::fs::read(&target).expect("a file"), b"whole");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn a_folder_is_no_name_for_a_backup() {
        for name in ["/", ".."] {
            assert!(
                matches!(Unfinished::beside(Path::new(name)), Err(Failure::Usage(_))),
                "{name}"
            );
        }
    }
}
