//! `top`'s screen: a head with totals and our own cost, the table or one pair, and a foot with the keys. Made for 80 by
//! 24; more room shows more, less shows less, and a number is shown whole or not at all.

mod bars;
mod close;
mod close_list;
pub mod columns;
mod foot;
mod head;
mod table;
mod theme;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::Modifier;
use ratatui::text::{Line, Text};

use super::app::App;
use crate::tone::{Tone, cut};
use theme::Theme;

/// Draws everything. Tells the state how many rows fit, for paging.
pub fn draw(app: &mut App, frame: &mut Frame<'_>) {
    let theme = Theme { color: app.color };
    let area = frame.area();
    let head = |app: &App| head::lines(app, theme, area.width.into(), area.height);
    let [top, body, foot] = Layout::vertical([
        Constraint::Length(u16::try_from(head(app).len()).unwrap_or(u16::MAX)),
        Constraint::Min(0),
        Constraint::Length(u16::from(area.height >= 5)),
    ])
    .areas(area);
    if app.close.is_none() {
        // The head says which row of how many, which only is of interest where not all fit.
        app.page = usize::from(body.height.saturating_sub(1)).max(1);
    }
    frame.render_widget(Text::from(head(app)), top);
    if app.close.is_some() {
        close::draw(app, theme, frame, body);
    } else {
        table::draw(app, theme, frame, body);
    }
    frame.render_widget(foot::line(app, theme, foot.width.into()), foot);
    if app.help {
        foot::help(theme, frame);
    }
}

/// The headings of a table within the close look.
fn heading(theme: Theme, text: &str, width: usize) -> Line<'static> {
    let style = theme.style(Tone::Strong).add_modifier(Modifier::UNDERLINED);
    Line::styled(cut(text.trim_end(), width), style)
}
