//! Which pair is meant: names, addresses and beginnings of ids, in the spellings that people use, and what may have
//! been meant where nothing fits.

use std::fmt;
use std::net::IpAddr;

use conmon::api::{Container, Endpoint, EndpointKind, Pair};

/// How many names are suggested.
const SUGGESTIONS: usize = 4;

/// Nothing fits, or too much does.
#[derive(Debug, PartialEq, Eq)]
pub struct NotFound {
    /// What is not there.
    pub said: String,
    /// What may have been meant, or what to ask instead.
    pub remedy: String,
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

impl std::error::Error for NotFound {}

/// The readings of what was given as a pair: two arguments have one, one argument may have several, since addresses
/// hold colons too.
fn readings(given: &[String]) -> Vec<(String, String)> {
    let [whole] = given else {
        return match given {
            [src, dst] => vec![(bare(src), bare(dst))],
            _ => Vec::new(),
        };
    };
    let mut readings = Vec::new();
    for separator in ["→", "->", ":", " "] {
        for (at, _) in whole.match_indices(separator) {
            let (src, dst) = (bare(&whole[..at]), bare(&whole[at + separator.len()..]));
            if !src.is_empty() && !dst.is_empty() {
                readings.push((src, dst));
            }
        }
    }
    readings
}

/// An end as it may be written: `lab1 (host)` as tables show it, `[fd00::2]` to keep its colons together.
fn bare(text: &str) -> String {
    let text = text.trim();
    let text = text.strip_suffix(" (host)").unwrap_or(text);
    text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text).to_owned()
}

/// Everybody that can be meant: the ends of pairs, and containers that have not talked.
struct Ends {
    all: Vec<Endpoint>,
}

impl Ends {
    fn new(pairs: &[Pair], containers: &[Container]) -> Self {
        let mut all: Vec<Endpoint> = Vec::new();
        let mut places = std::collections::HashMap::new();
        let mut add = |end: Endpoint| {
            let key = (end.kind, end.name.clone(), end.id.clone());
            match places.get(&key) {
                None => {
                    places.insert(key, all.len());
                    all.push(end);
                }
                Some(at) => {
                    let known: &mut Endpoint = &mut all[*at];
                    known.addresses.extend(end.addresses);
                }
            }
        };
        for pair in pairs {
            add(pair.src.clone());
            add(pair.dst.clone());
        }
        for container in containers {
            add(Endpoint {
                kind: EndpointKind::Container,
                name: container.name.clone(),
                id: Some(container.id.clone()),
                service: container.service.clone(),
                tenant: Some(container.tenant.clone()),
                host: None,
                addresses: container.networks.iter().flat_map(|network| network.addresses.clone()).collect(),
            });
        }
        Self { all }
    }

    /// Who is meant, by the strictest reading that fits anybody: a name, an address, an id's beginning, a service.
    fn meant(&self, text: &str) -> Vec<&Endpoint> {
        let address: Option<IpAddr> = text.parse().ok();
        let tests: [&dyn Fn(&Endpoint) -> bool; 4] = [
            &|end| end.name == text,
            &|end| address.is_some_and(|address| end.addresses.contains(&address)),
            &|end| text.len() >= 4 && end.id.as_deref().is_some_and(|id| id.starts_with(text)),
            &|end| end.service.as_deref() == Some(text),
        ];
        for test in tests {
            let found: Vec<&Endpoint> = self.all.iter().filter(|end| test(end)).collect();
            if !found.is_empty() {
                return found;
            }
        }
        Vec::new()
    }

    /// Names and services that look or sound like it, the nearest first.
    fn near(&self, text: &str) -> Vec<&str> {
        let text = text.to_lowercase();
        let distance = |name: &str| {
            let name = name.to_lowercase();
            if name.contains(&text) || (name.len() > 2 && text.contains(&name)) {
                return Some(0);
            }
            let slips = strsim::damerau_levenshtein(&name, &text);
            // What people remember of `shop-web-1` is `web`: parts are compared too.
            let parts = name.split(['-', '_', '.']).map(|part| strsim::damerau_levenshtein(part, &text) + 1);
            let slips = parts.chain([slips]).min()?;
            (slips <= 1 + text.chars().count() / 3).then_some(slips)
        };
        let mut near: Vec<(usize, &str)> = self
            .all
            .iter()
            .flat_map(|end| [Some(end.name.as_str()), end.service.as_deref()])
            .flatten()
            .filter_map(|name| Some((distance(name)?, name)))
            .collect();
        near.sort();
        near.dedup();
        near.truncate(SUGGESTIONS);
        near.into_iter().map(|(_, name)| name).collect()
    }
}

