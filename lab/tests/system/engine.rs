//! Names, networks and labels follow the engine.

use crate::support::*;
use anyhow::{Context, Result, ensure};
use lab::ConmondOptions;
use lab::traffic::UdpSent;
use serde_json::Value;

#[test]
fn root_names_networks_and_the_opt_out_are_followed() -> Result<()> {
    with_conmond("the engine's events", &[], ConmondOptions::default(), |_, host, conmond| {
        host.network("other", None)?;
        let udp = listening(host, "udp-sink", "udp-sink")?;
        // Both ends opted out: nobody's port is tapped, so there is no pair of theirs.
        let out = |name: &str, words: &str| host.run(&spec(name, words).label("conmon.enable", "false"));
        let hidden_sink = out("hidden-sink", "udp-sink")?;
        hidden_sink.wait_line("listening", READY)?;
        let words = format!("udp-send --to {}:9000 --count 200 --hold 1", hidden_sink.ipv4(NET)?);
        ensure!(report_of(&out("hidden", &words)?)?.sent == 200);

        let words = format!("udp-send --to {}:9000 --count 0 --rate 500", udp.ipv4(NET)?);
        let sender = host.run(&spec("sender", &words))?;
        pair_with(conmond, "sender", "udp-sink", 200)?;
        let pairs = conmond.ctl(&["pairs", "--all"])?;
        let hidden = |pair: &&Value| {
            ["src", "dst"]
                .iter()
                .any(|end| pair[*end]["name"].as_str().is_some_and(|n| n.starts_with("hidden")))
        };
        // Multicast of theirs may reach the ports of others; what is theirs alone may be nowhere.
        let found = rows(&pairs, "pairs").iter().find(|pair| hidden(pair) && pair["observed_at"] != "dst");
        ensure!(found.is_none(), "opted out, and yet there: {found:?}");
        ensure!(pair(&pairs, "hidden", "hidden-sink").is_none());
        let containers = conmond.ctl(&["containers"])?;
        let seen = row(&containers, "containers", "name", "hidden").context("`hidden` is unknown")?;
        let note = seen["note"].as_str().unwrap_or_default();
        ensure!(note.contains("not watched") && note.contains("conmon.enable"), "{seen}");
        ensure!(rows(seen, "networks").iter().all(|network| network["tapped_at"].is_null()), "{seen}");

        // One container, one pair, under the new name; what was counted before is kept.
        sender.rename("renamed")?;
        let before = sender.port()?.outside.rx.packets;
        let pair_now = pair_with(conmond, "renamed", "udp-sink", before)?;
        ensure!(pair_now["src"]["id"] == sender.id(), "{pair_now}");
        let pairs = conmond.ctl(&["pairs"])?;
        ensure!(pair(&pairs, "sender", "udp-sink").is_none(), "the old name is still there: {pairs}");

        let tapped_on = |answer: &Value, network: &str| {
            let seen = row(answer, "containers", "name", "renamed")?;
            Some(rows(seen, "networks").iter().any(|n| n["name"] == network && n["tapped_at"].is_string()))
        };
        sender.connect("other")?;
        conmond.wait_ctl("a tap on the second network", READY, &["containers"], |answer| {
            (tapped_on(answer, "other")? && tapped_on(answer, NET)?).then_some(())
        })?;
        sender.disconnect("other")?;
        conmond.wait_ctl("the end of the second tap", READY, &["containers"], |answer| {
            (!tapped_on(answer, "other")? && tapped_on(answer, NET)?).then_some(())
        })?;

        // Its end takes its port away; the pair stays, exact.
        let sent: UdpSent = sender.stop_and_report()?;
        let pair_now = pair_with(conmond, "renamed", "udp-sink", sent.sent)?;
        ensure!(packets(&pair_now["sent"]) == sent.sent, "{sent:?}, but {pair_now}");
        balanced(conmond)
    })
}
