//! The lab's applications: real servers and clients as Debian packages them, and our traffic generator, each packed
//! into an image of its own. Archives are cached by a key of their contents, so a second run packs nothing.

use crate::bins;
use crate::pack::{Layer, init_postgres, postgres_home};
use crate::run::find_program;
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

/// An application there is an image of. Each image also holds a shell (busybox), and its command is the server's
/// where it is a server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum App {
    /// A shell and small tools. Its command is `sleep infinity`.
    Busybox,
    /// `redis-server` on port 6379 without persistence; also `redis-cli` and `redis-benchmark`.
    Redis,
    /// `nginx` on port 80, IPv4 and IPv6: `/` is a page of 1 KB, `/large` is 1 MB.
    Nginx,
    /// `wrk`, load for web servers. `/etc/wrk/paced.lua` makes each connection wait 20 ms after every answer.
    Wrk,
    /// `iperf3 -s` on port 5201.
    Iperf3,
    /// PostgreSQL on port 5432, an empty database `postgres`, user `postgres` without a password; also `pgbench`,
    /// `psql` and `pg_isready`.
    Postgres,
    /// `memcached` on port 11211.
    Memcached,
    /// Our traffic generator, `/labgen`. Its command is `idle`.
    Labgen,
}

impl App {
    /// All applications.
    pub const ALL: [Self; 8] = [
        Self::Busybox,
        Self::Redis,
        Self::Nginx,
        Self::Wrk,
        Self::Iperf3,
        Self::Postgres,
        Self::Memcached,
        Self::Labgen,
    ];

    /// The image's name in an engine.
    pub fn image(self) -> &'static str {
        match self {
            Self::Busybox => "lab/busybox",
            Self::Redis => "lab/redis",
            Self::Nginx => "lab/nginx",
            Self::Wrk => "lab/wrk",
            Self::Iperf3 => "lab/iperf3",
            Self::Postgres => "lab/postgres",
            Self::Memcached => "lab/memcached",
            Self::Labgen => "lab/labgen",
        }
    }

    fn short_name(self) -> &'static str {
        self.image().trim_start_matches("lab/")
    }
}

/// User and group of servers that refuse to run as root.
const SERVER_UID: u32 = 999;

/// An image's archive and the `--change` instructions to import it with.
pub(crate) type Packed = (PathBuf, Vec<String>);

/// The archive of an application, packed when the cache has none. Packed once per process.
pub(crate) fn packed(app: App) -> Result<Packed> {
    static DONE: [OnceLock<std::result::Result<Packed, String>>; App::ALL.len()] =
        [const { OnceLock::new() }; App::ALL.len()];
    let done = DONE[app as usize].get_or_init(|| pack(app).map_err(|error| format!("{error:#}")));
    done.clone().map_err(anyhow::Error::msg).with_context(|| format!("cannot pack {}", app.short_name()))
}

