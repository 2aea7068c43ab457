//! The task that does what the reader and the writer ask for.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::Client;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::discovery::{self, step};

use super::super::backoff::Backoff;
use super::super::hosts::MAX_HOSTS;
use super::super::reader::{self, Target};
use super::super::writer::{self, Told};
use super::super::{Now, now};
use super::calls::{self, Trouble, within};
use super::stream::{self, Heard, Request};
use super::{EtcdSettings, Shared};

/// What happens to the driver.
pub(super) enum Event {
    Connected(u64, Result<Box<Client>, Trouble>),
    Told(u64, Result<Told, Trouble>),
    /// A reading that was taken over, or came to nothing.
    Read(u64, Target, i64, Result<(), Trouble>),
    Heard(u64, Heard),
}

/// What readings go by.
#[derive(Clone)]
pub(super) struct Line {
    client: Client,
    number: u64,
    events: mpsc::Sender<Event>,
    limit: Duration,
    rows_per_address: usize,
}

/// Sends a reading. Those who look an address up do so themselves, and are told as soon as it is answered; the driver hears of it then. By way of
/// the driver two more tasks would have to be woken, which takes some hundredths of a millisecond each.
pub(super) fn read(shared: &Arc<Shared>, line: &Line, target: Target, ticket: i64) {
    let (shared, line) = (Arc::clone(shared), line.clone());
    tokio::spawn(async move {
        let most = match target {
            Target::Hosts => MAX_HOSTS,
            Target::Address(_) => line.rows_per_address,
        };
        let reading = within(line.limit, calls::read(line.client, target, most)).await;
        let taken = reading.map(|reading| {
            let mut held = shared.reading();
            // one of a connection that is no more has a ticket that is not waited for
            held.reader.read(target, ticket, Some(reading), now());
            held.tell_waiting();
        });
        let _ = line.events.send(Event::Read(line.number, target, ticket, taken)).await;
    });
}

/// A connection and its stream of watches. Both end with it.
struct Connection {
    line: Line,
    requests: mpsc::UnboundedSender<Request>,
    stream: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stream.abort();
    }
}

struct Driver {
    shared: Arc<Shared>,
    settings: EtcdSettings,
    host: String,
    events: mpsc::Sender<Event>,
    /// Numbers connections, so that what is heard of one is not taken for another.
    number: u64,
    connection: Option<Connection>,
    connecting: bool,
    backoff: Backoff,
}

/// Drives until `closed`, then takes this host's rows away.
pub(super) async fn run(
    shared: Arc<Shared>,
    settings: EtcdSettings,
    seed: u64,
    mut closed: oneshot::Receiver<()>,
) {
    let (events, mut happened) = mpsc::channel(1024);
    let backoff = Backoff::new(settings.writer.retry_max_ns, seed);
    let mut driver = Driver {
        shared: Arc::clone(&shared),
        settings,
        host: String::new(),
        events,
        number: 0,
        connection: None,
        connecting: false,
        backoff,
    };
    loop {
        let deadline = driver.work();
        let now_ns = now().steady_ns;
        let sleep = Duration::from_nanos(deadline.saturating_sub(now_ns)).min(Duration::from_secs(60));
        tokio::select! {
            biased;
            _ = &mut closed => break,
            event = happened.recv() => if let Some(event) = event { driver.happened(event) },
            () = shared.wake.notified() => {}
            () = tokio::time::sleep(sleep) => {}
        }
        // What else has happened meanwhile goes with it.
        for _ in 0..256 {
            match happened.try_recv() {
                Ok(event) => driver.happened(event),
                Err(_) => break,
            }
        }
    }
    driver.leave().await;
}

impl Driver {
    /// Asks all that is due. Returns when there is more, on the steady clock.
    fn work(&mut self) -> u64 {
        let now = now();
        self.connect(now);
        let mut deadline = u64::MAX;
        loop {
            let ask = self.shared.reading().reader.poll(now);
            match ask {
                Some(ask) => self.ask_reader(ask, now),
                None => break,
            }
        }
        if self.connection.is_some() {
            let (ask, next) = {
                let mut writer = self.shared.writer();
                let ask = writer.poll(now);
                (ask, writer.deadline(now))
            };
            if let Some(ask) = ask {
                self.ask_writer(ask);
            }
            deadline = deadline.min(next.unwrap_or(u64::MAX));
        } else if !self.connecting {
            deadline = deadline.min(self.backoff.until_ns());
        }
        self.tell();
        deadline.min(self.shared.reading().reader.deadline())
    }

    fn connect(&mut self, now: Now) {
        if self.connection.is_some() || self.connecting || self.backoff.waits(now) {
            return;
        }
        self.connecting = true;
        self.number += 1;
        let (number, events, settings) = (self.number, self.events.clone(), self.settings.clone());
        tokio::spawn(async move {
            let connected = within(settings.call_timeout, async {
                let mut client = Client::connect(&settings.endpoints, Some(settings.options())).await?;
                calls::probe(&mut client).await.map(|()| Box::new(client))
            })
            .await;
            let _ = events.send(Event::Connected(number, connected)).await;
        });
    }

    fn ask_writer(&mut self, ask: writer::Ask) {
        let Some(connection) = &self.connection else { return };
        let (client, number, events) = (connection.line.client.clone(), self.number, self.events.clone());
        if let Some(host) = self.shared.writer().host() {
            self.host = host.to_owned();
        }
        if let writer::Ask::Write(write) = &ask {
            for op in &write.ops {
                let says = || discovery::row(op.key(), op.value());
                step!("row_sent", now().steady_ns, key = op.key(), says = says());
            }
        }
        let (host, settings) = (self.host.clone(), &self.settings);
        let (limit, ttl_ns) = (settings.call_timeout, settings.writer.ttl_ns);
        tokio::spawn(async move {
            let told = within(limit, calls::write(client, ask, &host, ttl_ns)).await;
            let _ = events.send(Event::Told(number, told)).await;
        });
    }

