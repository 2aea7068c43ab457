//! `conmonctl analyze` as users and scripts meet it.

#![cfg(feature = "cli")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use conmon::analysis::AnalysisAnswer;
use ippm::model::law::{Clock, Delay};
use ippm::model::packet::{Ends, render};
use ippm::model::path::Path as Way;
use ippm::model::pcap::file as pcap;
use ippm::model::tcp::{Connection, run};

struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    /// With `a.pcap` and `b.pcap`: a lossy connection at its two ends, the second's clock 5 ms ahead.
    fn new() -> Self {
        let folder = Self { folder: tempfile::tempdir().expect("a folder") };
        let way = Way::clean(Delay::Exponential { base: 200_000, mean: 20_000 }).losing(0.01);
        let outcome = run(&Connection::over(way, way, 9).offloaded());
        let ahead = Clock { offset_ns: 5_000_000, skew_ppm: 20.0, resolution_ns: 1 };
        folder.write("a.pcap", &pcap(&render(&outcome.client, Ends::default(), Clock::TRUE)));
        folder.write("b.pcap", &pcap(&render(&outcome.server, Ends::default(), ahead)));
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).expect("a file");
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("a file")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("conmonctl runs")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_conmonctl")));
        command.arg("analyze").args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn one_and_two_captures_in_every_format() {
    let folder = Folder::new();
    for files in [&["a.pcap"][..], &["a.pcap", "b.pcap"]] {
        for format in ["table", "wide", "csv"] {
            let output = folder.run(&[files, &["-o", format]].concat());
            assert!(output.status.success(), "{output:?}");
            let lines: Vec<&str> = text(&output.stdout).lines().collect();
            assert_eq!(lines.len(), 2, "{lines:?}");
            assert!(lines[1].contains("10.0.0.1") && lines[1].contains("10.0.0.2"), "{lines:?}");
        }
        let output = folder.run(&[files, &["-o", "json"]].concat());
        let answer: AnalysisAnswer = serde_json::from_slice(&output.stdout).expect("the documented shape");
        assert_eq!(answer.captures.len(), files.len());
        assert_eq!(answer.pairs[0].between.one_way_delay_seconds.is_some(), files.len() == 2);
        assert!(answer.pairs[0].pair.rtt_seconds.is_some());
    }
    let output = folder.run(&["a.pcap", "b.pcap"]);
    let notes = text(&output.stderr);
    assert!(notes.contains("ahead of the first, for certain within"), "{notes}");
    assert!(notes.contains("a.pcap: ") && notes.contains("packets"), "{notes}");
}

#[test]
fn the_page_stands_alone() {
    let folder = Folder::new();
    let output = folder.run(&["a.pcap", "b.pcap", "-o", "html"]);
    assert!(output.status.success(), "{output:?}");
    let page = text(&output.stdout);
    for elsewhere in ["http:", "https:", "src=", "<script", "@import", "url("] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
    for link in page.split("href=").skip(1) {
        let target =
            link.strip_prefix("\"#").and_then(|link| link.split('"').next()).expect("a place on the page");
        assert!(page.contains(&format!("id=\"{target}\"")), "{target}");
    }
    for tag in ["svg", "table", "tr", "td", "p", "h2", "li", "body", "html"] {
        let count = |text: &str| page.matches(text).count();
        let opened = count(&format!("<{tag}>")) + count(&format!("<{tag} "));
        assert_eq!(opened, count(&format!("</{tag}>")), "{tag}");
        assert!(opened > 0, "{tag}");
    }
    assert!(page.contains("10.0.0.1 → 10.0.0.2") && page.contains("one way, there"), "{page}");
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
}

