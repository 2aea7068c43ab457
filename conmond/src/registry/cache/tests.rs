use super::super::rows::tests::endpoint;
use super::*;

const S: u64 = 1_000_000_000;

fn at(seconds: u64) -> Now {
    Now { steady_ns: seconds * S, wall_ns: 1_000_000 * S + seconds * S }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn row(host: &str, name: &str, address: &str, since: u64, until: Option<u64>) -> EndpointRow {
    endpoint(host, name, address, at(since).wall_ns, until.map(|s| at(s).wall_ns))
}

fn names(cache: &mut Cache, address: &str, when: u64, now: u64) -> Option<Vec<String>> {
    match cache.ask(ip(address), at(when).wall_ns, at(now)) {
        Asked::Hit(answer) => Some(answer.candidates.iter().map(|c| c.row.container.clone()).collect()),
        Asked::Miss(_) => None,
    }
}

#[test]
fn an_address_is_asked_for_once_and_followed_from_then_on() {
    let mut cache = Cache::new(Limits::default(), false);
    assert_eq!(names(&mut cache, "10.0.0.1", 10, 10), None);
    assert!(!cache.put(row("h", "a", "10.0.0.1", 1, None), 5, at(10)), "nobody asked for it");
    cache.load(ip("10.0.0.1"), vec![(row("h", "a", "10.0.0.1", 1, None), 5)], false, at(10).wall_ns, at(10));
    cache.follow(ip("10.0.0.1"));
    cache.confirm(at(12).wall_ns);
    assert_eq!(names(&mut cache, "::ffff:10.0.0.1", 10, 400), Some(vec!["a".to_owned()]));
    assert!(cache.put(row("h", "a", "10.0.0.1", 1, Some(20)), 6, at(20)));
    assert!(cache.put(row("h", "b", "10.0.0.1", 21, None), 7, at(21)));
    assert_eq!(names(&mut cache, "10.0.0.1", 19, 25), Some(vec!["a".to_owned()]));
    assert_eq!(names(&mut cache, "10.0.0.1", 22, 25), Some(vec!["b".to_owned()]));
    assert!(!cache.put(row("h", "b", "10.0.0.1", 21, None), 7, at(22)), "the same again is no change");
    assert_eq!((cache.counters().hits, cache.counters().misses, cache.rows()), (3, 1, 2));
}

#[test]
fn a_row_that_went_stays_for_its_grace_and_no_longer() {
    let mut cache = Cache::new(Limits::default(), false);
    cache.load(ip("10.0.0.1"), vec![(row("h", "a", "10.0.0.1", 1, None), 5)], false, at(10).wall_ns, at(10));
    cache.follow(ip("10.0.0.1"));
    let id = row("h", "a", "10.0.0.1", 1, None).id();
    assert!(cache.remove(&id, 9, at(50)), "its host was lost");
    assert!(!cache.remove(&id, 9, at(51)), "once");
    assert_eq!(names(&mut cache, "10.0.0.1", 49, 60), Some(vec!["a".to_owned()]));
    assert_eq!(names(&mut cache, "10.0.0.1", 55, 60), Some(vec![]));
    assert!(cache.expire(at(169)).is_empty());
    assert_eq!(names(&mut cache, "10.0.0.1", 49, 169), Some(vec!["a".to_owned()]));
    cache.expire(at(170));
    assert_eq!(names(&mut cache, "10.0.0.1", 49, 170), Some(vec![]));
    assert_eq!(cache.rows(), 0);
}

#[test]
fn a_host_that_comes_back_goes_on_where_it_was() {
    let mut cache = Cache::new(Limits::default(), false);
    let a = row("h", "a", "10.0.0.1", 1, None);
    cache.load(ip("10.0.0.1"), vec![(a.clone(), 5)], false, at(10).wall_ns, at(10));
    cache.remove(&a.id(), 6, at(20));
    assert!(cache.put(a.clone(), 7, at(30)));
    assert!(!cache.remove(&a.id(), 6, at(31)), "a late word of what was before");
    cache.follow(ip("10.0.0.1"));
    assert_eq!(names(&mut cache, "10.0.0.1", 25, 31), Some(vec!["a".to_owned()]));
}

#[test]
fn what_a_new_reading_lacks_is_gone_and_nothing_is_doubled() {
    let mut cache = Cache::new(Limits::default(), false);
    let (a, b) = (row("g", "a", "10.0.0.1", 1, None), row("h", "b", "10.0.0.1", 2, None));
    cache.load(ip("10.0.0.1"), vec![(a.clone(), 5), (b.clone(), 6)], false, at(10).wall_ns, at(10));
    // Revisions that go backwards: another history. What is read is the truth all the same.
    assert!(cache.load(ip("10.0.0.1"), vec![(b.clone(), 3)], false, at(20).wall_ns, at(20)));
    cache.follow(ip("10.0.0.1"));
    assert_eq!(cache.rows(), 2);
    assert_eq!(names(&mut cache, "10.0.0.1", 30, 30), Some(vec!["b".to_owned()]));
    assert_eq!(names(&mut cache, "10.0.0.1", 15, 30), Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(cache.standing(ip("10.0.0.1")), [b.id()]);
}

#[test]
fn an_address_nobody_has_is_asked_for_less_and_less_often() {
    let limits = Limits { negative_min_ns: S, negative_max_ns: 4 * S, ..Limits::default() };
    let mut cache = Cache::new(limits, false);
    let mut asked = Vec::new();
    for second in 0..20 {
        if names(&mut cache, "10.9.9.9", second, second).is_none() {
            asked.push(second);
            cache.load(ip("10.9.9.9"), Vec::new(), false, at(second).wall_ns, at(second));
        }
    }
    assert_eq!(asked, [0, 1, 3, 7, 11, 15, 19]);
}

#[test]
fn without_news_the_answer_is_as_old_as_it_says() {
    let mut cache = Cache::new(Limits::default(), false);
    cache.load(ip("10.0.0.1"), vec![(row("h", "a", "10.0.0.1", 1, None), 5)], false, at(10).wall_ns, at(10));
    cache.follow(ip("10.0.0.1"));
    cache.confirm(at(30).wall_ns);
    cache.unfollow(None, at(40));
    let Asked::Miss(Some(old)) = cache.ask(ip("10.0.0.1"), at(41).wall_ns, at(41)) else { panic!("a miss") };
    assert_eq!(old.known_as_of_ns, Some(at(30).wall_ns));
    assert_eq!(old.candidates[0].row.container, "a");
}

#[test]
fn bounds_hold_and_what_is_used_stays() {
    let limits = Limits { addresses: 100, rows: 150, rows_per_address: 3, ..Limits::default() };
    let mut cache = Cache::new(limits, false);
    for i in 0..1000u32 {
        let address = IpAddr::from(i.to_be_bytes());
        let text = address.to_string();
        cache.load(
            address,
            vec![(row("h", "a", &text, 1, None), 1), (row("h", "b", &text, 2, None), 1)],
            false,
            at(i.into()).wall_ns,
            at(i.into()),
        );
        let _ = names(&mut cache, "0.0.0.0", i.into(), i.into());
        assert!(cache.len() <= 100 && cache.rows() <= 150);
    }
    assert!(cache.holds(ip("0.0.0.0")), "it was asked for all the time");
    assert_eq!(cache.counters().evicted as usize, 1000 - cache.len());
    let many = (0..5).map(|i| (row("h", "x", "10.0.0.1", i, None), 1)).collect();
    cache.load(ip("10.0.0.1"), many, false, at(2000).wall_ns, at(2000));
    assert_eq!(cache.counters().truncated_rows, 2);
    let Asked::Hit(answer) = cache.ask(ip("10.0.0.1"), at(2000).wall_ns, at(2000)) else { panic!("a hit") };
    assert!(answer.truncated);
}

#[test]
fn what_nobody_asks_for_goes() {
    let mut cache = Cache::new(Limits::default(), false);
    cache.load(ip("10.0.0.1"), vec![(row("h", "a", "10.0.0.1", 1, None), 5)], false, at(10).wall_ns, at(10));
    assert!(cache.expire(at(609)).is_empty());
    assert_eq!(cache.expire(at(610)), [ip("10.0.0.1")]);
    assert_eq!((cache.len(), cache.rows()), (0, 0));
}

#[test]
fn a_complete_cache_knows_that_there_is_nobody() {
    let mut cache = Cache::new(Limits::default(), true);
    cache.confirm(at(9).wall_ns);
    assert_eq!(names(&mut cache, "10.0.0.1", 1, 10), Some(vec![]));
    assert!(cache.put(row("h", "a", "10.0.0.1", 1, None), 0, at(10)));
    assert_eq!(names(&mut cache, "10.0.0.1", 2, 10_000), Some(vec!["a".to_owned()]));
    assert!(cache.expire(at(10_000)).is_empty(), "what is there is held whether it is asked for or not");
}
