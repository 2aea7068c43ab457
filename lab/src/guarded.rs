//! A guard before an engine's socket, as careful people put one there (docker-socket-proxy is the best known): it lets
//! some requests pass and answers the others with 403.

use crate::wait::wait_for;
use anyhow::{Context, Result};
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest head of a request.
const HEAD: usize = 64 << 10;
/// Longest time that a refused request may go on sending.
const LINGER: Duration = Duration::from_secs(5);

/// What a guard lets pass.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Methods other than GET and HEAD.
    pub write: bool,
    /// First parts of paths, without the interface version: `containers`, `networks`, …
    pub sections: Vec<&'static str>,
}

impl Rules {
    /// Only questions, about what `sections` says; `version`, `_ping` and `events` are always allowed.
    pub fn read_only(sections: &[&'static str]) -> Self {
        Self { write: false, sections: sections.to_vec() }
    }

    /// Everything.
    pub fn open() -> Self {
        Self { write: true, sections: vec!["containers", "networks", "images"] }
    }

    fn allow(&self, method: &str, path: &str) -> bool {
        let path = path.split('?').next().unwrap_or_default();
        let is_version = |part: &&str| {
            part.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        let section = path.split('/').filter(|part| !part.is_empty()).find(|part| !is_version(part));
        let section = section.unwrap_or_default();
        let asks = matches!(method, "GET" | "HEAD");
        (asks || self.write)
            && (["version", "_ping", "events"].contains(&section) || self.sections.contains(&section))
    }
}

/// A guard that stands before a socket while this lives.
#[derive(Debug)]
pub struct Guarded {
    socket: PathBuf,
    rules: Arc<Mutex<Rules>>,
    refused: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Guarded {
    /// Listens at `socket` and passes on to `engine` what the rules allow.
    pub fn start(socket: &Path, engine: &Path, rules: Rules) -> Result<Self> {
        let listener =
            UnixListener::bind(socket).with_context(|| format!("cannot listen at {}", socket.display()))?;
        let (rules, refused) = (Arc::new(Mutex::new(rules)), Arc::new(Mutex::new(Vec::new())));
        let stop = Arc::new(AtomicBool::new(false));
        let shared = (rules.clone(), refused.clone(), stop.clone(), engine.to_path_buf());
        let thread = std::thread::Builder::new().name("guard".into()).spawn(move || {
            let (rules, refused, stop, engine) = shared;
            for client in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (rules, refused, engine) = (rules.clone(), refused.clone(), engine.clone());
                // ends with its connection; a connection that breaks is the client's to notice
                std::thread::spawn(move || serve(client, &engine, &rules, &refused));
            }
        })?;
        Ok(Self { socket: socket.to_path_buf(), rules, refused, stop, thread: Some(thread) })
    }

    /// The guarded address, as `DOCKER_HOST` wants it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Other rules from now on.
    pub fn set_rules(&self, rules: Rules) {
        *self.rules.lock().unwrap_or_else(|e| e.into_inner()) = rules;
    }

    /// What was refused so far, as `METHOD PATH`.
    pub fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Waits until something that holds `text` was refused.
    pub fn wait_refused(&self, text: &str, timeout: Duration) -> Result<()> {
        wait_for(&format!("a refused request with {text:?}"), timeout, || {
            Ok(self.refused().iter().any(|r| r.contains(text)).then_some(()))
        })
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // wakes the thread
        let _ = UnixStream::connect(&self.socket);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// One request: each connection carries one, because the next might not be allowed.
fn serve(
    mut client: UnixStream,
    engine: &Path,
    rules: &Mutex<Rules>,
    refused: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let (head, rest) = read_head(&mut client)?;
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !rules.lock().unwrap_or_else(|e| e.into_inner()).allow(method, path) {
        refused.lock().unwrap_or_else(|e| e.into_inner()).push(format!("{method} {path}"));
        let body = r#"{"message":"forbidden by administrative rules"}"#;
        write!(
            client,
            "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        client.shutdown(std::net::Shutdown::Write)?;
        // a client that is still sending would see a broken pipe instead of the answer
        client.set_read_timeout(Some(LINGER))?;
        io::copy(&mut client, &mut io::sink())?;
        return Ok(());
    }
    let mut upstream = UnixStream::connect(engine)?;
    upstream.write_all(closing(&head).as_bytes())?;
    upstream.write_all(&rest)?;
    let (mut from, mut to) = (client.try_clone()?, upstream.try_clone()?);
    let body = std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        // the client is gone: so is whoever waits for the engine's next event
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
    let copied = io::copy(&mut upstream, &mut client);
    let _ = client.shutdown(std::net::Shutdown::Both);
    let _ = body.join();
    copied.map(drop)
}

fn read_head(client: &mut UnixStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        let read = client.read(&mut chunk)?;
        if read == 0 || bytes.len() > HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes.extend_from_slice(&chunk[..read]);
    }
}

/// The head, asking the engine to close the connection after its answer.
fn closing(head: &str) -> String {
    let lines = head.trim_end().split("\r\n");
    let kept: Vec<&str> = lines.filter(|l| !l.to_ascii_lowercase().starts_with("connection:")).collect();
    format!("{}\r\nConnection: close\r\n\r\n", kept.join("\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_look_at_method_and_section() {
        let rules = Rules::read_only(&["containers"]);
        for path in [
            "/v1.41/containers/json?all=1",
            "/containers/x/json",
            "/_ping",
            "/v1.41/events?since=1",
            "/version",
        ] {
            assert!(rules.allow("GET", path), "{path}");
        }
        assert!(!rules.allow("POST", "/v1.41/containers/create"));
        assert!(!rules.allow("GET", "/v1.41/networks") && !rules.allow("GET", "/images/containers/json"));
        assert!(Rules::open().allow("DELETE", "/v1.41/images/x"));
        assert_eq!(
            closing("GET / HTTP/1.1\r\nconnection: keep-alive\r\n\r\n"),
            "GET / HTTP/1.1\r\nConnection: close\r\n\r\n"
        );
    }
}
