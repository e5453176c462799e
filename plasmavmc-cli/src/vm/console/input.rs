//! What is typed, or piped in.

use std::io::Read;

use tokio::sync::mpsc;

/// Ctrl-], as in telnet and virsh.
const LEAVE: u8 = 0x1d;
/// What may wait to be sent; more waits in the pipe.
const WAITING: usize = 16;

/// A piece of input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    Bytes(Vec<u8>),
    /// Ctrl-] on a terminal.
    Leave,
    /// There is no more.
    End,
}

/// Reads standard input until its end, or until nobody wants it. A read cannot be interrupted, so the thread is left
/// behind when the program ends.
pub fn keys(is_terminal: bool) -> mpsc::Receiver<Key> {
    let (sender, keys) = mpsc::channel(WAITING);
    let reader = std::thread::Builder::new().name("standard input".to_owned());
    // Without a reader the channel is closed, which is the end of the input.
    let _ = reader.spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut buffer = [0; 4096];
        loop {
            let count = match input.read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => break,
                Ok(count) => count,
            };
            for key in split(&buffer[..count], is_terminal) {
                if sender.blocking_send(key).is_err() {
                    return;
                }
            }
        }
        // Nobody may be there any more to be told.
        let _ = sender.blocking_send(Key::End);
    });
    keys
}

/// On a terminal what comes before Ctrl-] is still sent. What is piped goes through untouched.
fn split(bytes: &[u8], is_terminal: bool) -> Vec<Key> {
    let leave = bytes.iter().position(|byte| is_terminal && *byte == LEAVE);
    let mut keys = Vec::new();
    let sent = &bytes[..leave.unwrap_or(bytes.len())];
    if !sent.is_empty() {
        keys.push(Key::Bytes(sent.to_vec()));
    }
    if leave.is_some() {
        keys.push(Key::Leave);
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_bracket_leaves_a_terminal_only() {
        let bytes = |text: &str| Key::Bytes(text.as_bytes().to_vec());
        assert_eq!(split(b"ls\r", true), [bytes("ls\r")]);
        assert_eq!(split(b"ls\x1dmore", true), [bytes("ls"), Key::Leave]);
        assert_eq!(split(b"\x1d", true), [Key::Leave]);
        assert_eq!(split(b"ls\x1dmore", false), [bytes("ls\u{1d}more")]);
    }
}
