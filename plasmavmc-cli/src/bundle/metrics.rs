//! The metrics of a server: one plain HTTP request, which needs no HTTP library.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const WITHIN: Duration = Duration::from_secs(5);
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The text at `/metrics`, or why there is none.
pub async fn fetch(address: &str) -> Result<String, String> {
    let answer = tokio::time::timeout(WITHIN, get(address)).await;
    let answer = answer.map_err(|_| format!("no answer within {} s", WITHIN.as_secs()))?;
    body_of(&answer.map_err(|error| error.to_string())?)
}

async fn get(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0: the answer ends with the connection, and comes in one piece.
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn body_of(answer: &str) -> Result<String, String> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is no HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        Ok(body.to_owned())
    } else {
        Err(format!("answered {status}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_good_answer_is_taken() {
        assert_eq!(
            body_of("HTTP/1.0 200 OK\r\nX: y\r\n\r\nup 1\n"),
            Ok("up 1\n".to_owned())
        );
        assert!(body_of("HTTP/1.1 404 Not Found\r\n\r\n").unwrap_err().contains("404"));
        assert!(body_of("garbage").is_err());
    }
}
