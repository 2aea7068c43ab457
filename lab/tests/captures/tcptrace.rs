//! Connection by connection, and sample by sample, against tcptrace.
//!
//! tcptrace takes a sample where an acknowledgement names just the end of a segment, and writes it (`-Z`) with the segment's
//! sequence number, in whole milliseconds. Round trips of ours whose acknowledgement covers more have no counterpart there.

use crate::Analysis;
use crate::tshark::{Flow, Packets, events};
use anyhow::{Context, Result, ensure};
use lab::{find_program, output_text};
use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

/// What tcptrace's and our figures have in common, of all captures.
#[derive(Default)]
pub struct Tally {
    same: u64,
    different: u64,
    absent: u64,
    covers_more: u64,
    /// Segments that are not new: by us, by tcptrace, and all segments with data.
    not_new: [u64; 2],
    segments: u64,
}

/// Milliseconds by flow and sequence number. tcptrace may take more than one where the space has gone round.
type Samples = HashMap<(Flow, u32), Vec<u64>>;

impl Tally {
    pub fn judge(&mut self, name: &str, file: &Path, analysis: &Analysis) -> Result<()> {
        let packets = Packets::read(file)?;
        if packets.0.is_empty() {
            return Ok(());
        }
        let folder = file.with_extension("tcptrace");
        fs::create_dir_all(&folder)?;
        let samples = samples(file, &folder)?;
        let before = (self.same, self.different, self.absent, self.covers_more);
        let mut ours = 0;
        for event in events(analysis)? {
            if event.took_ns.is_none() {
                ours += u64::from(packets.0.get(&event.name).is_some_and(|p| p.length > 0));
                continue;
            }
            let Some(segment) = packets.timed(&event) else {
                self.different += 1;
                continue;
            };
            if segment.seq.wrapping_add(segment.length) != event.number {
                self.covers_more += 1;
                continue;
            }
            let took_ms = event.took_ns.unwrap_or(0) / 1_000_000;
            *match samples.get(&(segment.flow, segment.seq)) {
                None => &mut self.absent,
                Some(theirs) if theirs.iter().any(|ms| ms.abs_diff(took_ms) <= 1) => &mut self.same,
                Some(_) => &mut self.different,
            } += 1;
        }
        let theirs = not_new(file)?;
        let segments = packets.0.values().filter(|packet| packet.length > 0).count() as u64;
        println!(
            "{name}: tcptrace: {} alike, {} different, {} it has not, {} whose acknowledgement covers more; not new of \
             {segments} segments: analyze {ours}, tcptrace {theirs}",
            self.same - before.0,
            self.different - before.1,
            self.absent - before.2,
            self.covers_more - before.3,
        );
        self.not_new[0] += ours;
        self.not_new[1] += theirs;
        self.segments += segments;
        Ok(())
    }

    pub fn verdict(self) -> Result<()> {
        let Self { same, different, absent, covers_more, not_new: [ours, theirs], segments } = self;
        println!(
            "tcptrace, all: {same} alike, {different} different, {absent} it has not, {covers_more} cover more; not new of \
             {segments} segments: analyze {ours}, tcptrace {theirs}"
        );
        let comparable = same + different;
        ensure!(comparable > 10_000, "{comparable} comparable round trips: too few to judge");
        ensure!(same * 100 >= comparable * 99, "{same} of {comparable} alike");
        ensure!(absent * 100 <= comparable, "tcptrace has no counterpart to {absent}");
        ensure!(ours.abs_diff(theirs) * 100 <= segments, "{ours} and {theirs} of {segments} are not new");
        Ok(())
    }
}

/// Characters of the name of tcptrace's files of samples.
const LONGEST_NAME: usize = 14;

/// All samples: the brief list says which connection's are in which file.
fn samples(file: &Path, folder: &Path) -> Result<Samples> {
    let mut command = Command::new(find_program("tcptrace", "tcptrace")?);
    let list = output_text(command.args(["-n", "-Z"]).arg(file).current_dir(folder))?;
    let mut samples = Samples::new();
    for line in list.lines().filter(|line| line.contains(" - ") && line.contains("2")) {
        // `  1: 10.0.0.1:53498 - 10.0.0.2:80 (a2b)   49>   85<  (complete)`
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, a, "-", b, letters, ..] = words[..] else { continue };
        let Some((one, other)) = letters.trim_matches(['(', ')']).split_once('2') else { continue };
        let (a, b) = (end(a)?, end(b)?);
        for (flow, name) in [((a, b), format!("{one}2{other}")), ((b, a), format!("{other}2{one}"))] {
            // No file where no sample was taken; longer names are cut.
            let name: String = format!("{name}_rttraw.dat").chars().take(LONGEST_NAME).collect();
            let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
            for line in text.lines() {
                let (seq, ms) = line.split_once(' ').with_context(|| format!("tcptrace: {line}"))?;
                samples.entry((flow, seq.parse()?)).or_default().push(ms.trim().parse()?);
            }
        }
    }
    Ok(samples)
}

fn end(text: &str) -> Result<(IpAddr, u16)> {
    let (address, port) = text.rsplit_once(':').with_context(|| format!("tcptrace: {text}"))?;
    Ok((address.parse()?, port.parse()?))
}

/// Segments that tcptrace calls sent again or out of order.
fn not_new(file: &Path) -> Result<u64> {
    let mut command = Command::new(find_program("tcptrace", "tcptrace")?);
    let table = output_text(command.args(["-n", "--csv", "-l"]).arg(file))?;
    let mut lines = table.lines().filter(|line| line.contains(',') && !line.starts_with('#'));
    let heading: Vec<&str> =
        lines.next().context("tcptrace printed no table")?.split(',').map(str::trim).collect();
    let wanted = ["rexmt_data_pkts_a2b", "rexmt_data_pkts_b2a", "outoforder_pkts_a2b", "outoforder_pkts_b2a"];
    let columns: Vec<usize> =
        wanted.iter().filter_map(|name| heading.iter().position(|heading| heading == name)).collect();
    ensure!(columns.len() == wanted.len(), "tcptrace's columns: {heading:?}");
    let mut sum = 0;
    for line in lines {
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        for column in &columns {
            sum += cells.get(*column).context("a short line")?.parse::<u64>()?;
        }
    }
    Ok(sum)
}
