//! How long a disk takes to keep what it was given. Every change of the cluster waits for it on a majority of hosts,
//! and a disk that takes longer than a lease looks like a host that died.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Finding, Verdict};

const CHECK: &str = "fsync";
const WRITES: usize = 100;
/// A disk that is this slow has been seen enough of.
const LONGEST: Duration = Duration::from_secs(5);
/// An ordinary SSD without power-loss protection takes 1 to 5 ms.
const SLOW: Duration = Duration::from_millis(20);
/// Near the lease, with the other writes of the host besides.
const TOO_SLOW: Duration = Duration::from_millis(500);

pub async fn finding(dir: &Path) -> Finding {
    let Some(dir) = existing(dir) else {
        return Finding::new(
            CHECK,
            Verdict::Note,
            format!("not measured: there is no {}", dir.display()),
        );
    };
    let measured_dir = dir.clone();
    match tokio::task::spawn_blocking(move || measure(&measured_dir)).await {
        Ok(Ok(times)) => judge(&dir, times),
        Ok(Err(error)) => {
            let says = format!("not measured in {}: {error}", dir.display());
            Finding::new(CHECK, Verdict::Note, says).with("run it as the user of the server, or name a folder: --dir")
        }
        Err(error) => Finding::new(CHECK, Verdict::Note, format!("not measured: {error}")),
    }
}

/// The folder, or the next one above it: it comes to lie on the same disk.
fn existing(dir: &Path) -> Option<PathBuf> {
    dir.ancestors().find(|dir| dir.is_dir()).map(Path::to_owned)
}

/// Removed when it is dropped, whatever happened.
struct Probe {
    path: PathBuf,
    file: File,
}

impl Probe {
    fn new(dir: &Path) -> io::Result<Self> {
        let path = dir.join(format!(".plasmavmc-doctor-{}", uuid::Uuid::new_v4()));
        let file = File::options().write(true).create_new(true).open(&path)?;
        Ok(Self { path, file })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // It is empty enough to be forgotten, should that fail.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// How long each write took, shortest first.
fn measure(dir: &Path) -> io::Result<Vec<Duration>> {
    let mut probe = Probe::new(dir)?;
    let begun = Instant::now();
    let mut times = Vec::new();
    while times.len() < WRITES && begun.elapsed() < LONGEST {
        let before = Instant::now();
        probe.file.write_all(&[0x5a; 4096])?;
        probe.file.sync_data()?;
        times.push(before.elapsed());
    }
    times.sort();
    Ok(times)
}

fn judge(dir: &Path, times: Vec<Duration>) -> Finding {
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len() - 1)).copied();
    let (Some(median), Some(worst)) = (at(50), at(99)) else {
        return Finding::new(CHECK, Verdict::Note, "not measured");
    };
    let ms = |duration: Duration| format!("{:.2} ms", duration.as_secs_f64() * 1000.0);
    let says = format!("{} median, {} p99, 4 KiB in {}", ms(median), ms(worst), dir.display());
    let (verdict, remedy) = if worst >= TOO_SLOW {
        (
            Verdict::Bad,
            "this disk is too slow for the store: the host would look dead; use an SSD for the folder",
        )
    } else if worst >= SLOW {
        (
            Verdict::Warning,
            "every change of the cluster takes that long; an SSD with power-loss protection is best",
        )
    } else {
        return Finding::good(CHECK, says);
    };
    Finding::new(CHECK, verdict, says).with(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_is_told_from_a_fast_one() {
        let judged = |ms: u64| judge(Path::new("/x"), vec![Duration::from_millis(ms); 10]).verdict;
        assert_eq!(
            [judged(1), judged(20), judged(499), judged(500)],
            [Verdict::Good, Verdict::Warning, Verdict::Warning, Verdict::Bad]
        );
    }

    #[tokio::test]
    async fn it_is_measured_where_the_folder_will_be_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let finding = finding(&dir.path().join("not/yet")).await;
        assert!(
            finding.says.contains(&format!("4 KiB in {}", dir.path().display())),
            "{}",
            finding.says
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
