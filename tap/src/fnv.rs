//! FNV-1a, 32 bits wide: numbers for names, which are pinned, and so must be the same in every build.

/// The hash of these octets.
pub(crate) fn hash(octets: &[u8]) -> u32 {
    octets.iter().fold(0x811c_9dc5, |h, octet| (h ^ u32::from(*octet)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn it_is_the_one_that_was_published() {
        // draft-eastlake-fnv, appendix C
        assert_eq!([hash(b""), hash(b"a"), hash(b"foobar")], [0x811c_9dc5, 0xe40c_292c, 0xbf9c_f968]);
    }
}
