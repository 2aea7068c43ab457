//! `conmonctl analyze` as users and scripts meet it.

#![cfg(feature = "cli")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use conmon::analysis::AnalysisAnswer;
use ippm::model::law::{Clock, Delay};
use ippm::model::packet::{Ends, render};
use ippm::model::path::Path as Way;
use ippm::model::tcp::{Connection, run};

fn pcap(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in [0xa1b2_3c4du32, 2 | 4 << 16, 0, 0, 262_144, 1] {
        out.extend(field.to_le_bytes());
    }
    for (ns, frame) in frames {
        let length = frame.len() as u32;
        for field in [(ns / 1_000_000_000) as u32, (ns % 1_000_000_000) as u32, length, length] {
            out.extend(field.to_le_bytes());
        }
        out.extend(frame);
    }
    out
}

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

#[test]
fn damage_is_told_in_one_sentence_and_what_came_before_is_shown() {
    let folder = Folder::new();
    let whole = folder.read("a.pcap");
    folder.write("cut.pcap", &whole[..whole.len() / 2 + 7]);
    folder.write("empty.pcap", b"");
    folder.write("text.pcap", b"this is no capture\n");
    for (name, packets, words) in [
        ("cut.pcap", true, "it ends in the middle of a packet"),
        ("empty.pcap", false, "it is empty"),
        ("text.pcap", false, "it is neither pcap nor pcapng"),
    ] {
        let output = folder.run(&[name, "-o", "json"]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        let errors = text(&output.stderr);
        assert!(errors.starts_with(&format!("conmonctl: {name}: ")) && errors.contains(words), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        let answer: AnalysisAnswer = serde_json::from_slice(&output.stdout).expect("JSON all the same");
        assert!(answer.captures[0].damaged);
        assert_eq!(answer.captures[0].packets > 0, packets);
        assert_eq!(answer.pairs.len(), usize::from(packets));
    }
    let output = folder.run(&["missing.pcap"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("conmonctl: cannot open missing.pcap: "));
    let output = folder.run(&["-", "-"]);
    assert_eq!(text(&output.stderr), "conmonctl: only one capture can come from the standard input\n");
}

#[test]
fn one_clock_is_taken_at_the_users_word() {
    let folder = Folder::new();
    let output = folder.run(&["a.pcap", "a.pcap", "--same-clock", "-o", "json"]);
    let answer: AnalysisAnswer = serde_json::from_slice(&output.stdout).expect("JSON");
    let delays = answer.pairs[0].between.one_way_delay_seconds.as_ref().expect("one clock");
    let forward = delays.forward.as_ref().expect("packets");
    assert_eq!((forward.min, forward.max, forward.error_bound), (0.0, 0.0, 1e-9));
    assert_eq!(answer.clock, None);
}
