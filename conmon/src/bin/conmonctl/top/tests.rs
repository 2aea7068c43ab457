//! The screen, cell for cell, and the keys. `INSTA_UPDATE=always cargo test -p conmon` rewrites the snapshots.

use conmon::api::{Level, PairsAnswer};
use insta::assert_snapshot;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};

use super::app::{App, Effect};
use super::close::CloseAnswer;
use super::draw::draw;
use super::feed::Update;
use super::rows::RowKey;
use crate::answers;
use crate::order::Order;

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

/// What a second with ten thousand pairs costs the screen: taking an answer, a key of a filter, drawing.
#[test]
fn ten_thousand_pairs_are_quick() {
    let mut app = app(answers::many_pairs(10_000));
    let mut seconds = |what: &str, work: &mut dyn FnMut(&mut App)| {
        let begin = std::time::Instant::now();
        work(&mut app);
        let took = begin.elapsed().as_secs_f64();
        eprintln!("{what}: {:.1} ms", took * 1e3);
        took
    };
    let answer = answers::many_pairs(10_000);
    let mut total =
        seconds("an answer", &mut |app| app.take(Update::Pairs(Level::Container, answer.clone())));
    total += seconds("the first key of a filter", &mut |app| keys(app, "/w"));
    total += seconds("the second", &mut |app| keys(app, "e"));
    total += seconds("a draw", &mut |app| drop(screen(app, 200, 50)));
    // A tenth of it on an idle machine; the bound only tells quick from square.
    assert!(total < 1.0, "{total} s");
    assert_eq!(app.rows().len(), 10_000);
}

/// A number that is cut is another number: columns go whole.
#[test]
fn narrow_terminals_show_fewer_columns_never_parts_of_numbers() {
    for width in 1..=240 {
        let mut app = app(answers::pairs(AGE));
        let text = text(&mut app, width, 12);
        let header = text.lines().nth(3).unwrap_or_default().to_owned();
        for word in header.trim_matches('"').split_whitespace() {
            let whole = [
                "SRC", "DST", "PROTO", "▼OUT/s", "▼IN/s", "TREND", "PKT/s", "RTT50", "RTT90", "RTT99",
                "NEAR50", "SHAKE50", "RETR", "SENT", "RECV", "FLOWS", "ACTIVE", "SEEN", "TENANT",
            ];
            assert!(whole.contains(&word) || width < 28, "{word:?} at width {width}:\n{text}");
        }
        for number in ["1.3M", "118M", "83.1µs", "332µs", "35.3G"] {
            // What is there of a row's numbers is there whole.
            let row = text.lines().nth(4).unwrap_or_default();
            let cut = row
                .split_whitespace()
                .any(|word| word.len() > 2 && word != number && number.starts_with(word));
            assert!(!cut, "{number} is cut at width {width}:\n{text}");
        }
    }
}

#[test]
fn any_size_can_be_drawn() {
    for (width, height) in
        [(1, 1), (3, 2), (10, 3), (20, 5), (40, 8), (80, 4), (80, 12), (500, 3), (500, 100)]
    {
        for key in ['x', '?', '\n', 'L'] {
            let mut app = app(answers::pairs(AGE));
            match key {
                '\n' => look(&mut app, AGE),
                'L' => {
                    look(&mut app, AGE);
                    app.take(Update::Failed("conmond is not running: start it".repeat(9)));
                }
                key => drop(press(&mut app, KeyCode::Char(key))),
            }
            screen(&mut app, width, height);
        }
    }
}

/// Low terminals keep rows, not heads.
#[test]
fn low_terminals_show_rows() {
    for (height, rows) in [(1, 0), (3, 2), (5, 3), (8, 5), (12, 7)] {
        let text = text(&mut app(answers::pairs(AGE)), 80, height);
        let shown =
            text.matches("tcp ").count() + text.matches("udp ").count() + text.matches("icmp").count();
        assert!(shown >= rows, "{rows} rows in {height} lines:\n{text}");
    }
}

fn answer(app: &App, seconds: f64) -> (RowKey, Box<CloseAnswer>) {
    let key = app.request().close.expect("a close look");
    let pairs = answers::pairs_at_level(app.level, seconds).pairs;
    let pair = pairs.into_iter().find(|pair| key.is(pair)).map(answers::with_histograms);
    let of_containers = app.level == Level::Container;
    let answer = CloseAnswer {
        generated_at: answers::after(seconds),
        pair,
        flows: of_containers.then(|| answers::flows(seconds)),
        parts: (!of_containers).then(|| answers::pairs(seconds).pairs.split_off(3)),
        container: answers::containers(seconds).containers.into_iter().next().filter(|_| of_containers),
    };
    (key, Box::new(answer))
}