/// The index of the pair that is meant. Who opened it need not be known: the other way round is found too.
pub fn find(pairs: &[Pair], containers: &[Container], given: &[String]) -> Result<usize, NotFound> {
    let ends = Ends::new(pairs, containers);
    let readings = readings(given);
    let mut strangers = None;
    for (src, dst) in &readings {
        let (from, to) = (ends.meant(src), ends.meant(dst));
        if from.is_empty() || to.is_empty() {
            continue;
        }
        let between = |a: &[&Endpoint], b: &[&Endpoint]| -> Vec<usize> {
            let is = |one: &Endpoint, of: &[&Endpoint]| of.iter().any(|end| same(one, end));
            (0..pairs.len()).filter(|at| is(&pairs[*at].src, a) && is(&pairs[*at].dst, b)).collect()
        };
        let mut found = between(&from, &to);
        if found.is_empty() {
            found = between(&to, &from);
        }
        match found.as_slice() {
            [] => strangers = strangers.or(Some((src, dst))),
            [one] => return Ok(*one),
            several => return Err(ambiguous(pairs, several, src, dst)),
        }
    }
    Err(match (strangers, readings.first()) {
        (Some((src, dst)), _) => never_talked(pairs, &ends, src, dst),
        (None, Some((src, dst))) => unknown(&ends, src, dst),
        (None, None) => half(pairs, &ends, given),
    })
}

fn same(a: &Endpoint, b: &Endpoint) -> bool {
    a.kind == b.kind && a.name == b.name && a.id == b.id
}

fn ambiguous(pairs: &[Pair], several: &[usize], src: &str, dst: &str) -> NotFound {
    let some: Vec<String> = several
        .iter()
        .take(SUGGESTIONS)
        .map(|at| format!("`conmonctl explain {} {}`", pairs[*at].src.name, pairs[*at].dst.name))
        .collect();
    NotFound {
        said: format!("{src} and {dst} are {} pairs", several.len()),
        remedy: format!("say which: {}", some.join(", ")),
    }
}

