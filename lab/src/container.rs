//! Containers: how one is to be run ([`Spec`]) and a handle to one that exists ([`Container`]).

use crate::host::Host;
use crate::image::App;
use crate::netns::{Link, enter, links_of};
use crate::run::output;
use crate::wait::wait_for;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How a container is to be run.
#[derive(Debug, Clone)]
pub struct Spec {
    name: String,
    image: Image,
    options: Vec<String>,
    command: Vec<String>,
}

#[derive(Debug, Clone)]
enum Image {
    App(App),
    Named(String),
}

impl Spec {
    /// A container of one of the lab's applications; its image is imported when it is not there.
    /// Engines want names of at least two characters.
    pub fn app(name: &str, app: App) -> Self {
        Self::with(name, Image::App(app))
    }

    /// A container of an image the engine has already.
    pub fn image(name: &str, image: &str) -> Self {
        Self::with(name, Image::Named(image.to_string()))
    }

    fn with(name: &str, image: Image) -> Self {
        Self { name: name.to_string(), image, options: Vec::new(), command: Vec::new() }
    }

    /// What runs in it, instead of the image's own command.
    pub fn command<S: Into<String>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.command = words.into_iter().map(Into::into).collect();
        self
    }

    /// A script for the shell that every image of the lab carries.
    pub fn shell(self, script: &str) -> Self {
        self.command(["/bin/sh", "-c", script])
    }

    /// Any further option of `docker create`, such as `--cpus=0.5`.
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// The network it joins; the engine's default bridge otherwise.
    pub fn network(self, network: &str) -> Self {
        self.option(format!("--network={network}"))
    }

    /// A further name on its user-defined network.
    pub fn alias(self, alias: &str) -> Self {
        self.option(format!("--network-alias={alias}"))
    }

    /// A label.
    pub fn label(self, key: &str, value: &str) -> Self {
        self.option(format!("--label={key}={value}"))
    }

    /// The labels Compose would set, and the service's name on the network.
    pub fn compose(self, project: &str, service: &str) -> Self {
        let labelled =
            self.label("com.docker.compose.project", project).label("com.docker.compose.service", service);
        labelled.label("com.docker.compose.container-number", "1").label("com.docker.compose.oneoff", "False")
    }

    /// Publishes a port: `8080:80`, `127.0.0.1:53:53/udp`.
    pub fn publish(self, ports: &str) -> Self {
        self.option(format!("--publish={ports}"))
    }

    /// An environment variable.
    pub fn env(self, key: &str, value: &str) -> Self {
        self.option(format!("--env={key}={value}"))
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn app_of(&self) -> Option<App> {
        match self.image {
            Image::App(app) => Some(app),
            Image::Named(_) => None,
        }
    }

    /// The arguments of `docker create`.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let image = match &self.image {
            Image::App(app) => app.image(),
            Image::Named(name) => name,
        };
        let mut args = vec![format!("--name={}", self.name)];
        args.extend(self.options.iter().cloned());
        args.push(image.to_string());
        args.extend(self.command.iter().cloned());
        args
    }
}

/// A container that exists. Its removal is the lab's job; [`Container::remove`] is for tests about that.
#[derive(Debug, Clone)]
pub struct Container {
    host: Host,
    id: String,
    name: String,
}

/// The two ends of a container's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The end in the container, such as `eth0`.
    pub inside: Link,
    /// The end on the host's bridge. Its `rx` is what the container sent.
    pub outside: Link,
}

impl Container {
    pub(crate) fn new(host: Host, id: String, name: String) -> Self {
        Self { host, id, name }
    }

    /// Full id: 64 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its name at creation.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host it is on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Starts it. Returns when the engine says so: its process runs then.
    pub fn start(&self) -> Result<()> {
        self.post("start")
    }

    /// Stops it: SIGTERM, and SIGKILL after `grace`, which the engine takes in whole seconds.
    pub fn stop(&self, grace: Duration) -> Result<()> {
        self.post(&format!("stop?t={}", grace.as_secs()))
    }

    /// Sends it a signal by name, such as `SIGUSR1`.
    pub fn kill(&self, signal: &str) -> Result<()> {
        self.post(&format!("kill?signal={signal}"))
    }

    /// Restarts it without a grace period.
    pub fn restart(&self) -> Result<()> {
        self.post("restart?t=0")
    }

    /// Gives it another name. The handle goes by the id and stays good.
    pub fn rename(&self, name: &str) -> Result<()> {
        self.post(&format!("rename?name={name}"))
    }

    /// Kills and removes it.
    pub fn remove(&self) -> Result<()> {
        self.host.api("DELETE", &format!("/containers/{}?force=1&v=1", self.id), None).map(drop)
    }

    /// Connects it to a further network.
    pub fn connect(&self, network: &str) -> Result<()> {
        self.network_verb(network, "connect")
    }

    /// Disconnects it from a network.
    pub fn disconnect(&self, network: &str) -> Result<()> {
        self.network_verb(network, "disconnect")
    }

    fn network_verb(&self, network: &str, verb: &str) -> Result<()> {
        let body = json!({ "Container": self.id });
        self.host.api("POST", &format!("/networks/{network}/{verb}"), Some(&body)).map(drop)
    }

    fn post(&self, verb: &str) -> Result<()> {
        let result = self.host.api("POST", &format!("/containers/{}/{verb}", self.id), None);
        result.map(drop).with_context(|| format!("container {}", self.name))
    }

    /// What the engine knows of it.
    pub fn inspect(&self) -> Result<Value> {
        self.host.api("GET", &format!("/containers/{}/json", self.id), None)
    }

