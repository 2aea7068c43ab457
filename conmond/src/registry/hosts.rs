//! The hosts there are.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::rows::HostRow;

/// Most hosts that are known at one time.
pub const MAX_HOSTS: usize = 16_384;

/// The hosts there are, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Each with its row. A host that is lost is here no longer.
    pub rows: BTreeMap<String, Arc<HostRow>>,
    /// Whether all there are have been heard of.
    pub complete: bool,
    by_address: HashMap<IpAddr, Vec<String>>,
}

impl Hosts {
    /// Hosts that have this address themselves: one, unless it is a private one that several use.
    pub fn at(&self, address: IpAddr) -> impl Iterator<Item = &Arc<HostRow>> {
        let names = self.by_address.get(&address.to_canonical());
        names.into_iter().flatten().filter_map(|name| self.rows.get(name))
    }

    /// A row that was written. Returns whether anything changed.
    pub fn put(&mut self, row: HostRow) -> bool {
        match self.rows.get(&row.name) {
            Some(held) if **held == row => return false,
            None if self.rows.len() >= MAX_HOSTS => return false,
            _ => {}
        }
        self.remove(&row.name);
        for address in &row.addresses {
            let names = self.by_address.entry(*address).or_default();
            if !names.contains(&row.name) {
                names.push(row.name.clone());
            }
        }
        self.rows.insert(row.name.clone(), Arc::new(row));
        true
    }

    /// A host that is lost. Returns whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(row) = self.rows.remove(name) else { return false };
        for address in &row.addresses {
            if let Some(names) = self.by_address.get_mut(address) {
                names.retain(|one| one != name);
                if names.is_empty() {
                    self.by_address.remove(address);
                }
            }
        }
        true
    }

    /// All hosts there are: what was known and is not among them is lost. Returns whether anything changed.
    pub fn load(&mut self, found: Vec<HostRow>) -> bool {
        let there: HashSet<&str> = found.iter().map(|row| row.name.as_str()).collect();
        let lost: Vec<String> =
            self.rows.keys().filter(|name| !there.contains(name.as_str())).cloned().collect();
        let mut changed = !std::mem::replace(&mut self.complete, true);
        for name in lost {
            changed |= self.remove(&name);
        }
        for row in found {
            changed |= self.put(row);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::host;
    use super::*;

    fn names(hosts: &Hosts, address: &str) -> Vec<String> {
        hosts.at(address.parse().unwrap()).map(|row| row.name.clone()).collect()
    }

    #[test]
    fn hosts_are_found_by_their_addresses() {
        let mut hosts = Hosts::default();
        assert!(hosts.load(vec![host("a", 1), host("b", 1)]));
        assert_eq!(names(&hosts, "::ffff:192.0.2.1"), ["a", "b"]);
        assert!(!hosts.load(vec![host("a", 1), host("b", 1)]));
        let moved = HostRow { addresses: vec!["192.0.2.9".parse().unwrap(); 2], ..host("a", 1) };
        assert!(hosts.put(moved));
        assert_eq!(
            (names(&hosts, "192.0.2.1"), names(&hosts, "192.0.2.9")),
            (vec!["b".to_owned()], vec!["a".to_owned()])
        );
        assert!(hosts.load(vec![host("b", 2)]), "a is lost, b began anew");
        assert_eq!((hosts.rows.len(), names(&hosts, "192.0.2.9").len()), (1, 0));
        assert!(!hosts.remove("a"));
        assert!(hosts.remove("b") && hosts.by_address.is_empty());
    }
}
