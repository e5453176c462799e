//! A tar archive (POSIX ustar): a head of 512 bytes for each file, its bytes, and zeros up to the next 512.

const BLOCK: usize = 512;
/// What the name field of a head holds.
const MAX_NAME: usize = 100;

/// An archive that is written in memory. All files lie in one folder.
#[derive(Debug)]
pub struct Archive {
    folder: String,
    modified_s: u64,
    bytes: Vec<u8>,
}

impl Archive {
    pub fn new(folder: &str, modified_s: u64) -> Self {
        Self {
            folder: folder.to_owned(),
            modified_s,
            bytes: Vec::new(),
        }
    }

    pub fn add(&mut self, name: &str, content: &[u8]) {
        let mut path = format!("{}/{name}", self.folder);
        while path.len() > MAX_NAME {
            path.pop();
        }
        self.bytes
            .extend_from_slice(&head(&path, content.len(), self.modified_s));
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }

    /// Two empty blocks are the end.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }
}

fn head(path: &str, size: usize, modified_s: u64) -> [u8; BLOCK] {
    let mut head = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| head[at..at + text.len()].copy_from_slice(text);
    put(0, path.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, format!("{:011o}\0", modified_s.min(0o77_777_777_777)).as_bytes());
    // The sum is made with itself as spaces.
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_itself_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = Archive::new("bundle", 1_700_000_000);
        archive.add("empty.txt", b"");
        archive.add("explain/one.json", &[b'x'; 1000]);
        let file = dir.path().join("bundle.tar");
        std::fs::write(&file, archive.finish()).unwrap();
        let unpacked = std::process::Command::new("tar")
            .arg("-xf")
            .arg(&file)
            .arg("-C")
            .arg(dir.path())
            .status();
        assert!(unpacked.unwrap().success());
        assert_eq!(std::fs::read(dir.path().join("bundle/empty.txt")).unwrap(), b"");
        assert_eq!(
            std::fs::read(dir.path().join("bundle/explain/one.json")).unwrap(),
            vec![b'x'; 1000]
        );
    }
}
