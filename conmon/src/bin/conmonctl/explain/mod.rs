//! `explain PAIR`: all that is known of one pair, in words. `find` tells which pair is meant, `words` says what is known
//! and what is not; here the answers that they need are asked for.

mod find;
#[cfg(test)]
mod tests;
mod words;

use conmon::api::{
    Container, ContainersQuery, Endpoint, FlowsAnswer, FlowsQuery, HostAnswer, Pair, PairsQuery,
};
use conmon::client::Client;
use jiff::Timestamp;
use serde::Serialize;

use crate::args::Explain;
use crate::tone::Color;
use crate::watch;

pub use find::NotFound;

/// How many of its flow records come with a pair, those with most bytes.
const FLOWS: u32 = 100;

/// What is known of one pair: the API's own answers, put together.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// When the answer was put together.
    pub generated_at: Timestamp,
    /// The interval over which rates were taken, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_interval_seconds: Option<f64>,
    /// The hosts asked, and whether each answered in full.
    pub hosts: Vec<HostAnswer>,
    /// The pair, with its distributions.
    pub pair: Pair,
    /// The pair whose conversations the other side opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opposite: Option<Pair>,
    /// Those of the two ends that are containers.
    pub containers: Vec<Container>,
    /// Its flow records.
    pub flows: FlowsAnswer,
}

/// Explains a pair, once or again and again.
pub async fn run(client: &Client, options: &Explain, color: Color) -> anyhow::Result<()> {
    watch::show(&options.show, color, async || gather(client, &options.pair).await, words::explain).await?;
    Ok(())
}

async fn gather(client: &Client, given: &[String]) -> anyhow::Result<Explanation> {
    let answer = client.pairs(&PairsQuery::default()).await?;
    let containers = client.containers(&ContainersQuery::default()).await?.containers;
    let at = find::find(&answer.pairs, &containers, given)?;
    let known = &answer.pairs[at];
    let query = PairsQuery {
        src: Some(handle(&known.src)),
        dst: Some(handle(&known.dst)),
        histograms: Some(true),
        ..PairsQuery::default()
    };
    let same = |a: &Endpoint, b: &Endpoint| (a.kind, &a.name, &a.id) == (b.kind, &b.name, &b.id);
    let is = |pair: &Pair, src: &Endpoint, dst: &Endpoint| same(&pair.src, src) && same(&pair.dst, dst);
    let detailed = client.pairs(&query).await?;
    let pair = detailed.pairs.into_iter().find(|pair| is(pair, &known.src, &known.dst));
    let flows = FlowsQuery {
        src: query.src,
        dst: query.dst,
        observed_at: Some(known.observed_at),
        limit: Some(FLOWS),
        ..FlowsQuery::default()
    };
    let mut flows = client.flows(&flows).await?;
    // A name may be another's too, one that is no container's.
    flows.flows.retain(|flow| same(&flow.src, &known.src) && same(&flow.dst, &known.dst));
    let opposite = answer.pairs.iter().find(|pair| is(pair, &known.dst, &known.src)).cloned();
    let of_the_pair = |container: &Container| {
        [&known.src, &known.dst].iter().any(|end| end.id.as_ref() == Some(&container.id))
    };
    Ok(Explanation {
        generated_at: detailed.generated_at,
        rate_interval_seconds: detailed.rate_interval_seconds,
        hosts: detailed.hosts,
        // It may have gone between the two answers.
        pair: pair.unwrap_or_else(|| known.clone()),
        opposite,
        containers: containers.into_iter().filter(of_the_pair).collect(),
        flows,
    })
}

/// What the API finds an end by.
pub fn handle(end: &Endpoint) -> String {
    end.id.clone().unwrap_or_else(|| end.name.clone())
}
