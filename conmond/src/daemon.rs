//! What `conmond run` and `conmond clean` do, in order.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use conmon::api::Protocol;
use conmon::instance::Instance;
use conmond::config::{Config, RegistryKind, TapMode};
use conmond::http::{ApiSocket, MetricsSocket, Server, Source, Tls, TlsSocket, api_group};
use conmond::mc::Shared;
use conmond::mc::controller::{Controller, JOURNAL, STATE, Settings};
use conmond::mc::cost::Cost;
use conmond::mc::engine::Engine;
use conmond::mc::shared::{Info, Published};
use conmond::mc::view::View;
use conmond::mc::world::{Room, Wishes};
use conmond::monitor::MfSettings;
use conmond::registry::{HostRow, Protocols, Registry};
use conmond::runtime::{MonitorLimits, Runtime};
use conmond::store::{Names, Store};
use conmond::system::{OverTls, Reflector, System};
use tap::filesystem::BPF_FS;
use tap::{Attach, Dispatcher, Port, Set, SetSpec, fault};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

fn instance(config: &Config) -> anyhow::Result<Instance> {
    Ok(Instance::new(config.instance.clone(), config.run_dir.clone())?)
}

fn pins(config: &Config) -> PathBuf {
    Path::new(BPF_FS).join("conmon").join(&config.instance)
}

/// Pins need the BPF file system; most hosts have it mounted.
fn mount_bpf_fs() -> anyhow::Result<()> {
    let mounted = tap::filesystem::mount_if_missing().with_context(|| {
        format!("cannot mount the BPF file system; run `mount -t bpf bpf {BPF_FS}` as root")
    })?;
    if mounted {
        tracing::info!(path = BPF_FS, "mounted the BPF file system");
    }
    Ok(())
}

/// Before any other thread is there: each has its own capabilities, and passes its priority on.
fn give_up_privileges(runtime: &Runtime) -> anyhow::Result<()> {
    if !conmond::priority::come_first() {
        tracing::info!("without CAP_SYS_NICE at the start, taps and names take their turn on a busy host");
    }
    conmond::mc::reflex::prepare(|| {
        nix::sys::prctl::set_no_new_privs().context("cannot give up gaining privileges")?;
        let address = runtime.address();
        let socket = address.strip_prefix("unix://").map(Path::new);
        conmond::privilege::keep_only_needed(socket).context("cannot give up capabilities")
    })?;
    for need in conmond::privilege::missing() {
        let (capability, why) = (need.capability, need.why);
        match need.without {
            Some(without) => {
                tracing::warn!(%capability, without, "a capability is missing that is needed to {why}")
            }
            None => bail!("{capability} is missing, which is needed to {why}; see docs/privileges.md"),
        }
    }
    Ok(())
}

fn make_run_dir(dir: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(dir).with_context(|| {
        format!("cannot make the run folder {}; run as root or set --run-dir", dir.display())
    })?;
    // the monitors' folders below are for root and them alone
    let pm = dir.join("pm");
    match fs::DirBuilder::new().mode(0o711).create(&pm) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e).with_context(|| format!("cannot make {}", pm.display())),
    }
    fs::set_permissions(&pm, fs::Permissions::from_mode(0o711))?;
    Ok(())
}

fn host_name(config: &Config) -> String {
    config.host_name.clone().unwrap_or_else(|| {
        nix::sys::utsname::uname()
            .map_or_else(|_| "localhost".to_owned(), |n| n.nodename().to_string_lossy().into_owned())
    })
}

fn kernel() -> String {
    nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default()
}

fn settings(config: &Config, instance: &Instance) -> Settings {
    let functions = MfSettings {
        scan_interval_ms: config.scan_interval_ms,
        idle_timeout_s: config.timeouts.idle_seconds,
        end_linger_ms: config.timeouts.end_linger_ms,
        active_timeout_s: config.timeouts.active_seconds,
        pair_idle_s: config.timeouts.pair_idle_seconds,
        ..MfSettings::default()
    };
    let silence = functions.silence();
    Settings {
        run_dir: instance.run_dir(),
        pins: pins(config),
        attach: match config.tap {
            TapMode::Auto => Attach::Quick,
            TapMode::Tcx => Attach::Tcx,
            TapMode::Clsact => Attach::Clsact,
        },
        set: SetSpec {
            flows: config.tables.flows,
            pairs: config.tables.pairs,
            ports: config.tables.ports,
            hists: config.tables.hists,
            ring_bytes: config.tables.ring_bytes,
            ..SetSpec::default()
        },
        functions,
        wishes: Wishes {
            opt_in: config.opt_in,
            pool: config.pool as usize,
            monitors: true,
            silence,
            // a restarted service finds its counters
            linger: Duration::from_secs(config.timeouts.tenant_linger_seconds.into()),
            // known when the first programs are loaded
            fasten: false,
            room: Room {
                flows: config.tables.flows,
                max_flows: config.tables.max_flows.max(config.tables.flows),
                calm: Duration::from_secs(config.tables.calm_seconds.into()),
                max_pairs: config.tables.max_pairs.max(config.tables.pairs),
                max_hists: config.tables.max_hists.max(config.tables.hists),
            },
        },
    }
}

