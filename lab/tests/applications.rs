//! Every packed application does its work in a container: the server is the real one, and so is the client.

use anyhow::{Result, ensure};
use lab::traffic::RoundTrips;
use lab::{App, Host, Spec, root_test};
use std::time::{Duration, Instant};

const END: Duration = Duration::from_secs(40);

#[test]
fn root_every_application_works() -> Result<()> {
    root_test("applications", |lab| {
        let begin = Instant::now();
        let host = lab.host("apps")?;
        host.network("net", Some("fd00:a::/64"))?;
        for app in App::ALL {
            host.image(app)?;
        }
        eprintln!("host and all images ready after {:.1} s", begin.elapsed().as_secs_f64());
        redis(&host)?;
        nginx(&host)?;
        iperf3(&host)?;
        postgres(&host)?;
        memcached(&host)
    })
}

fn server(host: &Host, name: &str, app: App) -> Result<()> {
    host.run(&Spec::app(name, app).network("net")).map(drop)
}

/// Runs a client to its end; returns what it printed.
fn client(host: &Host, name: &str, app: App, script: &str) -> Result<String> {
    let container = host.run(&Spec::app(name, app).network("net").shell(script))?;
    let code = container.wait(END)?;
    let said = container.output()?;
    ensure!(code == 0, "{name} ended with code {code}: {said}");
    Ok(said)
}

fn redis(host: &Host) -> Result<()> {
    server(host, "redis", App::Redis)?;
    let script = "until redis-cli -h redis ping | grep PONG; do sleep 0.1; done; \
                  redis-benchmark -h redis -n 2000 -c 4 -t set,get --csv && redis-cli -h redis set k v";
    let said = client(host, "redis-client", App::Redis, script)?;
    ensure!(said.contains("\"GET\"") && said.contains("OK\n"), "{said}");
    Ok(())
}

fn nginx(host: &Host) -> Result<()> {
    server(host, "web", App::Nginx)?;
    let script = "until wget -q -O /dev/null http://web/; do sleep 0.1; done; \
                  wget -q -O - http://web/large | wc -c; wrk -t1 -c4 -d2 -s /etc/wrk/paced.lua http://web/";
    let said = client(host, "load", App::Wrk, &script.replace("wc -c", "/bin/busybox wc -c"))?;
    ensure!(said.contains("1048576") && said.contains("Requests/sec"), "{said}");
    ensure!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    Ok(())
}

fn iperf3(host: &Host) -> Result<()> {
    server(host, "iperf", App::Iperf3)?;
    let script = "until iperf3 -6 -c iperf -t 1 -b 10M -J; do sleep 0.1; done";
    let said = client(host, "iperf-client", App::Iperf3, script)?;
    ensure!(said.contains("fd00:a::") && said.contains("sum_received"), "{said}");
    Ok(())
}

fn postgres(host: &Host) -> Result<()> {
    server(host, "db", App::Postgres)?;
    let script = "until pg_isready -q -h db; do sleep 0.1; done; export PGHOST=db PGUSER=postgres; \
                  pgbench -q -i -s 1 postgres 2>&1 && pgbench -c 2 -t 50 postgres && psql -tc 'select 6*7' postgres";
    let said = client(host, "bench", App::Postgres, script)?;
    ensure!(said.contains("100/100") && said.contains(" 42"), "{said}");
    Ok(())
}

fn memcached(host: &Host) -> Result<()> {
    server(host, "cache", App::Memcached)?;
    let words = "memcached --to cache:11211 --rate 0 --count 1000";
    let client =
        host.run(&Spec::app("cache-client", App::Labgen).network("net").command(words.split(' ')))?;
    let trips: RoundTrips = client.report(END)?;
    ensure!(trips.requests == 1000 && trips.round_trip_ns.count == 1000 && trips.round_trip_ns.min > 0);
    Ok(())
}