    /// Process id of its first process, as the host sees it; an error when it does not run.
    pub fn pid(&self) -> Result<u32> {
        let pid = self.inspect()?["State"]["Pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        pid.filter(|&pid| pid != 0).with_context(|| format!("container {} does not run", self.name))
    }

    /// Whether it runs.
    pub fn is_running(&self) -> Result<bool> {
        Ok(self.inspect()?["State"]["Running"] == true)
    }

    /// Its IPv4 address on a network (`bridge` is the engine's default one).
    pub fn ipv4(&self, network: &str) -> Result<IpAddr> {
        self.address(network, "IPAddress")
    }

    /// Its IPv6 address on a network.
    pub fn ipv6(&self, network: &str) -> Result<IpAddr> {
        self.address(network, "GlobalIPv6Address")
    }

    fn address(&self, network: &str, field: &str) -> Result<IpAddr> {
        let inspect = self.inspect()?;
        let text = inspect["NetworkSettings"]["Networks"][network][field].as_str().unwrap_or_default();
        text.parse().with_context(|| format!("container {} has no {field} on network {network}", self.name))
    }

    /// File of its network namespace, as long as it runs.
    pub fn namespace(&self) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/ns/net", self.pid()?)))
    }

    /// A program of this machine, to be run in the container's network namespace.
    pub fn command_in_network(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        Ok(enter(&self.namespace()?, program))
    }

    /// Its interfaces, loopback apart, both ends with their counters, in order of the names inside.
    pub fn ports(&self) -> Result<Vec<Port>> {
        let outside = self.host.links()?;
        let inside = links_of(self.command_in_network("ip")?)?;
        let mut ports = Vec::new();
        for inside in inside.into_iter().filter(|link| link.peer_index.is_some()) {
            // Indexes are unique within one namespace only; the peer must point back.
            let peer = outside
                .iter()
                .find(|o| Some(o.index) == inside.peer_index && o.peer_index == Some(inside.index));
            let outside =
                peer.with_context(|| format!("no port for {} of container {}", inside.name, self.name))?;
            ports.push(Port { inside, outside: outside.clone() });
        }
        ports.sort_by(|a, b| a.inside.name.cmp(&b.inside.name));
        Ok(ports)
    }

    /// The port of a container that has one interface.
    pub fn port(&self) -> Result<Port> {
        let mut ports = self.ports()?;
        match (ports.pop(), ports.is_empty()) {
            (Some(port), true) => Ok(port),
            _ => bail!("container {} has not exactly one interface", self.name),
        }
    }

    /// Runs a command in the container; returns what it wrote to stdout.
    pub fn exec(&self, words: &[&str]) -> Result<String> {
        let mut command = self.host.docker_command();
        crate::run::output_text(command.args(["exec", &self.id]).args(words))
    }

    /// What it wrote to stdout so far.
    pub fn stdout(&self) -> Result<String> {
        let mut command = self.host.docker_command();
        let out = output(command.args(["logs", &self.id]).stderr(Stdio::null()))?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    /// What it wrote to stdout and then what it wrote to stderr, so far.
    pub fn output(&self) -> Result<String> {
        let mut command = self.host.docker_command();
        let out = command.args(["logs", &self.id]).stdin(Stdio::null()).output().context("docker logs")?;
        Ok([out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat())
    }

    /// Waits until it has ended and returns its exit code.
    pub fn wait(&self, timeout: Duration) -> Result<i64> {
        wait_for(&format!("end of container {}", self.name), timeout, || {
            let state = &self.inspect()?["State"];
            let ended = matches!(state["Status"].as_str(), Some("exited" | "dead"));
            Ok(ended.then(|| state["ExitCode"].as_i64().unwrap_or(-1)))
        })
    }

    /// Waits until a line of its stdout holds `text`, and returns that line.
    pub fn wait_line(&self, text: &str, timeout: Duration) -> Result<String> {
        wait_for(&format!("{text:?} from container {}", self.name), timeout, || {
            Ok(self.stdout()?.lines().find(|line| line.contains(text)).map(str::to_string))
        })
    }

    /// Waits for its end and reads the last line of its stdout: the report of a traffic generator. An exit code
    /// other than zero is an error.
    pub fn report<T: serde::de::DeserializeOwned>(&self, timeout: Duration) -> Result<T> {
        let code = self.wait(timeout)?;
        if code != 0 {
            bail!("container {} ended with code {code}: {}", self.name, self.output()?.trim_end());
        }
        let out = self.stdout()?;
        let last = out.lines().last().with_context(|| format!("container {} printed nothing", self.name))?;
        serde_json::from_str(last).with_context(|| format!("container {} printed {last:?}", self.name))
    }

    /// Ends it with SIGTERM and reads its report.
    pub fn stop_and_report<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        self.kill("SIGTERM")?;
        self.report(Duration::from_secs(20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_becomes_arguments() {
        let spec =
            Spec::app("shop-web-1", App::Nginx).network("front").compose("shop", "web").publish("8080:80");
        let args = spec.command(["nginx", "-g", "daemon off;"]).arguments();
        let image = args.iter().position(|a| a == App::Nginx.image()).unwrap();
        assert!(args[..image].contains(&"--label=com.docker.compose.service=web".to_string()));
        assert!(args[..image].contains(&"--network=front".to_string()));
        assert_eq!(args[0], "--name=shop-web-1");
        assert_eq!(args[image + 1..], ["nginx", "-g", "daemon off;"]);
    }
}
