//! An engine that answers as it is told to: well, unless it is to misbehave on a path.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// The container whose paths are named with `ID` for short.
pub const ID: &str = "d29f0837dd969fe798851fa8c76beb206f90cd2b72f0d5c0075e8159a2153df0";
/// The network whose path is named with `NET` for short.
pub const NETWORK: &str = "8e5bc990c0a8db79645faf64e11abeaab2c4eade906b4bee0d883fa1610a59aa";

/// What is sent, octet for octet.
#[derive(Clone, Debug)]
pub struct Reply {
    now: Arc<Vec<u8>>,
    then: Then,
}

#[derive(Clone, Debug)]
enum Then {
    Close,
    /// Until the peer goes.
    Wait,
    /// Again and again.
    Endless(Vec<u8>),
    /// An octet a second.
    Slowly(Vec<u8>),
}

impl Reply {
    pub fn raw(octets: impl AsRef<[u8]>) -> Reply {
        Reply { now: Arc::new(octets.as_ref().to_vec()), then: Then::Close }
    }

    pub fn endless(first: &str, unit: &str) -> Reply {
        let block = unit.repeat((64 << 10) / unit.len() + 1);
        Reply { now: Arc::new(first.into()), then: Then::Endless(block.into()) }
    }

    pub fn slow(text: &str) -> Reply {
        Reply::raw("").and_slowly(text)
    }

    pub fn and_slowly(self, text: &str) -> Reply {
        Reply { then: Then::Slowly(text.into()), ..self }
    }

    pub fn and_wait(self) -> Reply {
        Reply { then: Then::Wait, ..self }
    }

    /// Without so many octets of its end.
    pub fn cut(&self, count: usize) -> Reply {
        Reply { now: Arc::new(self.now[..self.now.len() - count].to_vec()), then: Then::Close }
    }

    /// Without the chunk that ends a chunked body.
    pub fn without_end(&self) -> Reply {
        self.cut("0\r\n\r\n".len())
    }
}

pub fn status(code: u16, text: &str) -> Reply {
    Reply::raw(format!("HTTP/1.1 {code} Word\r\nContent-Length: {}\r\n\r\n{text}", text.len()))
}

pub fn json(text: &str) -> Reply {
    status(200, text)
}

pub fn chunked(text: &str) -> Reply {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    Reply::raw(format!("{head}{:x}\r\n{text}\r\n0\r\n\r\n", text.len()))
}

/// A message of the event stream, without the end of its line.
pub fn event(action: &str, id: &str, ns: i64) -> String {
    let actor = serde_json::json!({"ID": id, "Attributes": {"name": "a", "image": "i"}});
    serde_json::json!({"Type": "container", "Action": action, "Actor": actor, "scope": "local",
        "time": ns / 1_000_000_000, "timeNano": ns})
    .to_string()
}

#[derive(Debug, Default)]
struct Shared {
    wrong: Mutex<HashMap<String, Reply>>,
    /// All requests' paths.
    asked: Mutex<Vec<String>>,
    open: AtomicUsize,
}

