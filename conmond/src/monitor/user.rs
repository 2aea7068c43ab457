//! The user that a monitoring container runs as, as the host counts users: a rootless engine's containers, and those of an engine that gives
//! containers users of their own (`userns-remap`), are in a user namespace, in which the same number is another user.

use super::protocol::MONITOR_UID;

/// The host's number of the monitors' user in the user namespace of a process. Where nothing is told of that, it is the host's own.
pub fn of(pid: i32) -> u32 {
    let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap_or_default();
    outside(&map, MONITOR_UID).unwrap_or(MONITOR_UID)
}

/// What a number of a user namespace is outside of it, by its `uid_map` (`user_namespaces(7)`); none if it is nobody there.
fn outside(map: &str, inside: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut words = line.split_whitespace().map(str::parse::<u32>);
        let (Some(Ok(first)), Some(Ok(is)), Some(Ok(count))) = (words.next(), words.next(), words.next())
        else {
            return None;
        };
        let nth = inside.checked_sub(first).filter(|nth| *nth < count)?;
        is.checked_add(nth)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_another_user_in_another_namespace() {
        assert_eq!(outside("         0          0 4294967295\n", 65_534), Some(65_534), "the host's own");
        let rootless = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(outside(rootless, 0), Some(1000));
        assert_eq!(outside(rootless, 65_534), Some(165_533));
        assert_eq!(outside(rootless, 65_537), None, "one behind the last");
        assert_eq!(outside("0 231072 65536", 65_534), Some(296_606), "userns-remap");
        assert_eq!(outside("0 1000 1", 65_534), None);
        for damaged in ["", "0", "0 1", "a b c", "0 4294967295 4294967295", "4294967295 0 1"] {
            assert_eq!(outside(damaged, 65_534), None, "{damaged}");
        }
    }

    #[test]
    fn of_a_process_that_has_gone_it_is_the_host_s() {
        assert_eq!(of(i32::MAX), MONITOR_UID);
    }
}
