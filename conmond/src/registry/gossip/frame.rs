//! Datagrams that only holders of the cluster's key can write and read: a pure codec.
//!
//! ```text
//! "cmg1"  sender (16 octets)  counter (8)  | encrypted: time_ms (8)  message (8)  part (1)  parts (1)  payload | tag (16)
//! ```
//!
//! Each start of a conmond is a *sender* with a random number, and encrypts with a key of its own, derived from the cluster's key and
//! that number (HKDF-SHA-256, RFC 5869), with ChaCha20-Poly1305 (RFC 8439). The counter, which never repeats, is the nonce. What is not
//! encrypted is authenticated. A receiver takes each counter of a sender once (a window of 1,024, as RFC 4303 has it), and takes up a sender it does
//! not know only with a datagram that is at most a minute old: an old recording is worth nothing. A message is cut into parts that pass any
//! network without being cut again.

use std::collections::{HashMap, VecDeque};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};

const MAGIC: &[u8; 4] = b"cmg1";
const HEAD: usize = 4 + 16 + 8;
const INNER: usize = 8 + 8 + 1 + 1;
const TAG: usize = 16;
/// Payload of one part, octets: with everything around it a datagram fits into 1,280, which every IPv6 path carries.
const PART: usize = 1280 - 48 - HEAD - INNER - TAG;
/// Longest message, octets.
pub const MAX_MESSAGE: usize = PART * MAX_PARTS;
const MAX_PARTS: usize = 64;
/// Oldest first datagram of a sender, and greatest difference of the clocks, milliseconds.
pub const MAX_AGE_MS: u64 = 60_000;
const WINDOW: u64 = 1024;
/// Senders that are remembered.
const MAX_SENDERS: usize = 4096;
/// Messages of which parts are awaited.
const MAX_PARTIAL: usize = 256;

/// The key that all hosts of a cluster share.
#[derive(Clone)]
pub struct ClusterKey(Prk);

impl ClusterKey {
    /// From 32 octets.
    pub fn new(octets: &[u8; 32]) -> Self {
        Self(Salt::new(HKDF_SHA256, b"conmon gossip 1").extract(octets))
    }

    /// None cannot be: expanding fails for lengths only, and this one is constant.
    fn of_sender(&self, sender: &[u8; 16]) -> Option<LessSafeKey> {
        let info: [&[u8]; 2] = [b"sender", sender];
        let octets = self.0.expand(&info, &CHACHA20_POLY1305).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(octets)))
    }
}

/// Why a datagram is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is none of ours, or has another key, or was changed on its way.
    Forged,
    /// It was there before.
    Replayed,
    /// It is the first of its sender, and too old; or the two clocks differ by more than a minute.
    Stale,
    /// It is our own.
    Own,
}

/// What writes datagrams.
pub struct Sealer {
    sender: [u8; 16],
    key: LessSafeKey,
    counter: u64,
}

impl Sealer {
    /// `sender` must be random.
    pub fn new(key: &ClusterKey, sender: [u8; 16]) -> Option<Self> {
        Some(Self { sender, key: key.of_sender(&sender)?, counter: 0 })
    }

