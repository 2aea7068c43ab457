//! Tries, as an intruder in a container would, what it should not be able to do, and reports how each attempt ended.

use super::{Args, report, resolve};
use anyhow::Result;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);

/// Each attempt and the error that it ended with; `done` for one that succeeded.
type Attempts = BTreeMap<String, String>;

fn note<T>(attempts: &mut Attempts, what: String, result: io::Result<T>) {
    attempts.insert(what, result.map_or_else(|error| error.to_string(), |_| "done".to_owned()));
}

/// `--to` is somebody to talk to, `--sockets` Unix sockets to connect to (one that only hangs up counts as refused),
/// `--files` files to write to, each separated by commas; every descriptor of process 1 is tried, too.
pub fn run(args: &mut Args) -> Result<()> {
    let to = resolve(&args.need("to")?)?;
    let list = |text: Option<String>| -> Vec<String> {
        text.unwrap_or_default().split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let (sockets, files) = (list(args.text("sockets")), list(args.text("files")));
    args.finish()?;
    let mut attempts = Attempts::new();
    note(&mut attempts, format!("tcp {to}"), TcpStream::connect_timeout(&to, PATIENCE));
    let sent = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"?", to));
    note(&mut attempts, format!("udp {to}"), sent);
    for socket in sockets {
        let answer = UnixStream::connect(&socket).and_then(|mut stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut byte = [0];
            match stream.read(&mut byte)? {
                0 => Err(io::ErrorKind::ConnectionAborted.into()),
                _ => Ok(()),
            }
        });
        note(&mut attempts, format!("socket {socket}"), answer);
    }
    for file in files {
        note(
            &mut attempts,
            format!("write {file}"),
            File::options().write(true).create(true).truncate(false).open(&file),
        );
    }
    for descriptor in fs::read_dir("/proc/1/fd").into_iter().flatten().flatten() {
        let (path, target) = (descriptor.path(), fs::read_link(descriptor.path()).unwrap_or_default());
        if target.to_string_lossy().contains("bpf") {
            let opened = File::options().write(true).open(&path);
            note(&mut attempts, format!("reopen {} of {}", target.display(), path.display()), opened);
        }
    }
    report(&attempts)
}
