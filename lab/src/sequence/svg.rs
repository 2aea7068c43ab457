//! Draws a sequence: a line for each party, a row for each message. Rows are as far apart as their texts need; times stand beside them.

use super::{Message, Participant, Sequence};
use anyhow::{Context, Result};
use std::fmt::Write;

/// Where the times stand, and where the first line begins.
const TIMES: f64 = 84.0;
const FIRST: f64 = 172.0;
/// From one line to the next.
const COLUMN: f64 = 172.0;
const ROW: f64 = 34.0;
const TITLE: f64 = 34.0;
/// Height of what is on top of the lines, and of a part's heading.
const HEADS: f64 = 86.0;
const HEADING: f64 = 40.0;
const CAPTION: f64 = 18.0;
const MARGIN: f64 = 16.0;
/// A letter's width for its size, on average: fonts differ, so that nothing may depend on it closely.
const LETTER: f64 = 0.56;
const SMALL: f64 = 12.0;
/// Colours of text, lines, grounds, messages, and what is in the background.
const INK: &str = "#1c2733";
const LINE: &str = "#9aa7b4";
const GROUND: &str = "#eef3f8";
const CALL: &str = "#1f5fa8";
const ANSWER: &str = "#5a6b7b";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn width_of(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * LETTER
}

/// A text in lines that are not wider than this, as far as its words allow.
fn wrapped(text: &str, size: f64, width: f64) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { continue };
        let longer = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
        if line.is_empty() || width_of(&longer, size) <= width {
            *line = longer;
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// A time as it stands beside a row.
fn time(at_ms: f64) -> String {
    if at_ms < 100.0 { format!("{at_ms:.2} ms") } else { format!("{at_ms:.1} ms") }
}

struct Picture<'a> {
    of: &'a Sequence,
    width: f64,
    out: String,
}

/// The whole picture; `data` is put into it as it is.
pub(super) fn draw(of: &Sequence, data: &str) -> Result<String> {
    let lines = of.participants.len().saturating_sub(1) as f64;
    let width = FIRST + lines * COLUMN + COLUMN / 2.0 + MARGIN;
    let rows: f64 = of.parts.iter().map(|part| HEADING + ROW * part.messages.len() as f64).sum();
    let foot = TITLE + HEADS + rows + MARGIN;
    let caption: Vec<String> =
        of.caption.iter().flat_map(|text| wrapped(text, SMALL, width - 2.0 * MARGIN)).collect();
    let height = foot + MARGIN + CAPTION * caption.len() as f64;
    let mut picture = Picture { of, width, out: String::new() };
    write!(
        picture.out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n<title>{}</title>\n<desc>{}</desc>\n{data}\n",
        escaped(&of.title),
        escaped(&of.caption.join(" ")),
    )?;
    picture.defines()?;
    picture.rect((0.0, 0.0, width, height), "#ffffff", "none")?;
    picture.grounds(foot)?;
    picture.text(
        (MARGIN, 24.0),
        "start",
        &of.title,
        "16",
        &format!("font-weight=\"bold\" fill=\"{INK}\""),
    )?;
    for (i, participant) in of.participants.iter().enumerate() {
        picture.head(at_column(i), participant, foot)?;
    }
    let mut y = TITLE + HEADS;
    for part in &of.parts {
        picture.heading(y, &part.heading)?;
        y += HEADING;
        for message in &part.messages {
            picture.message(y + ROW / 2.0, message)?;
            y += ROW;
        }
    }
    for (i, line) in caption.iter().enumerate() {
        let y = foot + MARGIN + CAPTION * i as f64;
        picture.text((MARGIN, y), "start", line, "12", &format!("fill=\"{ANSWER}\""))?;
    }
    picture.out.push_str("</svg>\n");
    Ok(picture.out)
}

fn at_column(number: usize) -> f64 {
    FIRST + number as f64 * COLUMN
}