/// The controller, until a signal.
pub fn run(config: &Config) -> anyhow::Result<()> {
    let instance = instance(config)?;
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "conmond needs root (or CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN) to tap ports; start it with sudo"
        );
    }
    if config.tap == TapMode::Tcx && !tap::kernel_has_tcx() {
        bail!(
            "`tap: tcx` cannot be had: this kernel ({}) has no TCX, which Linux 6.6 brought; leave `tap` at `auto`, or set it to `clsact`",
            kernel()
        );
    }
    let host = host_name(config);
    let tls = config.listen.map(|_| Tls::load((&config.tls).into(), &host).map(Arc::new)).transpose();
    let tls = tls.context("`listen` needs keys and certificates (`conmonctl ca`, docs/security.md)")?;
    let runtime = Runtime::new(config.engine_asked_for(), instance.name())?;
    make_run_dir(&instance.run_dir())?;
    // first of all: only one daemon of this instance
    let api = ApiSocket::bind(&instance.socket(), api_group())?;
    let metrics = config.metrics_listen.map(MetricsSocket::bind).transpose()?;
    let secure = match (config.listen, &tls) {
        (Some(address), Some(tls)) => Some(TlsSocket::bind(address, Arc::clone(tls))?),
        _ => None,
    };
    fault::point("start.bound");
    mount_bpf_fs()?;
    give_up_privileges(&runtime)?;

    let settings = settings(config, &instance);
    let info = Info {
        build: crate::BUILD,
        instance: instance.name().to_owned(),
        host: host.clone(),
        kernel: kernel(),
        started_at: conmond::clock::monotonic(),
        silence: settings.wishes.silence,
        retention: Duration::from_secs(config.retention_seconds),
    };
    let shared = Arc::new(Shared::new(
        info,
        Store::new(Duration::from_secs(config.retention_seconds)),
        Names::new(&host, config.external_prefixes.clone()),
        Published::starting(runtime.address(), config.pool),
    ));

    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .thread_name("conmond")
        .on_thread_start(conmond::priority::wait_turn)
        .build()
        .context("cannot start the asynchronous runtime")?;
    let engine = Engine {
        runtime,
        executable: std::env::current_exe().context("cannot find my own executable")?,
        limits: MonitorLimits {
            memory_bytes: config.monitor.memory_bytes,
            cpu_millicores: config.monitor.cpu_millicores,
            pids: config.monitor.pids,
        },
    };
    let controller = Controller::start(settings, shared.clone(), tokio.handle().clone(), engine)?;
    let registry = tokio.block_on(join_system(config, &host, &shared, tls.as_ref()))?;
    // what this thread starts from here on can wait
    conmond::priority::wait_turn();
    let cost = Cost::start(shared.clone());
    let source: Arc<dyn Source> = Arc::new(View::new(shared.clone(), cost.clone(), tls));
    fault::point("start.controller");
    let pid_file = instance.pid_file();
    fs::write(&pid_file, format!("{}\n", std::process::id()))
        .with_context(|| format!("cannot write {}", pid_file.display()))?;
    if let Some(metrics) = &metrics {
        tracing::info!(address = %metrics.address(), "metrics are served at http://{}/metrics", metrics.address());
    }
    if let Some(secure) = &secure {
        tracing::info!(address = %secure.address(), "the API is served over TLS");
    }
    tracing::info!(instance = instance.name(), socket = %instance.socket().display(), "watching; `conmonctl top` shows what");

    let served = tokio.block_on(serve(config, source, api, metrics, secure));
    tracing::info!("stopping; taps stay and go on counting, `conmonctl down` removes them");
    fault::point("stop.served");
    controller.stop();
    fault::point("stop.saved");
    cost.stop();
    if let Some(registry) = registry {
        // the rest of the system need not wait until it is missed
        let left = tokio.block_on(tokio::time::timeout(Duration::from_secs(2), registry.close()));
        if left.is_err() {
            tracing::warn!("the registry does not answer: this host's rows stay there until they run out");
        }
    }
    let _ = fs::remove_file(&pid_file);
    tokio.shutdown_timeout(Duration::from_secs(1));
    served
}

