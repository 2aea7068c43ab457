//! What a host's part of a store shall be, and the order of changes that make it so.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::keys;
use super::rows::Own;

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Write it.
    Put {
        /// The key.
        key: String,
        /// Its value.
        value: Arc<[u8]>,
    },
    /// Delete it.
    Delete {
        /// The key.
        key: String,
    },
}

impl Op {
    /// The key.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    /// The value; none if the key is deleted.
    pub fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Put { value, .. } => Some(value),
            Self::Delete { .. } => None,
        }
    }
}

/// A value with its place in the order of writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    value: Arc<[u8]>,
    /// The host first, then ends, then beginnings; by time each.
    rank: (u8, u64),
}

impl Wanted {
    /// As it is written.
    pub fn value(&self) -> &Arc<[u8]> {
        &self.value
    }
}

/// Keys and values that shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// By key.
    pub keys: BTreeMap<String, Wanted>,
    /// Rows that are not written because they cannot be read back.
    pub refused: u64,
    /// When the grace of the next row that ended is over, wall time; none if none ended.
    pub next_expiry_ns: Option<u64>,
}

impl Desired {
    /// What `own` asks for at `wall_ns`: rows whose end is `grace_ns` ago are no longer wanted.
    pub fn new(own: &Own, wall_ns: u64, grace_ns: u64) -> Self {
        let mut desired = Self::default();
        match own.host.check() {
            Ok(()) => {
                let wanted = Wanted { value: own.host.encode().into(), rank: (0, 0) };
                desired.keys.insert(keys::host(&own.host.name), wanted);
            }
            Err(_) => desired.refused += 1,
        }
        for row in &own.endpoints {
            if row.host != own.host.name || row.check().is_err() {
                desired.refused += 1;
                continue;
            }
            let rank = match row.until_ns {
                None => (2, row.since_ns),
                Some(until) => {
                    let over = until.saturating_add(grace_ns);
                    if over <= wall_ns {
                        continue;
                    }
                    desired.next_expiry_ns = Some(desired.next_expiry_ns.map_or(over, |next| next.min(over)));
                    (1, until)
                }
            };
            desired.keys.insert(keys::endpoint(&row.id()), Wanted { value: row.encode().into(), rank });
        }
        desired
    }

    /// The changes that make `stored` be this, in an order in which no two of a network ever have one address: what is over goes, then ends are told,
    /// then beginnings.
    pub fn difference(&self, stored: &BTreeMap<String, Arc<[u8]>>) -> Vec<Op> {
        let mut deletes: Vec<Op> = stored
            .keys()
            .filter(|key| !self.keys.contains_key(*key))
            .map(|key| Op::Delete { key: key.clone() })
            .collect();
        let mut puts: Vec<(&String, &Wanted)> =
            self.keys.iter().filter(|(key, wanted)| stored.get(*key) != Some(&wanted.value)).collect();
        puts.sort_by_key(|(_, wanted)| wanted.rank);
        let put = |(key, wanted): &(&String, &Wanted)| Op::Put {
            key: (*key).clone(),
            value: Arc::clone(&wanted.value),
        };
        let host = puts.iter().take_while(|(_, wanted)| wanted.rank.0 == 0).count();
        let mut ops: Vec<Op> = puts[..host].iter().map(put).collect();
        ops.append(&mut deletes);
        ops.extend(puts[host..].iter().map(put));
        ops
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::{endpoint, host};
    use super::*;

    fn apply(stored: &mut BTreeMap<String, Arc<[u8]>>, ops: &[Op]) {
        for op in ops {
            match op {
                Op::Put { key, value } => stored.insert(key.clone(), Arc::clone(value)),
                Op::Delete { key } => stored.remove(key),
            };
        }
    }

    #[test]
    fn the_difference_makes_it_so_and_then_there_is_none() {
        let mut own = Own { host: host("h", 1), endpoints: vec![endpoint("h", "a", "10.0.0.1", 5, None)] };
        let mut stored = BTreeMap::new();
        let first = Desired::new(&own, 100, 10).difference(&stored);
        assert_eq!(first.len(), 2);
        assert!(first[0].key().contains("/host/"), "the host comes first");
        apply(&mut stored, &first);
        assert_eq!(Desired::new(&own, 100, 10).difference(&stored), []);

        own.endpoints = vec![
            endpoint("h", "b", "10.0.0.1", 50, None),
            endpoint("h", "a", "10.0.0.1", 5, Some(50)),
            endpoint("h", "c", "10.0.0.2", 20, Some(40)),
        ];
        let desired = Desired::new(&own, 55, 10);
        assert_eq!(desired.next_expiry_ns, Some(60), "c was over at 50");
        let ops = desired.difference(&stored);
        let values: Vec<String> = ops
            .iter()
            .filter_map(|op| match op {
                Op::Put { value, .. } => Some(String::from_utf8_lossy(value).into_owned()),
                Op::Delete { .. } => None,
            })
            .collect();
        assert_eq!(values.len(), 2);
        assert!(values[0].contains("\"container\":\"a\""), "an end before the next beginning");
        apply(&mut stored, &ops);
        let ops = Desired::new(&own, 60, 10).difference(&stored);
        assert!(matches!(&ops[..], [Op::Delete { key }] if key.contains(&format!("{:016x}", 5))), "{ops:?}");
    }

    #[test]
    fn rows_of_others_and_rows_that_cannot_be_read_back_are_refused() {
        let endpoints = vec![
            endpoint("other", "a", "10.0.0.1", 5, None),
            endpoint("h", "", "10.0.0.1", 5, None),
            endpoint("h", "a", "10.0.0.1", 5, Some(5)),
        ];
        let desired = Desired::new(&Own { host: host("h", 1), endpoints }, 0, 10);
        assert_eq!((desired.refused, desired.keys.len()), (3, 1));
    }
}
