//! A project of a real Compose: its containers and services bear the project's names, a service that is scaled up and down is the sum of
//! its containers, and a container that is made anew under an old name is another one.

use crate::support::*;
use anyhow::{Context, Result, ensure};
use lab::traffic::UdpSent;
use lab::{App, Conmond, ConmondOptions, Host, find_program, output_text, wait_for};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// Datagrams of a loader, and then it stays.
const DATAGRAMS: u64 = 300;

/// A project in the host's folder.
struct Project<'a> {
    host: &'a Host,
    file: PathBuf,
}

impl<'a> Project<'a> {
    /// Services are found by their names, as in any project.
    fn new(host: &'a Host) -> Result<Self> {
        let image = host.image(App::Labgen)?;
        let text = format!(
            "services:\n  \
               web:\n    image: {image}\n    command: udp-sink\n    stop_grace_period: 1s\n  \
               loader:\n    image: {image}\n    depends_on: [web]\n    stop_grace_period: 1s\n    \
                 command: udp-send --to web:9000 --rate 1000 --count {DATAGRAMS} --hold 1\n"
        );
        let file = host.dir().join("compose.yaml");
        fs::write(&file, text)?;
        Ok(Self { host, file })
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let mut compose = self.host.command(find_program("docker-compose", "docker-compose")?);
        compose.args(["--project-name", TENANT, "--file"]).arg(&self.file).args(words);
        output_text(compose.env("DOCKER_CONFIG", self.host.dir().join("docker-cli")))
    }

    /// The ids of a service's containers, by their names.
    fn containers(&self, service: &str) -> Result<BTreeMap<String, String>> {
        let filter = format!("label=com.docker.compose.service={service}");
        let format = "{{.Names}} {{.ID}}";
        let all =
            self.host.docker(&["ps", "--all", "--no-trunc", "--filter", &filter, "--format", format])?;
        Ok(all.lines().filter_map(|l| l.split_once(' ')).map(|(n, id)| (n.into(), id.into())).collect())
    }

    /// What each container of a service says that it sent, by its id, once all have.
    fn sent(&self, service: &str) -> Result<BTreeMap<String, u64>> {
        wait_for(&format!("reports of {service}"), END, || {
            let mut all = BTreeMap::new();
            for id in self.containers(service)?.into_values() {
                let log = self.host.docker(&["logs", &id])?;
                let Some(line) = log.lines().find(|line| line.contains("\"first_ns\"")) else {
                    return Ok(None);
                };
                let sent: UdpSent = serde_json::from_str(line).with_context(|| line.to_owned())?;
                all.insert(id, sent.sent);
            }
            Ok(Some(all))
        })
    }
}

/// Waits until the rows of loaders and webs show what is known to have been sent, by the loader's id, all of them and no more; and at
/// the services' level their sum.
fn holds(conmond: &Conmond, sent: &BTreeMap<String, u64>) -> Result<()> {
    lab::wait_until("every loader's packets", END, || {
        let answer = conmond.ctl(&["pairs"])?;
        let mut counted = BTreeMap::<String, u64>::new();
        for pair in rows(&answer, "pairs") {
            if pair["src"]["service"] == "loader" && pair["dst"]["service"] == "web" {
                let id = pair["src"]["id"].as_str().context("a loader without an id")?;
                *counted.entry(id.to_owned()).or_default() += packets(&pair["sent"]);
                ensure!(pair["src"]["tenant"] == TENANT && pair["dst"]["tenant"] == TENANT, "{pair}");
            }
        }
        ensure!(counted == *sent, "{counted:?}, but {sent:?} were sent");
        let answer = conmond.ctl(&["pairs", "--level", "service"])?;
        let service = pair(&answer, "loader", "web").context("no row of the services")?;
        let sum: u64 = sent.values().sum();
        ensure!(packets(&service["sent"]) == sum, "{sum} were sent, but {service}");
        Ok(())
    })
}

/// Waits until conmond knows these containers of a service, and no others.
fn knows(conmond: &Conmond, project: &Project<'_>, service: &str, number: usize) -> Result<()> {
    let all = project.containers(service)?;
    ensure!(all.len() == number, "{number} of {service} were asked for: {all:?}");
    conmond.wait_ctl(&format!("{number} of {service}"), READY, &["containers"], |answer| {
        let ours = rows(answer, "containers").iter().filter(|c| c["service"] == service);
        let ours: BTreeMap<String, String> = ours
            .filter(|c| c["tenant"] == TENANT && c["state"] == "running")
            .map(|c| {
                (c["name"].as_str().unwrap_or_default().into(), c["id"].as_str().unwrap_or_default().into())
            })
            .collect();
        (ours == all).then_some(())
    })
}

#[test]
fn root_a_compose_project_is_scaled_recreated_and_gone() -> Result<()> {
    with_conmond("compose project", &[], ConmondOptions::default(), |_, host, conmond| {
        let project = Project::new(host)?;
        let mut sent = BTreeMap::new();
        for loaders in [1, 3] {
            project.run(&["up", "--detach", "--scale", "web=2", "--scale", &format!("loader={loaders}")])?;
            knows(conmond, &project, "web", 2)?;
            knows(conmond, &project, "loader", loaders)?;
            sent.extend(project.sent("loader")?);
            ensure!(sent.len() == loaders && sent.values().all(|n| *n == DATAGRAMS), "{sent:?}");
            holds(conmond, &sent)?;
        }
        project.run(&["up", "--detach", "--scale", "web=1", "--scale", "loader=1"])?;
        knows(conmond, &project, "web", 1)?;
        knows(conmond, &project, "loader", 1)?;
        holds(conmond, &sent)?;

        // the same name, and as likely as not the same address: another container
        let before = project.containers("loader")?;
        project.run(&["up", "--detach", "--force-recreate", "--no-deps", "loader"])?;
        knows(conmond, &project, "loader", 1)?;
        let after = project.containers("loader")?;
        ensure!(before.keys().eq(after.keys()) && before != after, "{before:?} became {after:?}");
        sent.extend(project.sent("loader")?);
        ensure!(sent.len() == 4, "{sent:?}");
        holds(conmond, &sent)?;

        // paused and going on, as the project has it
        project.run(&["pause", "web"])?;
        let web = |state: &str| {
            conmond.wait_ctl(state, READY, &["containers"], |answer| {
                (row(answer, "containers", "service", "web")?["state"] == *state).then_some(())
            })
        };
        web("paused")?;
        project.run(&["unpause", "web"])?;
        web("running")?;

        balanced(conmond)?;
        project.run(&["down"])?;
        conmond.wait_ctl("nobody of the project", READY, &["containers"], |answer| {
            (!rows(answer, "containers").iter().any(|c| c["tenant"] == TENANT)).then_some(())
        })
    })
}