/// Enter, and what the daemon answers.
fn look(app: &mut App, seconds: f64) {
    assert_eq!(press(app, KeyCode::Enter), Effect::Ask);
    let (key, answer) = answer(app, seconds);
    app.take(Update::Close(key, answer));
}

#[test]
fn close_look() {
    let mut app = app(answers::pairs(AGE));
    look(&mut app, AGE);
    app.take(Update::Pairs(Level::Container, answers::pairs(AGE + 1.0)));
    assert_snapshot!("close_look", text(&mut app, 80, 24));
    assert_snapshot!("close_look_large", text(&mut app, 160, 50));
    assert_eq!(press(&mut app, KeyCode::Esc), Effect::Ask);
    assert_eq!(app.request().close, None);
    assert!(text(&mut app, 80, 24).contains("by container"));
}

#[test]
fn close_look_at_the_last_minute() {
    let mut app = app(answers::pairs(AGE));
    look(&mut app, AGE);
    keys(&mut app, "w");
    assert!(text(&mut app, 80, 24).contains("none in this time"), "one reading is no time");
    for seconds in [310.0, 320.0] {
        let (key, answer) = answer(&app, seconds);
        app.take(Update::Close(key, answer));
    }
    let shown = text(&mut app, 80, 24);
    assert!(shown.contains("RTT, last 20 s") && shown.contains("w all time"), "{shown}");
    assert!(shown.contains("18.0 k"), "900 singletons a second: {shown}");
    assert!(shown.contains("away, handshake         -  none in this time"), "{shown}");
    keys(&mut app, "w");
    assert!(text(&mut app, 80, 24).contains("RTT, all time"));
}

#[test]
fn close_look_goes_to_the_next_pair() {
    let mut app = app(answers::pairs(AGE));
    look(&mut app, AGE);
    assert_eq!(press(&mut app, KeyCode::Up), Effect::None, "it is the first");
    assert_eq!(press(&mut app, KeyCode::Down), Effect::Ask);
    let shown = text(&mut app, 80, 24);
    assert!(shown.starts_with("\"shop-redis-benchmark-1 → shop-redis-1"), "{shown}");
    assert!(shown.contains("RTT, all time"), "the table's row serves until more has come: {shown}");
    let (key, late) = answer(&app, AGE);
    assert_eq!(press(&mut app, KeyCode::Char('k')), Effect::Ask);
    app.take(Update::Close(key, late));
    let shown = text(&mut app, 80, 24);
    assert!(shown.starts_with("\"lab-wrk-1 → shop-nginx-1"), "a late answer is another pair's: {shown}");
}

#[test]
fn close_look_at_a_group_shows_its_parts() {
    let mut app = app(answers::pairs(AGE));
    press(&mut app, KeyCode::Char('l'));
    assert_eq!(press(&mut app, KeyCode::Enter), Effect::None, "the rows are still those of containers");
    app.take(Update::Pairs(Level::Service, answers::pairs_at_level(Level::Service, AGE)));
    look(&mut app, AGE);
    let shown = text(&mut app, 80, 24);
    assert!(shown.contains("PAIRS OF CONTAINERS (6)"), "{shown}");
    assert!(shown.contains("lab-wrk-1 → external"), "{shown}");
}

#[test]
fn long_lists_are_paged_through() {
    let mut app = app(answers::pairs(AGE));
    assert_eq!(press(&mut app, KeyCode::Enter), Effect::Ask);
    let (key, mut many) = answer(&app, AGE);
    let flows = many.flows.as_mut().expect("flows");
    let one = flows.flows[0].clone();
    flows.flows =
        (0..50).map(|at| conmon::api::Flow { src_port: Some(50_000 + at), ..one.clone() }).collect();
    flows.matched = 300;
    app.take(Update::Close(key, many));
    let shown = text(&mut app, 80, 24);
    assert!(shown.contains("FLOWS (50 largest of 300)") && shown.contains(":50000"), "{shown}");
    press(&mut app, KeyCode::PageDown);
    let shown = text(&mut app, 80, 24);
    assert!(!shown.contains(":50000 ") && shown.contains(&format!(":{}", 50_000 + app.page)), "{shown}");
    for _ in 0..50 {
        press(&mut app, KeyCode::PageDown);
        screen(&mut app, 80, 24);
    }
    assert!(text(&mut app, 80, 24).contains(":50049"), "the last one");
    for _ in 0..50 {
        press(&mut app, KeyCode::PageUp);
    }
    assert!(text(&mut app, 80, 24).contains(":50000"));
}

