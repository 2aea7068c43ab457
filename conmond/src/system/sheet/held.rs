//! A sheet that came: its octets as they are, and where in them what lies. Nothing is unpacked before it is asked for, so a
//! pair that is held takes a few octets more than it took on its way.

use std::net::IpAddr;

use anyhow::{Context, ensure};
use conmon::api::{ObservedAt, PairsAnswer};
use serde::Deserialize;

use super::{End, Line, octets_of};

const UNREADABLE: &str = "the pairs cannot be read";

/// No text may be longer: many ends may have it in common, and each is looked at with its texts.
const TEXT_BYTES: usize = 4096;

/// What of a line is at hand without unpacking it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Who opened, who was called.
    pub ends: [u32; 2],
    /// At whose port.
    pub observed_at: ObservedAt,
    /// Both ways.
    pub bytes: u64,
    /// Where the line begins.
    at: u32,
}

/// What a host says of its pairs. All numbers in it are of things that are in it.
#[derive(Clone, Debug)]
pub struct Sheet {
    /// Everything that the host knows is in it.
    pub complete: bool,
    /// All texts, one behind the other, and where each ends.
    texts: Box<str>,
    text_ends: Box<[u32]>,
    ends: Box<[End]>,
    /// Lists and lines as they came, and where each list begins.
    octets: Box<[u8]>,
    addresses: Box<[u32]>,
    lists: Box<[u32]>,
    lines: Box<[Entry]>,
}

impl Sheet {
    /// Of what a host answered in JSON.
    pub fn of(answer: &PairsAnswer) -> anyhow::Result<Self> {
        Self::from_octets(&octets_of(answer)?)
    }

    /// From another host's octets.
    pub fn from_octets(octets: &[u8]) -> anyhow::Result<Self> {
        ensure!(u32::try_from(octets.len()).is_ok(), "{UNREADABLE}: {} octets are too many", octets.len());
        let mut cursor = Cursor { rest: octets, len: octets.len() };
        let complete = cursor.take()?;
        let mut texts = String::new();
        let text_ends = cursor.many(|cursor| {
            let text: &str = cursor.take()?;
            ensure!(text.len() <= TEXT_BYTES, "{UNREADABLE}: a text of {} octets is too long", text.len());
            texts.push_str(text);
            Ok(texts.len() as u32)
        })?;
        let ends = cursor.many(Cursor::take::<End>)?;
        let octets: Box<[u8]> = cursor.rest.into();
        let mut cursor = Cursor { rest: &octets, len: octets.len() };
        let addresses = cursor.many(|cursor| {
            let at = cursor.at();
            cursor.each(|_: IpAddr| true)?;
            Ok(at)
        })?;
        let has = |len: usize, number: u32| (number as usize) < len;
        let lists = cursor.many(|cursor| {
            let at = cursor.at();
            ensure!(cursor.each(|text: u32| has(text_ends.len(), text))?, "{UNSOUND}");
            Ok(at)
        })?;
        let sound_end = |end: &End| {
            let texts = [Some(end.name), end.id, end.service, end.tenant, end.host];
            texts.into_iter().flatten().all(|text| has(text_ends.len(), text))
        };
        ensure!(ends.iter().all(sound_end), "{UNSOUND}");
        let lines = cursor.many(|cursor| {
            let at = cursor.at();
            let line: Line = cursor.take()?;
            let mut delays = line.delays.iter().flatten().flatten();
            let sound = line.ends.iter().all(|end| has(ends.len(), *end))
                && line.addresses.iter().all(|list| has(addresses.len(), *list))
                && [line.protocols, line.via].iter().all(|list| has(lists.len(), *list))
                && delays.all(|delay| has(text_ends.len(), delay.method));
            ensure!(sound, "{UNSOUND}");
            let [sent, received] = line.counts;
            let bytes = sent.bytes.saturating_add(received.bytes);
            Ok(Entry { ends: line.ends, observed_at: line.observed_at, bytes, at })
        })?;
        let texts = texts.into_boxed_str();
        Ok(Self { complete, texts, text_ends, ends, addresses, lists, lines, octets })
    }

    /// Ends.
    pub fn ends(&self) -> &[End] {
        &self.ends
    }

    /// Lines, as far as they are at hand.
    pub fn lines(&self) -> &[Entry] {
        &self.lines
    }

    /// A text.
    pub fn text(&self, number: u32) -> &str {
        let number = number as usize;
        let begin = number.checked_sub(1).map_or(0, |before| self.text_ends[before]);
        &self.texts[begin as usize..self.text_ends[number] as usize]
    }

    /// How many texts there are.
    pub fn text_count(&self) -> u32 {
        self.text_ends.len() as u32
    }

    /// A line, unpacked.
    pub fn line(&self, entry: &Entry) -> Option<Line> {
        // it was read when the sheet came
        postcard::from_bytes(self.octets.get(entry.at as usize..)?).ok()
    }

    /// The addresses of a list.
    pub fn addresses(&self, list: u32) -> impl Iterator<Item = IpAddr> {
        self.list(self.addresses[list as usize])
    }

    /// The texts of a list.
    pub fn texts(&self, list: u32) -> impl Iterator<Item = &str> {
        self.list(self.lists[list as usize]).map(|number: u32| self.text(number))
    }

    fn list<'a, T: Deserialize<'a>>(&'a self, at: u32) -> impl Iterator<Item = T> {
        let rest = self.octets.get(at as usize..).unwrap_or_default();
        let mut cursor = Cursor { rest, len: rest.len() };
        let len: usize = cursor.take().unwrap_or_default();
        (0..len).map_while(move |_| cursor.take().ok())
    }
}

const UNSOUND: &str = "the pairs speak of things that are not there";

/// What is not read yet.
struct Cursor<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Cursor<'a> {
    fn at(&self) -> u32 {
        (self.len - self.rest.len()) as u32
    }

    fn take<T: Deserialize<'a>>(&mut self) -> anyhow::Result<T> {
        let (thing, rest) = postcard::take_from_bytes(self.rest).context(UNREADABLE)?;
        self.rest = rest;
        Ok(thing)
    }

    /// All things of a list. What its length claims is not believed before they are there.
    fn many<T>(&mut self, mut thing: impl FnMut(&mut Self) -> anyhow::Result<T>) -> anyhow::Result<Box<[T]>> {
        let len: usize = self.take()?;
        (0..len).map(|_| thing(self)).collect()
    }

    /// Whether all things of a list are sound.
    fn each<T: Deserialize<'a>>(&mut self, sound: impl Fn(T) -> bool) -> anyhow::Result<bool> {
        let (len, mut all) = (self.take::<usize>()?, true);
        for _ in 0..len {
            all &= sound(self.take()?);
        }
        Ok(all)
    }
}
