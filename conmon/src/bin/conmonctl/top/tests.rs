//! The screen, cell for cell, and the keys. `INSTA_UPDATE=always cargo test -p conmon` rewrites the snapshots.

use conmon::api::{Level, PairsAnswer};
use insta::assert_snapshot;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};

use super::app::{App, Effect, Screen};
use super::draw::draw;
use super::feed::Update;
use super::row::Sort;
use crate::answers;

const AGE: f64 = 300.0;

fn app(answer: PairsAnswer) -> App {
    let mut app = App::new(Level::Container, false, true);
    app.take(Update::Status(Box::new(answers::status(AGE))));
    app.take(Update::Pairs(Level::Container, answer));
    app
}

fn screen(app: &mut App, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw(app, frame)).expect("drawn");
    terminal
}

fn text(app: &mut App, width: u16, height: u16) -> String {
    screen(app, width, height).backend().to_string()
}

fn press(app: &mut App, code: KeyCode) -> Effect {
    app.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn keys(app: &mut App, keys: &str) {
    for key in keys.chars() {
        press(app, KeyCode::Char(key));
    }
}

fn first_row(app: &App) -> String {
    app.rows().next().map(|pair| format!("{} {}", pair.src.name, pair.dst.name)).unwrap_or_default()
}

#[test]
fn usual_terminal() {
    assert_snapshot!(text(&mut app(answers::pairs(AGE)), 80, 24));
}

#[test]
fn large_terminal() {
    assert_snapshot!(text(&mut app(answers::pairs(AGE)), 200, 50));
}

#[test]
fn no_pairs() {
    let empty = PairsAnswer { pairs: Vec::new(), ..answers::pairs(AGE) };
    for (width, height) in [(80, 24), (200, 50)] {
        let text = text(&mut app(empty.clone()), width, height);
        assert!(text.contains("No pairs yet"), "{text}");
        assert!(text.contains("0 pairs"), "{text}");
    }
}

#[test]
fn one_pair() {
    let mut one = answers::pairs(AGE);
    one.pairs.truncate(1);
    for (width, height) in [(80, 24), (200, 50)] {
        let text = text(&mut app(one.clone()), width, height);
        assert!(text.contains("1 pair "), "{text}");
        assert_eq!(text.matches("lab-wrk-1").count(), 1, "{text}");
    }
}

#[test]
fn a_thousand_pairs() {
    for (width, height, rows) in [(80, 24, 19), (200, 50, 45)] {
        let mut app = app(answers::many_pairs(1000));
        let top = text(&mut app, width, height);
        assert_eq!(top.matches("server-web-").count(), rows, "{top}");
        assert!(top.contains("row 1 of 1000") && top.contains("client-load-999"), "{top}");
        press(&mut app, KeyCode::End);
        let end = text(&mut app, width, height);
        assert!(end.contains("row 1000 of 1000") && end.contains("client-load-0 "), "{end}");
        press(&mut app, KeyCode::PageUp);
        assert_eq!(app.selected, 999 - app.page);
        press(&mut app, KeyCode::Home);
        assert!(text(&mut app, width, height).contains("client-load-999"));
    }
}

/// A number that is cut is another number: columns go whole.
#[test]
fn narrow_terminals_show_fewer_columns_never_parts_of_numbers() {
    for width in 1..=140 {
        let mut app = app(answers::pairs(AGE));
        let text = text(&mut app, width, 12);
        let header = text.lines().nth(3).unwrap_or_default().to_owned();
        for word in header.trim_matches('"').split_whitespace() {
            let whole = [
                "SRC", "DST", "PROTO", "OUT/s", "IN/s", "PKT/s", "RTT50", "RTT99", "RETR", "SEEN", "BYTES",
                "NEAR50", "FLOWS", "ACTIVE", "TENANT",
            ];
            assert!(whole.contains(&word) || width < 20, "{word:?} at width {width}:\n{text}");
        }
    }
}

#[test]
fn any_size_can_be_drawn() {
    for (width, height) in [(1, 1), (3, 2), (10, 3), (20, 5), (80, 4), (500, 3)] {
        for key in ['x', '?', '\n'] {
            let mut app = app(answers::pairs(AGE));
            press(&mut app, if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) });
            screen(&mut app, width, height);
        }
    }
}