/// Joins the other hosts, where the configuration names a registry for them.
async fn join_system(
    config: &Config,
    host: &str,
    shared: &Arc<Shared>,
    tls: Option<&Arc<Tls>>,
) -> anyhow::Result<Option<Arc<dyn Registry>>> {
    if config.registry == RegistryKind::Embedded {
        return Ok(None);
    }
    let Some(tls) = tls else {
        bail!(
            "`registry` names other hosts, and they cannot ask this one: set `listen: ADDRESS:9478`, with certificates of `conmonctl ca` (docs/security.md)"
        );
    };
    let api = match config.listen {
        Some(listen) if !listen.ip().is_unspecified() => Some(listen),
        Some(listen) => way_out(config).map(|ip| SocketAddr::new(ip, listen.port())),
        None => None,
    };
    if api.is_none() {
        tracing::warn!(
            "others are not told where this host's API is: set `listen` to an address that they reach"
        );
    }
    let wall = conmond::registry::now();
    let row = HostRow {
        name: host.to_owned(),
        api: api.map(|at| format!("https://{at}")),
        addresses: Vec::new(),
        version: crate::BUILD.to_string(),
        protocol: Protocols { min: Protocol::OURS.min, max: Protocol::OURS.max },
        epoch: epoch().context("cannot draw a random number")?,
        since_ns: wall.wall_ns,
    };
    let registry = conmond::registry::open(config, &row).await?;
    let peers = Arc::new(Arc::new(OverTls::new(host, tls.clone())));
    let system = System::start(row, shared.clone(), registry.clone(), peers);
    // at the address that others are told: an answer must come from where the question went
    if let Some(listen) = api.or(config.listen) {
        match Reflector::start(host, listen) {
            Ok(reflector) => system.reflect(reflector),
            Err(error) => tracing::warn!(
                "other hosts cannot compare their clocks with this one's: no UDP socket at {listen}: {error}"
            ),
        }
    }
    shared.set_system(system);
    Ok(Some(registry))
}

/// This host's address on the way to the others.
fn way_out(config: &Config) -> Option<IpAddr> {
    let etcd =
        config.etcd.endpoints.iter().map(|url| url.split_once("://").map_or(url.as_str(), |(_, at)| at));
    let seeds = config.gossip.seeds();
    let all = etcd.map(str::to_owned).chain(seeds);
    all.filter_map(|at| {
        let socket = UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0")).ok()?;
        let to = at.trim_end_matches('/').to_socket_addrs().ok()?.next()?;
        let socket = if to.is_ipv4() { UdpSocket::bind("0.0.0.0:0").ok()? } else { socket };
        // nothing is sent: the kernel only chooses the way
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    })
    .find(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

fn epoch() -> io::Result<u64> {
    let mut octets = [0; 8];
    io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut octets)?;
    Ok(u64::from_ne_bytes(octets))
}

async fn serve(
    config: &Config,
    source: Arc<dyn Source>,
    api: ApiSocket,
    metrics: Option<MetricsSocket>,
    secure: Option<TlsSocket>,
) -> anyhow::Result<()> {
    let (stop, stopped) = watch::channel(false);
    let server = Server::new(source, config.into());
    let mut signals =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    let on_metrics = {
        let (server, stopped) = (server.clone(), stopped.clone());
        tokio::spawn(async move {
            match metrics {
                Some(socket) => server.serve_metrics(socket, stopped).await,
                None => Ok(()),
            }
        })
    };
    let on_tls = {
        let (server, stopped) = (server.clone(), stopped.clone());
        tokio::spawn(async move {
            match secure {
                Some(socket) => server.serve_tls(socket, stopped).await,
                None => Ok(()),
            }
        })
    };
    let on_api = tokio::spawn(async move { server.serve_unix(api, stopped).await });
    let [interrupt, terminate, hangup] = &mut signals;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    let _ = stop.send(true);
    on_api.await?.context("the API's socket failed")?;
    on_metrics.await?.context("the metrics' socket failed")?;
    on_tls.await?.context("the socket for TLS failed")?;
    Ok(())
}

/// What removing the shared filters has cost, and what is left, since removing it would drop packets: of those, and of ports that had filters
/// of their own.
fn tell_of_qdiscs(removed: &tap::Removed, own: &[u32]) {
    let tap::Removed { dropped, left } = removed;
    let names = |all: &[u32]| {
        let name = |i: &u32| nix::net::if_::if_indextoname(*i).ok()?.into_string().ok();
        let some = all.iter().filter_map(name).take(SOME).collect::<Vec<_>>().join(", ");
        match all.len().saturating_sub(SOME) {
            0 => some,
            more => format!("{some} and {more} more"),
        }
    };
    if *dropped > 0 {
        println!("{dropped} packets to containers were dropped by the kernel while qdiscs were removed");
    }
    const SOME: usize = 8;
    const WHY: &str = "removing it could drop packets; it goes with the interface, or by `tc qdisc del dev INTERFACE clsact`";
    if !left.is_empty() {
        println!(
            "a clsact qdisc without filters, on which others cannot put any, is left on {}: {WHY}",
            names(left)
        );
    }
    if !own.is_empty() {
        println!("a clsact qdisc without filters is left on {}: {WHY}", names(own));
    }
}

/// Removes a run folder, the lock of its socket last: until then no daemon can begin there.
fn remove_run_dir(dir: &Path, socket: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    let lock = ApiSocket::lock_path(socket);
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if path == lock {
            continue;
        }
        if entry.file_type()?.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
    }
    match fs::remove_file(&lock) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    match fs::remove_dir(dir) {
        // another daemon has begun
        Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        result => result,
    }
}

