//! The whole product on Podman: containers that talk are named, counted exactly, and nothing is left after `down`.

use super::*;
use lab::{ConmondOptions, podman_there, root_test};
use std::path::Path;

#[test]
fn root_the_product_works_on_podman() -> Result<()> {
    if !built("podman")? || !there("podman", podman_there())? {
        return Ok(());
    }
    root_test("podman", |lab| {
        let host = lab.podman_host("p1")?;
        let mut conmond = Conmond::start(&host, ConmondOptions::default())?;
        let status = conmond.wait_ctl("the engine", END, &["status"], |status| {
            (status["engine"]["connected"] == true).then(|| status.clone())
        })?;
        ensure!(status["engine"]["name"] == "podman", "{status}");
        // A network that is made while conmond runs, whose bridge bears a name that no engine gives.
        host.docker(&["network", "create", "--opt", "com.docker.network.bridge.name=lan7", "net"])?;
        for network in ["net", "podman"] {
            let (sink_name, sender_name) = (format!("sink-{network}"), format!("sender-{network}"));
            let udp = sink(&host, &sink_name, network)?;
            // the bridge is known from now on: what its first container loses before is told in docs/limits.md
            conmond.wait_ctl("the sink's port", END, &["containers"], |answer| {
                let place = rows(container(answer, &sink_name)?, "networks").first()?;
                place["tapped_at"].is_string().then_some(())
            })?;
            let words =
                format!("udp-send --to {}:9000 --rate 1000 --count 2000 --hold 1", udp.ipv4(network)?);
            let sender = host.run(&labgen(&sender_name, network, &words))?;
            let sent = report_of(&sender)?;
            let pair = holds_exactly(&conmond, &sender_name, &sink_name, &sent)?;
            ensure!(pair["src"]["tenant"] == "shop" && pair["src"]["id"] == sender.id(), "{pair}");
            let seen = conmond.wait_ctl("the sender's port", END, &["containers"], |answer| {
                let seen = container(answer, &sender_name)?;
                let place = rows(seen, "networks").first()?;
                (place["tapped_at"].is_string() && place["link_up_at"].is_string()).then(|| seen.clone())
            })?;
            let place = &rows(&seen, "networks")[0];
            ensure!(place["name"] == network && place["interface"].is_string(), "{seen}");
            ensure!(place["addresses"][0] == sender.ipv4(network)?.to_string(), "{seen}");
            ensure!(seen["note"].is_null() && seen["monitor"].to_string().contains("conmon-pm-"), "{seen}");
            eprintln!(
                "{network}: tapped {} s after its port joined the bridge",
                place["tapped_after_seconds"]
            );
        }
        // A container that uses another's network, which Podman lists at the other's place.
        let shares = labgen("shares", "container:sink-net", "idle");
        host.run(&shares)?;
        let seen = conmond.wait_ctl("what is said of it", END, &["containers"], |answer| {
            let seen = container(answer, "shares")?;
            seen["note"].to_string().contains("sink-net's port").then(|| seen.clone())
        })?;
        ensure!(rows(&seen, "networks").is_empty(), "{seen}");
        let pairs = conmond.ctl(&["pairs", "--all"])?;
        let named = |p: &&Value| ["src", "dst"].iter().any(|end| p[*end]["name"] == "shares");
        ensure!(!rows(&pairs, "pairs").iter().any(|p| named(&p)), "{pairs}");
        balanced(&conmond)?;

        let pins = Path::new("/sys/fs/bpf/conmon").join(conmond.instance());
        let monitors = || host.docker(&["ps", "--all", "--quiet", "--filter", "name=conmon-pm-"]);
        let images = || host.docker(&["images", "--quiet", "--filter", "label=conmon.role=monitor"]);
        ensure!(pins.is_dir() && !monitors()?.is_empty() && !images()?.is_empty());
        conmond.down()?;
        ensure!(monitors()?.is_empty(), "monitoring containers are left: {}", monitors()?);
        ensure!(images()?.is_empty(), "images are left: {}", images()?);
        ensure!(!pins.exists() && !conmond.run_dir().exists() && !conmond.is_running());
        Ok(())
    })
}
