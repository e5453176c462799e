//! The kernel inside a Debian `vmlinuz`, unpacked.
//!
//! Without KVM an emulated CPU spends three to four seconds on unpacking itself. QEMU starts an unpacked
//! kernel directly (by its PVH entry), so this machine does it once. Firmware cannot: UEFI needs the packed
//! one, which therefore stays beside it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Offsets of the boot protocol's header (Documentation/x86/boot.rst, version 2.08 and later).
const SETUP_SECTORS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;

/// How a packed kernel begins, what unpacks it, and the Debian package of that.
const PACKERS: [(&[u8], &str, &str); 3] = [
    (b"\xfd7zXZ\0", "xz", "xz-utils"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd"),
    (b"\x1f\x8b", "gzip", "gzip"),
];

/// Unpacks the kernel `packed` into the file `unpacked`.
pub fn unpack(packed: &Path, unpacked: &Path) -> Result<()> {
    let image = std::fs::read(packed).with_context(|| format!("cannot read {}", packed.display()))?;
    let payload = payload(&image).with_context(|| format!("{} is no kernel we can unpack", packed.display()))?;
    let Some((_, program, package)) = PACKERS.iter().find(|(magic, ..)| payload.starts_with(magic)) else {
        bail!("{} is packed with neither xz, zstd nor gzip", packed.display());
    };
    let file = std::fs::File::create(unpacked).with_context(|| format!("cannot make {}", unpacked.display()))?;
    let mut child = Command::new(program)
        .args(["-d", "-c"])
        .stdin(Stdio::piped())
        .stdout(file)
        .spawn()
        .with_context(|| format!("cannot run {program} (Debian package {package})"))?;
    // Dropped after the write, which is what tells the program that this was all.
    let written = child.stdin.take().map(|mut input| input.write_all(payload));
    let status = child.wait().with_context(|| format!("cannot wait for {program}"))?;
    if !status.success() || !matches!(written, Some(Ok(()))) {
        bail!("{program} cannot unpack the kernel in {}: {status}", packed.display());
    }
    Ok(())
}

/// The packed kernel behind the real-mode code, without the size that the build appends to it.
fn payload(image: &[u8]) -> Option<&[u8]> {
    if image.get(MAGIC..MAGIC + 4)? != b"HdrS" {
        return None;
    }
    let word = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    // Zero means four, for kernels older than the field.
    let setup_sectors = match *image.get(SETUP_SECTORS)? {
        0 => 4,
        count => usize::from(count),
    };
    let begin = (setup_sectors + 1) * SECTOR + word(PAYLOAD_OFFSET)?;
    let end = begin.checked_add(word(PAYLOAD_LENGTH)?.checked_sub(4)?)?;
    image.get(begin..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel image with one setup sector and `payload` 16 bytes into the protected-mode part.
    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 2 * SECTOR + 16];
        image[SETUP_SECTORS] = 1;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&16_u32.to_le_bytes());
        let length = u32::try_from(payload.len() + 4).unwrap();
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        image.extend_from_slice(payload);
        image.extend_from_slice(&[9; 4]);
        image
    }

    #[test]
    fn the_payload_is_what_the_header_says() {
        assert_eq!(payload(&image(b"packed")), Some(&b"packed"[..]));
    }

    #[test]
    fn a_short_or_foreign_file_has_no_payload() {
        let whole = image(b"packed");
        for length in [0, MAGIC, PAYLOAD_LENGTH, 2 * SECTOR, whole.len() - 5] {
            assert_eq!(payload(&whole[..length]), None, "{length}");
        }
        assert_eq!(payload(&[0; 4096]), None);
    }
}