    fn ask_reader(&mut self, ask: reader::Ask, now: Now) {
        let Some(connection) = &self.connection else { return };
        let request = match ask {
            reader::Ask::Read { target, ticket } => {
                read(&self.shared, &connection.line, target, ticket);
                return;
            }
            reader::Ask::Reconnect => {
                let what = "the stream of watches shows no life".to_owned();
                return self.lose(Trouble { connection: true, what }, now);
            }
            reader::Ask::Watch { target, ticket, from } => Request::Watch { target, ticket, from },
            reader::Ask::Unwatch { ticket } => Request::Unwatch { ticket },
            reader::Ask::Progress => Request::Progress,
        };
        // A stream that has ended tells so itself.
        let _ = connection.requests.send(request);
    }

    fn happened(&mut self, event: Event) {
        let now = now();
        match event {
            Event::Connected(number, connected) if number == self.number => {
                self.connecting = false;
                match connected {
                    Ok(client) => self.connected(*client, now),
                    Err(trouble) => {
                        tracing::debug!("no connection to etcd: {}", trouble.what);
                        *self.shared.problem() = Some(trouble.what);
                        self.backoff.failed(now);
                    }
                }
            }
            Event::Connected(..) => {}
            Event::Told(number, told) => {
                let answer = match told {
                    Ok(answer) => {
                        self.well(number);
                        *self.shared.problem() = None;
                        answer
                    }
                    Err(trouble) => {
                        self.failed(number, trouble, now);
                        Told::Failed
                    }
                };
                self.shared.writer().told(answer, now);
            }
            Event::Read(number, target, ticket, reading) => {
                match reading {
                    Ok(()) => self.well(number),
                    Err(trouble) => {
                        self.failed(number, trouble, now);
                        self.shared.reading().reader.read(target, ticket, None, now);
                    }
                }
                self.tell();
            }
            Event::Heard(number, heard) if number == self.number => self.heard(heard, now),
            Event::Heard(..) => {}
        }
    }

    fn connected(&mut self, client: Client, now: Now) {
        let (requests, to_stream) = mpsc::unbounded_channel();
        let task = stream::run(
            client.clone(),
            self.number,
            to_stream,
            self.events.clone(),
            self.settings.call_timeout,
        );
        let stream = tokio::spawn(task).abort_handle();
        let line = Line {
            client,
            number: self.number,
            events: self.events.clone(),
            limit: self.settings.call_timeout,
            rows_per_address: self.settings.limits.rows_per_address,
        };
        self.connection = Some(Connection { line: line.clone(), requests, stream });
        *self.shared.problem() = None;
        let mut reading = self.shared.reading();
        reading.line = Some(line);
        reading.reader.connect(now);
    }

    fn heard(&mut self, heard: Heard, now: Now) {
        match heard {
            Heard::Events { ticket, events } => {
                for pair in &events {
                    let says = || discovery::row(&pair.key, pair.value.as_deref());
                    step!("row_heard", now.steady_ns, key = pair.key, says = says());
                }
                self.shared.reading().reader.events(ticket, &events, now);
            }
            Heard::Progress { revision } => self.shared.reading().reader.progress(revision, now),
            Heard::Cancelled { ticket } => self.shared.reading().reader.cancelled(ticket, now),
            Heard::Lost(trouble) => return self.lose(trouble, now),
        }
        self.tell();
    }

    /// An answer on this connection: it is well.
    fn well(&mut self, number: u64) {
        if number == self.number {
            self.backoff.succeeded();
        }
    }

    fn failed(&mut self, number: u64, trouble: Trouble, now: Now) {
        if number != self.number {
            return;
        }
        if trouble.connection {
            self.lose(trouble, now);
        } else {
            tracing::warn!("etcd refuses: {}", trouble.what);
            *self.shared.problem() = Some(trouble.what);
        }
    }

    fn lose(&mut self, trouble: Trouble, now: Now) {
        if self.connection.take().is_none() {
            return;
        }
        tracing::warn!("etcd is lost: {}; what is known is used until it is back", trouble.what);
        *self.shared.problem() = Some(trouble.what);
        // What is on its way belongs to a connection that is no more.
        self.number += 1;
        self.backoff.failed(now);
        {
            let mut reading = self.shared.reading();
            reading.line = None;
            reading.reader.disconnect(now);
        }
        self.tell();
    }

    /// Tells those who wait and those who listen.
    fn tell(&self) {
        let (changed, hosts) = {
            let mut reading = self.shared.reading();
            reading.tell_waiting();
            (reading.reader.take_changed(), reading.reader.take_hosts())
        };
        for address in changed {
            // Nobody may be listening.
            let _ = self.shared.changes.send(address);
        }
        if let Some(hosts) = hosts {
            self.shared.hosts.send_replace(Arc::new(hosts));
        }
    }

    /// Takes this host's rows away: with the lease they hang on.
    async fn leave(self) {
        {
            // nobody follows what is read from now on
            let mut reading = self.shared.reading();
            reading.line = None;
            reading.reader.disconnect(now());
        }
        self.tell();
        let lease = self.shared.writer().lease();
        let (Some(connection), Some(lease)) = (&self.connection, lease) else { return };
        let revoke = calls::write(connection.line.client.clone(), writer::Ask::Revoke(lease), &self.host, 0);
        if let Err(trouble) = within(self.settings.call_timeout, revoke).await {
            tracing::warn!("this host's rows stay in etcd until their lease runs out: {}", trouble.what);
        }
    }
}