impl Picture<'_> {
    fn defines(&mut self) -> Result<()> {
        self.out.push_str("<defs>\n");
        for (name, colour) in [("call", CALL), ("answer", ANSWER)] {
            writeln!(
                self.out,
                "<marker id=\"{name}\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" markerHeight=\"7\" \
                 orient=\"auto\"><path d=\"M0 0L10 5L0 10z\" fill=\"{colour}\"/></marker>"
            )?;
        }
        self.out.push_str("</defs>\n");
        Ok(())
    }

    fn rect(&mut self, (x, y, width, height): (f64, f64, f64, f64), fill: &str, stroke: &str) -> Result<()> {
        writeln!(
            self.out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"4\" fill=\"{fill}\" stroke=\"{stroke}\"/>"
        )?;
        Ok(())
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: &str, text: &str, size: &str, more: &str) -> Result<()> {
        let text = escaped(text);
        writeln!(
            self.out,
            "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\" text-anchor=\"{anchor}\" {more}>{text}</text>"
        )?;
        Ok(())
    }

    /// The ground of each group, down to the foot.
    fn grounds(&mut self, foot: f64) -> Result<()> {
        let groups: Vec<&str> = self.of.participants.iter().map(|p| p.group.as_str()).collect();
        let mut first = 0;
        for of_one in groups.chunk_by(|a, b| a == b) {
            let last = first + of_one.len() - 1;
            if !of_one[0].is_empty() {
                let left = at_column(first) - COLUMN / 2.0 + 4.0;
                let width = COLUMN * of_one.len() as f64 - 8.0;
                self.rect((left, TITLE, width, foot - TITLE), GROUND, "none")?;
                let middle = f64::midpoint(at_column(first), at_column(last));
                let bold = format!("font-weight=\"bold\" fill=\"{INK}\"");
                self.text((middle, TITLE + 18.0), "middle", of_one[0], "13", &bold)?;
            }
            first = last + 1;
        }
        Ok(())
    }

    fn head(&mut self, x: f64, of: &Participant, foot: f64) -> Result<()> {
        let (top, height) = (TITLE + 28.0, 44.0);
        writeln!(
            self.out,
            "<line x1=\"{x}\" y1=\"{}\" x2=\"{x}\" y2=\"{foot}\" stroke=\"{LINE}\" stroke-width=\"1\"/>",
            top + height
        )?;
        let width = COLUMN - 24.0;
        self.rect((x - width / 2.0, top, width, height), "#ffffff", LINE)?;
        let bold = format!("font-weight=\"bold\" fill=\"{INK}\"");
        self.text((x, top + 19.0), "middle", &of.name, "13", &bold)?;
        self.text((x, top + 35.0), "middle", &of.detail, "11", &format!("fill=\"{ANSWER}\""))
    }

    fn heading(&mut self, y: f64, heading: &str) -> Result<()> {
        let baseline = y + HEADING / 2.0 + 4.0;
        // as wide as the picture, so that it parts what is above from what is below
        self.rect((MARGIN, y + 7.0, self.width - 2.0 * MARGIN, HEADING - 14.0), "#dfe7ef", "none")?;
        let more = format!("font-style=\"italic\" fill=\"{INK}\"");
        self.text((MARGIN + 10.0, baseline), "start", heading, "13", &more)
    }

    fn message(&mut self, y: f64, message: &Message) -> Result<()> {
        let place = |id: &str| {
            let found = self.of.participants.iter().position(|p| p.id == id);
            found.map(at_column).with_context(|| format!("{id} is no party of `{}`", message.text))
        };
        let (from, to) = (place(&message.from)?, place(&message.to)?);
        self.text((TIMES, y + 4.0), "end", &time(message.at_ms), "12", &format!("fill=\"{INK}\""))?;
        let (colour, name) = if message.reply { (ANSWER, "answer") } else { (CALL, "call") };
        // drawn over lines that a text crosses
        let halo = format!("fill=\"{INK}\" stroke=\"#ffffff\" stroke-width=\"4\" paint-order=\"stroke\"");
        let dashes = if message.reply { " stroke-dasharray=\"5 3\"" } else { "" };
        let width = width_of(&message.text, SMALL);
        if message.from == message.to {
            writeln!(
                self.out,
                "<circle cx=\"{from}\" cy=\"{y}\" r=\"4.5\" fill=\"{colour}\" stroke=\"#ffffff\"/>"
            )?;
            // on the side where there is room
            let (x, anchor) = if from + 12.0 + width < self.width - MARGIN {
                (from + 12.0, "start")
            } else {
                (from - 12.0, "end")
            };
            return self.text((x, y + 4.0), anchor, &message.text, "12", &halo);
        }
        writeln!(
            self.out,
            "<line x1=\"{from}\" y1=\"{}\" x2=\"{to}\" y2=\"{}\" stroke=\"{colour}\" stroke-width=\"1.5\"{dashes} marker-end=\"url(#{name})\"/>",
            y + 8.0,
            y + 8.0
        )?;
        let (least, most) = (TIMES + 8.0 + width / 2.0, self.width - MARGIN - width / 2.0);
        let middle = f64::midpoint(from, to).min(most).max(least);
        self.text((middle, y + 2.0), "middle", &message.text, "12", &halo)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    /// The value of an attribute of each element of a kind.
    fn all(svg: &str, element: &str, attribute: &str) -> Vec<f64> {
        let value =
            |rest: &str| rest.split_once(&format!(" {attribute}=\""))?.1.split('"').next()?.parse().ok();
        svg.split(&format!("<{element}")).skip(1).filter_map(value).collect()
    }

    #[test]
    fn all_of_it_is_there_within_the_picture() {
        let svg = sample().svg().unwrap();
        let drawn = svg.split("</metadata>").nth(1).unwrap();
        assert_eq!(drawn.matches("marker-end").count(), 3);
        assert_eq!(drawn.matches("<circle").count(), 1, "what one does by itself");
        assert_eq!(drawn.matches("stroke-dasharray").count(), 1, "an answer");
        for text in [
            "A &amp; B",
            "1 &lt; 2",
            "&lt;ask&gt; &amp; &quot;more&quot;",
            "0.50 ms",
            "4000.0 ms",
            "HERE",
            "begin",
        ] {
            let found = drawn.to_uppercase().contains(&text.to_uppercase());
            assert!(found, "{text}: {drawn}");
        }
        let (width, height) = (all(&svg, "svg", "width")[0], all(&svg, "svg", "height")[0]);
        let inside = |values: &[f64], end: f64| values.iter().all(|v| (0.0..=end).contains(v));
        assert!(inside(&all(drawn, "text", "x"), width) && inside(&all(drawn, "text", "y"), height));
        let lines = all(drawn, "line", "y2");
        assert!(inside(&lines, height) && inside(&all(drawn, "line", "x2"), width));
    }

    #[test]
    fn rows_do_not_touch_and_long_texts_stay_inside() {
        let mut sequence = sample();
        sequence.parts[0].messages[0].text = "a long text ".repeat(5);
        sequence.parts[0].messages[0].to = "b".into();
        sequence.parts[0].messages[1].from = "c".into();
        sequence.parts[0].messages[1].to = "c".into();
        let svg = sequence.svg().unwrap();
        let drawn = svg.split("</metadata>").nth(1).unwrap();
        let long = drawn.lines().find(|line| line.contains("a long text")).unwrap();
        let (x, width) = (all(long, "text", "x")[0], width_of(&sequence.parts[0].messages[0].text, SMALL));
        assert!(x - width / 2.0 >= TIMES, "{long}");
        let by_itself = drawn.lines().find(|line| line.contains("aside")).unwrap();
        assert!(by_itself.contains("text-anchor=\"start\"") || by_itself.contains("text-anchor=\"end\""));
        let mut rows: Vec<f64> = drawn
            .lines()
            .filter(|line| line.contains(" ms</text>"))
            .map(|l| all(l, "text", "y")[0])
            .collect();
        rows.dedup();
        assert_eq!(rows.len(), 4);
        assert!(rows.windows(2).all(|pair| pair[1] - pair[0] >= ROW), "{rows:?}");
    }

    #[test]
    fn a_caption_is_as_wide_as_the_picture_at_most() {
        assert_eq!(wrapped("one two three", 10.0, 7.0 * 10.0 * LETTER), ["one two", "three"]);
        assert_eq!(wrapped("longer than that", 10.0, 10.0), ["longer", "than", "that"]);
        assert_eq!(wrapped("", 10.0, 10.0), [""]);
    }

    #[test]
    fn a_message_of_nobody_is_an_error() {
        let mut sequence = sample();
        sequence.parts[0].messages[0].from = "nobody".into();
        assert!(sequence.svg().unwrap_err().to_string().contains("nobody"));
    }
}
