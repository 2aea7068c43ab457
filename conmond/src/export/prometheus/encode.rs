//! Series as text.

use std::fmt::{self, Write as _};

use conmon::api::{Count, protocol_name};
use ippm::catalogue::{self as metrics, DELAY_EDGES_NS, Kind, METRICS, Metric};
use ippm::histogram::Histogram;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet, text::encode,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Snapshot;
use super::totals::{PairTotals, ProtocolSum, classes};
use crate::http::{ClassTotals, EachWay, HostsMetrics, Reason, Usage};
use crate::system::SystemCounters;

/// All series of a snapshot in the text format.
pub(super) fn text(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut open_metrics = String::new();
    encode(&mut open_metrics, &registry)?;
    classic(&open_metrics)
}

/// The library writes OpenMetrics, where a counter's comments go without the `_total` of its series. In Prometheus'
/// own text format, which every version reads and `promtool` checks, they have it, and there is no end mark.
fn classic(open_metrics: &str) -> Result<String, fmt::Error> {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    for line in open_metrics.lines() {
        let comment =
            ["# HELP ", "# TYPE "].into_iter().find_map(|mark| Some((mark, line.strip_prefix(mark)?)));
        match comment.and_then(|(mark, rest)| Some((mark, rest.split_once(' ')?))) {
            Some((mark, (family, rest))) => {
                let counter = METRICS.iter().any(|m| m.kind == Kind::Counter && m.family() == family);
                writeln!(text, "{mark}{family}{} {rest}", if counter { "_total" } else { "" })?;
            }
            None if line.starts_with('#') => {}
            None => writeln!(text, "{line}")?,
        }
    }
    Ok(text)
}

/// A metric, with the series that it has.
struct Family<'a> {
    metric: &'a Metric,
    encoder: MetricEncoder<'a>,
}

/// Ways to take from totals what one metric shows.
type CountPart = fn(Count) -> u64;
type TcpPart = fn(&PairTotals) -> EachWay<Option<u64>>;
type DelayPart = fn(&PairTotals) -> &Histogram;

