//! Two containers in miniature and a bridge between them: three namespaces, two veth pairs, sockets and threads in them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lab::{Lab, Namespace};
use nix::sched::{CloneFlags, setns};

/// Two namespaces `left` and `right`, each with `eth0`, whose other ends `p1` and `p2` are ports of a bridge in `host`.
/// Everything goes when this does, the thread's panic included.
pub struct Net {
    pub lab: Lab,
    pub host: Namespace,
    pub left: Namespace,
    pub right: Namespace,
}

/// Addresses of the two, IPv4 and IPv6.
pub const LEFT: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 1)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1)),
];
pub const RIGHT: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 2)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2)),
];

impl Net {
    /// Made, but the ports are down: nothing has passed them.
    pub fn new() -> Self {
        let lab = Lab::start().unwrap();
        let [host, left, right] = ["host", "left", "right"].map(|name| lab.namespace(name).unwrap());
        host.ip(&["link", "add", "br0", "type", "bridge"]).unwrap();
        host.ip(&["link", "set", "br0", "up"]).unwrap();
        for (port, ns, addresses) in [("p1", &left, LEFT), ("p2", &right, RIGHT)] {
            host.ip(&["link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns.name()])
                .unwrap();
            host.ip(&["link", "set", port, "mtu", "9000", "master", "br0"]).unwrap();
            ns.ip(&["link", "set", "eth0", "mtu", "9000"]).unwrap();
            for (address, length) in addresses.iter().zip([24, 64]) {
                let nodad: &[&str] = if address.is_ipv6() { &["nodad"] } else { &[] };
                let text = format!("{address}/{length}");
                ns.ip(&[&["addr", "add", &text, "dev", "eth0"], nodad].concat()).unwrap();
            }
        }
        Self { lab, host, left, right }
    }

    /// Puts the ports up.
    pub fn up(&self) {
        for (ns, link) in
            [(&self.host, "p1"), (&self.host, "p2"), (&self.left, "eth0"), (&self.right, "eth0")]
        {
            ns.ip(&["link", "set", link, "up"]).unwrap();
        }
    }

    /// Index of a port in the host.
    pub fn port(&self, name: &str) -> u32 {
        self.host.link(name).unwrap().index
    }
}

fn enter(namespace: &File) {
    setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
}

/// Runs something in a namespace, on a thread of its own: this one stays where it is.
pub fn inside<T: Send>(ns: &Namespace, f: impl FnOnce() -> T + Send) -> T {
    let file = File::open(ns.path()).unwrap();
    thread::scope(|s| {
        let thread = s.spawn(move || {
            enter(&file);
            f()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Traffic that goes on until this is dropped or stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

const PATIENCE: Duration = Duration::from_millis(500);

impl Load {
    fn start() -> Self {
        Self { stop: Arc::default(), threads: Vec::new() }
    }

    fn thread(&mut self, ns: &Namespace, f: impl FnOnce(&AtomicBool) + Send + 'static) {
        let (file, stop) = (File::open(ns.path()).unwrap(), Arc::clone(&self.stop));
        self.threads.push(thread::spawn(move || {
            enter(&file);
            f(&stop);
        }));
    }

    fn serve(
        &mut self,
        ns: &Namespace,
        at: SocketAddr,
        f: impl FnOnce(TcpStream, &AtomicBool) + Send + 'static,
    ) {
        let listener = inside(ns, || TcpListener::bind(at).unwrap());
        listener.set_nonblocking(true).unwrap();
        self.thread(ns, move |stop| {
            while !stop.load(Ordering::Relaxed) {
                if let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(false).unwrap();
                    return f(stream, stop);
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
    }

    /// TCP as fast as it goes with `size` octets a write, one way.
    pub fn stream(from: &Namespace, to: &Namespace, at: SocketAddr, size: usize) -> Self {
        let mut load = Self::start();
        load.serve(to, at, |mut stream, _| {
            let mut buffer = vec![0; 256 << 10];
            while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
        });
        let mut stream = inside(from, || TcpStream::connect(at).unwrap());
        load.thread(from, move |stop| {
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            let buffer = vec![0x5a; size];
            while !stop.load(Ordering::Relaxed) {
                match stream.write(&buffer) {
                    Ok(_) => {}
                    Err(e)
                        if matches!(
                            e.kind(),
                            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                        ) => {}
                    Err(e) => panic!("stream to {at}: {e}"),
                }
            }
        });
        load
    }

    /// Requests of 100 octets and responses of 200 over one TCP connection, one after the other.
    pub fn requests(from: &Namespace, to: &Namespace, at: SocketAddr) -> Self {
        let mut load = Self::start();
        load.serve(to, at, |mut stream, _| {
            stream.set_nodelay(true).unwrap();
            let mut request = [0; 100];
            while stream.read_exact(&mut request).is_ok() && stream.write_all(&[1; 200]).is_ok() {}
        });
        let mut stream = inside(from, || TcpStream::connect(at).unwrap());
        load.thread(from, move |stop| {
            stream.set_nodelay(true).unwrap();
            let mut response = [0; 200];
            while !stop.load(Ordering::Relaxed) {
                stream.write_all(&[2; 100]).unwrap();
                stream.read_exact(&mut response).unwrap();
            }
        });
        load
    }

    /// UDP datagrams, `burst` at a time with a millisecond between: less than the backlog queue drops.
    pub fn datagrams(from: &Namespace, to: &Namespace, at: SocketAddr, size: usize, burst: usize) -> Self {
        let mut load = Self::start();
        let receiver = inside(to, || UdpSocket::bind(at).unwrap());
        receiver.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        load.thread(to, move |stop| {
            let mut buffer = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                let _ = receiver.recv(&mut buffer);
            }
        });
        load.thread(from, move |stop| {
            let any: SocketAddr = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
            let sender = UdpSocket::bind(any).unwrap();
            sender.connect(at).unwrap();
            let data = vec![7; size];
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..burst {
                    // a full queue of the sender's own, or the receiver's gone: not of interest
                    let _ = sender.send(&data);
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        load
    }

    /// UDP datagrams as fast as they go, over `flows` sockets in turn.
    pub fn flood(from: &Namespace, to: &Namespace, at: SocketAddr, size: usize, flows: usize) -> Self {
        let mut load = Self::start();
        let receiver = inside(to, || UdpSocket::bind(at).unwrap());
        receiver.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        load.thread(from, move |stop| {
            let any: SocketAddr = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
            let socket = |_| {
                let socket = UdpSocket::bind(any).unwrap();
                socket.connect(at).unwrap();
                socket
            };
            let sockets: Vec<UdpSocket> = (0..flows).map(socket).collect();
            let data = vec![7; size];
            while !stop.load(Ordering::Relaxed) {
                for socket in &sockets {
                    let _ = socket.send(&data);
                }
            }
            // nobody reads: what arrives is dropped at the socket, behind both hooks
            drop(receiver);
        });
        load
    }

    /// Ends it, and returns when its last packet was sent.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