/// Removes every trace of an instance.
pub fn clean(config: &Config) -> anyhow::Result<()> {
    let instance = instance(config)?;
    let run_dir = instance.run_dir();
    let _no_daemon = if run_dir.is_dir() {
        // a daemon that runs would make anew what is removed here: binding fails while it does, and none can start until all is done
        let socket =
            ApiSocket::bind(&instance.socket(), None).context("stop the daemon first (conmonctl down)")?;
        Some(socket.into_lock().context("cannot keep a daemon from starting meanwhile")?)
    } else {
        None
    };
    let mut failed = Vec::new();
    let (mut ports, mut own) = (0, Vec::new());
    let dir = pins(config);
    match fs::read_dir(&dir) {
        Ok(sets) => {
            for set in sets.flatten() {
                let path = set.path();
                let removed = Port::adopt(&path, None).and_then(|all| {
                    ports += all.len();
                    own.extend(
                        all.iter().filter(|p| p.how() == "clsact" && !p.is_shared()).map(Port::ifindex),
                    );
                    all.into_iter().try_for_each(Port::detach)
                });
                fault::point("clean.untapped");
                for result in [removed, Set::unpin(&path)] {
                    if let Err(e) = result {
                        failed.push(conmond::mc::controller::chain(&e));
                    }
                }
            }
            if let Err(e) = fs::remove_dir(&dir) {
                failed.push(format!("cannot remove {}: {e}", dir.display()));
            }
            fault::point("clean.unpinned");
            // shared with other instances: goes with the last
            let _ = fs::remove_dir(Path::new(BPF_FS).join("conmon"));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => failed.push(format!("cannot look into {}: {e}", dir.display())),
    }
    // what it leaves in the kernel needs no pins to be found
    match Dispatcher::remove(&dir) {
        Ok(removed) => tell_of_qdiscs(&removed, &own),
        Err(e) => failed.push(conmond::mc::controller::chain(&e)),
    }
    fault::point("clean.holder");
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let runtime = Runtime::new(config.engine_asked_for(), instance.name())?;
    let removed = tokio.block_on(async {
        runtime.connect().await?;
        runtime.remove_everything().await
    });
    fault::point("clean.monitors");
    match removed {
        Ok(removed) => println!(
            "removed {ports} taps, {} monitoring containers and {} images of instance {}",
            removed.containers,
            removed.images,
            instance.name()
        ),
        Err(e) => {
            failed.push(format!("monitoring containers may be left: {}", conmond::mc::controller::chain(&e)))
        }
    }
    for file in [STATE, JOURNAL] {
        let _ = fs::remove_file(run_dir.join(file));
    }
    fault::point("clean.state");
    if let Err(e) = remove_run_dir(&run_dir, &instance.socket()) {
        failed.push(format!("cannot remove {}: {e}", run_dir.display()));
    }
    if failed.is_empty() { Ok(()) } else { bail!("not everything could be removed: {}", failed.join("; ")) }
}