/// Label values, in the order of the metric's labels.
type Values<'a> = &'a [&'a str];

impl Family<'_> {
    fn counter(&mut self, values: Values<'_>, value: u64) -> fmt::Result {
        self.with_labels(values, |encoder| encoder.encode_counter::<NoLabelSet, _, u64>(&value, None))
    }

    fn seconds(&mut self, values: Values<'_>, value: f64) -> fmt::Result {
        self.with_labels(values, |encoder| encoder.encode_counter::<NoLabelSet, _, u64>(&value, None))
    }

    fn gauge(&mut self, values: Values<'_>, value: impl EncodeGaugeValue) -> fmt::Result {
        self.with_labels(values, |encoder| encoder.encode_gauge(&value))
    }

    fn histogram(&mut self, values: Values<'_>, histogram: &Histogram) -> fmt::Result {
        let mut below = 0;
        let mut buckets = Vec::with_capacity(DELAY_EDGES_NS.len() + 1);
        for edge in DELAY_EDGES_NS {
            let count = histogram.count_below(edge);
            buckets.push((seconds(edge), count.saturating_sub(below)));
            below = count;
        }
        buckets.push((f64::INFINITY, histogram.count().saturating_sub(below)));
        let (sum, count) = (seconds(histogram.sum_ns()), histogram.count());
        self.with_labels(values, |encoder| encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None))
    }

    fn with_labels(
        &mut self,
        values: Values<'_>,
        write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        debug_assert_eq!(values.len(), self.metric.labels.len(), "{}", self.metric.name);
        let labels: Vec<(&str, &str)> = self.metric.label_names().zip(values.iter().copied()).collect();
        if labels.is_empty() {
            write(&mut self.encoder)
        } else {
            write(&mut self.encoder.encode_family(&labels)?)
        }
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Writes a metric's comments, and its series by `write`.
fn family(
    encoder: &mut DescriptorEncoder<'_>,
    metric: &Metric,
    write: impl FnOnce(&mut Family<'_>) -> fmt::Result,
) -> fmt::Result {
    let kind = match metric.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    let encoder = encoder.encode_descriptor(metric.family(), metric.help, None, kind)?;
    write(&mut Family { metric, encoder })
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.pairs(&mut encoder)?;
        self.ports(&mut encoder)?;
        self.sets(&mut encoder)?;
        self.itself(&mut encoder)
    }
}

impl Snapshot {
    fn pairs(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counts: [(&Metric, CountPart); 3] = [
            (&metrics::PAIR_BYTES, |count| count.bytes),
            (&metrics::PAIR_PACKETS, |count| count.packets),
            (&metrics::PAIR_SEGMENTS, |count| count.segments),
        ];
        for (metric, part) in counts {
            family(encoder, metric, |family| {
                self.each_protocol(|[src, dst, tenant, protocol], one| {
                    family.counter(&[src, dst, tenant, protocol, "sent"], part(one.counts.sent))?;
                    family.counter(&[src, dst, tenant, protocol, "received"], part(one.counts.received))
                })
            })?;
        }
        let tcp: [(&Metric, TcpPart); 2] = [
            (&metrics::PAIR_RETRANSMITTED, |totals| totals.retransmitted),
            (&metrics::PAIR_REORDERED, |totals| totals.reordered),
        ];
        for (metric, part) in tcp {
            family(encoder, metric, |family| {
                self.each_pair(|[src, dst, tenant], totals| {
                    let each = part(totals);
                    for (direction, value) in [("sent", each.sent), ("received", each.received)] {
                        if let Some(value) = value {
                            family.counter(&[src, dst, tenant, direction], value)?;
                        }
                    }
                    Ok(())
                })
            })?;
        }
        family(encoder, &metrics::PAIR_FLOWS, |family| {
            self.each_protocol(|labels, one| family.counter(&labels, one.flows))
        })?;
        family(encoder, &metrics::PAIR_ACTIVE_FLOWS, |family| {
            self.each_protocol(|labels, one| match one.active_flows {
                Some(active) => family.gauge(&labels, active),
                None => Ok(()),
            })
        })?;
        let delays: [(&Metric, DelayPart); 3] = [
            (&metrics::PAIR_RTT, |totals| &totals.rtt),
            (&metrics::PAIR_NEAR_RTT, |totals| &totals.near_rtt),
            (&metrics::PAIR_HANDSHAKE_RTT, |totals| &totals.handshake_rtt),
        ];
        for (metric, part) in delays {
            family(encoder, metric, |family| {
                self.each_pair(|labels, totals| match part(totals) {
                    none if none.is_empty() => Ok(()),
                    histogram => family.histogram(&labels, histogram),
                })
            })?;
        }
        Ok(())
    }

    fn each_pair(&self, mut write: impl FnMut([&str; 3], &PairTotals) -> fmt::Result) -> fmt::Result {
        self.pairs.iter().try_for_each(|([src, dst, tenant], totals)| write([src, dst, tenant], totals))
    }

    fn each_protocol(&self, mut write: impl FnMut([&str; 4], &ProtocolSum) -> fmt::Result) -> fmt::Result {
        self.each_pair(|[src, dst, tenant], totals| {
            totals
                .protocols
                .iter()
                .try_for_each(|(&number, one)| write([src, dst, tenant, &protocol_name(number)], one))
        })
    }

    fn ports(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counts: [(&Metric, CountPart); 2] =
            [(&metrics::PORT_PACKETS, |count| count.packets), (&metrics::PORT_BYTES, |count| count.bytes)];
        for (metric, part) in counts {
            family(encoder, metric, |family| {
                for ([service, tenant], totals) in &self.ports {
                    let each: [(&str, &ClassTotals); 2] =
                        [("sent", &totals.sent), ("received", &totals.received)];
                    for (direction, totals) in each {
                        for (class, count) in classes(totals) {
                            family.counter(&[service, tenant, direction, class], part(count))?;
                        }
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn sets(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        family(encoder, &metrics::TABLE_FULL, |family| {
            self.sets.iter().try_for_each(|(tenant, totals)| {
                family.counter(&[tenant, "flows"], totals.flows_full)?;
                family.counter(&[tenant, "pairs"], totals.pairs_full)?;
                family.counter(&[tenant, "ports"], totals.ports_full)
            })
        })?;
        family(encoder, &metrics::UNPAIRED_FLOWS, |family| {
            self.sets.iter().try_for_each(|(tenant, totals)| family.counter(&[tenant], totals.unpaired_flows))
        })?;
        family(encoder, &metrics::UNRESOLVED_FLOWS, |family| {
            self.sets
                .iter()
                .try_for_each(|(tenant, totals)| family.counter(&[tenant], totals.unresolved_flows))
        })?;
        family(encoder, &metrics::LOST_SINGLETONS, |family| {
            self.sets
                .iter()
                .try_for_each(|(tenant, totals)| family.counter(&[tenant], totals.lost_singletons))
        })?;
        family(encoder, &metrics::CANCELLED_PROBES, |family| {
            self.sets
                .iter()
                .try_for_each(|(tenant, totals)| family.counter(&[tenant], totals.cancelled_probes))
        })?;
        family(encoder, &metrics::RING_DROPPED, |family| {
            self.sets.iter().try_for_each(|(tenant, totals)| family.counter(&[tenant], totals.ring_dropped))
        })?;
        family(encoder, &metrics::TABLE_FILL, |family| {
            for (tenant, fills) in &self.fills {
                for (table, fill) in ["flows", "pairs", "ports", "histograms"].into_iter().zip(fills) {
                    family.gauge(&[tenant, table], fill.ratio())?;
                }
            }
            Ok(())
        })
    }

    fn itself(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let own = &self.own;
        family(encoder, &metrics::MONITORS, |family| family.gauge(&[], self.monitors))?;
        family(encoder, &metrics::MONITOR_RESTARTS, |family| {
            own.monitor_restarts.iter().try_for_each(|(tenant, &count)| family.counter(&[tenant], count))
        })?;
        family(encoder, &metrics::CONTAINERS, |family| {
            self.containers.iter().try_for_each(|(tenant, &count)| family.gauge(&[tenant], count))
        })?;
        family(encoder, &metrics::TAPS, |family| {
            self.taps.iter().try_for_each(|(tenant, &count)| family.gauge(&[tenant], count))
        })?;
        if self.whole { self.host(encoder) } else { Ok(()) }
    }

    /// What is about the whole host.
    fn host(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let own = &self.own;
        family(encoder, &metrics::TAP_DELAY, |family| family.histogram(&[], &own.tap_delay))?;
        family(encoder, &metrics::NAMING_DELAY, |family| family.histogram(&[], &own.naming_delay))?;
        family(encoder, &metrics::STOP_DELAY, |family| family.histogram(&[], &own.stop_delay))?;
        family(encoder, &metrics::REACTION_DELAY, |family| family.histogram(&[], &own.reaction_delay))?;
        family(encoder, &metrics::END_DELAY, |family| family.histogram(&[], &own.end_delay))?;
        family(encoder, &metrics::TAP_DROPS, |family| family.counter(&[], own.tap_drops))?;
        let connected = u64::from(self.engine_connected);
        family(encoder, &metrics::ENGINE_CONNECTED, |family| family.gauge(&[], connected))?;
        family(encoder, &metrics::STREAMS_DROPPED, |family| family.counter(&[], self.http.dropped_streams))?;
        if let Some(refused) = &self.http.refused {
            family(encoder, &metrics::API_REFUSED, |family| {
                let mut each = Reason::ALL.iter().zip(refused);
                each.try_for_each(|(reason, &count)| family.counter(&[reason.as_str()], count))
            })?;
        }
        if let Some(hosts) = &own.hosts {
            far_ends(hosts, encoder)?;
        }
        family(encoder, &metrics::HOOK_RUNS, |family| {
            own.hooks.iter().try_for_each(|one| family.counter(&[&one.hook], one.runs))
        })?;
        family(encoder, &metrics::HOOK_TIME, |family| {
            own.hooks.iter().try_for_each(|one| family.seconds(&[&one.hook], one.run_time.as_secs_f64()))
        })?;
        let components: [(&str, Usage); 2] = [("controller", own.controller), ("monitors", own.monitors)];
        family(encoder, &metrics::CPU, |family| {
            components.iter().try_for_each(|(component, usage)| match usage.cpu {
                Some(cpu) => family.seconds(&[component], cpu.as_secs_f64()),
                None => Ok(()),
            })
        })?;
        family(encoder, &metrics::MEMORY, |family| {
            components.iter().try_for_each(|(component, usage)| match usage.memory_bytes {
                Some(bytes) => family.gauge(&[component], bytes),
                None => Ok(()),
            })
        })?;
        if let Some(bytes) = own.kernel_memory_bytes {
            family(encoder, &metrics::KERNEL_MEMORY, |family| family.gauge(&[], bytes))?;
        }
        let revision = own.build.revision.filter(|revision| !revision.is_empty()).unwrap_or("unknown");
        family(encoder, &metrics::BUILD, |family| family.gauge(&[own.build.version, revision], 1u64))
    }
}

/// What binds this host to others.
fn far_ends(hosts: &HostsMetrics, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let SystemCounters { resolver, waiting, lookups, sought, offers_dropped, ends_full, .. } = hosts.system;
    let gauges = [
        (&metrics::REGISTRY_CONNECTED, u64::from(hosts.connected)),
        (&metrics::REGISTRY_HOSTS, hosts.others),
        (&metrics::REGISTRY_PENDING, hosts.pending_rows),
    ];
    for (metric, value) in gauges {
        family(encoder, metric, |family| family.gauge(&[], value))?;
    }
    if let Some(age) = hosts.age {
        family(encoder, &metrics::REGISTRY_AGE, |family| family.gauge(&[], age.as_secs_f64()))?;
    }
    family(encoder, &metrics::REGISTRY_RESYNCS, |family| family.counter(&[], hosts.resyncs))?;
    family(encoder, &metrics::CLOCK_OFFSET, |family| {
        hosts.clocks.iter().try_for_each(|(host, offset, _)| family.gauge(&[host], *offset))
    })?;
    family(encoder, &metrics::CLOCK_OFFSET_BOUND, |family| {
        hosts.clocks.iter().try_for_each(|(host, _, bound)| family.gauge(&[host], *bound))
    })?;
    family(encoder, &metrics::TEST_PACKETS_REFUSED, |family| {
        family.counter(&[], hosts.system.test_packets_refused)
    })?;
    let pending = [("address", sought), ("conversation", waiting)];
    family(encoder, &metrics::FAR_ENDS_PENDING, |family| {
        pending.iter().try_for_each(|(label, value)| family.gauge(&[label], *value))
    })?;
    let counters: [(&Metric, &[(&str, u64)]); 4] = [
        (&metrics::REGISTRY_READS, &[("answered", hosts.reads), ("failed", hosts.failed_reads)]),
        (&metrics::REGISTRY_LOOKUPS, &[("hit", hosts.cache_hits), ("miss", hosts.cache_misses)]),
        (
            &metrics::FAR_ENDS,
            &[
                ("learnt", resolver.learnt),
                ("given_up", resolver.given_up),
                ("refused", resolver.refused),
                ("nobody", lookups.given_up),
            ],
        ),
        (
            &metrics::FAR_ENDS_DROPPED,
            &[
                ("addresses", lookups.full),
                ("conversations", resolver.full),
                ("ends", ends_full),
                ("reports", offers_dropped),
            ],
        ),
    ];
    for (metric, values) in counters {
        family(encoder, metric, |family| {
            values.iter().try_for_each(|(label, value)| family.counter(&[label], *value))
        })?;
    }
    Ok(())
}
