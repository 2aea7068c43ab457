//! What the running processes may do, as the kernel tells it, against docs/privileges.md: started by hand, by systemd as the unit
//! file says, as a container as the compose file says; and an intruder in a monitoring container who tries for more.

mod compose;
mod intruder;
#[path = "../common/left.rs"]
mod left;
mod monitor;
mod packaged;
mod page;
mod process;
mod unit;

use anyhow::{Result, ensure};
use intruder::intrude;
use lab::{Conmond, ConmondOptions, output_text, root_test};
use monitor::{Monitor, sees_only_its_own, talk};
use packaged::comes_first;
use page::{CONTROLLER, MONITOR, Started, has_the_descriptors, has_the_rights};
use process::of_all_threads;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(30);
const NET: &str = "net";

#[test]
fn root_processes_may_do_what_the_page_says_and_no_more() -> Result<()> {
    root_test("privileges", |lab| {
        let host = lab.host("h1")?;
        host.network(NET, None)?;
        let conmond = Conmond::start(&host, ConmondOptions::default())?;
        let (shop, bank) = (talk(&host, "shop")?, talk(&host, "bank")?);
        let monitor = Monitor::of(&conmond, &host, "shop")?;
        let other = Monitor::of(&conmond, &host, "bank")?;

        // the controller
        let daemon = conmond.pid()?.to_string();
        // it was started by this process's children
        let filter = of_all_threads("self", "Seccomp")?;
        let started = Started { filter, covered: &[], out_of_reach: &[] };
        has_the_rights(CONTROLLER, &daemon, &started)?;
        has_the_descriptors(CONTROLLER, &daemon, &conmond.log())?;
        comes_first(&daemon, true)?;

        // a monitoring container
        has_the_rights(MONITOR, &monitor.pid, &started)?;
        has_the_descriptors(MONITOR, &monitor.pid, Path::new("/dev/null"))?;
        sees_only_its_own(&monitor, shop, &other, bank)?;
        intrude(&conmond, &host, &monitor, &other, bank)?;
        // and the monitor goes on
        let still = Monitor::of(&conmond, &host, "shop")?;
        ensure!(
            (still.id, still.pid) == (monitor.id, monitor.pid),
            "the intruder cost the monitor its place"
        );
        // what others would see with a shell on the host
        let mode = output_text(Command::new("stat").args(["-c", "%a %U"]).arg(conmond.socket()))?;
        ensure!(mode == "660 root" || mode == "600 root", "the API's socket is {mode}");
        Ok(())
    })
}
