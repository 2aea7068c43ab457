//! What the running processes may do, as the kernel tells it, against docs/privileges.md; and an intruder in a monitoring
//! container who tries for more.

use anyhow::{Context, Result, bail, ensure};
use lab::{App, Conmond, ConmondOptions, Host, Spec, output_text, program, root_test, wait_for};
use nix::errno::Errno;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tap::Descriptors;

const WAIT: Duration = Duration::from_secs(30);
const NET: &str = "net";

/// The page's sections on the two kinds of processes.
const CONTROLLER: &str = "conmond, the controller";
const MONITOR: &str = "PM containers";

/// The rows of the table whose first column has this head, in this section of the page, without that head.
fn table(section: &str, head: &str) -> Result<Vec<Vec<String>>> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/privileges.md"))?;
    let lines = page.lines().skip_while(|line| line.strip_prefix("## ") != Some(section)).skip(1);
    let lines = lines.take_while(|line| !line.starts_with("## "));
    let rows = lines.skip_while(|line| !line.starts_with(&format!("| {head} |"))).skip(2);
    let rows: Vec<Vec<String>> = rows
        .map_while(|line| line.strip_prefix('|')?.strip_suffix('|'))
        .map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect();
    ensure!(!rows.is_empty(), "the page has no table {head:?} in its section {section:?}");
    Ok(rows)
}

/// What stands in a cell as code.
fn names(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// A line of `/proc/PID/status`.
fn status(pid: &str, key: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("{key} in {text}"))?.trim().to_owned())
}

/// The numbers in that line, each thread's, since each has its own.
fn of_all_threads(pid: &str, key: &str) -> Result<BTreeSet<u64>> {
    let radix = if key.starts_with("Cap") { 16 } else { 10 };
    let mut all = BTreeSet::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let id = thread.file_name().to_string_lossy().into_owned();
        for word in status(&format!("{pid}/task/{id}"), key)?.split_whitespace() {
            all.insert(u64::from_str_radix(word, radix).with_context(|| format!("{key}: {word}"))?);
        }
    }
    Ok(all)
}

/// A process's rights against the page's table of them.
fn has_the_rights(section: &str, pid: &str) -> Result<()> {
    let mut told = BTreeSet::new();
    for row in table(section, "`/proc/PID/status`")? {
        let [fields, value, ..] = &row[..] else { bail!("{row:?} tells no value") };
        for field in names(fields) {
            let wanted = match value.as_str() {
                "those above" => BTreeSet::from([documented_capabilities()?]),
                // it was started by this process's children
                "as started" => of_all_threads("self", field)?,
                number => BTreeSet::from([number.parse().with_context(|| format!("{field}: {number}"))?]),
            };
            let found = of_all_threads(pid, field)?;
            ensure!(found == wanted, "{section}: {field} is {found:x?}, not {wanted:x?} as the page has it");
            told.insert(field.to_owned());
        }
    }
    let all = ["Uid", "Gid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"];
    ensure!(told == all.map(str::to_owned).into(), "{section}: the page tells of {told:?}, not of {all:?}");
    Ok(())
}

/// The names of threads that are not in the ordinary scheduling class.
fn real_time_threads(pid: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let stat = fs::read_to_string(thread.path().join("stat"))?;
        let (name, rest) = stat.rsplit_once(')').with_context(|| stat.clone())?;
        // proc_pid_stat(5): the name is the second, the policy the 41st
        let policy = rest.split_whitespace().nth(41 - 3).with_context(|| stat.clone())?;
        if policy != "0" {
            names.push(name.split_once('(').map_or(name, |(_, name)| name).to_owned());
        }
    }
    Ok(names)
}

/// The mask of the capabilities that the page lists.
fn documented_capabilities() -> Result<u64> {
    // linux/capability.h
    let numbers = BTreeMap::from([
        ("CAP_CHOWN", 0),
        ("CAP_NET_ADMIN", 12),
        ("CAP_SYS_ADMIN", 21),
        ("CAP_PERFMON", 38),
        ("CAP_BPF", 39),
    ]);
    let mut mask = 0;
    for row in table(CONTROLLER, "Capability")? {
        for name in row.first().into_iter().flat_map(|cell| names(cell)) {
            mask |=
                1u64 << numbers.get(name).with_context(|| format!("{name}: its number is not known here"))?;
        }
    }
    ensure!(mask != 0, "the page lists no capability");
    Ok(mask)
}