#[test]
fn close_look_at_what_was_not_measured_and_what_has_gone() {
    let mut app = app(answers::pairs(AGE));
    keys(&mut app, "/dns");
    press(&mut app, KeyCode::Enter);
    look(&mut app, AGE);
    let shown = text(&mut app, 80, 24);
    assert!(shown.contains("not measured: only TCP has acknowledgements that can be timed"), "{shown}");
    assert!(shown.contains("- (only TCP tells)"), "{shown}");
    let (key, mut gone) = answer(&app, AGE);
    gone.pair = None;
    app.take(Update::Close(key, gone));
    assert!(text(&mut app, 80, 24).contains("no longer there"));
}

#[test]
fn help() {
    let mut app = app(answers::pairs(AGE));
    press(&mut app, KeyCode::Char('?'));
    let shown = text(&mut app, 80, 24);
    let lines: Vec<&str> = shown.lines().filter(|line| line.matches('│').count() == 2).collect();
    assert_eq!(lines.len(), 20, "{shown}");
    for line in lines {
        let inside = line.split('│').nth(1).unwrap_or_default();
        assert!(inside.ends_with(' '), "cut: {line}");
    }
    assert_snapshot!(shown);
    press(&mut app, KeyCode::Char('q'));
    assert!(!app.help, "any key only closes the help");
    look(&mut app, AGE);
    press(&mut app, KeyCode::F(1));
    assert!(text(&mut app, 80, 24).contains(" Keys "), "over a close look, too");
}

#[test]
fn filter_takes_text_and_gives_it_back() {
    let mut app = app(answers::pairs(AGE));
    keys(&mut app, "/REDis");
    assert_eq!(app.rows().len(), 2, "with each key");
    press(&mut app, KeyCode::Backspace);
    assert_eq!(app.filter, "redi");
    press(&mut app, KeyCode::Down);
    assert_eq!((app.selected, app.editing), (1, true), "the rows can be walked meanwhile");
    press(&mut app, KeyCode::Enter);
    keys(&mut app, "s");
    assert_eq!((app.filter.as_str(), app.sort), ("redi", Order::Packets), "keys are commands again");
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.rows().len(), 7);
    keys(&mut app, "/nothing has this");
    assert!(text(&mut app, 80, 24).contains("No pair has these words"));
    press(&mut app, KeyCode::Esc);
    assert!(!app.editing && app.filter.is_empty());
    keys(&mut app, "/172.18.0.4");
    assert_eq!(first_row(&app), "shop-nginx-1 shop-postgres-1");
    app.key(KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL));
    assert_eq!((app.filter.as_str(), app.rows().len()), ("", 7));
    press(&mut app, KeyCode::Backspace);
    assert!(!app.editing, "nothing to take back: the filter is left");
}

#[test]
fn filters_are_words_and_their_absence() {
    let mut app = app(answers::pairs(AGE));
    for (filter, rows) in [
        ("lab", 3),       // tenant, host lab1's name
        ("udp", 2),       // protocol
        ("shop tcp", 4),  // both
        ("shop !tcp", 2), // one without the other
        ("!", 7),         // a word that is being typed
        ("!nginx !redis", 1),
        ("postgres", 1), // service
    ] {
        keys(&mut app, "/");
        app.key(KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL));
        keys(&mut app, filter);
        press(&mut app, KeyCode::Enter);
        let expected = if filter == "lab" { 7 } else { rows };
        assert_eq!(app.rows().len(), expected, "{filter}");
    }
}

