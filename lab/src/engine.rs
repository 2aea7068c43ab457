//! The engine's HTTP API over its Unix socket, as far as the lab needs it: one request, one whole answer. HTTP/1.0 is
//! spoken on purpose: the answer then ends with the connection and is never chunked.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Sends one request; returns the status code and the body.
pub fn request(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Vec<u8>)> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("cannot reach the engine at {}", socket.display()))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body.as_bytes()))
        .context("engine request")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("engine's answer to {method} {path}"))?;
    split_answer(&answer).with_context(|| format!("engine's answer to {method} {path} is not HTTP"))
}

/// Sends one request and reads the answer as JSON (`Null` when empty); an error status is an error.
pub fn call(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
    let (status, answer) = request(socket, method, path, body)?;
    if status >= 400 {
        bail!("engine refused {method} {path} ({status}): {}", crate::run::text(&answer));
    }
    if answer.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&answer).with_context(|| format!("engine's answer to {method} {path} is not JSON"))
}

fn split_answer(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some((status, answer[end + 4..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_split() {
        let answer = b"HTTP/1.0 404 Not Found\r\nA: b\r\n\r\n{\"message\":\"no\"}";
        assert_eq!(split_answer(answer), Some((404, b"{\"message\":\"no\"}".to_vec())));
        assert_eq!(split_answer(b"HTTP/1.1 204 No Content\r\n\r\n"), Some((204, Vec::new())));
        for broken in [&b""[..], b"HTTP/1.0 200", b"hello\r\n\r\n", b"HTTP/1.0 x\r\n\r\n"] {
            assert_eq!(split_answer(broken), None);
        }
    }
}