/// Open descriptors by number, and what they are of.
fn descriptors(pid: &str) -> Result<BTreeMap<u32, String>> {
    let mut all = BTreeMap::new();
    for descriptor in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let Ok(target) = fs::read_link(descriptor.path()) else { continue };
        let number = descriptor.file_name().to_string_lossy().parse()?;
        all.insert(number, target.to_string_lossy().into_owned());
    }
    Ok(all)
}

/// The kind of what a descriptor is of: a file's is its name.
fn kind(target: &str) -> String {
    match target.split_once(':') {
        Some(("anon_inode", what)) => what.trim_matches(['[', ']']).to_owned(),
        Some((kind @ ("socket" | "pipe"), _)) => kind.to_owned(),
        _ => Path::new(target).file_name().map_or(target.to_owned(), |n| n.to_string_lossy().into_owned()),
    }
}

/// A process's open descriptors against the page's table of them; `log` is where its standard streams may go beside
/// `/dev/null` and pipes.
fn has_the_descriptors(section: &str, pid: &str, log: &Path) -> Result<()> {
    let before = descriptors(pid)?;
    std::thread::sleep(Duration::from_millis(300));
    // what is opened, read and closed again is none that it has
    let mut open = descriptors(pid)?;
    open.retain(|number, target| before.get(number) == Some(target));
    // nor is a file that was open when the tests were started, which it was left
    let left = descriptors("self")?;
    open.retain(|number, target| *number < 3 || !target.starts_with('/') || left.get(number) != Some(target));
    for (number, target) in open.extract_if(..3, |_, _| true) {
        let fine = target == "/dev/null" || target.starts_with("pipe:") || Path::new(&target) == log;
        ensure!(fine, "{section}: standard stream {number} is {target}");
    }
    let mut kinds = BTreeMap::<String, Vec<String>>::new();
    for target in open.into_values() {
        kinds.entry(kind(&target)).or_default().push(target);
    }
    for row in table(section, "Descriptor")? {
        let [descriptor, number, ..] = &row[..] else { bail!("{row:?} tells no number") };
        let found: Vec<String> = names(descriptor).filter_map(|name| kinds.remove(name)).flatten().collect();
        let fine = match number.as_str() {
            "any" => true,
            "some" => !found.is_empty(),
            number => {
                found.len() == number.parse::<usize>().with_context(|| format!("{descriptor}: {number}"))?
            }
        };
        ensure!(fine, "{section}: not {number} of {descriptor}, as the page has it: {found:?}");
    }
    ensure!(kinds.is_empty(), "{section}: descriptors that the page does not tell of: {kinds:?}");
    Ok(())
}

/// The numbers that the kernel gives the BPF maps of which a process has descriptors.
fn maps(pid: &str) -> Result<BTreeSet<u32>> {
    let mut all = BTreeSet::new();
    for (descriptor, target) in descriptors(pid)? {
        if kind(&target) == "bpf-map" {
            let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{descriptor}"))?;
            let id = text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok());
            all.insert(id.with_context(|| format!("no number of a map in {text}"))?);
        }
    }
    ensure!(!all.is_empty(), "process {pid} has no map");
    Ok(all)
}

/// BPF maps in a process's memory.
struct Mapping {
    at: u64,
    length: usize,
    /// Whether it may write there, or may have that changed.
    writable: bool,
}

fn mappings(pid: &str) -> Result<Vec<Mapping>> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let (mut all, mut at) = (Vec::new(), None);
    for line in text.lines() {
        if line.ends_with("anon_inode:bpf-map") {
            let (first, rest) = line.split_once('-').with_context(|| line.to_owned())?;
            let last = rest.split(' ').next().unwrap_or_default();
            at = Some((u64::from_str_radix(first, 16)?, u64::from_str_radix(last, 16)?));
        } else if let Some(flags) = line.strip_prefix("VmFlags:")
            && let Some((first, last)) = at.take()
        {
            let writable = flags.split_whitespace().any(|flag| ["wr", "mw"].contains(&flag));
            all.push(Mapping { at: first, length: usize::try_from(last - first)?, writable });
        }
    }
    Ok(all)
}