    /// The datagrams of a message; none if it is too long.
    pub fn seal(&mut self, message: &[u8], time_ms: u64) -> Option<Vec<Vec<u8>>> {
        if message.len() > MAX_MESSAGE {
            return None;
        }
        let first = self.counter + 1;
        let parts = message.chunks(PART).count().max(1);
        let mut chunks = message.chunks(PART);
        (0..parts)
            .map(|part| {
                self.counter += 1;
                let mut head = Vec::with_capacity(HEAD + INNER + PART + TAG);
                head.extend_from_slice(MAGIC);
                head.extend_from_slice(&self.sender);
                head.extend_from_slice(&self.counter.to_be_bytes());
                let mut inner = Vec::with_capacity(INNER + PART + TAG);
                inner.extend_from_slice(&time_ms.to_be_bytes());
                inner.extend_from_slice(&first.to_be_bytes());
                inner.push(u8::try_from(part).ok()?);
                inner.push(u8::try_from(parts).ok()?);
                inner.extend_from_slice(chunks.next().unwrap_or_default());
                let aad = Aad::from(head.clone());
                self.key.seal_in_place_append_tag(nonce(self.counter), aad, &mut inner).ok()?;
                head.append(&mut inner);
                Some(head)
            })
            .collect()
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut octets = [0; 12];
    octets[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(octets)
}

struct Sender {
    key: LessSafeKey,
    highest: u64,
    /// A bit for each counter from `highest` down.
    seen: [u64; (WINDOW / 64) as usize],
}

impl Sender {
    /// Whether `counter` comes for the first time; it has come from now on.
    fn first(&mut self, counter: u64) -> bool {
        if counter > self.highest {
            let ahead = counter - self.highest;
            for gone in 0..ahead.min(WINDOW) {
                self.clear(counter - gone);
            }
            self.highest = counter;
        } else if self.highest - counter >= WINDOW {
            return false;
        }
        let (word, bit) = Self::place(counter);
        let new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        new
    }

    fn clear(&mut self, counter: u64) {
        let (word, bit) = Self::place(counter);
        self.seen[word] &= !bit;
    }

    fn place(counter: u64) -> (usize, u64) {
        let slot = counter % WINDOW;
        ((slot / 64) as usize, 1 << (slot % 64))
    }
}

struct Partial {
    parts: Vec<Option<Vec<u8>>>,
    missing: usize,
}

/// What reads datagrams.
pub struct Opener {
    key: ClusterKey,
    own: [u8; 16],
    senders: HashMap<[u8; 16], Sender>,
    /// The sender that was taken up first is the first to be forgotten.
    known: VecDeque<[u8; 16]>,
    partial: HashMap<([u8; 16], u64), Partial>,
    awaited: VecDeque<([u8; 16], u64)>,
    /// Messages given up because parts did not come.
    incomplete: u64,
}

impl Opener {
    /// Takes what others than `own` sent.
    pub fn new(key: ClusterKey, own: [u8; 16]) -> Self {
        Self {
            key,
            own,
            senders: HashMap::new(),
            known: VecDeque::new(),
            partial: HashMap::new(),
            awaited: VecDeque::new(),
            incomplete: 0,
        }
    }

    /// Messages given up because parts did not come.
    pub const fn incomplete(&self) -> u64 {
        self.incomplete
    }

    /// A datagram; gives a message when it was its last part.
    pub fn open(&mut self, datagram: &[u8], now_ms: u64) -> Result<Option<Vec<u8>>, Refused> {
        let (head, sealed) = datagram.split_at_checked(HEAD).ok_or(Refused::Forged)?;
        let rest = head.strip_prefix(MAGIC).ok_or(Refused::Forged)?;
        let (sender, counter) = rest.split_at_checked(16).ok_or(Refused::Forged)?;
        let sender: [u8; 16] = sender.try_into().map_err(|_| Refused::Forged)?;
        let counter = u64::from_be_bytes(counter.try_into().map_err(|_| Refused::Forged)?);
        if sender == self.own {
            return Err(Refused::Own);
        }
        let mut inner = sealed.to_vec();
        let new;
        let key = match self.senders.get(&sender) {
            Some(known) => &known.key,
            None => {
                new = self.key.of_sender(&sender).ok_or(Refused::Forged)?;
                &new
            }
        };
        let inner =
            key.open_in_place(nonce(counter), Aad::from(head), &mut inner).map_err(|_| Refused::Forged)?;
        let (time_ms, inner) = number(inner).ok_or(Refused::Forged)?;
        let (message, inner) = number(inner).ok_or(Refused::Forged)?;
        let [part, parts, payload @ ..] = inner else { return Err(Refused::Forged) };
        // From here on it is from somebody who has the key.
        if !self.senders.contains_key(&sender) {
            if time_ms.abs_diff(now_ms) > MAX_AGE_MS {
                return Err(Refused::Stale);
            }
            self.take_up(sender).ok_or(Refused::Forged)?;
        }
        if !self.senders.get_mut(&sender).is_some_and(|known| known.first(counter)) {
            return Err(Refused::Replayed);
        }
        self.assemble((sender, message), usize::from(*part), usize::from(*parts), payload)
    }

    fn take_up(&mut self, sender: [u8; 16]) -> Option<()> {
        let key = self.key.of_sender(&sender)?;
        if self.known.len() >= MAX_SENDERS
            && let Some(oldest) = self.known.pop_front()
        {
            self.senders.remove(&oldest);
        }
        self.known.push_back(sender);
        self.senders.insert(sender, Sender { key, highest: 0, seen: [0; (WINDOW / 64) as usize] });
        Some(())
    }

    fn assemble(
        &mut self,
        id: ([u8; 16], u64),
        part: usize,
        parts: usize,
        payload: &[u8],
    ) -> Result<Option<Vec<u8>>, Refused> {
        if part >= parts || parts > MAX_PARTS {
            return Err(Refused::Forged);
        }
        if parts == 1 {
            return Ok(Some(payload.to_vec()));
        }
        if !self.partial.contains_key(&id) {
            if self.awaited.len() >= MAX_PARTIAL
                && let Some(oldest) = self.awaited.pop_front()
                && self.partial.remove(&oldest).is_some()
            {
                self.incomplete += 1;
            }
            self.awaited.push_back(id);
            self.partial.insert(id, Partial { parts: vec![None; parts], missing: parts });
        }
        let Some(partial) = self.partial.get_mut(&id) else { return Ok(None) };
        match partial.parts.get_mut(part) {
            Some(slot @ None) => *slot = Some(payload.to_vec()),
            _ => return Err(Refused::Forged),
        }
        partial.missing -= 1;
        if partial.missing > 0 {
            return Ok(None);
        }
        let whole =
            self.partial.remove(&id).map(|partial| partial.parts.into_iter().flatten().flatten().collect());
        self.awaited.retain(|one| *one != id);
        Ok(whole)
    }
}

fn number(octets: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = octets.split_at_checked(8)?;
    Some((u64::from_be_bytes(number.try_into().ok()?), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;

    fn key(octet: u8) -> ClusterKey {
        ClusterKey::new(&[octet; 32])
    }

    fn pair() -> (Sealer, Opener) {
        (Sealer::new(&key(1), [1; 16]).unwrap(), Opener::new(key(1), [2; 16]))
    }

    #[test]
    fn messages_of_any_length_arrive_in_any_order_of_their_parts() {
        let (mut sealer, mut opener) = pair();
        for length in [0, 1, PART - 1, PART, PART + 1, 10 * PART, 65_507, MAX_MESSAGE] {
            let message: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut datagrams = sealer.seal(&message, NOW_MS).unwrap();
            assert!(
                datagrams.iter().all(|datagram| datagram.len() <= 1232),
                "fits into 1,280 with IPv6 and UDP"
            );
            datagrams.reverse();
            let mut whole = Vec::new();
            for datagram in &datagrams {
                whole.extend(opener.open(datagram, NOW_MS).unwrap());
            }
            assert_eq!(whole, [message]);
        }
        assert!(sealer.seal(&vec![0; MAX_MESSAGE + 1], NOW_MS).is_none());
        assert_eq!((opener.partial.len(), opener.awaited.len()), (0, 0));
    }

    #[test]
    fn nobody_without_the_key_is_heard() {
        let (mut sealer, mut opener) = pair();
        let datagram = sealer.seal(b"hello", NOW_MS).unwrap().remove(0);
        assert!(!datagram.windows(5).any(|window| window == b"hello"), "it cannot be read");
        for i in 0..datagram.len() {
            for bit in [1, 0x80] {
                let mut changed = datagram.clone();
                changed[i] ^= bit;
                assert_eq!(opener.open(&changed, NOW_MS), Err(Refused::Forged), "octet {i}");
            }
            assert_eq!(opener.open(&datagram[..i], NOW_MS), Err(Refused::Forged));
        }
        let mut other = Sealer::new(&key(9), [1; 16]).unwrap();
        assert_eq!(opener.open(&other.seal(b"hello", NOW_MS).unwrap()[0], NOW_MS), Err(Refused::Forged));
        assert!(opener.senders.is_empty(), "what is forged takes no memory");
        assert_eq!(opener.open(&datagram, NOW_MS), Ok(Some(b"hello".to_vec())));
    }

    #[test]
    fn a_recording_is_worth_nothing() {
        let (mut sealer, mut opener) = pair();
        let all: Vec<_> = (0..3000).map(|_| sealer.seal(b"x", NOW_MS).unwrap().remove(0)).collect();
        for datagram in &all[..2000] {
            assert!(opener.open(datagram, NOW_MS).is_ok());
        }
        for datagram in &all[..2000] {
            assert_eq!(opener.open(datagram, NOW_MS), Err(Refused::Replayed));
        }
        // Out of order is no replay, within the window.
        assert!(opener.open(&all[2999], NOW_MS).is_ok());
        assert!(opener.open(&all[2500], NOW_MS).is_ok());
        assert_eq!(opener.open(&all[2500], NOW_MS), Err(Refused::Replayed));
        assert_eq!(opener.open(&all[1999], NOW_MS), Err(Refused::Replayed));
        // After a start of the receiver nobody is known; age tells.
        let mut anew = Opener::new(key(1), [2; 16]);
        assert_eq!(anew.open(&all[0], NOW_MS + MAX_AGE_MS + 1), Err(Refused::Stale));
        assert!(anew.open(&all[0], NOW_MS - MAX_AGE_MS).is_ok());
        let mut own = Opener::new(key(1), [1; 16]);
        assert_eq!(own.open(&all[0], NOW_MS), Err(Refused::Own));
    }

    #[test]
    fn parts_that_never_come_take_bounded_memory() {
        let (mut sealer, mut opener) = pair();
        for _ in 0..1000 {
            let datagrams = sealer.seal(&vec![0; 2 * PART], NOW_MS).unwrap();
            assert_eq!(opener.open(&datagrams[0], NOW_MS), Ok(None));
        }
        assert!(opener.partial.len() <= MAX_PARTIAL && opener.awaited.len() <= MAX_PARTIAL);
        assert_eq!(opener.incomplete() as usize, 1000 - MAX_PARTIAL);
    }
}
