//! The one stream of watches of a connection.

use std::time::Duration;

use etcd_client::{Client, Error, EventType, WatchOptions, WatchRequestSender, WatchResponse};
use tokio::sync::mpsc;

use super::super::reader::{Pair, Target};
use super::calls::{Trouble, end_of, within};
use super::driver::Event;

/// A request on the stream.
#[derive(Debug)]
pub(super) enum Request {
    Watch { target: Target, ticket: i64, from: i64 },
    Unwatch { ticket: i64 },
    Progress,
}

/// What comes from the stream.
#[derive(Debug)]
pub(super) enum Heard {
    Events { ticket: i64, events: Vec<Pair> },
    Progress { revision: i64 },
    Cancelled { ticket: i64 },
    Lost(Trouble),
}

/// Serves requests until they or the stream end. What is heard goes to `events` with the connection's number.
pub(super) async fn run(
    client: Client,
    connection: u64,
    mut requests: mpsc::UnboundedReceiver<Request>,
    events: mpsc::Sender<Event>,
    limit: Duration,
) {
    if let Err(trouble) = serve(client, connection, &mut requests, &events, limit).await {
        // Without a driver nobody needs to know.
        let _ = events.send(Event::Heard(connection, Heard::Lost(trouble))).await;
    }
}

async fn serve(
    mut client: Client,
    connection: u64,
    requests: &mut mpsc::UnboundedReceiver<Request>,
    events: &mpsc::Sender<Event>,
    limit: Duration,
) -> Result<(), Trouble> {
    // A stream begins with a watch; before there is one nothing else means anything.
    let stream = loop {
        match requests.recv().await {
            Some(Request::Watch { target, ticket, from }) => {
                let opened = client.watch(target.prefix(), Some(options(target, ticket, from)));
                break within(limit, opened).await?;
            }
            Some(_) => {}
            None => return Ok(()),
        }
    };
    let (mut sender, mut responses) = stream.split();
    // Two sides that do not wait for each other: a server that cannot send does not listen either.
    let send = async {
        while let Some(request) = requests.recv().await {
            within(limit, request_one(&mut sender, request)).await?;
        }
        Ok(())
    };
    let receive = async {
        while let Some(response) = responses.message().await.map_err(Trouble::from)? {
            for heard in heard(&response) {
                if events.send(Event::Heard(connection, heard)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Err(Trouble { connection: true, what: "etcd ended the stream of watches".to_owned() })
    };
    tokio::select! {
        sent = send => sent,
        received = receive => received,
    }
}

fn options(target: Target, ticket: i64, from: i64) -> WatchOptions {
    WatchOptions::new()
        .with_range(end_of(&target.prefix()))
        .with_watch_id(ticket)
        .with_start_revision(from)
        .with_fragment()
}

async fn request_one(sender: &mut WatchRequestSender, request: Request) -> Result<(), Error> {
    match request {
        Request::Watch { target, ticket, from } => {
            sender.watch(target.prefix(), Some(options(target, ticket, from))).await
        }
        Request::Unwatch { ticket } => sender.cancel(ticket).await,
        Request::Progress => sender.request_progress().await,
    }
}

fn heard(response: &WatchResponse) -> Vec<Heard> {
    let mut all = Vec::new();
    let pairs: Vec<Pair> = response
        .events()
        .iter()
        .filter_map(|event| {
            let pair = event.kv()?;
            let value = (event.event_type() == EventType::Put).then(|| pair.value().to_vec());
            Some(Pair { key: pair.key_str().ok()?.to_owned(), value, revision: pair.mod_revision() })
        })
        .collect();
    if !pairs.is_empty() {
        all.push(Heard::Events { ticket: response.watch_id(), events: pairs });
    }
    if response.canceled() {
        all.push(Heard::Cancelled { ticket: response.watch_id() });
    } else if response.events().is_empty() && !response.created() {
        let revision = response.header().map_or(0, |header| header.revision());
        all.push(Heard::Progress { revision });
    }
    all
}
