//! conmond as the compose file says, from the image that the Dockerfile makes, on a real engine.

use crate::packaged::*;
use crate::page::Started;
use crate::process::real_time_allowed;
use anyhow::{Context, Result, ensure};
use lab::{Conmond, Host, find_program, output, output_text, root_test};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The compose file with a host of the lab's in the place of the only host of a machine.
struct Project {
    file: PathBuf,
    host: Host,
    name: String,
}

impl Project {
    fn new(host: &Host, conmond: &Conmond) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        // the recipe alone: what it packs is built
        let mut make = host.command("make");
        make.args(["--old-file=build", "image"]).current_dir(&root).env("DOCKER_BUILDKIT", "0");
        make.env("DOCKER_CONFIG", host.dir().join("docker-cli"));
        output(make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL"))?;

        let text = fs::read_to_string(root.join("packaging/compose.yaml"))?;
        let run = conmond.run_root().display().to_string();
        let more = format!(
            "    environment:\n      CONMON_INSTANCE: {}\n      CONMON_RUN_DIR: {run}\n    labels:\n",
            conmond.instance()
        );
        let changes = [
            // Debian's Compose is of the first generation and knows neither; here the name is given on its command line, and the
            // engine's own default is the machine's control groups wherever they are of version 1
            ("name: conmon\n", String::new()),
            ("    cgroup: host\n", String::new()),
            ("      - /var/run/docker.sock:/", format!("      - {}:/", host.socket().display())),
            ("      - /run/conmon:/run/conmon\n", format!("      - {run}:{run}\n")),
            ("    labels:\n", more),
        ];
        let mut own = text;
        for (from, to) in changes {
            ensure!(own.matches(from).count() == 1, "{from:?} is not once in the compose file");
            own = own.replace(from, &to);
        }
        let file = host.dir().join("compose.yaml");
        fs::write(&file, own)?;
        Ok(Self { file, host: host.clone(), name: conmond.instance().to_owned() })
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let mut compose = self.host.command(find_program("docker-compose", "docker-compose")?);
        compose.arg("--project-name").arg(&self.name).arg("--file").arg(&self.file).args(words);
        output_text(compose.env("DOCKER_CONFIG", self.host.dir().join("docker-cli")))
    }
}

#[test]
fn root_by_the_compose_file_it_works_is_kept_running_and_goes_for_good() -> Result<()> {
    root_test("compose file", |lab| {
        let (host, mut conmond) = host_and_conmond(lab)?;
        let project = Project::new(&host, &conmond)?;
        project.run(&["up", "--detach"])?;
        answers(&conmond).with_context(|| project.run(&["logs"]).unwrap_or_default())?;
        // as the file's first line has it
        let status = project.run(&["exec", "-T", "conmon", "/bin/conmonctl", "status", "-o", "json"])?;
        let status: serde_json::Value = serde_json::from_str(&status).with_context(|| status.clone())?;
        ensure!(status["engine"]["connected"] == true, "{status}");

        let started = Started {
            filter: BTreeSet::from([FILTER]),
            covered: &["CAP_BPF", "CAP_PERFMON"],
            out_of_reach: &["CAP_SYS_NICE"],
        };
        has_its_rights_and_works(&conmond, &host, Path::new("/dev/null"), &started)?;
        let daemon = conmond.pid()?.to_string();
        comes_first(&daemon, real_time_allowed(&daemon)?)?;

        is_kept_running(&mut conmond, &host)?;

        // its engine brings it back, and `down` says so; in the container the engine's socket is at another place than on this host
        let mut down = conmond.command();
        down.args(["down", "--engine", &host.docker_host()]);
        down_is_refused(&conmond, &host, "docker stop ", || output(&mut down).map(drop))?;
        // and from inside it would end before it had begun
        let inside = || project.run(&["exec", "-T", "conmon", "/bin/conmonctl", "down"]).map(drop);
        down_is_refused(&conmond, &host, "stop the container", inside)?;
        // as the file's head has it
        project.run(&["stop"])?;
        let told = project.run(&["run", "--rm", "conmon", "down"])?;
        ensure!(told.contains("was not running"), "{told}");
        project.run(&["down"])?;
        is_gone_for_good(&conmond, &host)
    })
}