#[test]
fn the_standard_input_is_a_capture_too() {
    let folder = Folder::new();
    let mut child = folder
        .command(&["-", "-o", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("conmonctl runs");
    let bytes = folder.read("a.pcap");
    let mut stdin = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("all is read");
    assert!(output.status.success());
    let piped: AnalysisAnswer = serde_json::from_slice(&output.stdout).expect("JSON");
    let named: AnalysisAnswer =
        serde_json::from_slice(&folder.run(&["a.pcap", "-o", "json"]).stdout).expect("JSON");
    assert_eq!(piped.pairs, named.pairs);
    assert_eq!(piped.captures[0].file, "-");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// Where each packet of a capture of [`pcap`] begins.
fn places(capture: &[u8]) -> Vec<usize> {
    let mut places = vec![24];
    while let Some(length) = capture.get(places[places.len() - 1] + 8..).and_then(|rest| rest.first_chunk()) {
        places.push(places[places.len() - 1] + 16 + u32::from_le_bytes(*length) as usize);
    }
    places.pop();
    places
}

/// How a damaged capture is read: how many of the whole one's packets at least and at most, and what is said.
struct Damaged {
    name: &'static str,
    bytes: Vec<u8>,
    packets: std::ops::RangeInclusive<usize>,
    words: &'static str,
}

/// Every way of being damaged: one sentence, a failure, and what came before the damage.
#[test]
fn damage_is_told_in_one_sentence_and_what_came_before_is_shown() {
    let folder = Folder::new();
    let whole = folder.read("a.pcap");
    let places = places(&whole);
    let all = places.len();
    assert!(all > 200, "{all}");
    let half = places[all / 2];
    let with = |at: usize, field: [u8; 4]| {
        let mut bytes = whole.clone();
        bytes[at..at + 4].copy_from_slice(&field);
        bytes
    };
    let (zipped, pressed) = (gzip(&whole), zstd(&whole));
    let mut flipped = zipped.clone();
    let last = flipped.len() - 6;
    flipped[last] ^= 0xff;
    let late = {
        let mut bytes = whole.clone();
        for at in &places[all / 2..] {
            let seconds: [u8; 4] = *bytes[*at..].first_chunk().expect("a record");
            let later = u32::from_le_bytes(seconds) + 60;
            bytes[*at..at + 4].copy_from_slice(&later.to_le_bytes());
        }
        [&bytes[..24], &bytes[half..], &bytes[24..half]].concat()
    };
    let cases = [
        Damaged {
            name: "cut.pcap",
            bytes: whole[..half + 30].to_vec(),
            packets: all / 2..=all / 2,
            words: "it ends in the middle of a packet",
        },
        Damaged {
            name: "header.pcap",
            bytes: whole[..half + 7].to_vec(),
            packets: all / 2..=all / 2,
            words: "it ends in the middle of a packet's header",
        },
        Damaged { name: "empty.pcap", bytes: Vec::new(), packets: 0..=0, words: "it is empty" },
        Damaged {
            name: "short.pcap",
            bytes: whole[..11].to_vec(),
            packets: 0..=0,
            words: "it ends in the middle of its header",
        },
        Damaged {
            name: "text.pcap",
            bytes: b"this is no capture\n".to_vec(),
            packets: 0..=0,
            words: "it is neither pcap nor pcapng",
        },
        Damaged {
            name: "huge.pcap",
            bytes: with(half + 8, [0xff; 4]),
            packets: all / 2..=all / 2,
            words: "claims to be 4294967295 octets long",
        },
        Damaged {
            name: "time.pcap",
            bytes: with(half + 4, [0xff; 4]),
            packets: all / 2..=all / 2,
            words: "parts of a second",
        },
        Damaged {
            name: "link.pcap",
            bytes: with(20, 147u32.to_le_bytes()),
            packets: all..=all,
            words: "their link layer, LINKTYPE 147, is not known",
        },
        Damaged {
            name: "wrong.pcap",
            bytes: with(20, 113u32.to_le_bytes()),
            packets: all..=all,
            words: "none of its packets is IP or ARP",
        },
        Damaged {
            name: "order.pcap",
            bytes: late,
            packets: all..=all,
            words: "not in the order of their times",
        },
        Damaged {
            name: "tail.pcap",
            bytes: [&whole[..], b"garbage"].concat(),
            packets: all..=all,
            words: "it ends in the middle of a packet's header",
        },
        Damaged {
            name: "tail.gz",
            bytes: [&zipped[..], b"garbage"].concat(),
            packets: all..=all,
            words: "its gzip data end early or are damaged",
        },
        Damaged {
            name: "cut.gz",
            bytes: zipped[..zipped.len() / 2].to_vec(),
            packets: all / 4..=all * 3 / 4,
            words: "its gzip data end early or are damaged",
        },
        Damaged {
            name: "sum.gz",
            bytes: flipped,
            packets: all - 1..=all,
            words: "its gzip data end early or are damaged",
        },
        Damaged {
            name: "tail.zst",
            bytes: [&pressed[..], b"garbage"].concat(),
            packets: all..=all,
            words: "its zstd data end early or are damaged",
        },
        Damaged {
            name: "cut.zst",
            bytes: pressed[..pressed.len() / 2].to_vec(),
            packets: 0..=all * 3 / 4,
            words: "its zstd data end early or are damaged",
        },
    ];
    for Damaged { name, bytes, packets, words } in cases {
        folder.write(name, &bytes);
        let output = folder.run(&[name, "-o", "json"]);
        let answer: AnalysisAnswer = serde_json::from_slice(&output.stdout).expect("JSON all the same");
        let read = answer.captures[0].packets as usize;
        assert!(packets.contains(&read), "{name}: {read} of {all} packets");
        let ledger = &answer.captures[0].ledger;
        assert_eq!(ledger.sum() as usize, read, "{name}");
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {errors}");
        assert!(errors.starts_with(&format!("conmonctl: {name}: ")) && errors.contains(words), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert_eq!(answer.pairs.len(), usize::from(ledger.pairs > 0), "{name}");
        assert_eq!(
            answer.captures[0].damaged,
            !["link.pcap", "wrong.pcap", "order.pcap"].contains(&name),
            "{name}"
        );
    }
    let output = folder.run(&["a.pcap", "cut.pcap", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let answer: AnalysisAnswer = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(answer.pairs[0].between.lost_packets.is_some(), "what was read is compared");
    let output = folder.run(&["missing.pcap"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("conmonctl: cannot open missing.pcap: "));
    let output = folder.run(&["-", "-"]);
    assert_eq!(text(&output.stderr), "conmonctl: only one capture can come from the standard input\n");
}

/// The Parquet file holds what the CSV does, each column with its type, and says what it is.
#[test]
fn a_parquet_file_is_the_csv_with_types() {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::Field;

    let folder = Folder::new();
    let files = ["a.pcap", "b.pcap"];
    let output = folder.run(&[&files[..], &["-o", "parquet", "--to", "out.parquet"]].concat());
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    let piped = folder.run(&[&files[..], &["-o", "parquet"]].concat());
    assert!(piped.stdout == folder.read("out.parquet"), "the same in a pipe");
    let json = folder.run(&[&files[..], &["-o", "json"]].concat());
    let answer: AnalysisAnswer = serde_json::from_slice(&json.stdout).expect("JSON");
    let csv = folder.run(&[&files[..], &["-o", "csv"]].concat());
    let lines: Vec<Vec<&str>> = text(&csv.stdout).lines().map(|line| line.split(',').collect()).collect();

    let file = std::fs::File::open(folder.path("out.parquet")).expect("a file");
    let reader = SerializedFileReader::new(file).expect("Parquet");
    let footer = reader.metadata().file_metadata();
    let said = |key: &str| {
        let entry = footer.key_value_metadata().into_iter().flatten().find(|entry| entry.key == key);
        entry.and_then(|entry| entry.value.clone()).unwrap_or_default()
    };
    assert_eq!(
        (said("conmon.schema").as_str(), said("conmon.schema_version").as_str()),
        ("conmon.analysis.pairs", "1")
    );
    let captures: Vec<conmon::analysis::Capture> =
        serde_json::from_str(&said("conmon.captures")).expect("JSON");
    assert_eq!(captures, answer.captures);
    let clock: Option<conmon::analysis::ClockRelation> =
        serde_json::from_str(&said("conmon.clock")).expect("JSON");
    assert_eq!(clock, answer.clock);
    let rows: Vec<parquet::record::Row> =
        reader.get_row_iter(None).expect("rows").collect::<Result<_, _>>().expect("whole");
    assert_eq!((rows.len(), lines.len()), (1, 2));
    for ((name, field), (heading, cell)) in rows[0].get_column_iter().zip(lines[0].iter().zip(&lines[1])) {
        assert_eq!(name, heading);
        match field {
            Field::Null => assert_eq!(*cell, "", "{name}"),
            Field::Str(text) => assert_eq!(text, cell, "{name}"),
            Field::ULong(count) => assert_eq!(count.to_string(), *cell, "{name}"),
            Field::Double(value) => assert_eq!(value.to_string(), *cell, "{name}"),
            // The crate's rows know no nanoseconds: it hands times over as numbers.
            Field::Long(ns) => {
                let time: jiff::Timestamp = cell.parse().expect("a time");
                assert_eq!(i128::from(*ns), time.as_nanosecond(), "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn events_go_into_a_file_of_their_own() {
    let folder = Folder::new();
    let output = folder.run(&["a.pcap", "-o", "json", "--events", "events.csv"]);
    assert!(output.status.success(), "{output:?}");
    let answer: AnalysisAnswer = serde_json::from_slice(&output.stdout).expect("JSON");
    let events = folder.read("events.csv");
    let lines: Vec<Vec<&str>> = text(&events).lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines[0].join(","), "capture,time_ns,protocol,src,src_port,dst,dst_port,event,number,seconds");
    let of = |word: &str| lines.iter().filter(|line| line[7] == word).count() as u64;
    let pair = &answer.pairs[0].pair;
    assert_eq!(Some(of("retransmitted")), pair.retransmitted_segments);
    let trips = [&pair.rtt_seconds, &pair.near_rtt_seconds];
    assert_eq!(
        of("acknowledged"),
        trips.iter().map(|trip| trip.as_ref().map_or(0, |t| t.count)).sum::<u64>()
    );
    let most = lines.iter().skip(1).filter(|line| line[7] == "acknowledged" && line[3] == "10.0.0.2");
    let most = most.map(|line| line[9].parse::<f64>().expect("seconds")).fold(0.0, f64::max);
    assert_eq!(Some(most), pair.rtt_seconds.as_ref().map(|rtt| rtt.max));
    let output = folder.run(&["a.pcap", "--events", "nowhere/events.csv"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("conmonctl: cannot write nowhere/events.csv: "));
}

#[test]
fn one_clock_is_taken_at_the_users_word() {
    let folder = Folder::new();
    let output = folder.run(&["a.pcap", "a.pcap", "--same-clock", "-o", "json"]);
    let answer: AnalysisAnswer = serde_json::from_slice(&output.stdout).expect("JSON");
    let delays = answer.pairs[0].between.one_way_delay_seconds.as_ref().expect("one clock");
    let forward = delays.forward.as_ref().expect("packets");
    assert_eq!((forward.summary.min, forward.summary.max, forward.error_bound), (0.0, 0.0, 1e-9));
    assert_eq!(answer.clock, None);
}