#[test]
fn close_look() {
    let mut app = app(answers::pairs(AGE));
    assert_eq!(press(&mut app, KeyCode::Enter), Effect::Ask);
    let query = app.request().flows.expect("flows of the pair are asked for");
    assert_eq!(query.src, answers::container("lab-wrk-1", "lab", 6).id);
    app.take(Update::Flows(query, answers::flows(AGE)));
    app.take(Update::Pairs(Level::Container, answers::pairs(AGE + 1.0)));
    assert_snapshot!(text(&mut app, 80, 24));
    assert_eq!(press(&mut app, KeyCode::Esc), Effect::Ask);
    assert_eq!((app.screen.clone(), app.request().flows), (Screen::Table, None));
}

#[test]
fn close_look_at_what_was_not_measured_and_what_has_gone() {
    let mut app = app(answers::pairs(AGE));
    keys(&mut app, "/dns");
    press(&mut app, KeyCode::Enter);
    press(&mut app, KeyCode::Enter);
    let shown = text(&mut app, 80, 24);
    assert!(shown.contains("not measured: no TCP data was acknowledged"), "{shown}");
    assert!(shown.contains("retransmitted -, reordered -"), "{shown}");
    app.take(Update::Pairs(Level::Container, PairsAnswer { pairs: Vec::new(), ..answers::pairs(AGE) }));
    assert!(text(&mut app, 80, 24).contains("no longer there"));
}

#[test]
fn help() {
    let mut app = app(answers::pairs(AGE));
    press(&mut app, KeyCode::Char('?'));
    let shown = text(&mut app, 80, 24);
    let lines: Vec<&str> = shown.lines().filter(|line| line.matches('│').count() == 2).collect();
    assert_eq!(lines.len(), 12, "{shown}");
    for line in lines {
        let inside = line.split('│').nth(1).unwrap_or_default();
        assert!(inside.ends_with(' '), "cut: {line}");
    }
    assert_snapshot!(shown);
    press(&mut app, KeyCode::Char('q'));
    assert_eq!(app.screen, Screen::Table, "any key only closes the help");
}

#[test]
fn filter_takes_text_and_gives_it_back() {
    let mut app = app(answers::pairs(AGE));
    keys(&mut app, "/REDis");
    assert_eq!(app.rows().len(), 2);
    press(&mut app, KeyCode::Backspace);
    assert_eq!(app.filter, "redi");
    press(&mut app, KeyCode::Enter);
    keys(&mut app, "s");
    assert_eq!((app.filter.as_str(), app.sort), ("redi", Sort::Packets), "keys are commands again");
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.rows().len(), 7);
    keys(&mut app, "/nothing has this");
    assert!(text(&mut app, 80, 24).contains("No pair contains that text"));
    press(&mut app, KeyCode::Esc);
    keys(&mut app, "/172.18.0.4");
    assert_eq!(first_row(&app), "shop-nginx-1 shop-postgres-1");
}

#[test]
fn orders() {
    let mut app = app(answers::pairs(AGE));
    assert_eq!(first_row(&app), "lab-wrk-1 shop-nginx-1");
    keys(&mut app, "sss");
    assert_eq!(app.sort, Sort::RttP50);
    assert_eq!(first_row(&app), "lab-wrk-1 external");
    keys(&mut app, "r");
    assert_eq!(first_row(&app), "shop-redis-benchmark-1 shop-redis-1", "unmeasured rows stay last");
    keys(&mut app, "ss");
    assert_eq!((app.sort, app.reverse), (Sort::Retransmissions, false));
    assert_eq!(first_row(&app), "shop-redis-benchmark-1 shop-redis-1");
    keys(&mut app, "ss");
    assert_eq!((app.sort, first_row(&app)), (Sort::Name, "lab-wrk-1 external".to_owned()));
    keys(&mut app, "s");
    assert_eq!(app.sort, Sort::Rate);
    keys(&mut app, "S");
    assert_eq!(app.sort, Sort::Name);
}

