use std::fs;

use super::*;

/// A file in a folder of its own, removed at the end.
struct Yaml(PathBuf);

impl Yaml {
    fn new(text: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("conmond-config-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("c.yaml"), text).unwrap();
        Self(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.join("c.yaml")
    }
}

impl Drop for Yaml {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn load(text: &str) -> Result<Config, ConfigError> {
    load_all(text, &[], &[])
}

fn load_all(text: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let file = Yaml::new(text);
    let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let mut overrides = Overrides::default();
    for (key, value) in flags {
        overrides.set(*key, format!("--set {key}={value}"), *value);
    }
    Config::load(Some(&file.path()), env, &overrides)
}

/// The message without the folder.
fn message(text: &str) -> String {
    let error = load(text).expect_err(text);
    assert_eq!(error.exit_code(), 64);
    let message = error.to_string();
    match message.split_once("c.yaml:") {
        Some((_, rest)) => rest.to_owned(),
        None => message,
    }
}

#[test]
fn nothing_given_is_the_default() {
    let none = Config::load(None, [], &Overrides::default()).unwrap();
    assert_eq!(none, Config::default());
    for text in ["", "# only a comment\n", "\n\n", "tables:\n", "tables: {}\nlog:\n"] {
        assert_eq!(load(text).unwrap(), Config::default(), "{text:?}");
    }
}

#[test]
fn defaults_pass_their_own_checks() {
    Config::default().check().unwrap();
    let shown = Config::default().show();
    assert_eq!(shown.matches("# default").count(), schema::KEYS.len(), "{shown}");
}

#[test]
fn a_whole_file_is_read() {
    let config = load(
        "instance: lab-1\nengine: unix:///x/docker.sock\nrun_dir: /tmp/conmon\nopt_in: true\npool: 0\n\
         metrics_listen: 127.0.0.1:9477\nmetrics_level: container\nmax_series: 7\ntap: clsact\n\
         tables: {flows: 256, pairs: 64, ports: 16, hists: 16, ring_bytes: 4096}\n\
         timeouts:\n  idle_seconds: 1\n  active_seconds: 2\n  end_linger_ms: 0\n  pair_idle_seconds: 4\n  tenant_linger_seconds: 5\n\
         scan_interval_ms: 100\nmonitor: {memory_bytes: 33554432, cpu_millicores: 1000, pids: 8}\n\
         external_prefixes:\n- {name: office, prefix: 192.0.2.0/24}\n- name: six\n  prefix: 2001:db8::/32\n\
         retention_seconds: 0\nlog: {level: debug, format: json}\nhost_name: h1\n",
    )
    .unwrap();
    assert_eq!((config.instance.as_str(), config.opt_in, config.pool), ("lab-1", true, 0));
    assert_eq!(config.metrics_listen, Some("127.0.0.1:9477".parse().unwrap()));
    assert_eq!((config.metrics_level, config.tap), (MetricsLevel::Container, TapMode::Clsact));
    assert_eq!((config.tables.flows, config.tables.ring_bytes), (256, 4096));
    assert_eq!((config.timeouts.idle_seconds, config.timeouts.end_linger_ms), (1, 0));
    assert_eq!(config.external_prefixes[1].prefix, "2001:db8::/32".parse().unwrap());
    assert_eq!((config.log.level, config.log.format), (LogLevel::Debug, LogFormat::Json));
    assert_eq!(config.host_name.as_deref(), Some("h1"));
    assert!(matches!(config.origin("tables.pairs"), Origin::File { line: 10, column: 29, .. }));
}

#[test]
fn keys_and_certificates_have_usual_places_and_others() {
    let usual = load("listen: 0.0.0.0:9478\n").unwrap();
    assert_eq!(usual.listen, Some("0.0.0.0:9478".parse().unwrap()));
    assert_eq!(usual.tls.key, PathBuf::from("/etc/conmon/tls/host.key"));
    assert_eq!(usual.tls.tokens, None, "tenants have none unless that is said");
    let env = [("CONMON_LISTEN", "[::]:1"), ("CONMON_TLS_TOKENS", "/t")];
    let other = load_all("tls: {certificate: /c, key: /k, ca: /a}\n", &env, &[]).unwrap();
    let paths = ["/c", "/k", "/a", "/t"].map(PathBuf::from);
    let [certificate, key, ca, tokens] = paths;
    assert_eq!(other.tls, TlsKeys { certificate, key, ca, tokens: Some(tokens) });
    assert!(
        message("tls: {key: host.key}\n").contains("`tls.key` cannot be `host.key`: give an absolute path")
    );
    assert!(message("listen: 9478\n").contains("give an address and a port"));
    assert!(message("tls: {cert: /c}\n").contains("there is no key `tls.cert`"));
}

#[test]
fn each_layer_goes_over_the_one_before_and_is_named() {
    let env = [
        ("CONMON_POOL", "4"),
        ("CONMON_TABLES_FLOWS", "512"),
        ("DOCKER_HOST", "unix:///a.sock"),
        ("CONMON_INSTANCE", "007"),
        ("CONMON_RETENTION_SECONDS", ""),
        ("CONMON_EXTERNAL_PREFIXES", "[{name: office, prefix: 192.0.2.0/24}]"),
        ("CONMON_BIN_DIR", "/somewhere"),
    ];
    let flags = [("pool", "5"), ("metrics_listen", "null"), ("host_name", "5")];
    let config =
        load_all("pool: 3\nscan_interval_ms: 50\nmetrics_listen: '127.0.0.1:1'\n", &env, &flags).unwrap();
    assert_eq!(config.pool, 5);
    assert_eq!(*config.origin("pool"), Origin::Flag("--set pool=5".to_owned()));
    assert_eq!(config.tables.flows, 512);
    assert_eq!(config.origin("tables.flows").to_string(), "CONMON_TABLES_FLOWS");
    assert_eq!(config.engine, "unix:///a.sock");
    assert_eq!(config.origin("engine").to_string(), "DOCKER_HOST");
    assert_eq!(config.instance, "007", "texts are not read as numbers");
    assert_eq!(config.host_name.as_deref(), Some("5"));
    assert_eq!(config.scan_interval_ms, 50);
    assert!(config.origin("scan_interval_ms").to_string().ends_with("c.yaml:2:19"));
    assert_eq!(config.metrics_listen, None);
    assert_eq!(config.external_prefixes.len(), 1);
    assert_eq!(*config.origin("retention_seconds"), Origin::Default, "an empty variable counts as absent");
    let own_wins =
        load_all("", &[("DOCKER_HOST", "unix:///a"), ("CONMON_ENGINE", "unix:///b")], &[]).unwrap();
    assert_eq!(own_wins.engine, "unix:///b");
}

#[test]
fn what_is_shown_can_be_loaded() {
    let config = load_all(
        "external_prefixes: [{name: 'a#b', prefix: 10.0.0.0/8}]\nhost_name: \"yes\"\ntap: tcx\n",
        &[("CONMON_LOG_LEVEL", "trace")],
        &[("metrics_listen", "[::1]:9")],
    )
    .unwrap();
    let again = load(&config.show()).unwrap();
    assert_eq!(Config { origins: BTreeMap::new(), ..again }, Config { origins: BTreeMap::new(), ..config });
}

#[test]
fn mistakes_are_told_with_their_place_and_what_may_have_been_meant() {
    for (text, expected) in [
        ("instanec: x\n", "1:1: there is no key `instanec`: did you mean `instance`?"),
        ("tables:\n  flow: 1\n", "2:3: there is no key `tables.flow`: did you mean `tables.flows`?"),
        ("flows: 512\n", "1:1: there is no key `flows`: did you mean `tables.flows`?"),
        ("colour: red\n", "1:1: there is no key `colour`"),
        ("pool: many\n", "1:7: `pool` cannot be `many`: give a whole number from 0 to 64"),
        ("pool: -1\n", "1:7: `pool` cannot be -1: give a whole number from 0 to 64"),
        ("pool: 1.5\n", "1:7: `pool` cannot be 1.5: give a whole number from 0 to 64"),
        ("pool:\n", "1:5: `pool` cannot be empty: give a whole number from 0 to 64"),
        (
            "pool: 9999999999999999999\n",
            "1:7: `pool` cannot be 9999999999999999999: give a whole number from 0 to 64",
        ),
        ("opt_in: 1\n", "1:9: `opt_in` cannot be 1: give `true` or `false`"),
        ("tap: tcxx\n", "1:6: `tap` cannot be `tcxx`: give `auto`, `tcx` or `clsact`: did you mean `tcx`?"),
        (
            "tables: {flows: 1000}\n",
            "1:17: `tables.flows` cannot be 1000: give a power of two from 256 to 4194304",
        ),
        ("tables: 4\n", "1:9: `tables` cannot be 4: give a section: lines of the form `key: value`"),
        (
            "- pool\n",
            "1:1: `the whole file` cannot be a list: give a section: lines of the form `key: value`",
        ),
        (
            "metrics_listen: 9477\n",
            "1:17: `metrics_listen` cannot be 9477: give an address and a port, such as 127.0.0.1:9477 or \"[::1]:9477\", or null",
        ),
        (
            "external_prefixes: [{name: x, prefix: 10.1.0.0/8}]\n",
            "1:39: `external_prefixes[0].prefix` cannot be `10.1.0.0/8`: `10.1.0.0/8` has bits set behind the prefix: write 10.0.0.0/8",
        ),
        (
            "external_prefixes: [{nam: x}]\n",
            "1:22: there is no key `external_prefixes[0].nam`: did you mean `name`?",
        ),
        (
            "external_prefixes: [{name: x}]\n",
            "1:21: `external_prefixes[0]` cannot be a section: `prefix` is missing",
        ),
        (
            "engine: tcp://1.2.3.4\n",
            "1:9: `engine` cannot be `tcp://1.2.3.4`: ConMon taps this host's own links and needs its engine's Unix socket: give unix:// and an absolute path, such as unix:///var/run/docker.sock",
        ),
        ("run_dir: here\n", "1:10: `run_dir` cannot be `here`: give an absolute path"),
        (
            "instance: 5\n",
            "1:11: `instance` cannot be 5: give a text; put it in quotes if it looks like something else",
        ),
        (
            "host_name: 'a b'\n",
            "1:12: `host_name` cannot be `a b`: give 1 to 253 characters without spaces and control characters",
        ),
    ] {
        assert_eq!(message(text), expected, "{text}");
    }
    assert!(message("instance: Upper\n").starts_with("1:11: `instance` cannot be `Upper`: "));
    assert!(message("metrics_listen: 0.0.0.0:9477\n").contains("listen on 127.0.0.1:9477"));
    assert!(
        message("external_prefixes: [{name: a, prefix: ::/0}, {name: b, prefix: ::/0}]\n").contains("twice")
    );
    assert!(message("pool: 1\npool: 2\n").starts_with("2:1: not valid YAML: "));
    assert_eq!(message("pool: [\n"), "1:7: not valid YAML: unclosed bracket '['");
    assert!(message("a: 1\n---\nb: 2\n").contains("not valid YAML: "));
}

#[test]
fn mistakes_outside_the_file_name_their_place_too() {
    let error = load_all("", &[("CONMON_POOL", "many")], &[]).unwrap_err();
    assert_eq!(error.to_string(), "CONMON_POOL: `pool` cannot be `many`: give a whole number from 0 to 64");
    let error = load_all("", &[], &[("tables.flow", "1")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "--set tables.flow=1: there is no key `tables.flow`: did you mean `tables.flows`?"
    );
    let error = load_all("", &[], &[("tables", "1")]).unwrap_err();
    assert!(matches!(error, ConfigError::UnknownKey { .. }), "a section is no value: {error}");
    let error = load_all("", &[], &[("metrics_listen", "10.0.0.1:80")]).unwrap_err();
    assert!(error.to_string().starts_with("--set metrics_listen=10.0.0.1:80: "), "{error}");
    let missing = Config::load(Some(Path::new("/nowhere/c.yaml")), [], &Overrides::default()).unwrap_err();
    assert!(missing.to_string().starts_with("cannot read the configuration /nowhere/c.yaml: No such file"));
}

#[test]
fn a_file_without_end_or_sense_is_refused_quickly() {
    let endless = Config::load(Some(Path::new("/dev/zero")), [], &Overrides::default()).unwrap_err();
    assert!(matches!(endless, ConfigError::TooLarge { .. }), "{endless}");
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned()
        + &('b'..='k')
            .map(|c| {
                let before = char::from(c as u8 - 1);
                format!("{c}: &{c} [*{before},*{before},*{before},*{before},*{before},*{before},*{before},*{before}]\n")
            })
            .collect::<String>();
    for text in [bomb, "[".repeat(10_000), "{a: ".repeat(10_000), "pool: \u{0}\n".to_owned()] {
        let begin = std::time::Instant::now();
        assert!(load(&text).is_err());
        assert!(begin.elapsed().as_secs() < 10, "{:.20}… took {:?}", text, begin.elapsed());
    }
}

#[test]
fn the_command_line_sets_values() {
    let args = ConfigArgs {
        instance: Some("a".to_owned()),
        opt_in: true,
        set: vec!["pool=1".to_owned(), "instance=b".to_owned(), "engine=unix:///a=b".to_owned()],
        ..ConfigArgs::default()
    };
    let config = Config::load(None, [], &args.overrides().unwrap()).unwrap();
    assert_eq!((config.instance.as_str(), config.opt_in, config.pool), ("a", true, 1));
    assert_eq!(config.engine, "unix:///a=b");
    for bad in ["pool", "=1", ""] {
        let args = ConfigArgs { set: vec![bad.to_owned()], ..ConfigArgs::default() };
        assert!(matches!(args.overrides(), Err(ConfigError::Flag { .. })), "{bad}");
    }
}

/// `UPDATE_GOLDEN=1` writes the files anew.
fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "packaging/{name} is out of date: run UPDATE_GOLDEN=1 cargo test -p conmond config"
    );
}

#[test]
fn the_schema_is_the_committed_one() {
    golden("conmond.schema.json", &(serde_json::to_string_pretty(&json_schema()).unwrap() + "\n"));
}

#[test]
fn the_example_is_the_committed_one_and_loads_with_or_without_its_comments() {
    let example = example();
    golden("conmond.example.yaml", &example);
    assert_eq!(load(&example).unwrap(), Config::default());
    let is_yaml =
        |line: &&str| line.starts_with("#  ") || line.as_bytes().get(1).is_some_and(u8::is_ascii_lowercase);
    let uncommented: String =
        example.lines().filter(is_yaml).map(|line| line[1..].to_owned() + "\n").collect();
    let config = load(&uncommented).unwrap();
    assert_eq!(config.origins.len(), schema::KEYS.len(), "{uncommented}");
    assert_eq!(Config { origins: BTreeMap::new(), ..config }, Config::default());
}
