//! Round-trip delays at a real port, held to bounds that hold on any machine, however slow: the peer acknowledges with its
//! answer, and answers after a pause, so most delays are not shorter than the pause, and the application never sees its
//! answer sooner than the port saw the acknowledgement.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use ippm::flow::Leg;
use tap::{Port, Reader, Set, SetSpec};

use crate::kernel::ways;
use crate::net::{Net, RIGHT, inside};
use crate::privileged;

/// Shorter than the kernel waits before it acknowledges without an answer (40 ms).
const PAUSE: Duration = Duration::from_millis(20);
const REQUESTS: usize = 30;

/// What comes from now on is acknowledged with what is sent next.
fn acknowledge_with_the_answer(stream: &TcpStream) {
    let off: libc::c_int = 0;
    // SAFETY: the option's value lives until the call returns.
    let r = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_QUICKACK,
            std::ptr::from_ref(&off).cast(),
            size_of_val(&off) as u32,
        )
    };
    assert_eq!(r, 0, "{}", std::io::Error::last_os_error());
}

fn answer(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_nodelay(true).unwrap();
    acknowledge_with_the_answer(&stream);
    // the first request may come once that is in force
    stream.write_all(&[0]).unwrap();
    let mut request = [0; 100];
    while stream.read_exact(&mut request).is_ok() {
        thread::sleep(PAUSE);
        // again: an answer that came too late for it, on a busy machine, has ended that
        acknowledge_with_the_answer(&stream);
        stream.write_all(&[1; 200]).unwrap();
    }
}

/// How long each request took, as the application saw it.
fn ask(to: SocketAddr) -> Vec<Duration> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let mut took = Vec::new();
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        stream.write_all(&[2; 100]).unwrap();
        stream.read_exact(&mut [0; 200]).unwrap();
        took.push(begun.elapsed());
    }
    took
}

#[test]
fn root_delays_lie_between_the_peers_pause_and_what_the_application_saw() {
    let test = "root_delays_lie_between_the_peers_pause_and_what_the_application_saw";
    if !privileged(test) {
        return;
    }
    for how in ways(test) {
        for family in [0, 1] {
            let net = Net::new();
            let set = Set::create(SetSpec { samples: true, ..SetSpec::default() }).unwrap();
            let mut reader = Reader::new(set.descriptors().unwrap()).unwrap();
            let ifindex = net.port("p1");
            let _tap = inside(&net.host, || Port::attach(ifindex, set.programs(), how, None)).unwrap();
            net.up();
            let to = SocketAddr::new(RIGHT[family], 7002);
            let listener = inside(&net.right, || TcpListener::bind(to).unwrap());
            let server = thread::spawn(move || answer(&listener));
            let took = inside(&net.left, || ask(to));
            server.join().unwrap();

            let events = reader.events(usize::MAX);
            assert_eq!(reader.counters().ring_full, 0);
            let of = |leg| events.singletons.iter().filter(move |s| s.leg == leg).collect::<Vec<_>>();
            assert_eq!(of(Leg::AwayHandshake).len(), 1, "{how:?} {to}");
            // the last may be of the FIN that the client's end sends
            let away = of(Leg::Away);
            assert!(matches!(away.len() - REQUESTS, 0 | 1), "{how:?} {to}: {} delays", away.len());
            for (n, (s, took)) in away.iter().zip(&took).enumerate() {
                let tap = Duration::from_nanos(s.rtt_ns);
                assert_eq!(s.key.remote, RIGHT[family]);
                assert!(
                    tap <= *took,
                    "{how:?} {to}, request {n}: the tap says {tap:?}, the application {took:?}"
                );
            }
            // a peer that gets no processor in time acknowledges before its answer, now and then
            let waited = away.iter().filter(|s| Duration::from_nanos(s.rtt_ns) >= PAUSE).count();
            assert!(waited > REQUESTS / 2, "{how:?} {to}: only {waited} delays with the pause in them");
            println!("{how:?} {to}: {} delays, the first {} ns", away.len(), away[0].rtt_ns);
        }
    }
}
