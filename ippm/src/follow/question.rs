//! Questions and answers that name each other by a number: DNS (RFC 1035 section 4.1.1) and ICMP echo (RFC 792).

/// Unanswered questions that a flow may have. With more the oldest is given up.
pub const OUTSTANDING: usize = 8;

/// The open questions of a flow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Questions {
    /// Number, when it was asked, and whether it was asked more than once.
    open: [Option<(u16, u64, bool)>; OUTSTANDING],
    next: u8,
    given_up: u32,
}

impl Questions {
    /// A question passed at `ns`. One that is asked again before its answer came is not timed: nobody can say which the
    /// answer is to.
    pub fn ask(&mut self, number: u16, ns: u64) {
        if let Some(open) = self.open.iter_mut().flatten().find(|open| open.0 == number) {
            open.2 = true;
            return;
        }
        let place = &mut self.open[usize::from(self.next) % OUTSTANDING];
        self.given_up = self.given_up.saturating_add(u32::from(place.is_some()));
        *place = Some((number, ns, false));
        self.next = self.next.wrapping_add(1);
    }

    /// An answer passed at `ns`: how long it took, nanoseconds, if the question was seen once.
    pub fn answer(&mut self, number: u16, ns: u64) -> Option<u64> {
        let open = self.open.iter_mut().find(|open| open.is_some_and(|open| open.0 == number))?;
        let (_, asked, again) = open.take()?;
        (!again).then(|| ns.saturating_sub(asked))
    }

    /// Questions that were forgotten, unanswered, because [`OUTSTANDING`] later ones came.
    pub const fn given_up(&self) -> u32 {
        self.given_up
    }
}

/// Number of a DNS message over UDP, and whether it is the answer; `None` for what is none.
pub fn dns(payload: &[u8]) -> Option<(u16, bool)> {
    let header: &[u8; 12] = payload.first_chunk()?;
    Some((u16::from_be_bytes([header[0], header[1]]), header[2] & 0x80 != 0))
}
