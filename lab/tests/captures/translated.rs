//! A real address translator between two captures: a caller outside of the host calls a published port, and what the
//! host's rules make of it arrives at a container.

use crate::analyze;
use anyhow::{Context, Result, ensure};
use lab::{App, Capture, Spec, find_program, output, root_test};
use std::time::Duration;

const HOST: &str = "10.77.0.1";
const OUTSIDE: &str = "10.77.0.2";
/// Requests, each on a connection of its own.
const REQUESTS: u64 = 12;

#[test]
fn root_a_pair_is_found_again_behind_a_translator() -> Result<()> {
    root_test("captures on both sides of a translator", |lab| {
        let host = lab.host("nat")?;
        host.network("back", None)?;
        host.image(App::Nginx)?;
        let server = host.run(&Spec::app("web", App::Nginx).network("back").publish("8080:80"))?;
        let outside = lab.namespace("outside")?;
        let address = |address: &str| format!("{address}/24");
        lab.cable((host.namespace(), "out0", &address(HOST)), (&outside, "eth0", &address(OUTSIDE)))?;
        let get = |page: &str| {
            let mut curl = outside.command(find_program("curl", "curl")?);
            curl.args(["--silent", "--show-error", "--fail", "--max-time", "20", "--output", "/dev/null"]);
            output(curl.arg(format!("http://{HOST}:8080/{page}")))
        };
        lab::wait_for("the published port", Duration::from_secs(20), || Ok(get("").ok()))?;
        let folder = lab.dir().join("captures");
        let (here, there) =
            (Capture::on(&outside, "eth0", "tcp", &folder)?, Capture::outside(&server, "tcp")?);
        for request in 0..REQUESTS {
            get(if request % 2 == 0 { "large" } else { "" })?;
        }
        let (here, there) = (here.finish()?, there.finish()?);

        let answer = analyze(&[&here.file, &there.file], &["--same-clock"])?.answer;
        let pairs = answer["pairs"].as_array().context("no pairs")?;
        ensure!(pairs.len() == 1, "what the second saw is told beside the pair: {answer}");
        let pair = &pairs[0];
        ensure!(pair["src"]["name"] == OUTSIDE && pair["dst"]["name"] == HOST, "{pair}");
        let translation = &pair["translated"][0];
        let behind = server.ipv4("back")?.to_string();
        ensure!(translation["dst"] == behind.as_str(), "{pair}");
        let flows = (pair["flows"].as_u64(), translation["flows"].as_u64());
        ensure!(flows == (Some(REQUESTS), Some(REQUESTS)), "flows: {flows:?}");
        ensure!(translation["example"][0]["dst"] == format!("{HOST}:8080"), "{translation}");
        ensure!(translation["example"][1]["dst"] == format!("{behind}:80"), "{translation}");
        for way in ["forward", "reverse"] {
            let delay = &pair["one_way_delay_seconds"][way];
            let (count, covered) = (delay["count"].as_u64(), delay["coverage_ratio"].as_f64());
            ensure!(count > Some(2 * REQUESTS) && covered > Some(0.5), "{way}: {pair}");
            ensure!(delay["min"].as_f64().is_some_and(|min| min > 0.0 && min < 0.001), "{way}: {delay}");
            ensure!(pair["lost_packets"][way] == 0, "{way}: {pair}");
        }
        println!(
            "{OUTSIDE} > {HOST} is {} > {behind}: {}",
            translation["src"], pair["one_way_delay_seconds"]
        );
        Ok(())
    })
}
