//! [`Sequence`]: what parties said to each other in a recorded run, and when; drawn as SVG, which holds it too, so that a later run
//! can be held to it. Pure: no clock and no files.

mod svg;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A party with a line of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// What messages call it.
    pub id: String,
    /// What it is.
    pub name: String,
    /// And more closely.
    pub detail: String,
    /// Neighbours of one group are drawn on one ground, which bears this name; none if it is empty.
    pub group: String,
}

/// Something that one party told another, or that one did by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// What the order calls it.
    pub id: String,
    /// Who told it.
    pub from: String,
    /// Whom; the same party if it did something by itself.
    pub to: String,
    /// In words.
    pub text: String,
    /// When it happened, milliseconds.
    pub at_ms: f64,
    /// It answers another one.
    pub reply: bool,
    /// Not every run has it.
    pub optional: bool,
}

/// A part of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// What it is about.
    pub heading: String,
    /// In the order of their times.
    pub messages: Vec<Message>,
}

/// A recorded run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sequence {
    /// What it shows.
    pub title: String,
    /// Lines below it.
    pub caption: Vec<String>,
    /// From left to right.
    pub participants: Vec<Participant>,
    /// One after the other.
    pub parts: Vec<Part>,
    /// Pairs of messages of which the first leads to the second. The order of others may differ from run to run.
    pub order: Vec<(String, String)>,
}

const BEGIN: &str = "<metadata><![CDATA[\n";
const END: &str = "\n]]></metadata>";

impl Sequence {
    /// All messages.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.parts.iter().flat_map(|part| &part.messages)
    }

    /// The message of this id.
    pub fn message(&self, id: &str) -> Option<&Message> {
        self.messages().find(|message| message.id == id)
    }

    /// The order in which the messages came is one in which they can lead to each other.
    pub fn is_causal(&self) -> Result<()> {
        self.keeps(&self.order)
    }

    fn keeps(&self, order: &[(String, String)]) -> Result<()> {
        for (before, after) in order {
            // one that not every run has leads to nothing where it is missing
            let (Some(a), Some(b)) = (self.message(before), self.message(after)) else { continue };
            ensure!(
                a.at_ms <= b.at_ms,
                "`{after}` ({}) at {} ms comes before `{before}` ({}) at {} ms",
                b.text,
                b.at_ms,
                a.text,
                a.at_ms
            );
        }
        Ok(())
    }

    /// Another run has the same parties, the same messages between them, and the order that matters.
    pub fn is_alike(&self, run: &Self) -> Result<()> {
        ensure!(
            self.participants == run.participants,
            "parties were {:?}, are {:?}",
            self.participants,
            run.participants
        );
        let always = |of: &Self| -> BTreeMap<String, (String, String)> {
            let lasting = of.messages().filter(|m| !m.optional);
            lasting.map(|m| (m.id.clone(), (m.from.clone(), m.to.clone()))).collect()
        };
        let (then, now) = (always(self), always(run));
        ensure!(then == now, "messages were {then:?}, are {now:?}");
        run.keeps(&self.order)
    }

    /// The picture, with the sequence itself in it.
    pub fn svg(&self) -> Result<String> {
        let json = serde_json::to_string_pretty(self)?;
        ensure!(!json.contains("]]>"), "a text ends the part of the picture that holds the texts");
        svg::draw(self, &format!("{BEGIN}{json}{END}"))
    }

    /// What a picture shows.
    pub fn of_svg(text: &str) -> Result<Self> {
        let begin = text.find(BEGIN).context("the picture holds no sequence")? + BEGIN.len();
        let length = text[begin..].find(END).context("the picture's sequence has no end")?;
        serde_json::from_str(&text[begin..begin + length]).context("the picture's sequence")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn sample() -> Sequence {
        let participant = |id: &str, group: &str| Participant {
            id: id.into(),
            name: id.to_uppercase(),
            detail: format!("that is {id}"),
            group: group.into(),
        };
        let message = |id: &str, (from, to): (&str, &str), at_ms| Message {
            id: id.into(),
            from: from.into(),
            to: to.into(),
            text: format!("<{id}> & \"more\""),
            at_ms,
            reply: id == "answer",
            optional: id == "aside",
        };
        let messages = vec![
            message("ask", ("a", "c"), 0.0),
            message("aside", ("b", "b"), 0.5),
            message("answer", ("c", "a"), 1.25),
        ];
        Sequence {
            title: "A & B".into(),
            caption: vec!["1 < 2".into()],
            participants: vec![participant("a", "here"), participant("b", "here"), participant("c", "")],
            parts: vec![
                Part { heading: "begin".into(), messages },
                Part { heading: "end".into(), messages: vec![message("bye", ("a", "c"), 4000.0)] },
            ],
            order: vec![
                ("ask".into(), "answer".into()),
                ("aside".into(), "bye".into()),
                ("answer".into(), "bye".into()),
            ],
        }
    }

    #[test]
    fn a_picture_holds_what_it_shows() {
        let sequence = sample();
        assert_eq!(Sequence::of_svg(&sequence.svg().unwrap()).unwrap(), sequence);
        assert!(Sequence::of_svg("<svg/>").is_err());
        let mut odd = sample();
        odd.title = "]]>".into();
        assert!(odd.svg().is_err());
    }

    /// The documents' pictures are drawn as it is done now. `UPDATE_GOLDEN=1` draws them anew, with the runs that they show.
    #[test]
    fn the_documents_pictures_are_up_to_date() {
        for name in ["discovery", "discovery-published"] {
            let path = format!("{}/../docs/img/{name}.svg", env!("CARGO_MANIFEST_DIR"));
            let drawn = std::fs::read_to_string(&path).unwrap();
            let now = Sequence::of_svg(&drawn).unwrap().svg().unwrap();
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::write(&path, now).unwrap();
            } else {
                assert!(drawn == now, "docs/img/{name}.svg is drawn otherwise now: UPDATE_GOLDEN=1 draws it");
            }
        }
    }

    #[test]
    fn a_run_is_alike_whose_order_differs_only_where_it_does_not_matter() {
        let committed = sample();
        committed.is_causal().unwrap();
        committed.is_alike(&committed).unwrap();
        let mut run = sample();
        run.parts[0].messages[1].at_ms = 3.0;
        run.parts[0].messages[2].text = "in other words".into();
        committed.is_alike(&run).unwrap();
        run.parts[0].messages.remove(1);
        committed.is_alike(&run).unwrap();

        let changed = |change: fn(&mut Sequence)| {
            let mut run = sample();
            change(&mut run);
            committed.is_alike(&run).is_err()
        };
        assert!(changed(|run| run.parts[0].messages[2].at_ms = -1.0), "an answer before its question");
        assert!(changed(|run| drop(run.parts[0].messages.remove(0))), "one is missing");
        assert!(changed(|run| run.parts[1].messages[0].to = "b".into()), "to another");
        assert!(changed(|run| run.participants.reverse()));
    }
}
