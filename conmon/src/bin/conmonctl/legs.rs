//! The round trips of a pair as its port sees them: away (to the remote end) and near (to the port's own container).
//! The API names them by src and dst; which of the two is the long one depends on whose port counted.

use conmon::api::{DelaySummary, Endpoint, ObservedAt, Pair};

/// One leg's round-trip delay.
#[derive(Debug, Clone, Copy)]
pub struct Leg<'a> {
    /// Between the port and the remote end; else between the port and its own container.
    pub away: bool,
    /// Of handshakes; else of data.
    pub handshake: bool,
    /// The end that acknowledges.
    pub to: &'a Endpoint,
    /// What was measured.
    pub summary: Option<&'a DelaySummary>,
}

/// Away and near, of data and then of handshakes.
pub fn legs(pair: &Pair) -> [Leg<'_>; 4] {
    let leg = |to_dst: bool, handshake, summary| Leg {
        away: to_dst == (pair.observed_at == ObservedAt::Src),
        handshake,
        to: if to_dst { &pair.dst } else { &pair.src },
        summary,
    };
    let mut legs = [
        leg(true, false, pair.rtt_seconds.as_ref()),
        leg(false, false, pair.near_rtt_seconds.as_ref()),
        leg(true, true, pair.handshake_rtt_seconds.as_ref()),
        leg(false, true, pair.near_handshake_rtt_seconds.as_ref()),
    ];
    legs.sort_by_key(|leg| (leg.handshake, !leg.away));
    legs
}

/// The end at whose port the packets were counted.
pub fn observed(pair: &Pair) -> &Endpoint {
    match pair.observed_at {
        ObservedAt::Src => &pair.src,
        ObservedAt::Dst => &pair.dst,
    }
}

/// The other end.
pub fn remote(pair: &Pair) -> &Endpoint {
    match pair.observed_at {
        ObservedAt::Src => &pair.dst,
        ObservedAt::Dst => &pair.src,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers;

    #[test]
    fn the_long_way_is_away_whoever_counted() {
        let mut pair = answers::pairs(300.0).pairs.swap_remove(0);
        let seen = |pair: &Pair| {
            legs(pair).map(|leg| {
                let p50 = leg.summary.map_or(0.0, |summary| summary.p50 * 1e6);
                (leg.away, leg.handshake, leg.to.name.clone(), p50.round())
            })
        };
        let (src, dst) = (pair.src.name.clone(), pair.dst.name.clone());
        assert_eq!(
            seen(&pair),
            [
                (true, false, dst.clone(), 83.0),
                (false, false, src.clone(), 28.0),
                (true, true, dst.clone(), 100.0),
                (false, true, src.clone(), 42.0)
            ]
        );
        assert_eq!((&observed(&pair).name, &remote(&pair).name), (&src, &dst));
        pair.observed_at = ObservedAt::Dst;
        assert_eq!(
            seen(&pair),
            [
                (true, false, src.clone(), 28.0),
                (false, false, dst.clone(), 83.0),
                (true, true, src.clone(), 42.0),
                (false, true, dst.clone(), 100.0)
            ]
        );
        assert_eq!((&observed(&pair).name, &remote(&pair).name), (&dst, &src));
    }
}