fn pack(app: App) -> Result<Packed> {
    let mut layer = Layer::default();
    base(&mut layer)?;
    let changes = match app {
        App::Busybox => vec![r#"CMD ["/bin/sleep","infinity"]"#.to_string()],
        App::Redis => redis(&mut layer)?,
        App::Nginx => nginx(&mut layer)?,
        App::Wrk => wrk(&mut layer)?,
        App::Iperf3 => {
            layer.executable("/usr/bin/iperf3", &find_program("iperf3", "iperf3")?)?;
            vec![r#"CMD ["/usr/bin/iperf3","-s"]"#.to_string()]
        }
        App::Postgres => return postgres(layer),
        App::Memcached => {
            layer.executable("/usr/bin/memcached", &find_program("memcached", "memcached")?)?;
            let command = r#"CMD ["/usr/bin/memcached","-u","server","-m","64","-t","1","-U","0"]"#;
            vec![command.to_string()]
        }
        App::Labgen => {
            layer.executable("/labgen", &bins::program("labgen")?)?;
            vec![r#"ENTRYPOINT ["/labgen"]"#.to_string(), r#"CMD ["idle"]"#.to_string()]
        }
    };
    let key = layer.key();
    Ok((store(app, &key, &layer)?, changes))
}

/// What every image holds: a shell, the users, a place for temporary files.
fn base(layer: &mut Layer) -> Result<()> {
    layer.executable("/bin/busybox", &find_program("busybox", "busybox-static")?)?;
    for applet in
        ["sh", "sleep", "cat", "ls", "ip", "ping", "nc", "wget", "nslookup", "kill", "ps", "true", "date"]
    {
        layer.symlink(&format!("/bin/{applet}"), "busybox");
    }
    let passwd = format!(
        "root:x:0:0:root:/:/bin/sh\nserver:x:{SERVER_UID}:{SERVER_UID}::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
    );
    layer.file("/etc/passwd", passwd);
    layer.file("/etc/group", format!("root:x:0:\nserver:x:{SERVER_UID}:\nnogroup:x:65534:\n"));
    layer.file("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n");
    layer.file("/etc/services", "http 80/tcp\nhttps 443/tcp\ndomain 53/tcp\ndomain 53/udp\n");
    layer.folder("/tmp", 0o1777, 0);
    layer.folder("/run", 0o755, 0);
    Ok(())
}

fn redis(layer: &mut Layer) -> Result<Vec<String>> {
    layer.executable("/usr/bin/redis-server", &find_program("redis-server", "redis-server")?)?;
    for tool in ["redis-cli", "redis-benchmark"] {
        layer.executable(&format!("/usr/bin/{tool}"), &find_program(tool, "redis-tools")?)?;
    }
    let command = r#"CMD ["/usr/bin/redis-server","--save","","--appendonly","no","--protected-mode","no","--bind","*","-::*"]"#;
    Ok(vec![command.to_string()])
}

fn nginx(layer: &mut Layer) -> Result<Vec<String>> {
    layer.executable("/usr/sbin/nginx", &find_program("nginx", "nginx-light")?)?;
    layer.file("/etc/nginx/nginx.conf", NGINX_CONF);
    layer.file("/srv/www/index.html", format!("{}\n", "ConMon ".repeat(146)));
    layer.file("/srv/www/large", vec![b'.'; 1 << 20]);
    layer.folder("/var/log/nginx", 0o755, 0);
    layer.folder("/var/lib/nginx", 0o755, 0);
    Ok(vec![r#"CMD ["/usr/sbin/nginx","-g","daemon off;"]"#.to_string()])
}

const NGINX_CONF: &str = r"user server;
worker_processes 1;
pid /run/nginx.pid;
error_log stderr;
events { worker_connections 1024; }
http {
    access_log off;
    default_type text/plain;
    keepalive_requests 1000000;
    server {
        listen 80;
        listen [::]:80;
        root /srv/www;
    }
}
";

fn wrk(layer: &mut Layer) -> Result<Vec<String>> {
    layer.executable("/usr/bin/wrk", &find_program("wrk", "wrk")?)?;
    // wrk has no rate of its own; a pause after each answer keeps it from filling the machine.
    layer.file("/etc/wrk/paced.lua", "function delay() return 20 end\n");
    Ok(vec![r#"CMD ["/usr/bin/wrk","--version"]"#.to_string()])
}

/// The database's files are made here, once: making them takes a second or two that no container start should cost.
/// They differ each time (the cluster has a random identity), so the key is that of everything but them.
fn postgres(mut layer: Layer) -> Result<Packed> {
    let home = postgres_home()?;
    for tool in ["postgres", "pgbench", "psql", "pg_isready"] {
        layer.executable(&format!("{}/bin/{tool}", home.display()), &home.join("bin").join(tool))?;
        layer.symlink(&format!("/usr/bin/{tool}"), &format!("{}/bin/{tool}", home.display()));
    }
    let plpgsql = home.join("lib/plpgsql.so");
    layer.executable(&plpgsql.display().to_string(), &plpgsql)?;
    let version = home.file_name().unwrap_or_default();
    let zones = PathBuf::from("/usr/share/postgresql").join(version).join("timezonesets");
    layer.tree(&zones.display().to_string(), &zones, 0)?;
    layer.file("/etc/lab-postgres.conf", POSTGRES_CONF);
    layer.file("/etc/lab-hba.conf", "local all all trust\nhost all all all trust\n");
    layer.folder("/run/postgresql", 0o755, SERVER_UID);
    let key = layer.key();
    let file = cached(App::Postgres, &key)?;
    let changes = vec![
        "USER server".to_string(),
        r#"CMD ["/usr/bin/postgres","-D","/data","-c","config_file=/etc/lab-postgres.conf"]"#.to_string(),
    ];
    if file.exists() {
        return Ok((file, changes));
    }
    let work = std::env::temp_dir().join(format!("conmon-lab-initdb-{}", std::process::id()));
    let packed = init_postgres(&home, &work).and_then(|data| {
        layer.tree("/data", &data, SERVER_UID)?;
        store(App::Postgres, &key, &layer)
    });
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    Ok((packed?, changes))
}

const POSTGRES_CONF: &str = "\
data_directory = '/data'
hba_file = '/etc/lab-hba.conf'
listen_addresses = '*'
unix_socket_directories = '/tmp'
timezone = 'GMT'
log_timezone = 'GMT'
lc_messages = 'C'
shared_buffers = 16MB
dynamic_shared_memory_type = mmap
max_connections = 50
fsync = off
jit = off
";

fn cached(app: App, key: &str) -> Result<PathBuf> {
    let dir = match std::env::var_os("LAB_CACHE") {
        Some(dir) => PathBuf::from(dir),
        None => bins::target_dir().join("lab-cache"),
    };
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}; set LAB_CACHE", dir.display()))?;
    Ok(dir.join(format!("{}-{key}.tar", app.short_name())))
}

/// Writes the archive beside its place and moves it there, so that nobody ever reads half of one.
fn store(app: App, key: &str, layer: &Layer) -> Result<PathBuf> {
    let file = cached(app, key)?;
    if file.exists() {
        return Ok(file);
    }
    let half = file.with_extension(format!("{}.part", std::process::id()));
    let out = fs::File::create(&half).with_context(|| format!("cannot write {}", half.display()))?;
    layer.write(std::io::BufWriter::new(out))?;
    fs::rename(&half, &file).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}