#[test]
fn orders_go_column_by_column_and_are_marked() {
    let mut app = app(answers::pairs(AGE));
    assert_eq!(first_row(&app), "lab-wrk-1 shop-nginx-1");
    assert!(text(&mut app, 80, 24).contains("▼OUT/s ▼IN/s"));
    let marked = |app: &mut App| {
        let shown = text(app, 80, 24);
        let header = shown.lines().nth(3).unwrap_or_default().replace('"', "");
        header.split_whitespace().filter(|word| word.contains(['▼', '▲'])).collect::<Vec<_>>().join(" ")
    };
    let mut seen = Vec::new();
    for _ in 0..20 {
        keys(&mut app, ">");
        seen.push(marked(&mut app));
        assert!(!seen[seen.len() - 1].is_empty(), "{:?} is not marked", app.sort);
    }
    assert_eq!(app.sort, Order::Rate, "round");
    assert_eq!(
        seen.join(" "),
        "▼PKT/s ▼RTT50 ▼RTT90 ▼RTT99 ▼NEAR50 ▼SHAKE50 ▼RETR ▼SENT ▼RECV ▼SENT ▼RECV ▼FLOWS ▼ACTIVE ▼SEEN TENANT▲ SRC▲ \
         DST▲ PROTO▲ ▼OUT/s ▼IN/s ▼OUT/s ▼IN/s"
    );
    keys(&mut app, "sssS<");
    assert_eq!(app.sort, Order::Packets);
    keys(&mut app, ">>>>>>r");
    assert_eq!((app.sort, app.reverse), (Order::Retr, true));
    assert_eq!(marked(&mut app), "▲RETR");
    assert!(text(&mut app, 80, 24).contains("sorted by retransmissions, reversed"));
    keys(&mut app, "r");
    assert_eq!(first_row(&app), "shop-redis-benchmark-1 shop-redis-1");
    keys(&mut app, ">");
    assert!(!app.reverse, "another column begins in its own order");
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
fn a_close_look_at_a_standing_screen_is_filled_once() {
    let mut app = app(answers::pairs(AGE));
    keys(&mut app, "p");
    look(&mut app, AGE);
    assert!(text(&mut app, 80, 24).contains("FLOWS (4 largest of 12)"));
    let (key, later) = answer(&app, AGE + 50.0);
    app.take(Update::Close(key, later));
    assert!(text(&mut app, 80, 24).contains("first 5m, last <1s ago"), "numbers stand");
    assert_eq!(app.close.as_ref().map(|close| close.late_seconds()), Some(0.0));
}

#[test]
fn levels_are_asked_for_and_late_answers_of_others_ignored() {
    let mut app = app(answers::pairs(AGE));
    assert_eq!(press(&mut app, KeyCode::Char('l')), Effect::Ask);
    assert_eq!(app.request().level, Level::Service);
    app.take(Update::Pairs(Level::Container, answers::many_pairs(3)));
    assert_eq!(app.rows().len(), 7);
    assert!(text(&mut app, 80, 24).contains("by service …"), "the rows are not yet");
    app.take(Update::Pairs(Level::Service, answers::pairs_at_level(Level::Service, AGE)));
    assert_eq!(app.rows().len(), 2);
    assert!(text(&mut app, 80, 24).contains("by service  "));
    for (key, level) in [
        (KeyCode::Tab, Level::Host),
        (KeyCode::Char('l'), Level::Tenant),
        (KeyCode::Tab, Level::Container),
        (KeyCode::BackTab, Level::Tenant),
        (KeyCode::Char('L'), Level::Host),
    ] {
        assert_eq!((press(&mut app, key), app.request().level), (Effect::Ask, level));
    }
}

#[test]
fn multicast_is_hidden_until_asked_for() {
    let mut app = app(answers::pairs(AGE));
    assert_eq!((app.rows().len(), app.hidden()), (7, 2));
    keys(&mut app, "a");
    assert_eq!((app.rows().len(), app.hidden()), (9, 0));
}

#[test]
fn silence_of_the_daemon_is_said_and_its_end() {
    let mut app = app(answers::pairs(AGE));
    let reason = "conmond is not running (no socket at /run/conmon/default/conmond.sock): start it with `sudo conmonctl up`";
    app.take(Update::Failed(reason.to_owned()));
    let shown = text(&mut app, 80, 24);
    assert!(
        shown.contains("NO ANSWER since 04:05:00 UTC, asking again each second: conmond is not"),
        "{shown}"
    );
    assert!(shown.contains("`sudo conmonctl up`"), "the remedy is not cut off: {shown}");
    assert!(shown.contains("lab-wrk-1"), "what was known stays");
    let low = text(&mut app, 80, 6);
    assert!(low.contains("NO ANSWER") && low.contains("lab-wrk-1"), "{low}");
    app.take(Update::Pairs(Level::Container, answers::pairs(AGE)));
    let shown = text(&mut app, 80, 24);
    assert!(!shown.contains("NO ANSWER") && shown.contains("conmond answers again"), "{shown}");
    let mut restarted = answers::status(AGE);
    restarted.started_at = answers::after(AGE - 3.0);
    app.take(Update::Status(Box::new(restarted)));
    assert!(text(&mut app, 80, 24).contains("it was started 3 s ago, the kernel counted on meanwhile"));
    for _ in 0..5 {
        app.take(Update::Pairs(Level::Container, answers::pairs(AGE)));
    }
    assert!(!text(&mut app, 80, 24).contains("answers again"), "that is told for a moment");
}

#[test]
fn silence_is_said_on_a_standing_screen_and_in_a_close_look_too() {
    let mut app = app(answers::pairs(AGE));
    keys(&mut app, "p");
    look(&mut app, AGE);
    app.take(Update::Failed("gone".to_owned()));
    let shown = text(&mut app, 80, 24);
    assert!(shown.contains("NO ANSWER") && shown.contains("PAUSED at 04:05:00 UTC"), "{shown}");
    app.take(Update::Pairs(Level::Container, answers::many_pairs(3)));
    assert!(!text(&mut app, 80, 24).contains("NO ANSWER"));
    assert_eq!(app.rows().len(), 7, "numbers stand");
}

#[test]
fn problems_of_the_daemon_are_said() {
    let mut app = app(answers::pairs(AGE));
    let mut status = answers::status(AGE);
    status.problems = vec!["the container engine does not answer".to_owned()];
    app.take(Update::Status(Box::new(status)));
    let shown = text(&mut app, 80, 24);
    assert!(shown.contains("problem: the container engine does not answer"), "{shown}");
    assert!(shown.contains("by container"), "and what was chosen all the same: {shown}");
}

/// Colour says what is amiss now: a pair that lost long ago is not marked, one that loses is.
#[test]
fn colour_marks_slow_and_lossy_pairs() {
    let mut answer = answers::pairs(AGE);
    answer.pairs.truncate(2);
    if let Some(rtt) = &mut answer.pairs[0].rtt_seconds {
        (rtt.p50, rtt.p99) = (0.07, 0.4);
    }
    answer.pairs[1].retransmitted_segments = Some(500);
    let mut app = app(answer.clone());
    let colour_of = |app: &mut App, text: &str| {
        let terminal = screen(app, 80, 24);
        let buffer = terminal.backend().buffer();
        let width = buffer.area.width as usize;
        let cells: Vec<&str> = buffer.content().iter().map(|cell| cell.symbol()).collect();
        let at = (0..cells.len()).find(|at| cells[*at..].concat().starts_with(text)).expect("on the screen");
        assert!(at >= 4 * width);
        buffer.content()[at].fg
    };
    assert_eq!(colour_of(&mut app, "70.0ms"), Color::Yellow);
    assert_eq!(colour_of(&mut app, "400ms"), Color::Red);
    assert_eq!(colour_of(&mut app, "500 "), Color::Reset, "long ago");
    answer.pairs[1].sent.segments += 1000;
    answer.pairs[1].retransmitted_segments = Some(501);
    app.take(Update::Pairs(Level::Container, answer.clone()));
    assert_eq!(colour_of(&mut app, "501 "), Color::Yellow);
    answer.pairs[1].retransmitted_segments = Some(601);
    app.take(Update::Pairs(Level::Container, answer));
    assert_eq!(colour_of(&mut app, "601 "), Color::Red);
}

#[test]
fn colours_only_where_wanted() {
    let colours = |color: bool| {
        let mut app = app(answers::pairs(AGE));
        app.color = color;
        let terminal = screen(&mut app, 80, 24);
        let cells = terminal.backend().buffer().content();
        assert!(
            cells.iter().all(|cell| !matches!(cell.fg, Color::Rgb(..) | Color::Indexed(_))),
            "sixteen colours"
        );
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
    assert_eq!(app.key(KeyEvent::new(KeyCode::Char('l'), KeyModifiers::CONTROL)), Effect::Redraw);
    assert_eq!(app.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Effect::Quit);
}
