use super::*;

/// What comes out, in order, until nothing waits or nobody can order any more.
fn all(inbox: &Receiver<Job<u32>>, queue: &mut Queue<u32>, most: usize) -> Vec<u32> {
    std::iter::from_fn(|| next(inbox, queue)).take(most).collect()
}

#[test]
fn ports_on_their_bridge_come_first_and_each_kind_in_its_order() {
    let (jobs, inbox) = channel();
    let mut queue = Queue(VecDeque::new());
    for (ifindex, joined) in [(1, false), (2, false), (3, true), (4, false), (5, true)] {
        jobs.send(Job::Tap(ifindex, joined, ifindex)).unwrap();
    }
    jobs.send(Job::Joined(4)).unwrap();
    // of a port that is not here any more
    jobs.send(Job::Joined(9)).unwrap();
    assert_eq!(all(&inbox, &mut queue, 2), [3, 4]);
    jobs.send(Job::Joined(2)).unwrap();
    jobs.send(Job::Tap(6, false, 6)).unwrap();
    assert_eq!(all(&inbox, &mut queue, 4), [2, 5, 1, 6]);
}

#[test]
fn what_waits_at_the_end_is_left() {
    let (jobs, inbox) = channel();
    let mut queue = Queue(VecDeque::new());
    jobs.send(Job::Tap(1, true, 1)).unwrap();
    jobs.send(Job::Tap(2, true, 2)).unwrap();
    assert_eq!(next(&inbox, &mut queue), Some(1));
    drop(jobs);
    assert_eq!(next(&inbox, &mut queue), None);
}