fn never_talked(pairs: &[Pair], ends: &Ends, src: &str, dst: &str) -> NotFound {
    let peers = |text: &str| {
        let meant = ends.meant(text);
        let is = |end: &Endpoint| meant.iter().any(|one| same(one, end));
        let mut names: Vec<&str> = pairs
            .iter()
            .filter_map(|pair| match (is(&pair.src), is(&pair.dst)) {
                (true, _) => Some(pair.dst.name.as_str()),
                (_, true) => Some(pair.src.name.as_str()),
                _ => None,
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        match names.as_slice() {
            [] => format!("{text} has talked with nobody"),
            names if names.len() > SUGGESTIONS => {
                format!("{text} talks with {} and others", names[..SUGGESTIONS].join(", "))
            }
            names => format!("{text} talks with {}", names.join(", ")),
        }
    };
    NotFound {
        said: format!("conmond has seen no packet between {src} and {dst}"),
        remedy: format!("{}; {}. All pairs: `conmonctl pairs --all`", peers(src), peers(dst)),
    }
}

fn unknown(ends: &Ends, src: &str, dst: &str) -> NotFound {
    let strangers: Vec<&str> = [src, dst].into_iter().filter(|text| ends.meant(text).is_empty()).collect();
    let near: Vec<String> =
        strangers.iter().flat_map(|text| ends.near(text)).map(|name| format!("`{name}`")).collect();
    let all = "`conmonctl pairs --all` shows everybody";
    NotFound {
        said: format!("conmond knows nobody called {}", strangers.join(" or ")),
        remedy: if near.is_empty() {
            all.to_owned()
        } else {
            format!("did you mean {}? {all}", near.join(" or "))
        },
    }
}

/// Only one end was named.
fn half(pairs: &[Pair], ends: &Ends, given: &[String]) -> NotFound {
    let text = given.first().map(|text| bare(text)).unwrap_or_default();
    let meant = ends.meant(&text);
    let of: Vec<String> = pairs
        .iter()
        .filter(|pair| meant.iter().any(|end| same(end, &pair.src) || same(end, &pair.dst)))
        .take(SUGGESTIONS)
        .map(|pair| format!("`conmonctl explain {} {}`", pair.src.name, pair.dst.name))
        .collect();
    NotFound {
        said: format!("a pair has two ends, {text} is one"),
        remedy: if of.is_empty() {
            "give both: `conmonctl explain SRC DST`".to_owned()
        } else {
            format!("try {}", of.join(", "))
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers;

    fn found(given: &[&str]) -> Result<String, NotFound> {
        let pairs = answers::pairs(300.0).pairs;
        let containers = answers::containers(300.0).containers;
        let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
        find(&pairs, &containers, &given).map(|at| format!("{} {}", pairs[at].src.name, pairs[at].dst.name))
    }

    #[test]
    fn pairs_are_found_in_every_spelling() {
        let web = Ok("lab-wrk-1 shop-nginx-1".to_owned());
        for given in [
            &["lab-wrk-1", "shop-nginx-1"][..],
            &["lab-wrk-1→shop-nginx-1"],
            &["lab-wrk-1 → shop-nginx-1"],
            &["lab-wrk-1->shop-nginx-1"],
            &["lab-wrk-1:shop-nginx-1"],
            &["lab-wrk-1 shop-nginx-1"],
            &["172.18.0.6", "172.18.0.2"],
            &["172.18.0.6:172.18.0.2"],
            &["0606", "020202020202"],
            &["wrk", "nginx"],
            &["wrk:nginx"],
            &["shop-nginx-1", "lab-wrk-1"],
        ] {
            assert_eq!(found(given), web, "{given:?}");
        }
        assert_eq!(found(&["lab-wrk-1:external"]), Ok("lab-wrk-1 external".to_owned()));
        assert_eq!(found(&["shop-nginx-1", "lab1 (host)"]), Ok("shop-nginx-1 lab1".to_owned()));
        for given in
            [&["shop-nginx-1:ff02::16"][..], &["ff02::16:shop-nginx-1"], &["[ff02::16]:shop-nginx-1"]]
        {
            assert_eq!(found(given), Ok("shop-nginx-1 multicast".to_owned()), "{given:?}");
        }
    }

    #[test]
    fn slips_are_told_with_what_may_have_been_meant() {
        let told = |given: &[&str]| {
            let error = found(given).expect_err("no such pair");
            (error.said, error.remedy)
        };
        let (said, remedy) = told(&["lab-wrk-1", "shop-ngnix-1"]);
        assert_eq!(said, "conmond knows nobody called shop-ngnix-1");
        assert!(remedy.starts_with("did you mean `shop-nginx-1`"), "{remedy}");
        let (said, remedy) = told(&["lab-wrk-1:posgres"]);
        assert_eq!(said, "conmond knows nobody called posgres");
        assert!(remedy.contains("`postgres`"), "{remedy}");
        let (said, remedy) = told(&["xyzzy", "qwertz"]);
        assert_eq!(said, "conmond knows nobody called xyzzy or qwertz");
        assert_eq!(remedy, "`conmonctl pairs --all` shows everybody");
        let (said, remedy) = told(&["lab-wrk-1", "shop-redis-1"]);
        assert_eq!(said, "conmond has seen no packet between lab-wrk-1 and shop-redis-1");
        assert!(
            remedy.starts_with(
                "lab-wrk-1 talks with external, multicast, shop-nginx-1; shop-redis-1 talks with shop-"
            ),
            "{remedy}"
        );
        let (said, remedy) = told(&["lab-host-1", "lab-wrk-1"]);
        assert_eq!(said, "conmond has seen no packet between lab-host-1 and lab-wrk-1");
        assert!(remedy.starts_with("lab-host-1 has talked with nobody; "), "{remedy}");
        let (said, remedy) = told(&["shop-redis-1"]);
        assert_eq!(said, "a pair has two ends, shop-redis-1 is one");
        assert!(remedy.contains("`conmonctl explain shop-redis-benchmark-1 shop-redis-1`"), "{remedy}");
    }

    #[test]
    fn what_means_several_pairs_is_asked_back() {
        let mut pairs = answers::pairs(300.0).pairs;
        let mut second = pairs[0].clone();
        second.src = answers::container("lab-wrk-2", "lab", 7);
        pairs.push(second);
        let find = |src: &str, dst: &str| find(&pairs, &[], &[src.to_owned(), dst.to_owned()]);
        assert_eq!(find("lab-wrk-2", "nginx"), Ok(9));
        let error = find("wrk", "nginx").expect_err("ambiguous");
        assert_eq!(error.said, "wrk and nginx are 2 pairs");
        assert!(error.remedy.contains("`conmonctl explain lab-wrk-2 shop-nginx-1`"), "{}", error.remedy);
    }

    #[test]
    fn hostile_input_finds_nothing_and_breaks_nothing() {
        for given in ["", ":", "→", "->", "::::", "a:", ":b", "\u{1b}[2J", &"x".repeat(100_000)] {
            assert!(found(&[given]).is_err(), "{given:?}");
        }
        assert!(found(&["", ""]).is_err());
    }
}
