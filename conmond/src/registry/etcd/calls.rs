//! One question to etcd each, and what came of it.

use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, Error, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse};

use super::super::desired::Op;
use super::super::keys;
use super::super::reader::{Pair, Reading, Target};
use super::super::writer::{Ask, Sealed, Told, Write};

/// A question that was not answered as it should be.
#[derive(Debug)]
pub(super) struct Trouble {
    /// Whether the connection is to blame; else etcd answered, with a no.
    pub(super) connection: bool,
    /// What is wrong.
    pub(super) what: String,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        // Codes of gRPC with which a server that is well says no: invalid argument, not found, already exists, permission denied, resource exhausted,
        // failed precondition, out of range, unauthenticated.
        let connection = match &error {
            Error::GRpcStatus(status) => !matches!(status.code() as i32, 3 | 5 | 6 | 7 | 8 | 9 | 11 | 16),
            Error::InvalidArgs(_) | Error::InvalidUri(_) => false,
            _ => true,
        };
        let what = match &error {
            Error::GRpcStatus(status) => status.message().to_owned(),
            other => other.to_string(),
        };
        Self { connection, what }
    }
}

/// A call with a bound on its time.
pub(super) async fn within<T, F>(limit: Duration, call: F) -> Result<T, Trouble>
where
    F: Future<Output = Result<T, Error>>,
{
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(Trouble::from),
        Err(_) => {
            Err(Trouble { connection: true, what: format!("no answer within {} ms", limit.as_millis()) })
        }
    }
}

/// Whether etcd is there and lets us read.
pub(super) async fn probe(client: &mut Client) -> Result<(), Error> {
    let options = GetOptions::new().with_prefix().with_limit(1).with_keys_only();
    client.get(keys::HOSTS, Some(options)).await.map(drop)
}

/// Asks what a writer asks.
pub(super) async fn write(mut client: Client, ask: Ask, host: &str, ttl_ns: u64) -> Result<Told, Error> {
    match ask {
        Ask::Grant => {
            let seconds = i64::try_from(ttl_ns.div_ceil(1_000_000_000)).unwrap_or(i64::MAX);
            Ok(Told::Granted(client.lease_grant(seconds, None).await?.id()))
        }
        Ask::Renew(lease) => match client.lease_keep_alive(lease).await {
            Ok(_) => Ok(Told::Renewed(true)),
            Err(Error::LeaseKeepAliveError(_)) => Ok(Told::Renewed(false)),
            Err(error) => Err(error),
        },
        Ask::Revoke(lease) => match client.lease_revoke(lease).await {
            Ok(_) => Ok(Told::Revoked),
            Err(Error::GRpcStatus(status)) if status.code() as i32 == NOT_FOUND => Ok(Told::Revoked),
            Err(error) => Err(error),
        },
        Ask::ReadSeal => {
            let answer = client.get(keys::seal(host), None).await?;
            Ok(Told::Sealed(answer.kvs().first().map(|pair| Sealed {
                seal: serde_json::from_slice(pair.value()).ok(),
                revision: pair.mod_revision(),
                lease: pair.lease(),
            })))
        }
        Ask::Write(write) => transaction(client, write, host).await,
    }
}

const NOT_FOUND: i32 = 5;

async fn transaction(mut client: Client, write: Write, host: &str) -> Result<Told, Error> {
    let seal = keys::seal(host);
    let leased = || Some(PutOptions::new().with_lease(write.lease));
    let value = serde_json::to_vec(&write.seal).unwrap_or_default();
    let mut ops = vec![TxnOp::put(seal.as_str(), value, leased())];
    ops.extend(write.ops.iter().map(|op| match op {
        Op::Put { key, value } => TxnOp::put(key.as_str(), value.to_vec(), leased()),
        Op::Delete { key } => TxnOp::delete(key.as_str(), None),
    }));
    let guard = Compare::mod_revision(seal, CompareOp::Equal, write.seal_revision);
    let answer = client.txn(Txn::new().when([guard]).and_then(ops)).await?;
    if !answer.succeeded() {
        return Ok(Told::Refused);
    }
    // Puts answer with the revision in their own headers, the transaction in its.
    let header = answer.header().map(|header| header.revision());
    let put = answer.op_responses().iter().find_map(|response| match response {
        TxnOpResponse::Put(put) => put.header().map(|header| header.revision()),
        _ => None,
    });
    Ok(header.or(put).map_or(Told::Failed, Told::Written))
}

/// Keys of one page of a reading.
const PAGE: usize = 2048;

/// Reads a target, at most `most` keys, all of one revision.
///
/// By what all members have agreed on (linearizable), though a member's own word (serializable) would come a little sooner: an answer is used
/// at once, and says that everything is known up to when it was asked for. A member that has fallen behind would tell of who had
/// the address before, and the watch puts that right only after the wrong name was given.
pub(super) async fn read(mut client: Client, target: Target, most: usize) -> Result<Reading, Error> {
    let prefix = target.prefix();
    let mut reading = Reading { pairs: Vec::new(), more: false, revision: 0 };
    let mut from = prefix.clone().into_bytes();
    loop {
        let page = PAGE.min(most.saturating_sub(reading.pairs.len()));
        let mut options = GetOptions::new().with_range(end_of(&prefix)).with_limit(page as i64);
        if reading.revision != 0 {
            options = options.with_revision(reading.revision);
        }
        let mut answer = client.get(from.as_slice(), Some(options)).await?;
        if reading.revision == 0 {
            reading.revision = answer.header().map_or(0, |header| header.revision());
        }
        let more = answer.more();
        for pair in answer.take_kvs() {
            let revision = pair.mod_revision();
            let (key, value) = pair.into_key_value();
            from = [&key[..], &[0]].concat();
            // A key that is no text is none of ours.
            if let Ok(key) = String::from_utf8(key) {
                reading.pairs.push(Pair { key, value: Some(value), revision });
            }
        }
        if !more {
            return Ok(reading);
        }
        if reading.pairs.len() >= most {
            reading.more = true;
            return Ok(reading);
        }
    }
}

/// The first key behind all that begin with `prefix`, which ends with a slash.
pub(super) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}