#[test]
fn the_cursor_stays_on_its_pair() {
    let mut app = app(answers::pairs(AGE));
    press(&mut app, KeyCode::Down);
    let chosen = app.rows().nth(app.selected).cloned().expect("a row");
    let mut next = answers::pairs(AGE + 1.0);
    next.pairs.iter_mut().for_each(|pair| {
        if pair.src == chosen.src && pair.dst == chosen.dst {
            pair.sent_bytes_per_second = Some(1.0);
            pair.received_bytes_per_second = Some(1.0);
        }
    });
    app.take(Update::Pairs(Level::Container, next));
    let now = app.rows().nth(app.selected).expect("a row");
    assert_eq!((&now.src.name, &now.dst.name), (&chosen.src.name, &chosen.dst.name));
    assert!(app.selected > 1);
    app.take(Update::Pairs(Level::Container, PairsAnswer { pairs: Vec::new(), ..answers::pairs(AGE) }));
    assert_eq!(app.selected, 0);
    assert_eq!(press(&mut app, KeyCode::Enter), Effect::None, "nothing to look at");
}

#[test]
fn pause_holds_the_numbers() {
    let mut app = app(answers::pairs(AGE));
    assert_eq!(press(&mut app, KeyCode::Char('p')), Effect::None);
    app.take(Update::Pairs(Level::Container, answers::many_pairs(3)));
    assert_eq!(app.rows().len(), 7);
    assert!(text(&mut app, 80, 24).contains("PAUSED at 04:05:00 UTC"));
    assert_eq!(press(&mut app, KeyCode::Char(' ')), Effect::Ask);
    app.take(Update::Pairs(Level::Container, answers::many_pairs(3)));
    assert_eq!(app.rows().len(), 3);
}

#[test]
fn levels_are_asked_for_and_late_answers_of_others_ignored() {
    let mut app = app(answers::pairs(AGE));
    assert_eq!(press(&mut app, KeyCode::Char('l')), Effect::Ask);
    assert_eq!(app.request().level, Level::Service);
    app.take(Update::Pairs(Level::Container, answers::many_pairs(3)));
    assert_eq!(app.rows().len(), 7);
    app.take(Update::Pairs(Level::Service, answers::pairs_at_level(Level::Service, AGE)));
    assert_eq!(app.rows().len(), 2);
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.request().flows, None);
    assert!(text(&mut app, 80, 24).contains("flows: at container level"));
}

#[test]
fn multicast_is_hidden_until_asked_for() {
    let mut app = app(answers::pairs(AGE));
    assert_eq!((app.rows().len(), app.hidden()), (7, 2));
    keys(&mut app, "a");
    assert_eq!((app.rows().len(), app.hidden()), (9, 0));
}

#[test]
fn silence_of_the_daemon_is_said_and_forgotten() {
    let mut app = app(answers::pairs(AGE));
    app.take(Update::Failed("conmond is not running (no socket at /run/x)".to_owned()));
    let shown = text(&mut app, 80, 24);
    assert!(shown.contains("NO ANSWER since 04:05:00 UTC: conmond is not running"), "{shown}");
    assert!(shown.contains("lab-wrk-1"), "what was known stays");
    app.take(Update::Pairs(Level::Container, answers::pairs(AGE)));
    assert!(!text(&mut app, 80, 24).contains("NO ANSWER"));
}

#[test]
fn colours_only_where_wanted() {
    let colours = |color: bool| {
        let mut app = app(answers::pairs(AGE));
        app.color = color;
        let terminal = screen(&mut app, 80, 24);
        let cells = terminal.backend().buffer().content();
        assert!(cells.iter().any(|cell| cell.modifier.contains(Modifier::REVERSED)), "the cursor is visible");
        cells.iter().filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count()
    };
    assert!(colours(true) > 0);
    assert_eq!(colours(false), 0);
}

#[test]
fn hostile_names_stay_text() {
    let mut answer = answers::pairs(AGE);
    answer.pairs[0].src.name = "evil\u{1b}[2J\u{202e}name".to_owned();
    let mut app = app(answer);
    let table = text(&mut app, 120, 24);
    press(&mut app, KeyCode::Enter);
    let close = text(&mut app, 120, 24);
    for shown in [table, close] {
        assert!(shown.contains("evil\u{fffd}[2J\u{fffd}name"), "{shown}");
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}'), "{shown}");
    }
}

#[test]
fn quitting() {
    let mut app = app(answers::pairs(AGE));
    assert_eq!(app.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Effect::Quit);
    assert_eq!(press(&mut app, KeyCode::Char('q')), Effect::Quit);
    keys(&mut app, "/q");
    assert_eq!(app.filter, "q", "in the filter, q is a letter");
    assert_eq!(app.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Effect::Quit);
}
