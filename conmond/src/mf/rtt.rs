//! The function `rtt`: round-trip delays of TCP, by leg (histograms), and the singletons themselves from sets that
//! write them. The kernel measures (RFC 2681, Karn's rule as in RFC 6298 section 3); here nothing is computed.

use tap::{Events, Scan};

use super::{Collected, Kind, MonitoringFunction, Tables};

pub(super) struct RttFunction;

impl MonitoringFunction for RttFunction {
    fn kind(&self) -> Kind {
        Kind::Rtt
    }

    fn scanned(&mut self, scan: &mut Scan, _: &dyn Tables, to: &mut Collected) {
        to.rtts.append(&mut scan.rtts);
    }

    fn happened(&mut self, events: &mut Events, to: &mut Collected) {
        to.singletons.append(&mut events.singletons);
    }
}
