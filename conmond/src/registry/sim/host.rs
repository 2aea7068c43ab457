//! A host of the simulation: the machines of the product, and a driver as the etcd backend's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::super::backoff::Backoff;
use super::super::cache::{Limits, Now};
use super::super::hosts::Hosts;
use super::super::reader::{self, Reader, Reading, Target};
use super::super::rows::{EndpointRow, HostRow, Own, tests as rows};
use super::super::writer::{self, Told, Writer, WriterSettings};

pub const MS: u64 = 1_000_000;
pub const S: u64 = 1000 * MS;
pub const GRACE_NS: u64 = 130 * S;
pub const RETRY_NS: u64 = 5 * S;

/// What a host sends on a connection.
#[derive(Clone, Debug)]
pub enum Request {
    Connect,
    Write(writer::Ask),
    Read(Target, i64),
    Watch(Target, i64, i64),
    Unwatch(i64),
    Progress,
}

/// What it gets.
#[derive(Clone, Debug)]
pub enum Response {
    Connected,
    Told(Told),
    Read(Reading),
    Events(i64, Vec<reader::Pair>),
    Progress(i64),
    Cancelled(i64),
    Lost,
}

pub fn limits() -> Limits {
    Limits { grace_ns: GRACE_NS, negative_max_ns: 4 * S, slack_ns: S, ..Limits::default() }
}

/// One life of a conmond.
pub struct Life {
    pub row: HostRow,
    pub writer: Writer,
    pub reader: Reader,
    pub connection: Option<u64>,
    connecting: bool,
    number: u64,
    backoff: Backoff,
    /// Calls without an answer yet, by number.
    pub calls: BTreeMap<u64, Request>,
    next_call: u64,
}

impl Life {
    pub fn new(name: &str, epoch: u64, wall_ns: u64, ttl_ns: u64) -> Self {
        let settings = WriterSettings { ttl_ns, grace_ns: GRACE_NS, ..WriterSettings::default() };
        let settings = WriterSettings { batch: 5, retry_max_ns: RETRY_NS, ..settings };
        Self {
            row: HostRow { since_ns: wall_ns, ..rows::host(name, epoch) },
            writer: Writer::new(settings, epoch),
            reader: Reader::new(limits(), RETRY_NS, epoch),
            connection: None,
            connecting: false,
            number: epoch << 20,
            backoff: Backoff::new(RETRY_NS, epoch),
            calls: BTreeMap::new(),
            next_call: epoch << 32,
        }
    }

    pub fn publish(&mut self, endpoints: Vec<EndpointRow>, now: Now) {
        self.writer.publish(Own { host: self.row.clone(), endpoints }, now);
    }

    /// All requests that are due: connection, number of the call where one is awaited, request.
    pub fn work(&mut self, now: Now) -> Vec<(u64, Option<u64>, Request)> {
        let mut out = Vec::new();
        if self.connection.is_none() && !self.connecting && !self.backoff.waits(now) {
            self.connecting = true;
            self.number += 1;
            out.push((self.number, Some(self.call(Request::Connect)), Request::Connect));
        }
        while let Some(ask) = self.reader.poll(now) {
            let Some(connection) = self.connection else { break };
            match ask {
                reader::Ask::Read { target, ticket } => {
                    let request = Request::Read(target, ticket);
                    out.push((connection, Some(self.call(request.clone())), request));
                }
                reader::Ask::Watch { target, ticket, from } => {
                    out.push((connection, None, Request::Watch(target, ticket, from)));
                }
                reader::Ask::Unwatch { ticket } => out.push((connection, None, Request::Unwatch(ticket))),
                reader::Ask::Progress => out.push((connection, None, Request::Progress)),
                reader::Ask::Reconnect => self.lose(now),
            }
        }
        if let Some(connection) = self.connection
            && let Some(ask) = self.writer.poll(now)
        {
            let request = Request::Write(ask);
            out.push((connection, Some(self.call(request.clone())), request));
        }
        out
    }

    fn call(&mut self, request: Request) -> u64 {
        self.next_call += 1;
        self.calls.insert(self.next_call, request);
        self.next_call
    }

    pub fn deadline(&self, now: Now) -> u64 {
        let mut next = self.reader.deadline();
        if self.connection.is_some() {
            next = next.min(self.writer.deadline(now).unwrap_or(u64::MAX));
        } else if !self.connecting {
            next = next.min(self.backoff.until_ns());
        }
        next
    }

    fn lose(&mut self, now: Now) {
        if self.connection.take().is_some() {
            self.backoff.failed(now);
            self.reader.disconnect(now);
        }
    }

    /// A call's answer, or that there is none in time.
    pub fn answered(&mut self, call: u64, connection: u64, response: Option<Response>, now: Now) {
        let Some(request) = self.calls.remove(&call) else { return };
        let lost = response.is_none();
        match (request, response) {
            (Request::Connect, Some(_)) => {
                self.connecting = false;
                self.connection = Some(connection);
                self.reader.connect(now);
            }
            (Request::Connect, None) => {
                self.connecting = false;
                self.backoff.failed(now);
            }
            (Request::Write(_), Some(Response::Told(told))) => {
                if told != Told::Failed {
                    self.backoff.succeeded();
                }
                self.writer.told(told, now);
            }
            (Request::Write(_), _) => self.writer.told(Told::Failed, now),
            (Request::Read(target, ticket), response) => {
                let reading = match response {
                    Some(Response::Read(reading)) => Some(reading),
                    _ => None,
                };
                self.reader.read(target, ticket, reading, now);
            }
            _ => {}
        }
        if lost && self.connection == Some(connection) {
            self.lose(now);
        }
    }

    /// What the stream of watches brings.
    pub fn heard(&mut self, connection: u64, response: Response, now: Now) {
        if self.connection != Some(connection) {
            return;
        }
        match response {
            Response::Events(ticket, events) => self.reader.events(ticket, &events, now),
            Response::Progress(revision) => self.reader.progress(revision, now),
            Response::Cancelled(ticket) => self.reader.cancelled(ticket, now),
            Response::Lost => self.lose(now),
            _ => {}
        }
    }
}

/// A host through all its lives.
pub struct Host {
    pub name: String,
    pub life: Option<Life>,
    pub epoch: u64,
    /// Never comes back.
    pub dead: bool,
    pub addresses: Vec<IpAddr>,
    pub known_hosts: Hosts,
    /// When it is to be woken.
    pub wake_ns: u64,
}