/// Whether an address stands in the BPF maps that a process has mapped: there they are IPv6, or mapped to it.
fn knows(pid: &str, address: Ipv4Addr) -> Result<bool> {
    let wanted = address.to_ipv6_mapped().octets();
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    for mapping in mappings(pid)? {
        let mut content = vec![0; mapping.length];
        memory.read_exact_at(&mut content, mapping.at)?;
        if content.windows(wanted.len()).any(|octets| octets == wanted) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Starts two containers of a tenant that talk to each other; the address of the one that listens.
fn talk(host: &Host, tenant: &str) -> Result<Ipv4Addr> {
    let spec = |role: &str, words: &str| {
        let name = format!("{tenant}-{role}");
        let spec = Spec::app(&name, App::Labgen).network(NET).compose(tenant, role);
        spec.command(words.split_ascii_whitespace())
    };
    let sink = host.run(&spec("sink", "udp-sink"))?;
    sink.wait_line("listening", WAIT)?;
    let address = sink.ipv4(NET)?;
    host.run(&spec("sender", &format!("udp-send --to {address}:9000 --rate 100")))?;
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => bail!("{tenant}'s sink is at {address}"),
    }
}

/// A working monitoring container.
struct Monitor {
    id: String,
    pid: String,
    /// Its folder on the host.
    folder: PathBuf,
}

impl Monitor {
    /// A tenant's.
    fn of(conmond: &Conmond, host: &Host, tenant: &str) -> Result<Self> {
        let id =
            conmond.wait_ctl(&format!("{tenant}'s monitor"), WAIT, &["monitors"], |answer: &Value| {
                let all = answer["monitors"].as_array()?;
                let monitor = all.iter().find(|m| m["tenant"] == tenant && m["state"] == "working")?;
                Some(monitor["id"].as_str()?.to_owned())
            })?;
        let pid = host.docker(&["inspect", "--format", "{{.State.Pid}}", &id])?;
        let text = host.docker(&["inspect", "--format", "{{json .Mounts}}", &id])?;
        let mounts: Vec<Value> = serde_json::from_str(&text).with_context(|| text.clone())?;
        let [mount] = &mounts[..] else { bail!("{tenant}'s monitor has not one mount: {text}") };
        ensure!(mount["Destination"] == "/run/conmon" && mount["RW"] == false, "{tenant}'s monitor: {mount}");
        let folder = PathBuf::from(mount["Source"].as_str().context("a mount of nothing")?);
        let slots = conmond.run_dir().join("pm");
        ensure!(folder.parent() == Some(&*slots), "{} is not in {}", folder.display(), slots.display());
        Ok(Self { id, pid, folder })
    }

    fn slot(&self) -> Result<&str> {
        self.folder.file_name().and_then(|name| name.to_str()).context("a slot without a name")
    }

    /// Where the maps are pinned that it is handed.
    fn pins(&self, conmond: &Conmond) -> Result<Vec<String>> {
        let folder = Path::new("/sys/fs/bpf/conmon").join(conmond.instance()).join(self.slot()?);
        Ok(Descriptors::NAMES.iter().map(|name| folder.join(name).display().to_string()).collect())
    }
}

/// What a monitoring container sees of BPF maps is its own tenant's, and for reading.
fn sees_only_its_own(monitor: &Monitor, own: Ipv4Addr, other: &Monitor, others: Ipv4Addr) -> Result<()> {
    for (monitor, address) in [(monitor, own), (other, others)] {
        let what = format!("{address} in the maps of {}", monitor.folder.display());
        wait_for(&what, WAIT, || Ok(knows(&monitor.pid, address)?.then_some(())))?;
    }
    ensure!(!knows(&monitor.pid, others)?, "a monitor has another tenant's address {others} in its memory");
    let shared: Vec<u32> = maps(&monitor.pid)?.intersection(&maps(&other.pid)?).copied().collect();
    ensure!(shared.is_empty(), "both tenants' monitors hold the maps {shared:?}");
    ensure!(monitor.folder != other.folder, "both monitors see {}", monitor.folder.display());
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", monitor.pid))?;
    let sees = |slot: &str| mounts.lines().filter(|line| line.contains(&format!("/pm/{slot} "))).count();
    ensure!((sees(monitor.slot()?), sees(other.slot()?)) == (1, 0), "a monitor sees: {mounts}");

    // a ring is mapped twice: the page that its reader writes, and all the rest
    let mapped = mappings(&monitor.pid)?;
    ensure!(mapped.len() == Descriptors::NAMES.len() + 1, "{} mappings of maps", mapped.len());
    let writable: Vec<usize> = mapped.iter().filter(|m| m.writable).map(|m| m.length).collect();
    ensure!(writable == [4096], "a monitor may write {writable:?} octets of BPF maps");
    Ok(())
}

/// Attempts and how they ended, as `labgen trespass` reports them.
type Attempts = BTreeMap<String, String>;

fn trespass(command: &mut Command, to: &str, options: &[(&str, &[String])]) -> Result<Attempts> {
    command.args(["trespass", "--to", to]);
    for (name, list) in options {
        command.arg(format!("--{name}")).arg(list.join(","));
    }
    let text = output_text(command)?;
    serde_json::from_str(&text).with_context(|| text.clone())
}

/// Whether an attempt was refused for this reason.
fn refused(how: &str, reasons: &[Errno]) -> bool {
    reasons.iter().any(|errno| io::Error::from(*errno).to_string() == how)
}

/// What an intruder's attempts are refused with, by how they begin. Any other error would tell that an attempt was none.
const REFUSALS: [(&str, &[Errno]); 12] = [
    ("tcp ", &[Errno::ENETUNREACH]),
    ("udp ", &[Errno::ENETUNREACH]),
    ("socket ", &[Errno::ENOENT]),
    ("find ", &[Errno::ENOENT]),
    ("write /conmond", &[Errno::EACCES]),
    ("write /proc/", &[Errno::EACCES, Errno::EROFS]),
    ("write ", &[Errno::EROFS]),
    ("bpf ", &[Errno::EPERM]),
    ("update ", &[Errno::EPERM]),
    // a filter says of calls that are newer than itself that there are none
    ("take ", &[Errno::EPERM, Errno::EACCES, Errno::ENOSYS]),
    ("memory ", &[Errno::EPERM, Errno::EACCES]),
    ("trace", &[Errno::EPERM, Errno::EACCES]),
];

/// `enum bpf_map_type`
const ARRAY: &str = "2";
const RING: &str = "27";

/// What not even root can do with the maps that a monitor is handed, and so nobody who takes the monitor over. `names`: all of
/// them, and what it has descriptors of.
fn cannot_be_written(names: &[String], root: &Attempts) -> Result<()> {
    let how = |what: &str| -> Result<&str> {
        Ok(root.get(what).with_context(|| format!("{what:?} was not tried: {root:#?}"))?)
    };
    let is_refused = |what: &str, reason: Errno| -> Result<()> {
        let said = how(what)?;
        ensure!(refused(said, &[reason]), "root tried to {what}: {said}");
        Ok(())
    };
    let is_done = |what: &str| -> Result<()> {
        let said = how(what)?;
        ensure!(said == "done", "root tried in vain to {what}: {said}");
        Ok(())
    };
    // a map that is not frozen shows what it is that refuses
    for what in ["update own", "map own page 0 to write"] {
        is_done(what)?;
    }
    for name in names {
        let pages = match how(&format!("type of {name}"))? {
            ARRAY => {
                is_refused(&format!("update {name}"), Errno::EPERM)?;
                0..1
            }
            // how far it was read is its reader's to write, in a page of its own
            RING => {
                ensure!(how(&format!("update {name}"))? != "done", "a ring was updated");
                is_done(&format!("map {name} page 0 to write"))?;
                1..3
            }
            kind => bail!("{name} is of type {kind}, which the page does not tell of"),
        };
        for page in pages {
            is_done(&format!("map {name} page {page} to read"))?;
            is_refused(&format!("map {name} page {page} to write"), Errno::EPERM)?;
        }
    }
    Ok(())
}

/// An intruder in the first one's container tries to leave it and to get at the other's; root on the host shows that the attempts
/// are good ones.
fn intrude(conmond: &Conmond, host: &Host, monitor: &Monitor, other: &Monitor, to: Ipv4Addr) -> Result<()> {
    let owned = |list: &[&str]| -> Vec<String> { list.iter().map(|&text| text.to_owned()).collect() };
    let text = |path: &Path| path.display().to_string();
    let labgen = program("labgen")?;
    fs::copy(&labgen, monitor.folder.join("labgen"))?;
    let sink = format!("{to}:9000");
    let engine = host.docker_host();
    let engine = engine.strip_prefix("unix://").unwrap_or(&engine);
    let pins = [monitor.pins(conmond)?, other.pins(conmond)?].concat();
    let ids = maps(&monitor.pid)?.into_iter().chain(maps(&other.pid)?);
    let ids: Vec<String> = ids.map(|id| id.to_string()).collect();

    // where the other's folder and socket would be, if they were anywhere
    let slot = other.slot()?;
    let seen = [text(&other.folder), text(&conmond.run_dir()), "/sys/fs/bpf/conmon".to_owned()];
    let mut places = seen.to_vec();
    places.extend([".", "pm", ".."].map(|way| format!("/run/conmon/../{way}/{slot}")));
    let mut sockets = owned(&[engine, "/var/run/docker.sock", "/run/docker.sock", &text(&conmond.socket())]);
    sockets.extend(places.iter().map(|place| format!("{place}/mc.sock")));
    // a socket that can be reached is found to be, though nobody speaks there
    let silent = monitor.folder.join("silent.sock");
    let _listener = UnixListener::bind(&silent)?;
    fs::set_permissions(&silent, fs::Permissions::from_mode(0o666))?;
    let reachable = "/run/conmon/silent.sock".to_owned();
    sockets.push(reachable.clone());
    let mut command = host.docker_command();
    command.args(["exec", &monitor.id, "/run/conmon/labgen"]);
    let files = ["/conmond", "/new", "/run/conmon/new", "/proc/sys/kernel/hostname"];
    let mut intruder = trespass(
        &mut command,
        &sink,
        &[
            ("controller", &owned(&["/run/conmon/mc.sock"])),
            ("sockets", &sockets),
            ("files", &owned(&files)),
            ("places", &places),
            ("pins", &pins),
            ("maps", &ids),
        ],
    )?;
    fs::remove_file(&silent)?;
    eprintln!("an intruder: {intruder:#?}");
    let root = trespass(
        &mut host.command(&labgen),
        &sink,
        &[
            ("pid", &owned(&[&monitor.pid])),
            ("sockets", &[engine.to_owned(), text(&conmond.socket()), text(&other.folder.join("mc.sock"))]),
            ("places", &seen),
            ("pins", &pins),
            ("maps", &ids),
        ],
    )?;
    let found = intruder.remove(&format!("socket {reachable}"));
    ensure!(found.as_deref() == Some("done"), "a socket that can be reached is not found: {found:?}");
    let greeted =
        intruder.remove("controller /run/conmon/mc.sock").context("the controller was not called")?;
    let hung_up = io::Error::from(io::ErrorKind::ConnectionAborted).to_string();
    ensure!(greeted == hung_up, "the controller does not hang up on who is not the monitor: {greeted}");
    let wrong = intruder.iter().filter(|(what, how)| {
        let reasons = REFUSALS.iter().find(|(kind, _)| what.starts_with(kind)).map(|(_, reasons)| *reasons);
        !reasons.is_some_and(|reasons| refused(how, reasons))
    });
    let wrong: Vec<_> = wrong.collect();
    ensure!(wrong.is_empty(), "an intruder is not refused, or did not really try: {wrong:#?}");
    for (kind, _) in REFUSALS {
        ensure!(intruder.keys().any(|what| what.starts_with(kind)), "{kind:?} was not tried: {intruder:#?}");
        if !kind.starts_with("write ") && kind != "update " {
            let mut same = root.iter().filter(|(what, _)| what.starts_with(kind)).peekable();
            ensure!(same.peek().is_some(), "{kind:?} was not tried by root: {root:#?}");
            // nobody listens there, but to be told so one must get there
            let failed = same.filter(|(_, how)| {
                *how != "done" && !(kind == "tcp " && refused(how, &[Errno::ECONNREFUSED]))
            });
            let failed: Vec<_> = failed.collect();
            ensure!(failed.is_empty(), "not even root can, so the attempts are none: {failed:#?}");
        }
    }
    let taken: Vec<String> =
        root.keys().filter_map(|what| what.strip_prefix("take ")).map(str::to_owned).collect();
    let names = [monitor.pins(conmond)?, taken].concat();
    let rings =
        names.iter().filter(|name| root.get(&format!("type of {name}")).is_some_and(|kind| kind == RING));
    ensure!(rings.count() == 2, "the ring is pinned once and held once");
    cannot_be_written(&names, &root)
}

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
        has_the_rights(CONTROLLER, &daemon)?;
        has_the_descriptors(CONTROLLER, &daemon, &conmond.log())?;
        let real_time = real_time_threads(&daemon)?;
        ensure!(real_time == ["reflex"; 5], "these run before all others: {real_time:?}");

        // a monitoring container
        has_the_rights(MONITOR, &monitor.pid)?;
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
