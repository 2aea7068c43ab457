//! Ports that an engine has made and not joined to a bridge yet are tapped; others' links that look like them are let go.

use crate::state::{pins_are_the_daemon_s, pins_of};
use crate::support::*;
use anyhow::{Context, Result, ensure};
use lab::{Conmond, ConmondOptions, Host, Link, wait_for};
use std::time::Duration;

fn ip(host: &Host, words: &str) -> Result<()> {
    let made = host.command("ip").args(words.split(' ')).output().context("ip")?;
    ensure!(made.status.success(), "ip {words}: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

/// Whether something hangs on an interface where a tap would.
fn is_tapped(host: &Host, name: &str) -> Result<bool> {
    let shown = host.command("tc").args(["qdisc", "show", "dev", name]).output().context("tc")?;
    Ok(String::from_utf8_lossy(&shown.stdout).contains("clsact"))
}

/// Whether an interface is tapped by filters that ports share, as is pinned.
fn has_mark(conmond: &Conmond, link: &Link) -> Result<bool> {
    let mark = format!("taps/{}-clsact-shared", link.index);
    Ok(std::fs::read_dir(pins_of(conmond))?.flatten().any(|set| set.path().join(&mark).exists()))
}

#[test]
fn root_a_link_that_joins_no_bridge_is_let_go() -> Result<()> {
    with_conmond("early", &[], ConmondOptions::default(), |_, host, conmond| {
        // by Docker's name for ports; the end that stays is the second that the kernel makes
        ip(host, "link add vethc0ffee1 type veth peer name vethc0ffee2")?;
        ip(host, "link add lab1 type veth peer name lab2")?;
        wait_for("a tap of what may become a port", READY, || {
            Ok(is_tapped(host, "vethc0ffee1")?.then_some(()))
        })?;
        for other in ["vethc0ffee2", "lab1", "lab2"] {
            ensure!(!is_tapped(host, other)?, "{other} is tapped");
        }
        wait_for(
            "its end",
            Duration::from_secs(10),
            || Ok((!is_tapped(host, "vethc0ffee1")?).then_some(())),
        )?;
        let status = conmond.ctl(&["status"])?;
        ensure!(status["counts"]["ports"] == 0, "{status}");
        // come up, it is let go before it is two seconds old
        ip(host, "link add vethc0ffee3 type veth peer name vethc0ffee4")?;
        ip(host, "link set vethc0ffee4 up")?;
        ip(host, "link set vethc0ffee3 up")?;
        wait_for("no tap", Duration::from_secs(1), || {
            Ok((!has_mark(conmond, &host.namespace().link("vethc0ffee3")?)?).then_some(()))
        })?;
        // it is not up to us to drop its packets: the qdisc goes when there are none
        wait_for("no qdisc", READY, || Ok((!is_tapped(host, "vethc0ffee3")?).then_some(())))?;
        // gone before anybody has looked at them twice
        for n in 0..40 {
            let (name, peer) = (format!("vethc1ffe{n:02x}"), format!("vethc2ffe{n:02x}"));
            ip(host, &format!("link add {name} type veth peer name {peer}"))?;
            ip(host, &format!("link del {name}"))?;
        }
        pins_are_the_daemon_s(conmond)?;
        // somebody removes the device that holds the filters which ports share
        let holder =
            || Ok(host.links()?.into_iter().map(|link| link.name).find(|name| name.starts_with("conmon-")));
        let device = holder()?.context("there is no device of ours")?;
        ip(host, &format!("link del {device}"))?;
        wait_for("our device again", READY, holder)?;
        ip(host, "link add vethc3ffee1 type veth peer name vethc3ffee2")?;
        wait_for("a tap after that", READY, || Ok(is_tapped(host, "vethc3ffee1")?.then_some(())))?;
        let shown =
            host.command("tc").args(["qdisc", "show", "dev", "vethc3ffee1"]).output().context("tc")?;
        ensure!(String::from_utf8_lossy(&shown.stdout).contains("ingress_block"), "its filters are its own");
        ip(host, "link del vethc3ffee1")?;
        Ok(())
    })
}