/// The engine; it ends with this.
pub struct Fake {
    folder: PathBuf,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Fake {
    pub async fn start() -> Fake {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("conmond-engine-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        let listener = UnixListener::bind(folder.join("sock")).expect("a socket");
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = serving.clone();
                shared.open.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let _ = serve(stream, &shared).await;
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Fake { folder, shared, task }
    }

    pub fn address(&self) -> String {
        format!("unix://{}/sock", self.folder.display())
    }

    /// From now on this, and nothing else, is wrong.
    pub fn misbehave(&self, path: &str, reply: Reply) {
        self.behave();
        self.also(path, reply);
    }

    /// This is wrong as well.
    pub fn also(&self, path: &str, reply: Reply) {
        self.wrong().insert(path.to_owned(), reply);
    }

    pub fn behave(&self) {
        self.wrong().clear();
    }

    fn wrong(&self) -> MutexGuard<'_, HashMap<String, Reply>> {
        self.shared.wrong.lock().expect("replies")
    }

    /// How many requests have come.
    pub fn requests(&self) -> usize {
        self.shared.asked.lock().expect("requests").len()
    }

    /// Since when events were asked for, each time, in seconds.
    pub fn events_since(&self) -> Vec<i64> {
        let asked = self.shared.asked.lock().expect("requests");
        let since = |path: &String| path.split_once("since=")?.1.split('.').next()?.parse().ok();
        asked.iter().filter(|path| path.starts_with("/events")).filter_map(since).collect()
    }

    /// Waits until the peer has closed all connections.
    pub async fn no_connection_remains(&self) {
        let end = Instant::now() + Duration::from_secs(5);
        while self.shared.open.load(Ordering::SeqCst) > 0 {
            assert!(Instant::now() < end, "connections remain");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn serve(mut stream: UnixStream, shared: &Shared) -> std::io::Result<()> {
    let mut request = Vec::new();
    let head = loop {
        if let Some(end) = request.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    };
    let text = String::from_utf8_lossy(&request[..head]).into_owned();
    let length = text
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    while request.len() < head + length.unwrap_or(0) {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let path = text.split(' ').nth(1).unwrap_or_default();
    shared.asked.lock().expect("requests").push(path.to_owned());
    let path = path.split('?').next().unwrap_or_default().replace(ID, "ID").replace(NETWORK, "NET");
    let wrong = shared.wrong.lock().expect("replies").get(&path).cloned();
    let reply = wrong.unwrap_or_else(|| well(&path));
    stream.write_all(&reply.now).await?;
    match reply.then {
        Then::Close => {}
        Then::Wait => gone(&mut stream).await,
        Then::Endless(block) => loop {
            stream.write_all(&block).await?;
        },
        Then::Slowly(octets) => {
            for octet in octets {
                tokio::time::sleep(Duration::from_secs(1)).await;
                stream.write_all(&[octet]).await?;
            }
        }
    }
    stream.shutdown().await?;
    gone(&mut stream).await;
    Ok(())
}

async fn gone(stream: &mut UnixStream) {
    while stream.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {}
}

/// What an engine says.
fn well(path: &str) -> Reply {
    let place = |id: &str, last: u8| {
        format!(
            r#"{{"NetworkID": "{NETWORK}", "EndpointID": "e{id}", "Gateway": "10.5.0.1", "IPAddress": "10.5.0.{last}",
                "MacAddress": "02:42:0a:05:00:0{last}", "GlobalIPv6Address": ""}}"#
        )
    };
    let container = |id: &str, name: &str, last: u8| {
        format!(
            r#"{{"Id": "{id}", "Names": ["/{name}"], "Image": "bb:1", "ImageID": "sha256:0", "Command": "sleep", "Created": 1795408198,
                "Ports": [], "Labels": {{}}, "State": "running", "Status": "Up", "HostConfig": {{"NetworkMode": "front"}},
                "NetworkSettings": {{"Networks": {{"front": {}}}}}, "Mounts": []}}"#,
            place(id, last)
        )
    };
    let network = format!(
        r#""Name": "front", "Id": "{NETWORK}", "Driver": "bridge", "EnableIPv6": false, "Internal": false, "Options": {{}},
            "IPAM": {{"Driver": "default", "Config": [{{"Subnet": "10.5.0.0/24", "Gateway": "10.5.0.1"}}]}}"#
    );
    let endpoint = |name: &str, last: u8| {
        format!(
            r#"{{"Name": "{name}", "EndpointID": "e{last}", "MacAddress": "02:42:0a:05:00:0{last}", "IPv4Address": "10.5.0.{last}/24",
                "IPv6Address": ""}}"#
        )
    };
    let two = "2".repeat(64);
    match path {
        "/version" => json(
            r#"{"Version": "29.1.0", "ApiVersion": "1.52", "Components": [{"Name": "Engine", "Version": "29.1.0"}]}"#,
        ),
        "/containers/json" => json(&format!("[{},{}]", container(ID, "one", 2), container(&two, "two", 3))),
        "/networks" => json(&format!("[{{{network}}}]")),
        "/networks/NET" => json(&format!(
            r#"{{{network}, "Containers": {{"{ID}": {}, "{two}": {}}}}}"#,
            endpoint("one", 2),
            endpoint("two", 3)
        )),
        "/containers/ID/json" => json(&format!(
            r#"{{"Id": "{ID}", "State": {{"Status": "running", "Running": true}}, "HostConfig": {{"NetworkMode": "front"}}}}"#
        )),
        "/containers/ID/stats" => json(r#"{"pids_stats": {"current": 1}}"#),
        "/images/json" => json("[]"),
        "/events" => {
            let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).expect("now");
            chunked(&(event("start", "good", now) + "\n")).without_end().and_wait()
        }
        _ => status(404, r#"{"message": "no such thing"}"#),
    }
}
