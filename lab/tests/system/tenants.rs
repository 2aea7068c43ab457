//! Two tenants on one host that talk to themselves and to each other, asked for over TLS: a tenant's token shows nothing
//! of the other, on any path of the API's document, with real taps, monitors and an engine behind it.

use crate::support::*;
use anyhow::{Context, Result, bail, ensure};
use lab::{App, Conmond, ConmondOptions, Container, Host, Spec, program, wait_for};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const ADDRESS: &str = "127.0.0.1:9478";
const OTHER: &str = "blog";

/// What `conmonctl ca` made, removed at the end.
struct Pki(PathBuf);

impl Pki {
    fn new() -> Result<Self> {
        let pki = Self(std::env::temp_dir().join(format!("conmon-lab-pki-{}", std::process::id())));
        pki.ca(&["init"])?;
        pki.ca(&["host", "web1", "--address", "127.0.0.1"])?;
        pki.ca(&["operator", "alice"])?;
        Ok(pki)
    }

    /// Runs `conmonctl ca ARGS`; what it printed.
    fn ca(&self, args: &[&str]) -> Result<String> {
        let out =
            Command::new(program("conmonctl")?).arg("ca").arg("--dir").arg(&self.0).args(args).output()?;
        ensure!(out.status.success(), "conmonctl ca {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        Ok(String::from_utf8(out.stdout)?.trim().to_owned())
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// conmond as the host `web1`, reachable over TLS.
    fn options(&self) -> ConmondOptions {
        let env = [
            ("CONMON_LISTEN", ADDRESS.to_owned()),
            ("CONMON_HOST_NAME", "web1".to_owned()),
            ("CONMON_TLS_CERTIFICATE", self.path("hosts/web1/host.crt")),
            ("CONMON_TLS_KEY", self.path("hosts/web1/host.key")),
            ("CONMON_TLS_CA", self.path("ca.crt")),
            ("CONMON_TLS_TOKENS", self.path("tokens")),
        ];
        ConmondOptions {
            env: env.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            ..ConmondOptions::default()
        }
    }
}

impl Drop for Pki {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Status and body of an answer; `shown` are arguments of curl's.
fn ask(host: &Host, pki: &Pki, path: &str, shown: &[&str]) -> Result<(u16, String)> {
    let mut curl = host.command("curl");
    curl.args(["--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code}"]);
    curl.args(["--cacert", &pki.path("ca.crt")]).args(shown).arg(format!("https://{ADDRESS}{path}"));
    let out = curl.output().context("cannot run curl")?;
    ensure!(out.status.success(), "{path}: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout)?;
    let (body, status) = text.rsplit_once('\n').context("curl tells the status")?;
    Ok((status.parse()?, body.to_owned()))
}

fn of(tenant: &str, name: &str, words: &str) -> Spec {
    Spec::app(name, App::Labgen).network(NET).compose(tenant, name).command(words.split_ascii_whitespace())
}

fn talking(host: &Host, conmond: &Conmond) -> Result<Vec<Container>> {
    let mut all = Vec::new();
    let mut sinks = Vec::new();
    for tenant in [TENANT, OTHER] {
        let sink = host.run(&of(tenant, &format!("{tenant}-sink"), "udp-sink"))?;
        sink.wait_line("listening", READY)?;
        sinks.push(sink.ipv4(NET)?);
        all.push(sink);
    }
    for (tenant, name, to) in [
        (TENANT, "shop-own", sinks[0]),
        (OTHER, "blog-own", sinks[1]),
        (TENANT, "shop-across", sinks[1]),
        (OTHER, "blog-across", sinks[0]),
    ] {
        all.push(host.run(&of(tenant, name, &format!("udp-send --to {to}:9000 --rate 100")))?);
    }
    for (src, dst) in [
        ("shop-own", "shop-sink"),
        ("blog-own", "blog-sink"),
        ("shop-across", "blog-sink"),
        ("blog-across", "shop-sink"),
    ] {
        pair_with(conmond, src, dst, 50)?;
    }
    Ok(all)
}

/// The paths of the API's document that are asked with `method`.
fn paths(method: &str) -> Result<Vec<String>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi/conmon.json");
    let document: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
    let paths = document["paths"].as_object().context("the document has paths")?;
    Ok(paths.iter().filter(|(_, by)| by.get(method).is_some()).map(|(path, _)| path.clone()).collect())
}

#[test]
fn root_a_tenants_token_shows_that_tenants_rows_and_nothing_else() -> Result<()> {
    if !built("tenants over TLS", &["conmonctl"])? {
        return Ok(());
    }
    let pki = Pki::new()?;
    let token = pki.ca(&["tenant-token", TENANT])?;
    let bearer = format!("authorization: Bearer {token}");
    let as_tenant = ["-H", bearer.as_str()];
    let (certificate, key) =
        (pki.path("operators/alice/operator.crt"), pki.path("operators/alice/operator.key"));
    let as_operator = ["--cert", &certificate, "--key", &key];
    with_conmond("tenants over TLS", &[], pki.options(), |_, host, conmond| {
        let _containers = talking(host, conmond)?;
        let asked = paths("get")?;
        ensure!(asked.len() >= 12, "{asked:?}");
        for path in asked {
            let (status, all) = ask(host, &pki, &path, &as_operator)?;
            ensure!(status == 200, "{path} for an operator: {status} {all}");
            let (status, own) = ask(host, &pki, &path, &as_tenant)?;
            ensure!(!own.contains(OTHER), "{path} tells tenant {TENANT} of {OTHER}: {own}");
            match path.as_str() {
                "/v1/status" | "/v1/doctor" | "/v1/clocks" => {
                    ensure!(status == 403, "{path}: {status} {own}")
                }
                "/v1/health" | "/v1/openapi.json" => ensure!(status == 200, "{path}: {status} {own}"),
                _ => {
                    ensure!(status == 200 && own.contains(TENANT), "{path}: {status} {own}");
                    ensure!(
                        all.contains(OTHER),
                        "{path}: there is something to be kept from {TENANT}: {all}"
                    );
                }
            }
            let narrowed = [&as_operator[..], &["-H", "conmon-tenant: shop"]].concat();
            let (_, narrow) = ask(host, &pki, &path, &narrowed)?;
            ensure!(!narrow.contains(OTHER), "{path} for an operator as {TENANT}: {narrow}");
            let (status, nobody) = ask(host, &pki, &path, &[])?;
            ensure!(status == 401 && !nobody.contains(TENANT), "{path} for nobody: {status} {nobody}");
        }
        // What is posted is between hosts.
        let posted = paths("post")?;
        ensure!(!posted.is_empty());
        for path in posted {
            for (shown, wanted) in [(&as_operator[..], 403), (&as_tenant[..], 403), (&[], 401)] {
                let (status, body) = ask(host, &pki, &path, &[shown, &["--data", "{}"]].concat())?;
                ensure!(status == wanted && !body.contains(OTHER), "{path}: {status} {body}");
            }
        }
        let (_, ledger) = ask(host, &pki, "/v1/ledger", &as_tenant)?;
        let ledger: Value = serde_json::from_str(&ledger)?;
        ensure!(ledger["ledger"]["balanced"] == true && rows(&ledger, "ports").len() == 3, "{ledger}");
        for level in ["container", "service", "host", "tenant"] {
            let (_, pairs) = ask(host, &pki, &format!("/v1/pairs?level={level}"), &as_tenant)?;
            ensure!(!pairs.contains(OTHER) && pairs.contains("another tenant"), "{level}: {pairs}");
        }
        by_command_line(host, conmond, &pki, &token)?;

        // Taken away, without a restart.
        fs::write(pki.path("tokens"), "")?;
        wait_for("the token to be known no more", Duration::from_secs(10), || {
            // a connection that was let in by the former tokens is cut, this one too if it falls into that moment
            let answer = ask(host, &pki, "/v1/pairs", &as_tenant);
            Ok(answer.is_ok_and(|(status, _)| status == 401).then_some(()))
        })?;
        let checks = doctor(conmond)?;
        for name in ["certificate", "tls files", "secrets"] {
            let check =
                row(&checks, "checks", "name", name).with_context(|| format!("no check {name}: {checks}"))?;
            ensure!(check["ok"] == true, "{check}");
        }
        Ok(())
    })
}

/// The same by `conmonctl --host`.
fn by_command_line(host: &Host, conmond: &Conmond, pki: &Pki, token: &str) -> Result<()> {
    let file = pki.path("shop.token");
    fs::write(&file, token)?;
    let run = |more: &[&str], verb: &[&str]| -> Result<String> {
        let mut command = host.command(program("conmonctl")?);
        command
            .args(["--host", &format!("https://{ADDRESS}"), "--ca", &pki.path("ca.crt")])
            .args(more)
            .args(verb);
        let out = command.output()?;
        let said = [out.stdout, out.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        if !out.status.success() {
            bail!("conmonctl {verb:?}: {said}");
        }
        Ok(said)
    };
    let as_tenant = ["--token-file", file.as_str()];
    let (certificate, key) =
        (pki.path("operators/alice/operator.crt"), pki.path("operators/alice/operator.key"));
    let as_operator = ["--cert", certificate.as_str(), "--key", key.as_str()];
    for verb in ["pairs", "flows", "containers", "monitors", "measurements", "events", "ledger"] {
        let own = run(&as_tenant, &[verb])?;
        ensure!(!own.contains(OTHER) && own.contains(TENANT), "{verb}: {own}");
        ensure!(run(&as_operator, &[verb])?.contains(OTHER), "{verb}");
    }
    ensure!(run(&as_operator, &["status"])?.contains("web1"));
    ensure!(run(&as_operator, &["explain", "shop-own", "shop-sink"])?.contains("shop-own"));
    ensure!(run(&as_tenant, &["status"]).is_err_and(|error| error.to_string().contains("whole host")));
    // by the socket it is the same host
    ensure!(conmond.ctl(&["status"])?["host"] == "web1");
    Ok(())
}
